//! Follows a connection as the data plane does: out of the client's node, through a waypoint
//! where one is in front, into the node of the pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use istio_compat::exclusions::{Exclusions, bypasses_inbound};
use istio_compat::kind::Kind;
use istio_compat::labels;
use istio_compat::object::ObjectKey;
use istio_compat::waypoint::canary::Canary;
use mesh::address::NetworkAddress;
use mesh::authorization::{Connection, PolicySet};
use mesh::balancing::{Observed, Selections};
use mesh::destination::{self, Authority, Hop, Plan, Refusal, Route, Transport, is_gateway};
use mesh::identity::Identity;
use mesh::service::Service;
use mesh::snapshot::{Change, ServiceEntry, Snapshot};
use mesh::workload::{TunnelProtocol, Workload};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::answer::{Answer, Enforcer, Outcome, Ruling, Stage, Step};
use super::known::Known;
use super::message::Message;
use super::party::{Destination, Source};
use super::policy;
use super::waypoint::{AtWaypoint, Front};
use crate::machine::network::plan;

/// A connection to one address.
pub(super) struct Dialled<'a> {
    pub(super) known: &'a Known,
    pub(super) source: &'a Source,
    pub(super) address: SocketAddr,
    pub(super) service: Option<Arc<ServiceEntry>>,
    /// The one that was dialled itself.
    pub(super) workload: Option<Arc<Workload>>,
}

/// Decides. `now` is in seconds since the Unix epoch.
pub(super) fn decide(
    known: &Known,
    source: &Source,
    destination: &Destination,
    message: Option<&Message>,
    now: f64,
) -> Answer {
    let rulings = destination
        .addresses
        .iter()
        .map(|address| {
            let dialled = Dialled::new(known, source, *address);
            let ruling = dialled.ruling(message, &destination.host, now);
            (address.to_string(), ruling)
        })
        .collect();
    let ruling = Ruling::together(rulings).unwrap_or_else(|| {
        let text = "refused: the name has no address, because no endpoint is ready";
        Ruling::new(false, Enforcer::Nobody, text)
    });
    let mut notes = Vec::new();
    if known.simulated {
        notes.push(
            "no mesh runs on these objects: pods are taken to be ready, addresses are made up"
                .to_owned(),
        );
    }
    let mut trace = vec![source.step.clone(), destination.step.clone()];
    trace.extend(ruling.steps);
    Answer {
        api_version: "weft.dev/v1",
        kind: "Why",
        allowed: ruling.allowed,
        enforced_by: ruling.enforced_by,
        verdict: ruling.verdict,
        status: ruling.status,
        reasons: ruling.reasons,
        needs_request: ruling.needs_request,
        source: source.name.clone(),
        destination: destination.name.clone(),
        request: message.map(Message::line),
        route: ruling.route,
        trace,
        notes,
    }
}

/// What policies of the pod's node say of a connection that arrives there.
pub(super) fn at_node(
    known: &Known,
    identity: Option<Identity>,
    source: std::net::IpAddr,
    workload: &Workload,
    target: SocketAddr,
) -> Ruling {
    let object = known.workload_object(workload);
    let past_the_node = match (workload.tunnel_protocol, &identity) {
        (TunnelProtocol::None, _) => Some("is not captured: nothing is enforced there".to_owned()),
        (_, None) => excluded_inbound(known, workload, target.port())
            .map(|entry| format!("has {entry}, takes this itself, and nothing is enforced there")),
        (_, Some(_)) => None,
    };
    if let Some(why) = past_the_node {
        let text = format!("{object} {why}");
        let step = Step::new(Stage::Node, Outcome::Neutral, text);
        return Ruling::new(
            true,
            Enforcer::Nobody,
            "allowed: nothing is enforced where it ends",
        )
        .after(vec![step]);
    }
    if workload.native_tunnel {
        let text = format!("{object} has a tunnel of its own, which nothing is known of");
        let step = Step::new(Stage::Node, Outcome::Neutral, text);
        return Ruling::new(true, Enforcer::Nobody, "allowed as far as the mesh knows")
            .after(vec![step]);
    }
    let arrives = match &identity {
        Some(identity) => format!("arrives at {object} port {} as {identity}", target.port()),
        None => format!("arrives at {object} port {} in plaintext", target.port()),
    };
    let step = Step::new(Stage::Node, Outcome::Neutral, arrives);
    if identity.is_some() {
        let authority = Authority::Address(target);
        let inbound = destination::inbound(&known.snapshot, workload, target.ip(), &authority);
        if let Err(refusal) = inbound {
            let text = format!("refused: {refusal}");
            return Ruling::new(false, Enforcer::Node, text).after(vec![step]);
        }
    }
    let connection = Connection::new(identity, source, target);
    let set = PolicySet::of(&known.snapshot, workload);
    let explanation = set.explain(&connection, None);
    let end = Some((workload, target.port()));
    policy::ruling(known, &explanation, end, Enforcer::Node).after(vec![step])
}

