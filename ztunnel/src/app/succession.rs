//! Replacing one process and being replaced by another: when this process takes over, and what
//! it does once it has been taken over from.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::readiness::{self, Readiness};
use runtime::signals::Shutdown;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};

use super::pods::PodProxies;
use super::servers::Servers;
use crate::config::Config;
use crate::dns::DnsProxy;
use crate::handover::predecessor::{self, Lender, Successor};
use crate::handover::successor::{self, Former, Found, Succession};
use crate::handover::{Owner, Port};
use crate::inpod::NetnsId;
use crate::proxy::workers::Listeners;

/// What readiness waits for while there is a predecessor.
pub(super) const TAKING_OVER: &str = "taking over";

/// By when a process that is ready has captured the pods that were there before it.
const SETTLED: Duration = Duration::from_secs(10);

/// Tells whoever looks after this process that it must stop the former one.
const BESIDE: &str = "X_WEFT_HANDOVER=0";

/// Who serves the node's pods at the start of this process.
#[derive(Clone)]
pub(super) enum Predecessor {
    Nobody,
    /// A process that hands nothing over: both listen, until somebody stops it.
    SideBySide,
    Yields(Arc<Succession>),
}

/// Everything that a successor may ask for.
struct Lent {
    netns: NetnsId,
    listeners: Listeners,
    dns: Option<DnsProxy>,
    process: Vec<(u16, OwnedFd)>,
}

/// Looks for a process to replace.
pub(super) async fn find(config: &Config) -> Predecessor {
    let Some(path) = &config.handover_uds else {
        return Predecessor::Nobody;
    };
    match successor::find(path).await {
        Found::Nobody => Predecessor::Nobody,
        Found::Refused(reason) => {
            tracing::warn!(
                reason,
                "the former process hands nothing over: listening beside it until it is stopped"
            );
            metrics::counter!("weft_handovers_total", "outcome" => "refused").increment(1);
            Predecessor::SideBySide
        }
        Found::Predecessor(succession) => {
            tracing::info!(
                release = succession.release(),
                "taking over from another process"
            );
            Predecessor::Yields(Arc::new(succession))
        }
    }
}

/// Takes over once everything is here, and waits for a successor, who is answered.
pub(super) fn begin(
    config: &Config,
    readiness: &Readiness,
    taking_over: Option<readiness::Task>,
    proxies: &PodProxies,
    servers: &Servers,
) -> std::io::Result<oneshot::Receiver<Successor>> {
    let (replaced, wait) = oneshot::channel();
    let lent = Lent {
        netns: NetnsId::of(None)?,
        listeners: proxies.workers.listeners(),
        dns: proxies.dns.clone(),
        process: servers.sockets()?,
    };
    let (readiness, certificates) = (readiness.clone(), proxies.certificates.clone());
    let succession = proxies.predecessor.succession().cloned();
    let more = match proxies.predecessor {
        Predecessor::SideBySide => BESIDE,
        Predecessor::Nobody | Predecessor::Yields(_) => "",
    };
    let path = config.handover_uds.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        if succession.is_some() {
            readiness.only(&[TAKING_OVER]).await;
            certificates.all_present().await;
        }
        // Before anything stops, so that the next successor meets this process, not the former.
        let predecessor = path.as_deref().and_then(listen);
        if let Some(succession) = &succession {
            let former = succession.take_over().await;
            let left = former.as_ref().map(|former| former.left);
            tracing::info!(left, after = ?started.elapsed(), "took over from the former process");
            metrics::counter!("weft_handovers_total", "outcome" => "taken").increment(1);
            if let Some(former) = former {
                tokio::spawn(hear_the_end_of(former));
            }
        }
        drop(taking_over);
        tokio::spawn(async move {
            // Whoever has taken over serves, and nobody else does: it must not be stopped for want
            // of an agent that went away in this moment.
            if succession.is_none() {
                readiness.only(&[]).await;
            }
            runtime::notify::ready("serving", more);
            // Capturing the pods that are there is part of the start, and begins only now.
            time::sleep(SETTLED).await;
            runtime::program::let_go_of_start();
        });
        if let Some(predecessor) = predecessor {
            let successor = predecessor.replaced(&lent).await;
            // Nobody waits any more when the process is stopping.
            let _ = replaced.send(successor);
        }
    });
    Ok(wait)
}

fn listen(path: &Path) -> Option<predecessor::Predecessor> {
    let bound = predecessor::Predecessor::bind(path);
    let failed = |error: &std::io::Error| {
        tracing::warn!(path = %path.display(), %error, "this process can be replaced only by stopping it");
    };
    bound.inspect_err(failed).ok()
}

/// The former process's last word: nobody else can be asked for its metrics any more.
async fn hear_the_end_of(former: Former) {
    match former.farewell().await {
        Some(cut) => {
            tracing::info!(cut, "the former process has ended");
            metrics::counter!("weft_handover_connections_cut_total").increment(cut);
        }
        None => tracing::warn!("the former process has ended without a word"),
    }
}

/// Stops accepting, lets what is open run to its end or the deadline, and says what was cut.
pub(super) async fn yield_to(
    mut successor: Successor,
    proxies: PodProxies,
    servers: Servers,
    config: &Config,
    shutdown: &Shutdown,
) {
    let PodProxies { workers, dns, .. } = proxies;
    drop(servers);
    workers.hand_over();
    if let Some(dns) = &dns {
        dns.hand_over();
    }
    workers.stop_accepting();
    let connections = workers.connections();
    let deadline = config.handover_deadline;
    tracing::info!(
        pid = successor.pid,
        connections,
        ?deadline,
        "replaced; connections go on here until they end"
    );
    runtime::notify::status("replaced; letting connections end");
    successor.release(connections).await;
    let expired = async {
        tokio::select! {
            () = time::sleep(deadline) => {}
            reason = shutdown.requested() => {
                let deadline = config.termination_deadline;
                tracing::info!(reason, ?deadline, "ending sooner");
                time::sleep(deadline).await;
            }
        }
    };
    let cut = workers.drain(expired).await;
    tracing::info!(
        ended = connections.saturating_sub(cut),
        cut,
        "connections are over"
    );
    successor.farewell(cut).await;
}

// === impl Predecessor ===

impl Predecessor {
    pub(super) fn succession(&self) -> Option<&Arc<Succession>> {
        match self {
            Self::Yields(succession) => Some(succession),
            Self::Nobody | Self::SideBySide => None,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

// === impl Lent ===

impl Lender for Lent {
    async fn lend(&self, owner: Owner, port: Port) -> Vec<OwnedFd> {
        match (owner, port) {
            (Owner::Process { netns }, Port::Tcp(port)) if netns == self.netns => {
                let sockets = self.process.iter().filter(|(own, _)| *own == port);
                sockets.filter_map(|(_, fd)| fd.try_clone().ok()).collect()
            }
            (Owner::Process { .. }, Port::Tcp(_) | Port::Udp(_)) => Vec::new(),
            (Owner::Pod { uid, netns }, port) => {
                let mut sockets = match port {
                    Port::Tcp(port) => self.listeners.lend(&uid, netns, port).await,
                    Port::Udp(_) => Vec::new(),
                };
                if let Some(dns) = &self.dns {
                    sockets.extend(dns.lend(&uid, netns, port).await);
                }
                sockets
            }
        }
    }

    fn take_back(&self) {
        self.listeners.take_back();
        if let Some(dns) = &self.dns {
            dns.take_back();
        }
    }
}
