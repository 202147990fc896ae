//! What must be right before the first pod, checked and put right while somebody watches.

use anyhow::{Context, bail};
use runtime::confinement::capabilities::{self, Capability};
use runtime::confinement::{self, system_calls};
use socket2::{Domain, Socket, Type};

use crate::config::{Config, Mode};
use crate::proxy::config::OriginalSource;
use crate::proxy::netns;

/// Entering pods' namespaces, and marked and transparent sockets in them.
const CAPABILITIES_SHARED: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];
/// Marked and transparent sockets in its own.
const CAPABILITIES_DEDICATED: &[Capability] = &[Capability::CAP_NET_ADMIN];

/// Gives up what no tunnel needs. Must be called while the process has one thread.
pub fn confine(config: &Config) -> anyhow::Result<()> {
    confinement::without_core_dumps().context("cannot forbid core dumps")?;
    let kept = match config.mode {
        Mode::Shared { .. } => CAPABILITIES_SHARED,
        Mode::Dedicated { .. } => CAPABILITIES_DEDICATED,
    };
    Ok(capabilities::keep(kept)?)
}

/// Gives up the system calls that a running tunnel never makes; everything has started by now.
pub fn confine_system_calls() -> anyhow::Result<()> {
    Ok(system_calls::leave_to_proxies()?)
}

/// Enters a network namespace, marks a socket and lets it have any address, as every pod will need.
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
    original_source(config.proxy.original_source)
}

/// Whether sockets can have clients' addresses. Where they need not, their loss is told: nothing
/// else would ever say why applications see one client only.
fn original_source(wanted: OriginalSource) -> anyhow::Result<()> {
    if wanted == OriginalSource::Never {
        return Ok(());
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("cannot make a socket")?;
    let Err(error) = socket.set_ip_transparent_v4(true) else {
        return Ok(());
    };
    match wanted {
        OriginalSource::Required => bail!(
            "cannot make a transparent socket ({error}), and ENABLE_ORIG_SRC has connections \
             made from their clients' addresses: it must run with CAP_NET_ADMIN"
        ),
        OriginalSource::BestEffort | OriginalSource::Never => tracing::warn!(
            %error,
            "cannot make a transparent socket without CAP_NET_ADMIN: \
             applications see ztunnel's address instead of their clients'"
        ),
    }
    Ok(())
}