/// What keeps a connection of a captured pod from its node.
fn excluded_outbound(known: &Known, client: &Workload, to: SocketAddr) -> Option<String> {
    Exclusions::of(&known.pod(client)?.metadata).of_outbound(to)
}

/// What keeps plaintext to a port of a captured pod from its node.
fn excluded_inbound(known: &Known, workload: &Workload, port: u16) -> Option<String> {
    let metadata = &known.pod(workload)?.metadata;
    let bypass = bypasses_inbound(metadata).then(|| format!("{}: true", labels::BYPASS_INBOUND));
    bypass.or_else(|| Exclusions::of(metadata).of_inbound(port))
}

// === impl Dialled ===

impl<'a> Dialled<'a> {
    fn new(known: &'a Known, source: &'a Source, address: SocketAddr) -> Self {
        let snapshot = &known.snapshot;
        let key = NetworkAddress::new(known.context().network.clone(), address.ip());
        let service = snapshot.service_at(&key, &source.namespace).cloned();
        let workload = snapshot.workload_at(&key).cloned();
        Self {
            known,
            source,
            address,
            workload: workload.filter(|_| service.is_none()),
            service,
        }
    }

    fn ruling(&self, message: Option<&Message>, host: &str, now: f64) -> Ruling {
        let Some(client) = &self.source.captured else {
            return self.plaintext();
        };
        match excluded_outbound(self.known, client, self.address) {
            Some(entry) => {
                let text = format!("its {entry} keeps this from capture: it goes out in plaintext");
                let step = Step::new(Stage::Source, Outcome::Neutral, text);
                self.plaintext().after(vec![step])
            }
            None => self.captured(client, message, host, now),
        }
    }

    /// Straight to a pod, as a cluster's network would take it.
    fn plaintext(&self) -> Ruling {
        let object = self.bound_object();
        let bound = object.and_then(|object| self.known.binding(&object));
        let around = bound.map(|binding| {
            let text = format!(
                "plaintext of who is not captured goes around waypoint {}",
                binding.waypoint
            );
            let causes = policy::causes_of(self.known, binding);
            Step::new(Stage::Waypoint, Outcome::Neutral, text).with(causes)
        });
        let around: Vec<Step> = around.into_iter().collect();
        let targets: Vec<(Arc<Workload>, SocketAddr)> = match (&self.service, &self.workload) {
            (Some(entry), _) => {
                if entry.service.port(self.address.port()).is_none() {
                    return self.unknown_port(entry).after(around);
                }
                let port = self.address.port();
                let ends = entry.endpoints.iter().filter_map(|one| {
                    let address = one.workload.addresses.first()?;
                    let target = SocketAddr::new(*address, entry.target_port(one, port)?);
                    Some((one.workload.clone(), target))
                });
                ends.collect()
            }
            (None, Some(workload)) => vec![(workload.clone(), self.address)],
            (None, None) => {
                let text = "allowed: neither end is the mesh's";
                return Ruling::new(true, Enforcer::Nobody, text);
            }
        };
        let rulings = targets.into_iter().map(|(workload, target)| {
            let ruling = at_node(self.known, None, self.source.address, &workload, target);
            (
                format!("{}/{}", workload.namespace, workload.name()),
                ruling,
            )
        });
        let together = Ruling::together(rulings.collect());
        let nobody = || {
            let text = "refused: the service has no ready endpoint";
            Ruling::new(false, Enforcer::Nobody, text)
        };
        together.unwrap_or_else(nobody).after(around)
    }

    fn unknown_port(&self, entry: &ServiceEntry) -> Ruling {
        let key = entry.service.key();
        let text = format!("refused: service {key} has no port {}", self.address.port());
        Ruling::new(false, Enforcer::Nobody, text)
    }

