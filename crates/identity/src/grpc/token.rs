//! The bearer token that proves who asks.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

/// A token, or the file that holds the current one.
#[derive(Clone)]
pub enum Token {
    File(PathBuf),
    Literal(Zeroizing<String>),
}

/// Why no token can be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token can't be read from {path}: {error}")]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the token is empty or can't be a header")]
    Malformed,
}

// === impl Token ===

impl Token {
    /// As `AUTH_TOKEN` says it: a path, or the token itself, which never holds a slash.
    pub fn parse(text: &str) -> Self {
        match text.contains('/') {
            true => Self::File(text.into()),
            false => Self::Literal(Zeroizing::new(text.to_owned())),
        }
    }

    /// The header's value, wiped with its last copy; a file is read every time, for tokens are
    /// renewed on disk.
    pub(super) fn authorization(&self) -> Result<HeaderValue, TokenError> {
        let read;
        let token = match self {
            Self::File(path) => {
                read = fs::read_to_string(path)
                    .map(Zeroizing::new)
                    .map_err(|error| TokenError::Read {
                        path: path.clone(),
                        error,
                    })?;
                read.trim()
            }
            Self::Literal(token) => token.trim(),
        };
        if token.is_empty() {
            return Err(TokenError::Malformed);
        }
        let bearer = Zeroizing::new(["Bearer ", token].concat().into_bytes());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bearer))
            .map_err(|_| TokenError::Malformed)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "Token({})", path.display()),
            Self::Literal(_) => f.write_str("Token(literal)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Needle;

    #[test]
    fn a_token_is_wiped_with_its_header() {
        let letters = (0..1000).map(|_| char::from(b'a' + rand::random::<u8>() % 26));
        let secret = Zeroizing::new(letters.collect::<String>());
        let needle = Needle::new(secret.as_bytes());
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, &*secret).expect("written");
        drop(secret);
        assert!(!needle.is_in_memory());
        let token = Token::parse(&file.path().to_string_lossy());
        let header = token.authorization().expect("a token");
        assert!(needle.is_in_memory());
        drop(header);
        assert!(!needle.is_in_memory());
    }
}
