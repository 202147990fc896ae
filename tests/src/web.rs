//! The tests' web application: a server that says what it was asked, and clients that say what
//! they were answered, over HTTP/1.1, HTTP/2 and gRPC.

pub mod client;

pub mod load;

pub mod raw;

pub mod server;

pub mod watch;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request as the server saw it; its answer's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The server's own name.
    pub pod: String,
    pub protocol: String,
    pub method: String,
    /// With the query.
    pub path: String,
    pub host: String,
    pub headers: BTreeMap<String, Vec<String>>,
    /// Bytes of the request's content.
    pub length: usize,
    /// [`crate::peer::checksum`] of the content.
    pub checksum: u64,
    pub trailers: BTreeMap<String, Vec<String>>,
}

/// A response as the client saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: String,
    pub trailers: BTreeMap<String, Vec<String>>,
    /// What the body says, where a server of ours wrote it.
    pub seen: Option<Seen>,
}

// === impl Answer ===

impl Answer {
    /// The pod that answered; empty where none did.
    pub fn pod(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.pod)
    }

    /// The first value of a response header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }
}

// === impl Seen ===

impl Seen {
    /// The first value of a header as the server received it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }
}

fn values(headers: &http::HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.as_str().to_owned()).or_default().push(value);
    }
    all
}
