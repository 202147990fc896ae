//! A resource's version as the control plane wrote it. Our own control plane writes hashes, and a
//! hundred thousand of those are kept as numbers.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Sixteen hexadecimal digits.
    Hash(u64),
    Text(Box<str>),
}

const DIGITS: usize = 16;

// === impl Version ===

impl Version {
    /// Stands for a resource whose latest form was rejected.
    pub(super) fn none() -> Self {
        Self::Text(Box::default())
    }
}

impl From<String> for Version {
    fn from(text: String) -> Self {
        // Other spellings of a number would not come out again as they went in.
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_hash = text.len() == DIGITS && text.bytes().all(is_digit);
        match u64::from_str_radix(&text, 16) {
            Ok(hash) if is_hash => Self::Hash(hash),
            Ok(_) | Err(_) => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(hash) => write!(f, "{hash:0DIGITS$x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_is_no_longer_than_a_text() {
        assert_eq!(size_of::<Version>(), size_of::<Box<str>>());
        let hash = Version::from("00000000000000a1".to_owned());
        assert_eq!(hash, Version::Hash(0xa1));
    }

    proptest! {
        /// The control plane compares it with what it wrote.
        #[test]
        fn it_is_what_was_written(text in "[0-9a-f]{16}|[0-9A-F+]{16}|[0-9a-fx]{0,20}|.{0,16}") {
            prop_assert_eq!(Version::from(text.clone()).to_string(), text);
        }
    }
}
