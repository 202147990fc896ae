//! A connection or a request at a waypoint: tokens, policies, routes, backends, and the way on to
//! the pod; in the order in which the waypoint decides.

mod backends;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use istio_compat::waypoint::WaypointName;
use istio_compat::waypoint::binding::Binding;
use mesh::address::NamespacedHostname;
use mesh::authorization::{Connection, Explanation};
use mesh::local_reply::Reason;
use mesh::policy_target::Gateway;
use mesh::request::{Claims, Request};
use mesh::route::select::{RouteTable, Selected};
use mesh::route::{Backend, RouteKey};
use mesh::service::{AppProtocol, WeightedWaypoint};
use mesh::waypoint::{self, Course, Policies, RuleAnswer};
use mesh::workload::Workload;

use self::backends::backend_name;
use super::answer::{Enforcer, Outcome, RouteSeen, Ruling, Stage, Step};
use super::decision::Dialled;
use super::message::{Canonical, Message};
use super::{policy, token};

/// What is in front.
pub(super) struct Front<'a> {
    pub(super) binding: &'a Binding,
    /// The binding's, or its canary's.
    pub(super) waypoint: &'a WaypointName,
    /// Of the connections, where several have one.
    pub(super) share: Option<WeightedWaypoint>,
}

/// A connection that has arrived at a waypoint.
pub(super) struct AtWaypoint<'a> {
    pub(super) dialled: &'a Dialled<'a>,
    pub(super) client: &'a Arc<Workload>,
    pub(super) gateway: Gateway,
    /// One of its pods.
    pub(super) proxy: Arc<Workload>,
    pub(super) now: f64,
}

// === impl Front ===

impl Front<'_> {
    pub(super) fn is_first(&self) -> bool {
        *self.waypoint == self.binding.waypoint
    }
}

impl fmt::Display for Front<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let canary = if self.is_first() { "" } else { "canary " };
        write!(f, "{canary}waypoint {}", self.waypoint)?;
        match &self.share {
            Some(share) => write!(f, " ({} % of connections)", share.weight),
            None => Ok(()),
        }
    }
}

// === impl AtWaypoint ===

