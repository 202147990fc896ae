//! The authority of a request (`Host`, `:authority`), in the one form that is compared.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without a trailing dot; IPv6 in brackets, in its canonical spelling.
    pub host: Cow<'a, str>,
    pub port: Option<u16>,
}

/// Why an authority is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("the authority has no host")]
    Empty,
    /// RFC 9110 §4.2.4: it would make one host look like another.
    #[error("the authority contains user information")]
    UserInformation,
    #[error("the host is no name and no address")]
    Host,
    #[error("the port is no number of 1 to 65535")]
    Port,
}

/// Bytes of a DNS name.
const HOST_MAXIMUM: usize = 253;

// === impl Authority ===

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. Nothing is copied where the host is in
    /// lower case already.
    ///
    /// # Errors
    ///
    /// Whatever else it is.
    pub fn parse(text: &'a [u8]) -> Result<Self, AuthorityError> {
        if text.contains(&b'@') {
            return Err(AuthorityError::UserInformation);
        }
        let text = std::str::from_utf8(text).map_err(|_| AuthorityError::Host)?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(AuthorityError::Host)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if rest.is_empty() => None,
                None => return Err(AuthorityError::Host),
            };
            let host = parse_v6(&text[..address.len() + 2], address)?;
            return Ok(Self { host, port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        let host = parse_name(host)?;
        Ok(Self { host, port })
    }
}

fn parse_name(text: &str) -> Result<Cow<'_, str>, AuthorityError> {
    if text.is_empty() {
        return Err(AuthorityError::Empty);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = name.len() <= HOST_MAXIMUM
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    match is_name {
        false => Err(AuthorityError::Host),
        true if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Ok(Cow::Owned(name.to_ascii_lowercase()))
        }
        true => Ok(Cow::Borrowed(name)),
    }
}

fn parse_v6<'a>(bracketed: &'a str, address: &str) -> Result<Cow<'a, str>, AuthorityError> {
    let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError::Host)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == bracketed {
        Cow::Borrowed(bracketed)
    } else {
        Cow::Owned(canonical)
    })
}

fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    // `parse` alone would take a sign.
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(AuthorityError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: Option<u16>) {
        let authority = Authority::parse(text.as_bytes());
        let host = Cow::Borrowed(host);
        assert_eq!(authority, Ok(Authority { host, port }), "{text:?}");
    }

    #[track_caller]
    fn refuse(text: &str, error: AuthorityError) {
        assert_eq!(Authority::parse(text.as_bytes()), Err(error), "{text:?}");
    }

    #[test]
    fn hosts_have_one_spelling() {
        check("web.shop", "web.shop", None);
        check("web.shop.:80", "web.shop", Some(80));
        check("10.0.0.1:8080", "10.0.0.1", Some(8080));
        check("_dns.web-1:65535", "_dns.web-1", Some(65535));
        check("[::1]", "[::1]", None);
        check("[0:0::1]:80", "[::1]", Some(80));
        check("[FE80::A]:1", "[fe80::a]", Some(1));
    }

    #[test]
    fn cve_2021_39155_letter_case_is_no_difference() {
        check("WEB.Shop:80", "web.shop", Some(80));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        refuse("", AuthorityError::Empty);
        refuse(":80", AuthorityError::Empty);
        for text in ["user@web", "a:b@web:80", "@web", "web@"] {
            refuse(text, AuthorityError::UserInformation);
        }
        for text in [
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a\0b",
            "web\r\n",
            "a/b",
            "a?b",
            "a#b",
            "a%2eb",
            "é",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[::1%eth0]",
            "[1.2.3.4]",
            "a,b",
            "a\\b",
            "*",
        ] {
            refuse(text, AuthorityError::Host);
        }
        for text in [
            "a:", "a:0", "a:+80", "a:-1", "a:65536", "a:99999", "a:000080", "a:80:80", "a:8x",
            "::1", "[::1]:", "[::1]:0", "a:80 ",
        ] {
            assert!(Authority::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        check(&"a.".repeat(127), &"a.".repeat(127)[..253], None);
        refuse(&"a.".repeat(128), AuthorityError::Host);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_reads_the_same(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(once) = Authority::parse(&text) {
                let again = Authority::parse(once.host.as_bytes()).unwrap();
                prop_assert_eq!(&again.host, &once.host);
            }
        }
    }
}