    fn captured(
        &self,
        client: &Arc<Workload>,
        message: Option<&Message>,
        host: &str,
        now: f64,
    ) -> Ruling {
        let fronts = self.fronts(client);
        let steps: Vec<Step> = self.waypoint_step(&fronts).into_iter().collect();
        let passing = |front| self.passing(client, front, message, host, now);
        let ruling = match fronts.as_slice() {
            [] => passing(None),
            [front] => passing(Some(front)),
            several => {
                let rulings = several
                    .iter()
                    .map(|front| (front.to_string(), passing(Some(front))));
                let together = Ruling::together(rulings.collect());
                together.unwrap_or_else(|| passing(None))
            }
        };
        ruling.after(steps)
    }

    /// Whether it is an address of a pod or a service, as the machine gives them out.
    fn is_of_cluster(&self) -> bool {
        let address = self.address.ip();
        plan::cluster_cidrs()
            .iter()
            .any(|cidr| cidr.contains(&address))
    }

    /// What becomes of it past one of the waypoints in front, or where there is none.
    fn passing(
        &self,
        client: &Arc<Workload>,
        front: Option<&Front<'a>>,
        message: Option<&Message>,
        host: &str,
        now: f64,
    ) -> Ruling {
        // Which of equal endpoints is tried first is of no interest here.
        let mut random = SmallRng::seed_from_u64(0);
        let snapshot = self.snapshot_past(front);
        let plan = Plan::new(&snapshot, client, self.address, &mut Selections::default());
        let observed = Observed::nothing(Instant::now());
        match Arc::new(plan).draw(observed, &mut random).route {
            Route::Refuse(refusal) => {
                let mut ruling = Ruling::new(false, Enforcer::Node, format!("refused: {refusal}"));
                if let Some(front) = front {
                    let binding = front.binding;
                    if let Some(why) = binding.refusal.filter(|_| front.is_first()) {
                        let why = why.sentence();
                        ruling.reasons = vec![format!("waypoint {} {why}", binding.waypoint)];
                    }
                    ruling
                        .reasons
                        .extend(policy::causes_of(self.known, binding));
                }
                ruling
            }
            Route::Unknown if self.is_of_cluster() => {
                let refusal = Refusal::Unknown(self.address.ip());
                Ruling::new(false, Enforcer::Node, format!("refused: {refusal}"))
            }
            Route::Passthrough | Route::Unknown => {
                let text = "allowed: it is not the mesh's, and passed on as it is";
                Ruling::new(true, Enforcer::Nobody, text)
            }
            Route::Endpoints(mut hops) => {
                let hops = std::iter::from_fn(|| hops.next(observed, &mut random));
                let hops: Vec<Hop> = hops.collect();
                let names: Vec<&str> = hops.iter().filter_map(hostname).collect();
                if !names.is_empty() {
                    let text = format!("allowed: passed on to {} in plaintext", names.join(", "));
                    return Ruling::new(true, Enforcer::Nobody, text);
                }
                match (front, hops.first()) {
                    (Some(front), Some(hop)) => {
                        let at = AtWaypoint {
                            dialled: self,
                            client,
                            gateway: self.known.gateway(front.waypoint),
                            proxy: hop.workload.clone(),
                            now,
                        };
                        at.ruling(message, host)
                    }
                    (_, _) => {
                        // All that there are, not those that were drawn.
                        let ends = self.ends(hops);
                        let rulings = ends.into_iter().map(|(workload, target)| {
                            let identity = Some(client.identity());
                            let address = self.source.address;
                            let ruling = at_node(self.known, identity, address, &workload, target);
                            (
                                format!("{}/{}", workload.namespace, workload.name()),
                                ruling,
                            )
                        });
                        let together = Ruling::together(rulings.collect());
                        let nobody = || Ruling::new(false, Enforcer::Node, "refused: no endpoint");
                        together.unwrap_or_else(nobody)
                    }
                }
            }
        }
    }

    fn ends(&self, hops: Vec<Hop>) -> Vec<(Arc<Workload>, SocketAddr)> {
        let port = self.address.port();
        let Some(entry) = &self.service else {
            let hops = hops.into_iter();
            return hops.map(|hop| (hop.workload, hop.target)).collect();
        };
        let all = entry.endpoints.iter().filter_map(|one| {
            let address = one.workload.addresses.first()?;
            let target = SocketAddr::new(*address, entry.target_port(one, port)?);
            Some((one.workload.clone(), target))
        });
        all.collect()
    }

