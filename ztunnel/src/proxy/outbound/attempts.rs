//! One endpoint after the other, until one is reached: the next is tried while nothing of the
//! client's has been sent, and one that is not there is left alone for a while.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hbone::client::{ConnectError, OpenError};
use http::StatusCode;
use mesh::balancing::Candidates;
use mesh::destination::{self, Hop, NotOutside, Transport};
use mesh::service::Algorithm;
use mesh::workload::Workload;
use tokio::time::Instant;

use super::Client;
use crate::metrics::ResponseFlags;
use crate::proxy::telemetry::{Conversation, Failure};
use crate::proxy::{conntrack, same_node};

/// How long a connection goes on to other endpoints, in connect timeouts: a first one that
/// swallows everything must leave time for a second.
const PATIENCE: u32 = 2;
/// How long an endpoint is waited for at most that gives no sign of itself, while there may be
/// others: a wire that swallows everything to one of them is not worth more.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(1);

/// Why one endpoint did not work.
pub(crate) struct HopFailure {
    pub(crate) conversation: Conversation,
    pub(crate) failure: Failure,
    pub(crate) fault: Fault,
}

/// What a failure says about where to go next. Nothing of the client's has been sent in any of
/// these cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The endpoint is not there to answer: others are tried, and this one is left alone.
    Endpoint,
    /// It gives no sign of itself, and there may be others: they are tried, this one is left alone,
    /// and is tried again where none of them is reached.
    Silent,
    /// The proxy of a gateway into the endpoint's network is not there: another one is tried.
    Gateway,
    /// Nobody can tell whose: others are tried.
    Unclear,
    /// The attempt must be seen to fail, as it would at any other endpoint: policy, an identity
    /// that is not the expected one.
    Final,
}

// === impl Client ===

impl Client {
    /// Tries endpoints until one is reached.
    pub(super) async fn endpoints(mut self) {
        let until = self.started + self.worker.shared.config.connect_timeout * PATIENCE;
        let mut last: Option<Box<HopFailure>> = None;
        while let Some(hop) = self.next_hop() {
            if let Some(failed) = last.take() {
                self.retry(&failed);
            }
            match self.attempt(&hop).await {
                Ok(()) => return,
                Err(failed) => {
                    self.learn(&hop, &failed);
                    let fault = failed.fault;
                    if fault == Fault::Silent
                        && let Some(hops) = &mut self.hops
                    {
                        hops.postpone(hop);
                    }
                    last = Some(Box::new(failed));
                    if fault == Fault::Final || Instant::now() >= until {
                        break;
                    }
                }
            }
        }
        Box::pin(self.give_up_after(last)).await;
    }

    fn next_hop(&mut self) -> Option<Hop> {
        let hops = self.hops.as_mut()?;
        let ejections = &self.worker.shared.ejections;
        let hop = hops.next(self.worker.observed(&ejections.load()), &mut rand::rng())?;
        if let Some(selection) = hops.selection() {
            let now = Instant::now().into_std();
            ejections.trying(selection.candidates(), &hop.workload, now);
            if let Transport::DoubleHbone(crossing) = &hop.transport
                && let Some(proxies) = &crossing.proxies
            {
                ejections.trying(proxies.candidates(), &crossing.gateway, now);
            }
            self._active = match selection.entry().service.load_balancing.algorithm {
                Algorithm::LeastRequest => {
                    Some(Box::new(self.worker.shared.active.begin(&hop.workload.uid)))
                }
                Algorithm::Random => None,
            };
        }
        Some(hop)
    }

    /// How long an endpoint that gives no sign of itself is waited for; none where the time to
    /// connect is all there is.
    pub(super) fn patience(&self) -> Option<Duration> {
        let hops = self.hops.as_ref()?;
        let timeout = self.worker.shared.config.connect_timeout;
        let waited = hops.repeats().then(|| self.started.elapsed());
        let patience = patience(timeout, waited);
        (patience < timeout && hops.may_have_others()).then_some(patience)
    }

    /// What it means that an endpoint has given no sign of itself: nothing where the kernel has
    /// dropped what it was sent.
    pub(super) fn silence(&self) -> Fault {
        match conntrack::full(self.pod().netns.as_deref()) {
            Some(_) => Fault::Unclear,
            None => Fault::Silent,
        }
    }

