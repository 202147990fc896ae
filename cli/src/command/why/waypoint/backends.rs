//! Where a request goes from a waypoint: the backends of its rule, the ends of each, and what their
//! nodes say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh::address::NamespacedHostname;
use mesh::local_reply::Reason;
use mesh::request::Request;
use mesh::route::{Backend, BackendRef};
use mesh::waypoint::{self, Destination, Policies};
use mesh::workload::Workload;

use super::{AtWaypoint, answered};
use crate::command::why::answer::{Enforcer, Outcome, Ruling, Stage, Step};
use crate::command::why::decision::at_node;

/// One end that a request may go to.
struct End {
    workload: Arc<Workload>,
    target: SocketAddr,
}

impl AtWaypoint<'_> {
    /// What becomes of it at each backend and end that it may be sent to.
    pub(super) fn backends(
        &self,
        destination: &Destination,
        (backends, request): (Option<&[Backend]>, Option<&Request<'_>>),
        told: &Ruling,
        judge: impl Fn(&Policies, SocketAddr) -> Ruling,
    ) -> Ruling {
        let Some(backends) = backends else {
            let service = self.key();
            let ends = match &self.dialled.workload {
                Some(workload) => vec![End {
                    workload: workload.clone(),
                    target: self.dialled.address,
                }],
                None => self.ends(service.as_ref(), self.dialled.address.port()),
            };
            let decided = destination.is_decided_for(service.as_ref());
            return self.at_ends(&ends, decided, told, &judge);
        };
        let weighted: Vec<&Backend> = backends.iter().filter(|one| one.weight > 0).collect();
        if weighted.is_empty() {
            return no_backend("no backend has a weight");
        }
        let rulings = weighted.into_iter().map(|backend| {
            let answer = request.and_then(|request| waypoint::answer(&backend.filters, request));
            let ruling = match &backend.backend {
                BackendRef::Service { .. } if answer.is_some() => {
                    let told = told.clone();
                    match answer.filter(|_| told.allowed) {
                        Some(answer) => answered(told, &answer),
                        None => told,
                    }
                }
                BackendRef::Invalid(why) => no_backend(why),
                BackendRef::Service {
                    service,
                    subset: Some(subset),
                    ..
                } => no_backend(&format!("{service} has no subset {subset}")),
                BackendRef::Service { service, port, .. } => {
                    if self.dialled.known.snapshot.service(service).is_none() {
                        no_backend(&format!("{service} is not there"))
                    } else {
                        let ends = self.ends(Some(service), *port);
                        let decided = destination.is_decided_for(Some(service));
                        self.at_ends(&ends, decided, told, &judge)
                    }
                }
            };
            (backend_name(&backend.backend), ruling)
        });
        let together = Ruling::together(rulings.collect());
        together.unwrap_or_else(|| no_backend("the rule has none"))
    }

    fn ends(&self, service: Option<&NamespacedHostname>, port: u16) -> Vec<End> {
        let entry = service.and_then(|key| self.dialled.known.snapshot.service(key));
        let Some(entry) = entry else {
            return Vec::new();
        };
        let ends = entry.endpoints.iter().filter_map(|endpoint| {
            let workload = &endpoint.workload;
            let named = || workload.hostname.as_ref().map(|_| &UNRESOLVED);
            let address = workload.addresses.first().or_else(named)?;
            let port = entry.target_port(endpoint, port)?;
            Some(End {
                workload: workload.clone(),
                target: SocketAddr::new(*address, port),
            })
        });
        ends.collect()
    }

    fn at_ends(
        &self,
        ends: &[End],
        is_decided: bool,
        told: &Ruling,
        judge: &impl Fn(&Policies, SocketAddr) -> Ruling,
    ) -> Ruling {
        let rulings = ends.iter().map(|end| {
            let name = format!("{}/{}", end.workload.namespace, end.workload.name());
            let decided = match is_decided {
                true => Ruling {
                    steps: Vec::new(),
                    ..told.clone()
                },
                false => {
                    let policies = self.policies_of(&end.workload, end.target.port());
                    judge(&policies, end.target)
                }
            };
            if !decided.allowed {
                return (name, decided);
            }
            if end.target.ip() == UNRESOLVED {
                return (name, to_name(decided, &end.workload));
            }
            let known = self.dialled.known;
            let identity = Some(self.proxy.identity());
            let address = self.proxy.addresses.first().copied();
            let address = address.unwrap_or(self.dialled.source.address);
            let node = at_node(known, identity, address, &end.workload, end.target);
            let ruling = match node.allowed {
                true => Ruling {
                    steps: [decided.steps, node.steps].concat(),
                    ..decided
                },
                false => {
                    let status = Reason::ConnectFailure("".into()).reply().status.as_u16();
                    node.after(decided.steps).status(status)
                }
            };
            (name, ruling)
        });
        Ruling::together(rulings.collect()).unwrap_or_else(|| {
            let status = Reason::NoHealthyUpstream.reply().status.as_u16();
            let text = "refused: no endpoint of the backend is ready";
            Ruling::new(false, Enforcer::Waypoint, text).status(status)
        })
    }
}

/// Of an endpoint outside the mesh that has only a name.
const UNRESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who asks DNS decides where it goes; what is the mesh's gets no plaintext.
fn to_name(decided: Ruling, workload: &Workload) -> Ruling {
    let hostname = workload.hostname.as_deref().unwrap_or_default();
    let text = format!("passed on in plaintext to whatever addresses {hostname} has");
    let step = Step::new(Stage::Backend, Outcome::Neutral, text);
    Ruling {
        steps: [decided.steps, vec![step]].concat(),
        ..decided
    }
}

fn no_backend(why: &str) -> Ruling {
    let reply = Reason::NoBackend(why.into()).reply();
    let text = format!("refused: its rule has no backend: {why}");
    let step = Step::new(Stage::Backend, Outcome::Refuse, why);
    Ruling::new(false, Enforcer::Waypoint, text)
        .status(reply.status.as_u16())
        .after(vec![step])
}

pub(super) fn backend_name(backend: &BackendRef) -> String {
    match backend {
        BackendRef::Service { service, port, .. } => format!("{}:{port}", service.hostname),
        BackendRef::Invalid(why) => format!("invalid ({why})"),
    }
}
