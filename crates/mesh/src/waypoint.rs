//! What a waypoint decides of a request or a connection, in the order in which it does: the tokens
//! and policies of what was dialled, routes, the rule's own answer, a backend, then the tokens and
//! policies of the endpoint where those may be others.
//!
//! The proxy and whoever explains its verdicts both go by this.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::address::NamespacedHostname;
use crate::authorization::{PolicySet, Verdict, uniform_endpoint};
use crate::policy_target::Gateway;
use crate::request::Request;
use crate::request_authentication::AuthenticationSet;
use crate::route::select::{RouteTable, Selected, Selection, TcpSelected};
use crate::route::{Filter, RequestRedirect};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// One port of a service, or of a workload that was dialled itself, to clients of one namespace.
#[derive(Debug)]
pub struct Destination {
    pub service: Option<Arc<Service>>,
    pub workload: Option<Arc<Workload>>,
    pub port: u16,
    pub routes: RouteTable,
    /// Asked before routing.
    pub policies: Arc<Policies>,
    /// What policies take for the destination: any endpoint where all are alike.
    pub policy_address: Option<SocketAddr>,
    /// Whether they are the endpoints' too, whichever is chosen.
    pub is_uniform: bool,
}

/// What is required of what goes to one end, or to all that are alike.
#[derive(Debug, Default)]
pub struct Policies {
    pub authentication: AuthenticationSet,
    pub authorization: PolicySet,
}

/// What comes once the policies of what was dialled have been asked. Who may not come in is not
/// told what there is.
#[derive(Clone, Debug)]
pub enum Course<'a> {
    /// It is denied, or no endpoint that it may go to could be known without telling.
    Denied,
    /// Routes are attached, and no rule is about the request.
    NoRoute,
    /// The rule answers itself.
    Answer(Selected<'a>, RuleAnswer<'a>),
    /// To a backend of the rule.
    Rule(Selected<'a>),
    /// To a backend of the connection's rule.
    Connection(&'a TcpSelected),
    /// To what was dialled.
    Direct,
}

/// What a rule answers in place of a backend.
#[derive(Clone, Debug)]
pub enum RuleAnswer<'a> {
    /// With these headers.
    Preflight(HeaderMap),
    Redirect(&'a RequestRedirect),
}

// === impl Policies ===

impl Policies {
    /// Of what goes to a port of `workload`, addressed to `service` or to the workload itself.
    pub fn for_endpoint(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        at: (&Workload, u16),
    ) -> Self {
        Self {
            authentication: AuthenticationSet::for_endpoint(snapshot, gateway, service, at),
            authorization: PolicySet::for_endpoint(snapshot, gateway, service, at),
        }
    }

    /// Of what goes to `service`, whichever endpoint gets it.
    fn for_service(snapshot: &Snapshot, gateway: &Gateway, service: &NamespacedHostname) -> Self {
        Self {
            authentication: AuthenticationSet::for_service(snapshot, gateway, service),
            authorization: PolicySet::for_service(snapshot, gateway, service),
        }
    }
}

// === impl Destination ===

impl Destination {
    /// None where the service is not there.
    pub fn of_service(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: &NamespacedHostname,
        port: u16,
        client_namespace: &str,
    ) -> Option<Self> {
        let entry = snapshot.service(service)?;
        let uniform = uniform_endpoint(snapshot, gateway, entry, port).and_then(|endpoint| {
            let target = entry.target_port(endpoint, port)?;
            Some((&*endpoint.workload, target))
        });
        let policies = match uniform {
            Some(at) => Policies::for_endpoint(snapshot, gateway, Some(service), at),
            None => Policies::for_service(snapshot, gateway, service),
        };
        Some(Self {
            service: Some(entry.service.clone()),
            workload: None,
            port,
            routes: RouteTable::new(snapshot, service, port, client_namespace),
            policies: Arc::new(policies),
            policy_address: uniform.and_then(|(workload, target)| {
                let address = workload.addresses.first()?;
                Some(SocketAddr::new(*address, target))
            }),
            is_uniform: uniform.is_some(),
        })
    }

    /// A workload dialled by its own address.
    pub fn of_workload(
        snapshot: &Snapshot,
        gateway: &Gateway,
        workload: &Arc<Workload>,
        port: u16,
    ) -> Self {
        let policies = Policies::for_endpoint(snapshot, gateway, None, (workload, port));
        Self {
            service: None,
            workload: Some(workload.clone()),
            port,
            routes: RouteTable::Unrouted,
            policies: Arc::new(policies),
            policy_address: None,
            is_uniform: true,
        }
    }

    /// What comes next, by the verdict of [`Self::policies`] on the request, whose tokens were
    /// good, or on what is no HTTP request.
    pub fn course(&self, verdict: &Verdict, request: Option<&Request<'_>>) -> Course<'_> {
        let is_denied = !verdict.is_allowed();
        if is_denied && (self.is_uniform || is_denied_anyway(verdict)) {
            return Course::Denied;
        }
        let table = match (&self.routes, request) {
            (RouteTable::Http(table), Some(request)) => Some((table, request)),
            (RouteTable::Tcp(selected), _) => return Course::Connection(selected),
            // Not HTTP after all: it goes where it was sent.
            (RouteTable::Http(_), None) | (RouteTable::Unrouted, _) => None,
        };
        let Some((table, request)) = table else {
            return Course::Direct;
        };
        let course = match table.select(request) {
            Selection::NoMatch => Course::NoRoute,
            Selection::Rule(selected) => match answer(&selected.rule.filters, request) {
                Some(answer) => Course::Answer(selected, answer),
                None => return Course::Rule(selected),
            },
        };
        match is_denied {
            true => Course::Denied,
            false => course,
        }
    }

    /// Whether the verdict of [`Self::policies`] is the one of an endpoint of `backend`, too; none
    /// is the workload that was dialled. Otherwise the endpoint's own are asked, tokens first.
    pub fn is_decided_for(&self, backend: Option<&NamespacedHostname>) -> bool {
        let dialled = self.service.as_ref().map(|service| service.key());
        self.is_uniform && dialled.as_ref() == backend
    }
}

/// What no endpoint's ALLOW policy could change.
pub fn is_denied_anyway(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::DeniedBy(_) | Verdict::PolicyUnknown(_) => true,
        Verdict::NoAllowMatched
        | Verdict::AllowedByDefault
        | Verdict::AllowedBy(_)
        | Verdict::AdmittedWaypoint(_) => false,
    }
}

/// What filters, of a rule or of the backend that was chosen, answer in place of a backend. A
/// preflight is answered before anybody is sent elsewhere.
pub fn answer<'a>(filters: &'a [Filter], request: &Request<'_>) -> Option<RuleAnswer<'a>> {
    let mut redirect = None;
    for filter in filters {
        match filter {
            Filter::Cors(cors) => {
                if let Some(headers) = cors.preflight(request) {
                    return Some(RuleAnswer::Preflight(headers));
                }
            }
            Filter::RequestRedirect(one) => redirect = redirect.or(Some(one)),
            Filter::RequestHeaderModifier(_)
            | Filter::ResponseHeaderModifier(_)
            | Filter::UrlRewrite(_)
            | Filter::RequestMirror(_) => {}
        }
    }
    redirect.map(RuleAnswer::Redirect)
}

#[cfg(test)]
mod tests;
