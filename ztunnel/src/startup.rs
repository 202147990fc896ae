//! What must be right before the first pod, checked and put right while somebody watches.

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::config::{Config, Mode};
use crate::proxy::netns;

/// Every connection takes two descriptors: takes as many as the limit allows.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) => tracing::debug!(limit, "descriptor limit"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
}

/// Enters a network namespace and marks a socket, as every pod will need.
pub fn self_test(config: &Config) -> anyhow::Result<()> {
    if let Mode::Shared { .. } = config.mode {
        let own = std::fs::File::open("/proc/self/ns/net")
            .context("cannot open the network namespace: is /proc mounted?")?;
        netns::within(Some(&own.into()), || Ok(())).context(
            "cannot enter a network namespace, which every pod needs: \
             ztunnel must run as root with CAP_SYS_ADMIN",
        )?;
    }
    if let Some(packet_mark) = config.proxy.packet_mark {
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, None).context("cannot make a socket")?;
        if let Err(error) = socket.set_mark(packet_mark) {
            bail!(
                "cannot mark a socket ({error}), and unmarked connections would be redirected \
                 back to ztunnel for ever: it must run with CAP_NET_ADMIN"
            );
        }
    }
    Ok(())
}