    async fn attempt(&mut self, hop: &Hop) -> Result<(), HopFailure> {
        match &hop.transport {
            Transport::Tcp => Box::pin(self.tcp(Some(&hop.workload), hop.target)).await,
            Transport::Resolve { hostname, port } => {
                Box::pin(self.named(&hop.workload, hostname, *port)).await
            }
            Transport::Hbone { address, expected } => {
                let shared = &self.worker.shared;
                let direct =
                    shared.config.same_node_direct && address.port() == destination::HBONE_PORT;
                let serving = || {
                    let (pods, snapshot) = (&shared.pods, shared.state.load());
                    pods.serving(&hop.workload, address.ip(), &snapshot, &shared.config)
                };
                let local = direct.then(serving).flatten();
                match local {
                    Some(pod) => {
                        Box::pin(same_node::run(self, hop, *address, expected, &pod)).await
                    }
                    None => Box::pin(self.hbone(hop, address, expected)).await,
                }
            }
            Transport::DoubleHbone(crossing) => Box::pin(self.through_gateway(hop, crossing)).await,
        }
    }

    /// The endpoint is reached: from here on nothing is tried again.
    pub(crate) fn established(&mut self, workload: &Workload) {
        let Some(hops) = self.hops.take() else {
            return;
        };
        if let Some(selection) = hops.selection() {
            let ejections = &self.worker.shared.ejections;
            ejections.succeeded(selection.candidates(), workload);
        }
    }

    /// Has an endpoint left alone that is not there.
    fn learn(&self, hop: &Hop, failed: &HopFailure) {
        let Some(selection) = self.hops.as_ref().and_then(|hops| hops.selection()) else {
            return;
        };
        let among = selection.candidates();
        match (failed.fault, &hop.transport) {
            (Fault::Gateway | Fault::Silent, Transport::DoubleHbone(crossing)) => {
                if let Some(proxies) = &crossing.proxies {
                    self.eject(proxies.candidates(), &crossing.gateway, failed);
                }
                // Whoever is behind it can't be reached by any other.
                if crossing.is_last {
                    self.eject(among, &hop.workload, failed);
                }
            }
            (Fault::Endpoint | Fault::Silent, _) => self.eject(among, &hop.workload, failed),
            // It has answered.
            (Fault::Final, _) if failed.failure.flags == ResponseFlags::Deny => {
                self.worker.shared.ejections.succeeded(among, &hop.workload);
            }
            (Fault::Gateway | Fault::Final | Fault::Unclear, _) => {}
        }
    }

    fn eject(&self, among: Candidates<'_>, workload: &Arc<Workload>, failed: &HopFailure) {
        let ejections = &self.worker.shared.ejections;
        let now = Instant::now().into_std();
        if let Some(pause) = ejections.failed(among, workload, now) {
            metrics::counter!("weft_endpoint_ejections_total").increment(1);
            tracing::info!(
                endpoint = %workload.uid, service = %among.destination.service,
                port = among.destination.port, ?pause, error = failed.failure.reason,
                "an endpoint can't be reached and is left alone for a while"
            );
        }
    }

    /// Counts and logs an attempt that failed, where it is not the last: that one is the
    /// connection's own failure.
    fn retry(&self, failed: &HopFailure) {
        let flags = failed.failure.flags.as_str();
        metrics::counter!("weft_connection_retries_total", "response_flags" => flags).increment(1);
        let endpoint = failed.conversation.destination.workload.as_ref();
        tracing::info!(
            source = %self.caller.peer, destination = %self.original,
            endpoint = endpoint.map(|workload| tracing::field::display(&workload.uid)),
            error = failed.failure.reason, "an endpoint failed; another one is tried"
        );
    }

    /// Reports the last failure of several.
    async fn give_up_after(&mut self, last: Option<Box<HopFailure>>) {
        match last {
            Some(failed) => self.give_up(&failed.conversation, &failed.failure).await,
            None => {
                let conversation = self.conversation(None, self.original);
                let failure = Failure::new(ResponseFlags::Connect, "no endpoint to try");
                self.give_up(&conversation, &failure).await;
            }
        }
    }

