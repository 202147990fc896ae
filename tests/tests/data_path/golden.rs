//! What crosses the wire between a tunnel of ours and Istio's, to the letter: the other end is a
//! [`Counterpart`](super::counterpart::Counterpart).

pub(crate) mod destination;
pub(crate) mod source;

use std::collections::BTreeMap;

use super::counterpart::{Credentials, Hello, Setting};
use super::identity_of;
use super::lab::Lab;

fn credentials(lab: &Lab, account: &str) -> Credentials {
    Credentials::issue(lab.authority().signer(), &identity_of(account))
}

/// How our ends begin, with what is each one's own. The connection's window is another than Istio's:
/// docs/istio.md.
fn hello(account: &str, group: &'static str, own: &[(Setting, u32)]) -> Hello {
    let mut settings = BTreeMap::from([
        (Setting::InitialWindowSize, 4 << 20),
        (Setting::MaxFrameSize, 1 << 20),
    ]);
    settings.extend(own.iter().copied());
    Hello {
        identity: Some(identity_of(account)),
        alpn: Some("h2".to_owned()),
        server_name: None,
        group: Some(group),
        settings,
        connection_window: 80 << 20,
    }
}
