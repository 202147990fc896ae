//! `forwarded` (RFC 7239): the client's address and the service it asked for.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue};

use super::FORWARDED;

/// The header a client sends: its application's address, and the service's hostname
/// where one was asked for.
pub fn forwarded(source: SocketAddr, host: Option<&str>) -> Option<HeaderValue> {
    let text = match host {
        Some(host) => format!("for=\"{source}\";host={host}"),
        None => format!("for=\"{source}\""),
    };
    HeaderValue::from_str(&text).ok()
}

/// The `host` a client states. `for` is never read: the source address is the socket's.
pub fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(FORWARDED)?
        .to_str()
        .ok()?
        .split(';')
        .filter_map(|part| part.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim().trim_matches('"'))
        .filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static(value));
        forwarded_host(&headers).map(str::to_owned)
    }

    #[test]
    fn the_host_is_read_and_nothing_else() {
        let host = Some("web.shop.svc.cluster.local".to_owned());
        assert_eq!(
            host_of("for=\"10.0.0.1:9\";host=web.shop.svc.cluster.local"),
            host
        );
        assert_eq!(host_of("Host=\"web.shop.svc.cluster.local\""), host);
        for value in ["", "host", "host=", "host=\"\"", ";;=", "for=host"] {
            assert_eq!(host_of(value), None, "{value:?}");
        }
    }

    #[test]
    fn ipv6_sources_are_bracketed() {
        let source = "[fd00::1]:80".parse().expect("address");
        assert_eq!(
            forwarded(source, Some("web")).expect("ascii"),
            "for=\"[fd00::1]:80\";host=web"
        );
    }
}