    /// Tries plain TCP to an endpoint known by name only, at each of its addresses.
    async fn named(
        &mut self,
        workload: &Arc<Workload>,
        hostname: &Arc<str>,
        port: u16,
    ) -> Result<(), HopFailure> {
        let timeout = self.worker.shared.config.connect_timeout;
        self.count_resolution(hostname);
        let names = &self.worker.names;
        let resolving = names.resolve(hostname, self.original.is_ipv4(), timeout);
        let addresses = Box::pin(resolving).await.unwrap_or_default();
        let (addresses, why_none) = match self.outside(hostname, &addresses) {
            Ok(addresses) => (addresses, NotOutside::NoAddress(hostname.clone())),
            Err(why) => (Vec::new(), why),
        };
        let mut last = HopFailure {
            conversation: self.conversation(Some(workload), self.original),
            failure: Failure::new(ResponseFlags::Connect, why_none),
            fault: Fault::Unclear,
        };
        let mut is_silent = false;
        for address in addresses.into_iter().take(destination::ATTEMPTS) {
            let target = SocketAddr::new(address, port);
            match Box::pin(self.tcp(Some(workload), target)).await {
                Ok(()) => return Ok(()),
                Err(failed) => last = failed,
            }
            is_silent |= last.fault == Fault::Silent;
        }
        // One of its addresses may yet answer, whatever the last said.
        if is_silent {
            last.fault = Fault::Silent;
        }
        Err(last)
    }

    /// Those of a name's addresses that plaintext may be sent to. The name is ours to choose, its
    /// addresses are somebody else's: what an enrolled pod gets in plaintext, it can't know to be
    /// from us.
    fn outside(
        &self,
        hostname: &Arc<str>,
        addresses: &[IpAddr],
    ) -> Result<Vec<IpAddr>, NotOutside> {
        let snapshot = self.worker.shared.state.load();
        destination::outside(&snapshot, &self.workload.network, hostname, addresses)
    }

    fn count_resolution(&self, hostname: &Arc<str>) {
        let series = &self.worker.shared.series;
        let labels = series.resolution_labels(&self.workload, hostname);
        metrics::counter!("istio_on_demand_dns_total", labels).increment(1);
    }
}

/// How long the next of several endpoints is waited for: all that may be tried are, within the time
/// to connect. `waited` is how long that has taken where each has been tried: whichever was too slow
/// for that is found by waiting twice as long each time, in whole seconds.
fn patience(connect_timeout: Duration, waited: Option<Duration>) -> Duration {
    let first = ELSEWHERE_AFTER.min(connect_timeout / destination::ATTEMPTS as u32);
    waited.map_or(first, |waited| {
        first.max(Duration::from_secs(waited.as_secs()))
    })
}

// === impl Fault ===

impl Fault {
    /// Of a TCP connection that was not made. One for want of a descriptor, a port or a tracking entry of ours is
    /// not the endpoint's.
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable => Self::Endpoint,
            _ => Self::Unclear,
        }
    }

    /// Of a tunnel, or a stream of one, that was not opened. What a waypoint says about the
    /// application behind it is not about itself.
    pub(crate) fn of_open(error: &OpenError, asks_for_itself: bool) -> Self {
        match error {
            OpenError::Connect(error) => match error {
                ConnectError::Tcp(_, error) => Self::of_connect(error),
                ConnectError::TcpTimeout(_)
                | ConnectError::HandshakeTimeout
                | ConnectError::Tls(_)
                | ConnectError::Http2(_) => Self::Endpoint,
                ConnectError::PeerIdentity(_) | ConnectError::Revoked | ConnectError::Abandoned => {
                    Self::Final
                }
            },
            OpenError::Status(StatusCode::SERVICE_UNAVAILABLE) | OpenError::ResponseTimeout => {
                match asks_for_itself {
                    true => Self::Endpoint,
                    false => Self::Unclear,
                }
            }
            OpenError::NoSign(_) => Self::Silent,
            OpenError::Tunnel(_) => Self::Unclear,
            OpenError::Status(_) => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests;
