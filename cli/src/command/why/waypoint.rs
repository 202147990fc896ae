//! A connection or a request at a waypoint: tokens, policies, routes, backends, and the way on to
//! the pod; in the order in which the waypoint decides.

mod backends;

use std::net::SocketAddr;
use std::sync::Arc;

use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use istio_compat::waypoint::binding::Binding;
use mesh::address::NamespacedHostname;
use mesh::authorization::{Connection, Explanation, PolicySet, Verdict, uniform_endpoint};
use mesh::local_reply::Reason;
use mesh::policy_target::Gateway;
use mesh::request::{Claims, Request};
use mesh::request_authentication::AuthenticationSet;
use mesh::route::select::{RouteTable, Selection};
use mesh::route::{Backend, Filter, RouteKey};
use mesh::service::AppProtocol;
use mesh::workload::Workload;

use self::backends::backend_name;
use super::answer::{Enforcer, Outcome, RouteSeen, Ruling, Stage, Step};
use super::decision::Dialled;
use super::message::{Canonical, Message};
use super::{policy, token};

/// What is in front.
pub(super) struct Front<'a> {
    pub(super) binding: &'a Binding,
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

/// What is required of what goes to one end, or to all that are alike.
struct Policies {
    tokens: AuthenticationSet,
    authorization: PolicySet,
}

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
        let table = self.routes();
        let protocol = self.dialled.service.as_ref().and_then(|entry| {
            let port = entry.service.port(port)?;
            Some(port.app_protocol)
        });
        let is_tcp = match (&table, protocol.unwrap_or_default()) {
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
                self.connection(&table).after(ignored.into_iter().collect())
            }
            (None, Some(message)) => match message.canonical(host) {
                Ok(canonical) => self.request(&table, &canonical),
                Err(malformed) => {
                    let text = format!("refused as malformed: {}", malformed.why);
                    Ruling::new(false, Enforcer::Waypoint, text).status(malformed.status.as_u16())
                }
            },
            (None, None) => self.awaiting_request(),
        }
    }

    fn key(&self) -> Option<NamespacedHostname> {
        let entry = self.dialled.service.as_ref()?;
        Some(entry.service.key())
    }

    fn routes(&self) -> RouteTable {
        let port = self.dialled.address.port();
        let clients = &self.client.namespace;
        self.key().map_or(RouteTable::Unrouted, |service| {
            RouteTable::new(&self.dialled.known.snapshot, &service, port, clients)
        })
    }

    /// Policies before anything is routed, the address that stands for the destination, and
    /// whether they are every end's.
    fn before(&self) -> (Policies, Option<SocketAddr>, bool) {
        let snapshot = &self.dialled.known.snapshot;
        if let Some(workload) = &self.dialled.workload {
            return (self.policies_of(workload), None, true);
        }
        let (Some(entry), Some(key)) = (&self.dialled.service, self.key()) else {
            let nothing = Policies {
                tokens: AuthenticationSet::default(),
                authorization: PolicySet::default(),
            };
            return (nothing, None, true);
        };
        let port = self.dialled.address.port();
        match uniform_endpoint(snapshot, &self.gateway, entry, port) {
            Some(endpoint) => {
                let workload = &endpoint.workload;
                let address = workload.addresses.first();
                let target = entry.target_port(endpoint, port);
                let address = address.zip(target);
                let address = address.map(|(ip, port)| SocketAddr::new(*ip, port));
                (self.policies_of(workload), address, true)
            }
            None => {
                let policies = Policies {
                    tokens: AuthenticationSet::for_service(snapshot, &self.gateway, &key),
                    authorization: PolicySet::for_service(snapshot, &self.gateway, &key),
                };
                (policies, None, false)
            }
        }
    }

    fn policies_of(&self, workload: &Workload) -> Policies {
        let snapshot = &self.dialled.known.snapshot;
        let (gateway, key) = (&self.gateway, self.key());
        Policies {
            tokens: AuthenticationSet::for_endpoint(snapshot, gateway, key.as_ref(), workload),
            authorization: PolicySet::for_endpoint(snapshot, gateway, key.as_ref(), workload),
        }
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
        policy::ruling(
            self.dialled.known,
            explanation,
            workload,
            Enforcer::Waypoint,
        )
    }

    /// Nothing was sent yet.
    fn awaiting_request(&self) -> Ruling {
        let (policies, application, is_uniform) = self.before();
        let explanation = policies
            .authorization
            .explain(&self.facts(application), None);
        let told = self.told(&explanation);
        if is_uniform && policy::refuses_every_request(&explanation) {
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
    fn connection(&self, table: &RouteTable) -> Ruling {
        let (policies, application, is_uniform) = self.before();
        let explanation = policies
            .authorization
            .explain(&self.facts(application), None);
        let told = self.told(&explanation);
        if !told.allowed && (is_uniform || is_denied_anyway(&explanation.verdict)) {
            return told;
        }
        let (backends, route) = match table {
            RouteTable::Tcp(selected) => {
                let backends = &selected.rule.backends;
                (Some(backends), self.seen(&selected.route.key, 0, backends))
            }
            RouteTable::Http(_) | RouteTable::Unrouted => (None, unrouted()),
        };
        let steps = vec![route_step(&route)];
        let end = self.backends(backends.map(Vec::as_slice), is_uniform, &told, |at| {
            let explanation = at.0.authorization.explain(&self.facts(Some(at.1)), None);
            self.told(&explanation)
        });
        finish(told, steps, end, route)
    }

    fn request(&self, table: &RouteTable, canonical: &Canonical) -> Ruling {
        let steps = vec![canonical.step.clone()];
        let (policies, application, is_uniform) = self.before();
        let (claims, token_steps) = match self.authenticated(&policies, canonical) {
            Ok(accepted) => accepted,
            Err(ruling) => return ruling.after(steps),
        };
        let steps = [steps, token_steps].concat();
        let request = canonical.request(self.dialled.source.address, claims.as_ref());
        let told = self.judged(&policies, application, &request);
        let explained = policies
            .authorization
            .authorize(&self.facts(application), Some(&request));
        if !told.allowed && (is_uniform || is_denied_anyway(&explained)) {
            return told.after(steps);
        }
        let selected = match table {
            RouteTable::Http(table) => match table.select(&request) {
                Selection::Rule(selected) => Some(selected),
                Selection::NoMatch => return self.unmatched(told).after(steps),
            },
            RouteTable::Tcp(_) | RouteTable::Unrouted => None,
        };
        let (backends, route) = match &selected {
            Some(selected) => {
                let backends = &selected.rule.backends;
                let seen = self.seen(&selected.route.key, selected.index, backends);
                (Some(backends), seen)
            }
            None => (None, unrouted()),
        };
        let mut route_steps = vec![route_step(&route)];
        if let Some(answered) = selected.and_then(|one| answered(&one.rule.filters, &request)) {
            let mut ruling = told;
            if ruling.allowed {
                ruling.verdict = format!("{}; {}", ruling.verdict, answered.1);
                ruling.status = Some(answered.0);
            }
            ruling.route = Some(route);
            ruling.steps.append(&mut route_steps);
            return ruling.after(steps);
        }
        let end = self.backends(backends.map(Vec::as_slice), is_uniform, &told, |at| {
            let (claims, steps) = match self.authenticated(at.0, canonical) {
                Ok(accepted) => accepted,
                Err(ruling) => return *ruling,
            };
            let request = canonical.request(self.dialled.source.address, claims.as_ref());
            self.judged(at.0, Some(at.1), &request).after(steps)
        });
        finish(told, route_steps, end, route).after(steps)
    }

    fn authenticated(
        &self,
        policies: &Policies,
        canonical: &Canonical,
    ) -> Result<(Option<Claims>, Vec<Step>), Box<Ruling>> {
        token::authenticate(self.dialled.known, &policies.tokens, canonical, self.now)
    }

    fn judged(
        &self,
        policies: &Policies,
        application: Option<SocketAddr>,
        request: &Request<'_>,
    ) -> Ruling {
        let facts = self.facts(application);
        let explanation = policies.authorization.explain(&facts, Some(request));
        let mut told = self.told(&explanation);
        if !told.allowed {
            let reply = Reason::AuthorizationDenied(None).reply();
            told.status = Some(reply.status.as_u16());
        }
        told
    }

    /// Who may not come in is not told what there is.
    fn unmatched(&self, told: Ruling) -> Ruling {
        if !told.allowed {
            return told;
        }
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
            place: self.dialled.known.place(&object),
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

/// What no endpoint's ALLOW policy could change.
fn is_denied_anyway(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::DeniedBy(_) | Verdict::PolicyUnknown(_) => true,
        Verdict::NoAllowMatched
        | Verdict::AllowedByDefault
        | Verdict::AllowedBy(_)
        | Verdict::AdmittedWaypoint(_) => false,
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

/// What the rule answers without a backend.
fn answered(filters: &[Filter], request: &Request<'_>) -> Option<(u16, String)> {
    filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => cors.preflight(request).map(|_| {
            let status = mesh::route::Cors::PREFLIGHT_STATUS.as_u16();
            (status, "answered as a CORS preflight".to_owned())
        }),
        Filter::RequestRedirect(redirect) => {
            let status = redirect.status.as_u16();
            Some((status, format!("redirected with {status}")))
        }
        Filter::RequestHeaderModifier(_)
        | Filter::ResponseHeaderModifier(_)
        | Filter::UrlRewrite(_)
        | Filter::RequestMirror(_) => None,
    })
}

fn route_object(key: &RouteKey) -> ObjectKey {
    let kind = Kind::named(key.kind.name()).unwrap_or(Kind::HttpRoute);
    ObjectKey::new(kind, key.namespace.clone(), key.name.clone())
}
