//! JSON Web Tokens, and what a verified one adds to the request. No I/O: keys and the time are
//! the caller's.
//!
//! - `edits`: what becomes of the request's headers.

mod edits;

pub(crate) use mesh::json_web_token::{KeySet, Token, TokenError, location};

pub(crate) use self::edits::Edits;

#[cfg(test)]
mod tests;