impl AtWaypoint<'_> {
    pub(super) fn ruling(&self, message: Option<&Message>, host: &str) -> Ruling {
        let port = self.dialled.address.port();
        if let Some(entry) = &self.dialled.service
            && entry.service.port(port).is_none()
        {
            let key = entry.service.key();
            let text = format!("refused: service {key} has no port {port}");
            return Ruling::new(false, Enforcer::Waypoint, text);
        }
        let destination = self.destination();
        let protocol = self.dialled.service.as_ref().and_then(|entry| {
            let port = entry.service.port(port)?;
            Some(port.app_protocol)
        });
        let is_tcp = match (&destination.routes, protocol.unwrap_or_default()) {
            (RouteTable::Tcp(_), _) => Some("a TCPRoute takes its connections"),
            (_, AppProtocol::Tcp) => Some("its port is TCP"),
            (_, AppProtocol::Tls) => Some("its port is TLS, which is passed on as it is"),
            (_, AppProtocol::Unknown | AppProtocol::Http11) => None,
            (_, AppProtocol::Http2 | AppProtocol::Grpc) => None,
        };
        match (is_tcp, message) {
            (Some(why), message) => {
                let ignored = message.map(|message| {
                    let text = format!("{} is not looked at: {why}", message.line());
                    Step::new(Stage::Request, Outcome::Neutral, text)
                });
                self.connection(&destination)
                    .after(ignored.into_iter().collect())
            }
            (None, Some(message)) => match message.canonical(host) {
                Ok(canonical) => self.request(&destination, &canonical),
                Err(malformed) => {
                    let text = format!("refused as malformed: {}", malformed.why);
                    Ruling::new(false, Enforcer::Waypoint, text).status(malformed.status.as_u16())
                }
            },
            (None, None) => self.awaiting_request(&destination),
        }
    }

    fn key(&self) -> Option<NamespacedHostname> {
        let entry = self.dialled.service.as_ref()?;
        Some(entry.service.key())
    }

    fn destination(&self) -> waypoint::Destination {
        let (snapshot, gateway) = (&self.dialled.known.snapshot, &self.gateway);
        let (port, clients) = (self.dialled.address.port(), &self.client.namespace);
        let of_service = self.key().and_then(|service| {
            waypoint::Destination::of_service(snapshot, gateway, &service, port, clients)
        });
        of_service.unwrap_or_else(|| {
            let workload = self.dialled.workload.as_ref().unwrap_or(self.client);
            waypoint::Destination::of_workload(snapshot, gateway, workload, port)
        })
    }

    fn policies_of(&self, workload: &Workload, port: u16) -> Policies {
        let (snapshot, gateway) = (&self.dialled.known.snapshot, &self.gateway);
        Policies::for_endpoint(snapshot, gateway, self.key().as_ref(), (workload, port))
    }

    fn facts(&self, application: Option<SocketAddr>) -> Connection {
        let dialled = self.dialled.address;
        Connection {
            source_identity: Some(self.client.identity()),
            source_ip: self.dialled.source.address,
            destination: application.unwrap_or(dialled),
            dialled: self.dialled.service.as_ref().map(|_| dialled),
            sni: None,
        }
    }

    fn told(&self, explanation: &Explanation) -> Ruling {
        let workload = self.dialled.workload.as_deref();
        let end = workload.map(|workload| (workload, self.dialled.address.port()));
        policy::ruling(self.dialled.known, explanation, end, Enforcer::Waypoint)
    }

    /// Nothing was sent yet.
    fn awaiting_request(&self, destination: &waypoint::Destination) -> Ruling {
        let explanation = destination
            .policies
            .authorization
            .explain(&self.facts(destination.policy_address), None);
        let told = self.told(&explanation);
        if destination.is_uniform && policy::refuses_every_request(&explanation) {
            let reply = Reason::AuthorizationDenied(None).reply();
            return told.status(reply.status.as_u16());
        }
        let text = "the connection is accepted; each request is judged by itself: name a METHOD \
                    and a PATH";
        let mut ruling = Ruling::new(true, Enforcer::Waypoint, text);
        ruling.needs_request = true;
        // What it would match is not known yet.
        let neutral = told.steps.into_iter().map(|step| {
            let name = step.text.trim_end_matches(" does not match");
            let text = format!("{} applies", name.trim_end_matches(" matches"));
            Step::new(step.stage, Outcome::Neutral, text).at(step.place)
        });
        ruling.steps = neutral.collect();
        ruling
    }

    /// Not HTTP.
    fn connection(&self, destination: &waypoint::Destination) -> Ruling {
        let facts = self.facts(destination.policy_address);
        let explanation = destination.policies.authorization.explain(&facts, None);
        let told = self.told(&explanation);
        let (backends, route) = match destination.course(&explanation.verdict, None) {
            Course::Denied => return told,
            Course::Connection(selected) => {
                let backends = &*selected.rule.backends;
                let seen = self.seen(&selected.route.key, selected.index, backends);
                (Some(backends), seen)
            }
            // What is only for requests never comes of a connection.
            Course::Direct | Course::NoRoute | Course::Answer(..) | Course::Rule(_) => {
                (None, unrouted())
            }
        };
        let steps = vec![route_step(&route)];
        let end = self.backends(destination, (backends, None), &told, |policies, target| {
            let explanation = policies
                .authorization
                .explain(&self.facts(Some(target)), None);
            self.told(&explanation)
        });
        finish(told, steps, end, route)
    }

    fn request(&self, destination: &waypoint::Destination, canonical: &Canonical) -> Ruling {
        let steps = vec![canonical.step.clone()];
        let policies = &destination.policies;
        let (claims, token_steps) = match self.authenticated(policies, canonical) {
            Ok(accepted) => accepted,
            Err(ruling) => return ruling.after(steps),
        };
        let steps = [steps, token_steps].concat();
        let request = canonical.request(self.dialled.source.address, claims.as_ref());
        let (explanation, told) = self.judged(policies, destination.policy_address, &request);
        let (backends, route) = match destination.course(&explanation.verdict, Some(&request)) {
            Course::Denied => return told.after(steps),
            Course::NoRoute => return self.unmatched(told).after(steps),
            Course::Answer(selected, answer) => {
                return self.answered(told, &selected, &answer).after(steps);
            }
            Course::Rule(selected) => {
                let backends = &*selected.rule.backends;
                let seen = self.seen(&selected.route.key, selected.index, backends);
                (Some(backends), seen)
            }
            Course::Connection(selected) => {
                let backends = &*selected.rule.backends;
                let seen = self.seen(&selected.route.key, selected.index, backends);
                (Some(backends), seen)
            }
            Course::Direct => (None, unrouted()),
        };
        let route_steps = vec![route_step(&route)];
        let end = self.backends(
            destination,
            (backends, Some(&request)),
            &told,
            |policies, target| {
                let (claims, steps) = match self.authenticated(policies, canonical) {
                    Ok(accepted) => accepted,
                    Err(ruling) => return *ruling,
                };
                let request = canonical.request(self.dialled.source.address, claims.as_ref());
                let (_, told) = self.judged(policies, Some(target), &request);
                told.after(steps)
            },
        );
        finish(told, route_steps, end, route).after(steps)
    }

    /// The rule answers without a backend.
    fn answered(&self, told: Ruling, selected: &Selected<'_>, answer: &RuleAnswer<'_>) -> Ruling {
        let route = self.seen(&selected.route.key, selected.index, &selected.rule.backends);
        let mut ruling = answered(told, answer);
        ruling.steps.push(route_step(&route));
        ruling.route = Some(route);
        ruling
    }

    fn authenticated(
        &self,
        policies: &Policies,
        canonical: &Canonical,
    ) -> Result<(Option<Claims>, Vec<Step>), Box<Ruling>> {
        let known = self.dialled.known;
        token::authenticate(known, &policies.authentication, canonical, self.now)
    }

    fn judged(
        &self,
        policies: &Policies,
        application: Option<SocketAddr>,
        request: &Request<'_>,
    ) -> (Explanation, Ruling) {
        let facts = self.facts(application);
        let explanation = policies.authorization.explain(&facts, Some(request));
        let mut told = self.told(&explanation);
        if !told.allowed {
            let reply = Reason::AuthorizationDenied(None).reply();
            told.status = Some(reply.status.as_u16());
        }
        (explanation, told)
    }

    fn unmatched(&self, told: Ruling) -> Ruling {
        let status = Reason::NoRoute.reply().status.as_u16();
        let routes = self.attached();
        let text = "refused: routes are attached, and none of their rules matches the request";
        let step = Step::new(Stage::Route, Outcome::Refuse, "no rule matches").with(routes.clone());
        let mut ruling = Ruling::new(false, Enforcer::Waypoint, text)
            .status(status)
            .because(routes);
        ruling.steps = told.steps;
        ruling.steps.push(step);
        ruling
    }

    fn attached(&self) -> Vec<String> {
        let service = self.key();
        let routes = service
            .iter()
            .flat_map(|service| self.dialled.known.snapshot.routes_of(service));
        routes
            .map(|route| {
                let object = route_object(&route.key);
                match self.dialled.known.place(&object) {
                    Some(place) => format!("{object}, {place}"),
                    None => object.to_string(),
                }
            })
            .collect()
    }

    fn seen(&self, key: &RouteKey, rule: usize, backends: &[Backend]) -> RouteSeen {
        let object = route_object(key);
        let total: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
        RouteSeen {
            place: self.dialled.known.rule_place(&object, rule),
            route: Some(object.to_string()),
            rule: Some(rule + 1),
            backends: backends
                .iter()
                .map(|one| {
                    let name = backend_name(&one.backend);
                    match backends.len() {
                        1 => name,
                        _ => format!("{name} {} of {total}", one.weight),
                    }
                })
                .collect(),
        }
    }
}

