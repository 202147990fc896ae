//! Tokens whose signature was found good, so that a client that shows the same one with each
//! request pays for it once. What a token says of its own validity is read every time.

use std::collections::HashMap;
use std::sync::Arc;

use super::KeySet;

/// Bytes of tokens in each of the two generations.
const GENERATION: usize = 512 << 10;

/// The tokens of one worker. The least used go when there are too many: when the younger
/// generation is full it becomes the older one, and what nobody asked for of that is forgotten.
#[derive(Default)]
pub(crate) struct Verified {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    /// With the keys that a token was verified by: newer ones have not seen it.
    tokens: HashMap<Box<str>, Arc<KeySet>>,
    bytes: usize,
}

// === impl Verified ===

impl Verified {
    /// Whether these very keys found the token good.
    pub(crate) fn contains(&mut self, token: &str, keys: &Arc<KeySet>) -> bool {
        if let Some(by) = self.young.tokens.get(token) {
            return Arc::ptr_eq(by, keys);
        }
        let is_known = self
            .old
            .tokens
            .get(token)
            .is_some_and(|by| Arc::ptr_eq(by, keys));
        if is_known {
            self.insert(token, keys);
        }
        is_known
    }

    pub(crate) fn insert(&mut self, token: &str, keys: &Arc<KeySet>) {
        if self.young.bytes + token.len() > GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.young.tokens.insert(token.into(), keys.clone());
        if before.is_none() {
            self.young.bytes += token.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<KeySet> {
        let document = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        Arc::new(KeySet::parse(document).unwrap())
    }

    #[test]
    fn only_the_keys_that_verified_a_token_know_it() {
        let (mine, rotated) = (keys(), keys());
        let mut verified = Verified::default();
        assert!(!verified.contains("a.b.c", &mine));
        verified.insert("a.b.c", &mine);
        assert!(verified.contains("a.b.c", &mine));
        assert!(!verified.contains("a.b.d", &mine));
        assert!(!verified.contains("a.b.c", &rotated));
        verified.insert("a.b.c", &rotated);
        assert!(verified.contains("a.b.c", &rotated));
        assert!(!verified.contains("a.b.c", &mine));
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let keys = keys();
        let mut verified = Verified::default();
        verified.insert("used", &keys);
        verified.insert("unused", &keys);
        let padding = "x".repeat(1000);
        for number in 0..5_000 {
            verified.insert(&format!("{number}.{padding}"), &keys);
            assert!(verified.contains("used", &keys));
            assert!(verified.young.bytes <= GENERATION && verified.old.bytes <= GENERATION);
        }
        assert!(!verified.contains("unused", &keys));
        let bytes = |of: &Generation| of.tokens.keys().map(|token| token.len()).sum::<usize>();
        assert_eq!(bytes(&verified.young), verified.young.bytes);
    }
}
