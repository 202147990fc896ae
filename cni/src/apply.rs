//! Puts a pod's redirect rules and their routes into its network namespace, and reads them back.
//!
//! Every operation is idempotent and leaves the caller's own namespace alone. A pod is
//! [`capture`]d, [`release`]d (no redirects, live connections kept), or cleared by [`remove`].

mod generation;
mod nft;
mod routing;
mod verify;

pub use nft::load;
pub use verify::{Drift, Seen, Verifier};

use std::io;
use std::os::fd::AsFd;

use crate::netns;
use crate::rules::{self, Options};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot enter the network namespace: {0}")]
    Namespace(#[source] io::Error),
    #[error("cannot run nft, of the package nftables: {0}")]
    RunNft(#[source] io::Error),
    #[error("nft refused the rules: {0}")]
    Nft(String),
    #[error("cannot set up policy routing: {0}")]
    Routing(#[source] rtnetlink::Error),
}

/// Redirects the pod's new connections to ztunnel. Established ones go on untouched.
pub async fn capture(netns: impl AsFd, options: &Options) -> Result<(), Error> {
    let netns = netns.as_fd();
    let options = within_reach(netns, options).await?;
    if options.refuse_ipv6 {
        tracing::warn!(
            "the pod's loopback has no IPv6, which can't be captured: connections and DNS over it are refused"
        );
    }
    routing::ensure(netns, &options).await?;
    set_up(netns, true).await?;
    load(netns, rules::capture(&options)).await
}

/// Stops redirecting new connections, and keeps what ztunnel's live connections stand on.
pub async fn release(netns: impl AsFd) -> Result<(), Error> {
    load(netns, rules::release()).await
}

/// Leaves nothing of ours; connections that ztunnel still carries break.
pub async fn remove(netns: impl AsFd) -> Result<(), Error> {
    let netns = netns.as_fd();
    load(netns, rules::remove()).await?;
    set_up(netns, false).await?;
    routing::remove(netns).await
}

/// Settings of the namespace: the file, captured, and as the kernel has it. Where `/proc/sys` is
/// read-only it does without.
const SETTINGS: [(&str, &str, &str); 2] = [
    // What an application accepts takes over the mark of the packet that opened it, which spares a
    // look-up for each of its packets.
    ("/proc/sys/net/ipv4/tcp_fwmark_accept", "1", "0"),
    // A client may use one port for two of the pod's. Redirected to one, the later connection is given
    // another port; but its packets would have been taken for the former's before that.
    ("/proc/sys/net/ipv4/tcp_early_demux", "0", "1"),
];

async fn set_up(netns: impl AsFd, captured: bool) -> Result<(), Error> {
    let set = move |(file, on, off): (&str, &str, &str)| {
        let written = std::fs::write(file, if captured { on } else { off });
        written.map_err(|error| format!("{file} stays as it is: {error}"))
    };
    let results = netns::run(netns, move || SETTINGS.map(set))
        .await
        .map_err(Error::Namespace)?;
    for unset in results.into_iter().filter_map(Result::err) {
        tracing::debug!("{unset}");
    }
    Ok(())
}

/// Of a pod whose loopback has IPv6 switched off none can be captured: the route to loopback that this
/// needs can't exist. Its other interfaces may have IPv6 all the same, which must not get past ztunnel.
async fn within_reach(netns: impl AsFd, options: &Options) -> Result<Options, Error> {
    let loopback = netns::run(netns, loopback_ipv6)
        .await
        .map_err(Error::Namespace)?;
    Ok(Options {
        ipv6: options.ipv6 && loopback == Some(true),
        refuse_ipv6: options.ipv6 && loopback == Some(false),
        ..options.clone()
    })
}

/// Whether loopback has IPv6; none where nothing has, for the kernel has none. Where it can't be told,
/// others may have it.
fn loopback_ipv6() -> Option<bool> {
    match std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6") {
        Ok(disabled) => Some(disabled.trim() == "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests;
