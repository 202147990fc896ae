//! RequestHeaderModifier and ResponseHeaderModifier.

use http::header::{self, HeaderMap, HeaderName};

use crate::route::HeaderModifier;

// === impl HeaderModifier ===

impl HeaderModifier {
    /// Applies `set`, `add` and `remove`. Headers that only the proxy may write are left alone.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in self.set.iter().filter(|(name, _)| is_modifiable(name)) {
            headers.insert(name, value.clone());
        }
        for (name, value) in self.add.iter().filter(|(name, _)| is_modifiable(name)) {
            headers.append(name, value.clone());
        }
        for name in self.remove.iter().filter(|name| is_modifiable(name)) {
            headers.remove(name);
        }
    }
}

/// Whether routes may touch a header. Those that frame a message, belong to one hop
/// (RFC 9110 §7.6.1) or name its destination are the proxy's; a route that could write them
/// would make two servers read one message differently. A host is rewritten by URLRewrite.
pub fn is_modifiable(name: &HeaderName) -> bool {
    ![
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ]
    .contains(name)
        && !matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn pair(name: &str, value: &'static str) -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), HeaderValue::from_static(value))
    }

    fn headers(of: &[(&str, &'static str)]) -> HeaderMap {
        let pairs = of.iter().map(|(name, value)| pair(name, value));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn set_replaces_add_appends_remove_deletes() {
        let modifier = HeaderModifier {
            set: vec![pair("a", "set"), pair("new", "set")],
            add: vec![pair("b", "added"), pair("other", "added")],
            remove: vec!["c".parse().unwrap(), "none".parse().unwrap()],
        };
        let mut modified = headers(&[("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("d", "1")]);
        modifier.apply(&mut modified);
        let expected = headers(&[
            ("a", "set"),
            ("b", "1"),
            ("b", "added"),
            ("d", "1"),
            ("new", "set"),
            ("other", "added"),
        ]);
        assert_eq!(modified, expected);
    }

    #[test]
    fn what_frames_or_addresses_a_message_is_not_touched() {
        for name in [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "trailer",
            "keep-alive",
            "proxy-connection",
            "http2-settings",
        ] {
            let modifier = HeaderModifier {
                set: vec![pair(name, "1")],
                add: vec![pair(name, "2")],
                remove: vec![name.parse().unwrap()],
            };
            for original in [headers(&[]), headers(&[(name, "0")])] {
                let mut modified = original.clone();
                modifier.apply(&mut modified);
                assert_eq!(modified, original, "{name}");
            }
        }
    }
}
