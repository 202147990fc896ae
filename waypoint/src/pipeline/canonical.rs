//! The one form of a request that is matched, authorized and forwarded.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri};
use mesh::authority::Authority;
use mesh::local_reply::Reason;
use mesh::path::PathNormalization;
use mesh::request::{Claims, Request, remote_ip};

/// A request's address, in its one spelling.
#[derive(Clone, Debug)]
pub(crate) struct Canonical {
    pub(crate) host: Box<str>,
    pub(crate) port: Option<u16>,
    pub(crate) target: PathAndQuery,
    pub(crate) remote_ip: IpAddr,
}

// === impl Canonical ===

impl Canonical {
    pub(crate) fn read(
        parts: &Parts,
        peer: IpAddr,
        normalization: PathNormalization,
    ) -> Result<Self, Reason> {
        let authority = match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => return Err(bad(&"neither authority nor host")),
        };
        let authority = Authority::parse(authority).map_err(|error| bad(&error))?;
        let received = parts.uri.path_and_query();
        // The origin form of OPTIONS without a path is `*` (RFC 9112 §3.2.4).
        let text = match received.map_or("", PathAndQuery::as_str) {
            "" if parts.method == Method::OPTIONS => "*",
            "" => "/",
            text => text,
        };
        let target = normalization.target(&parts.method, text);
        let target = target.map_err(|error| bad(&error))?;
        let same = |received: &&PathAndQuery| matches!(target.path, Cow::Borrowed(path) if path == received.path());
        let target = match received.filter(same) {
            Some(received) => received.clone(),
            None => join(&target.path, target.query)?,
        };
        Ok(Self {
            host: authority.host.into(),
            port: authority.port,
            target,
            remote_ip: remote_ip(&parts.headers).unwrap_or(peer),
        })
    }

    /// As decisions see it.
    pub(crate) fn request<'a>(
        &'a self,
        method: &'a Method,
        headers: &'a HeaderMap,
        claims: Option<&'a Claims>,
    ) -> Request<'a> {
        Request {
            method,
            host: &self.host,
            port: self.port,
            path: self.target.path(),
            query: self.target.query(),
            headers,
            remote_ip: self.remote_ip,
            claims,
        }
    }

    /// As upstreams get it: with its authority, and no `host` beside it.
    pub(crate) fn uri(&self) -> Result<Uri, Reason> {
        Uri::builder()
            .scheme(http::uri::Scheme::HTTP)
            .authority(self.authority())
            .path_and_query(self.target.clone())
            .build()
            .map_err(|error| bad(&error))
    }

    pub(crate) fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_string(),
        }
    }

    pub(crate) fn set_path(&mut self, path: &str) -> Result<(), Reason> {
        self.target = join(path, self.target.query())?;
        Ok(())
    }

    pub(crate) fn set_query(&mut self, query: Option<&str>) -> Result<(), Reason> {
        self.target = join(self.target.path(), query)?;
        Ok(())
    }
}

fn bad(error: &dyn std::fmt::Display) -> Reason {
    Reason::BadRequest(error.to_string().into())
}

fn join(path: &str, query: Option<&str>) -> Result<PathAndQuery, Reason> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|error| bad(&error))
}
