//! CORS: the answer to preflights, and what responses tell browsers (WHATWG Fetch §3.2).

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use crate::request::Request;
use crate::route::Cors;

// === impl Cors ===

impl Cors {
    /// The status of the answer to a preflight.
    pub const PREFLIGHT_STATUS: StatusCode = StatusCode::NO_CONTENT;

    /// The headers of the answer to a preflight; none where the request is no preflight. One of
    /// an origin that is not allowed is answered without allowing anything: the browser stops.
    pub fn preflight(&self, request: &Request<'_>) -> Option<HeaderMap> {
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = request.headers.get(ORIGIN)?;
        if request.method != Method::OPTIONS {
            return None;
        }
        let mut headers = HeaderMap::new();
        if !self.allow_origin(origin, &mut headers) {
            return Some(headers);
        }
        self.allow_list(
            &self.allow_methods,
            Some(asked),
            ACCESS_CONTROL_ALLOW_METHODS,
            &mut headers,
        );
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        self.allow_list(
            &self.allow_headers,
            asked,
            ACCESS_CONTROL_ALLOW_HEADERS,
            &mut headers,
        );
        if let Some(age) = self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
        }
        Some(headers)
    }

    /// Completes the response to a request that had this `Origin`. What the service itself says
    /// of origins is replaced: the route decides.
    pub fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let Some(origin) = origin else {
            return;
        };
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        if self.allow_origin(origin, headers) {
            let expose = &self.expose_headers;
            self.allow_list(expose, None, ACCESS_CONTROL_EXPOSE_HEADERS, headers);
        }
    }

    /// Whether the origin is allowed, and says so to the browser. With credentials no wildcard
    /// may be answered (Fetch §3.2.5), so that the origin itself is.
    fn allow_origin(&self, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
        let any = self.allow_origins.iter().any(|allowed| **allowed == *"*");
        let answer = if any && !self.allow_credentials {
            HeaderValue::from_static("*")
        } else {
            headers.append(VARY, HeaderValue::from_static("origin"));
            // `null` is every sandboxed document's, and so nobody's.
            let known = origin.to_str().is_ok_and(|origin| {
                origin != "null"
                    && (any || self.allow_origins.iter().any(|one| allows(one, origin)))
            });
            if !known {
                return false;
            }
            origin.clone()
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, answer);
        if self.allow_credentials {
            let allowed = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, allowed);
        }
        true
    }

    /// Writes a list. `*` with credentials would be taken for a name, so that what was asked
    /// for is answered instead.
    fn allow_list(
        &self,
        allowed: &[Arc<str>],
        asked: Option<&HeaderValue>,
        name: HeaderName,
        headers: &mut HeaderMap,
    ) {
        let any = allowed.iter().any(|one| **one == *"*");
        let value = match (any, self.allow_credentials) {
            (true, true) => asked.cloned(),
            (true, false) => Some(HeaderValue::from_static("*")),
            (false, _) if allowed.is_empty() => None,
            (false, _) => HeaderValue::from_str(&allowed.join(", ")).ok(),
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Whether an entry allows an origin: the same, or with a wildcard for labels of the host.
fn allows(allowed: &str, origin: &str) -> bool {
    let Some((before, after)) = allowed.split_once('*') else {
        return allowed.eq_ignore_ascii_case(origin);
    };
    let middle = origin
        .len()
        .checked_sub(before.len() + after.len())
        .filter(|length| *length > 0)
        .and_then(|length| {
            let (head, rest) = origin.split_at_checked(before.len())?;
            let (middle, tail) = rest.split_at_checked(length)?;
            (head.eq_ignore_ascii_case(before) && tail.eq_ignore_ascii_case(after))
                .then_some(middle)
        });
    middle.is_some_and(|middle| {
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        middle.bytes().all(is_host)
    })
}

#[cfg(test)]
mod tests;