    /// The object whose binding counts.
    fn bound_object(&self) -> Option<ObjectKey> {
        match (&self.service, &self.workload) {
            (Some(entry), _) => {
                let service = &entry.service;
                Some(self.known.service_object(&service.key(), &service.name))
            }
            (None, Some(workload)) => Some(self.known.workload_object(workload)),
            (None, None) => None,
        }
    }

    /// The waypoints of which the connection has to pass one; a waypoint passes none of its own.
    fn fronts(&self, client: &Workload) -> Vec<Front<'a>> {
        let (single, weighted) = match (&self.service, &self.workload) {
            (Some(entry), _) => {
                let service = &entry.service;
                (
                    service.waypoint.as_ref(),
                    service.weighted_waypoints.as_slice(),
                )
            }
            (None, Some(workload)) => (workload.waypoint.as_ref(), &[][..]),
            (None, None) => (None, &[][..]),
        };
        let mut all = weighted.iter().map(|one| &one.destination).chain(single);
        if all.any(|address| is_gateway(&self.known.snapshot, address, client)) {
            return Vec::new();
        }
        let bound = self.bound_object().filter(|_| single.is_some());
        let Some(binding) = bound.and_then(|object| self.known.binding(&object)) else {
            return Vec::new();
        };
        let canary = binding.canary.as_ref().filter(|canary| canary.has_share());
        let names = std::iter::once(&binding.waypoint).chain(canary.map(|one| &one.waypoint));
        let mut fronts: Vec<Front<'a>> = names
            .map(|waypoint| Front {
                binding,
                waypoint,
                share: None,
            })
            .collect();
        // In the order in which the mesh is told.
        for (front, share) in fronts.iter_mut().zip(weighted) {
            front.share = Some(share.clone());
        }
        fronts.retain(|front| front.share.as_ref().is_none_or(|share| share.weight > 0));
        fronts
    }

    /// As if all connections went to one of the waypoints that share them.
    fn snapshot_past(&self, front: Option<&Front<'_>>) -> Snapshot {
        let mut snapshot = self.known.snapshot.clone();
        let share = front.and_then(|front| front.share.as_ref());
        if let (Some(share), Some(entry)) = (share, &self.service) {
            snapshot.apply([Change::Service(Service {
                waypoint: Some(share.destination.clone()),
                weighted_waypoints: Vec::new(),
                ..Service::clone(&entry.service)
            })]);
        }
        snapshot
    }

    fn waypoint_step(&self, fronts: &[Front<'_>]) -> Option<Step> {
        let object = self.bound_object()?;
        if let Some(first) = fronts.first() {
            let names: Vec<String> = fronts.iter().map(ToString::to_string).collect();
            let are = if fronts.len() > 1 { "are" } else { "is" };
            let text = format!("{} {are} in front of {object}", names.join(" and "));
            let canary = first.binding.canary.as_ref();
            let mut details = policy::causes_of(self.known, first.binding);
            details.extend(canary.map(Canary::sentence));
            return Some(Step::new(Stage::Waypoint, Outcome::Pass, text).with(details));
        }
        let view = self.known.index.view();
        let reasons = match object.kind {
            Kind::Service | Kind::ServiceEntry => view.reasons(&object),
            _ => Vec::new(),
        };
        if reasons.is_empty() {
            let text = format!("no waypoint: nothing about {object} needs one");
            return Some(Step::new(Stage::Waypoint, Outcome::Neutral, text));
        }
        let said = |label: &str| {
            let namespace = view.namespace(&object.namespace)?;
            namespace.metadata.labels.get(label).cloned()
        };
        let why = if said(labels::WAYPOINT).as_deref() == Some("off") {
            format!(
                "namespace {} says {}: off",
                object.namespace,
                labels::WAYPOINT
            )
        } else if said(labels::DATAPLANE_MODE).as_deref() != Some("ambient") {
            format!("namespace {} is not in the mesh", object.namespace)
        } else {
            format!("{} says none, or the client is it", labels::USE_WAYPOINT)
        };
        let text = format!("no waypoint, although something needs one: {why}");
        let reasons = reasons.iter().map(|reason| reason.to_string());
        Some(Step::new(Stage::Waypoint, Outcome::Neutral, text).with(reasons))
    }
}

/// The name of an endpoint that has nothing else.
fn hostname(hop: &Hop) -> Option<&str> {
    match &hop.transport {
        Transport::Resolve { hostname, .. } => Some(hostname),
        Transport::Tcp | Transport::Hbone { .. } | Transport::DoubleHbone(_) => None,
    }
}
