//! What rules and backends do to requests and responses, one filter per file.

pub mod cors;
pub mod header_modifier;
pub mod path_modifier;
pub mod request_mirror;
pub mod request_redirect;
pub mod url_rewrite;
