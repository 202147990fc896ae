//! JSON Web Tokens, and what a verified one adds to the request. No I/O: keys and the time are
//! the caller's.
//!
//! - `edits`: what becomes of the request's headers.
//! - `verified`: tokens whose signature need not be looked at again.

mod edits;

mod verified;

pub(crate) use mesh::json_web_token::{KeySet, Token, TokenError, location};

pub(crate) use self::edits::Edits;
pub(crate) use self::verified::Verified;

#[cfg(test)]
mod tests;
