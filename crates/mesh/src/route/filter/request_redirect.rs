//! RequestRedirect: the `Location` a client is sent to.

use http::HeaderValue;

use crate::request::Request;
use crate::route::{PathMatch, RequestRedirect};

// === impl RequestRedirect ===

impl RequestRedirect {
    /// The value of `Location`, always absolute: what the filter leaves open is the request's,
    /// the query always. `port` is the service's port that was addressed; a scheme that is given
    /// without a port stands for its own. None where no header could hold it.
    pub fn location(
        &self,
        request: &Request<'_>,
        scheme: &str,
        port: u16,
        matched: Option<&PathMatch>,
    ) -> Option<HeaderValue> {
        let own_port = self.scheme.as_deref().and_then(well_known_port);
        let port = self.port.or(own_port).unwrap_or(port);
        let scheme = self.scheme.as_deref().unwrap_or(scheme);
        let host = self.hostname.as_deref().unwrap_or(request.host);
        let mut location = format!("{scheme}://{host}");
        if well_known_port(scheme) != Some(port) {
            location.push_str(&format!(":{port}"));
        }
        match &self.path {
            None => location.push_str(request.path),
            Some(modifier) => location.push_str(&modifier.path(request.path, matched)),
        }
        if let Some(query) = request.query {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::from_bytes(location.as_bytes()).ok()
    }
}

fn well_known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PathModifier;
    use http::{HeaderMap, Method, StatusCode};

    fn redirect() -> RequestRedirect {
        RequestRedirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        }
    }

    #[track_caller]
    fn check(redirect: RequestRedirect, port: u16, expected: &str) {
        let request = Request {
            method: &Method::GET,
            host: "web.shop",
            port: None,
            path: "/a/b",
            query: Some("q=1"),
            headers: &HeaderMap::new(),
            remote_ip: [10, 0, 0, 1].into(),
            claims: None,
        };
        let matched = PathMatch::PathPrefix("/a".into());
        let location = redirect.location(&request, "http", port, Some(&matched));
        assert_eq!(location.unwrap(), expected, "{redirect:?}");
    }

    #[test]
    fn what_is_left_open_is_the_requests() {
        let hostname = RequestRedirect {
            hostname: Some("example.org".into()),
            ..redirect()
        };
        check(hostname.clone(), 80, "http://example.org/a/b?q=1");
        check(hostname, 8080, "http://example.org:8080/a/b?q=1");
    }

    #[test]
    fn a_scheme_stands_for_its_port() {
        let scheme = |scheme: &str| RequestRedirect {
            scheme: Some(scheme.into()),
            ..redirect()
        };
        check(scheme("https"), 80, "https://web.shop/a/b?q=1");
        check(scheme("https"), 8080, "https://web.shop/a/b?q=1");
        check(scheme("http"), 8080, "http://web.shop/a/b?q=1");
        check(scheme("other"), 8080, "other://web.shop:8080/a/b?q=1");
    }

    #[test]
    fn a_port_is_left_out_where_the_scheme_says_it() {
        let with = |scheme: Option<&str>, port: u16| RequestRedirect {
            scheme: scheme.map(Into::into),
            port: Some(port),
            ..redirect()
        };
        check(with(None, 8083), 80, "http://web.shop:8083/a/b?q=1");
        check(with(None, 80), 8080, "http://web.shop/a/b?q=1");
        check(with(Some("https"), 443), 80, "https://web.shop/a/b?q=1");
        check(with(Some("https"), 80), 80, "https://web.shop:80/a/b?q=1");
        check(with(None, 443), 80, "http://web.shop:443/a/b?q=1");
    }

    #[test]
    fn paths_are_replaced() {
        let with = |path| RequestRedirect {
            path: Some(path),
            ..redirect()
        };
        let full = PathModifier::ReplaceFullPath("/new".into());
        check(with(full), 80, "http://web.shop/new?q=1");
        let prefix = PathModifier::ReplacePrefixMatch("/x/".into());
        check(with(prefix), 80, "http://web.shop/x/b?q=1");
    }
}
