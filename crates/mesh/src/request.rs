//! An HTTP request as every decision sees it.
//!
//! It is made once, after normalization: what is matched and authorized is what is forwarded.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

/// One request, borrowed from the message that carries it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// Lower case, without a trailing dot and without the port; IPv6 in brackets.
    pub host: &'a str,
    /// Of the authority, where it names one.
    pub port: Option<u16>,
    /// Normalized (`crate::path`), without query and fragment.
    pub path: &'a str,
    /// Without the `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Where the client says it is: from `x-forwarded-for`, the right-most entry, else the peer.
    pub remote_ip: IpAddr,
    /// What a verified token says; none without one.
    pub claims: Option<&'a Claims>,
}

/// What a verified JSON Web Token says of its bearer (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`, empty where there is none.
    pub subject: Arc<str>,
    /// `aud`.
    pub audiences: Vec<Arc<str>>,
    /// `azp`, whom the token was issued to.
    pub presenter: Option<Arc<str>>,
    /// Every claim of the payload.
    pub all: serde_json::Map<String, serde_json::Value>,
    /// Claims whose text is a list separated by spaces, `scope` and `permission` among them.
    pub space_delimited: Vec<Arc<str>>,
}

// === impl Claims ===

impl Claims {
    /// `issuer/subject`, as policies name it.
    pub fn principal(&self) -> String {
        format!("{}/{}", self.issuer, self.subject)
    }
}

/// The right-most entry of `x-forwarded-for`, of the last of such headers: what is before it was
/// said by somebody further away.
pub fn remote_ip(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    let entry = last.to_str().ok()?.rsplit(',').next()?.trim();
    let inner = entry.strip_prefix('[');
    let entry = inner.map_or(entry, |inner| inner.split(']').next().unwrap_or_default());
    entry.parse().ok()
}

/// Whether a header steers proxies or speaks for one (CVE-2020-8843, CVE-2023-27487,
/// CVE-2024-45806): no client's to set, and taken out before anything is decided.
pub fn is_internal(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-")
        && (name.starts_with("x-envoy-")
            || name.starts_with("x-istio-")
            || name == "x-forwarded-client-cert")
}