/// What was decided before routing, then the route, then what became of it at its end.
fn finish(told: Ruling, route_steps: Vec<Step>, end: Ruling, route: RouteSeen) -> Ruling {
    // Who may not come in is not told what there is.
    let decided = match end.status {
        Some(500..) if !told.allowed => told.clone(),
        _ => end.clone(),
    };
    Ruling {
        steps: [told.steps, route_steps, end.steps].concat(),
        route: Some(route),
        ..decided
    }
}

/// In place of a backend.
fn answered(told: Ruling, answer: &RuleAnswer<'_>) -> Ruling {
    let (status, text) = match answer {
        RuleAnswer::Preflight(_) => {
            let status = mesh::route::Cors::PREFLIGHT_STATUS.as_u16();
            (status, "answered as a CORS preflight".to_owned())
        }
        RuleAnswer::Redirect(redirect) => {
            let status = redirect.status.as_u16();
            (status, format!("redirected with {status}"))
        }
    };
    let verdict = format!("{}; {text}", told.verdict);
    Ruling { verdict, ..told }.status(status)
}

fn unrouted() -> RouteSeen {
    RouteSeen {
        route: None,
        rule: None,
        backends: Vec::new(),
        place: None,
    }
}

fn route_step(seen: &RouteSeen) -> Step {
    match (&seen.route, seen.rule) {
        (Some(route), Some(rule)) => {
            let backends = match seen.backends.is_empty() {
                true => "no backend".to_owned(),
                false => seen.backends.join(", "),
            };
            let text = format!("{route} rule {rule} sends it to {backends}");
            Step::new(Stage::Route, Outcome::Pass, text).at(seen.place.clone())
        }
        (_, _) => Step::new(
            Stage::Route,
            Outcome::Neutral,
            "no route: it goes where it was sent",
        ),
    }
}

fn route_object(key: &RouteKey) -> ObjectKey {
    let kind = Kind::named(key.kind.name()).unwrap_or(Kind::HttpRoute);
    ObjectKey::new(kind, key.namespace.clone(), key.name.clone())
}
