//! Connections that are not HTTP: policy on what is known of them, a backend by weight, and what
//! is counted of them.

mod meter;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::StatusCode;
use mesh::authorization::Connection;
use mesh::destination::Hop;
use mesh::local_reply::Reason;
use mesh::local_reply::response_flag::{ResponseFlag, ResponseFlags};
use mesh::route::{BackendRef, backend};
use mesh::waypoint::{Course, Destination, is_denied_anyway};

use self::meter::{Meter, line};
use super::Worker;
use super::authorization::authorize;
use super::cluster::{Cluster, hop};
use crate::message::{ConnectionRoute, Downstream};
use crate::telemetry::Peers;

/// Endpoints tried for one connection before it is given up.
const CANDIDATES: usize = 5;

// === impl Worker ===

impl<U: 'static> Worker<U> {
    pub(super) async fn route_connection(
        self: &Rc<Self>,
        downstream: &Rc<Downstream>,
    ) -> Result<ConnectionRoute, String> {
        let mut meter = self.meter(downstream);
        match self.choose_hops(downstream, &mut meter).await {
            Ok(hops) => Ok(ConnectionRoute {
                hops,
                meter: Rc::new(meter),
            }),
            Err((flag, reason)) => {
                meter.refused(flag, &reason);
                Err(reason)
            }
        }
    }

    async fn choose_hops(
        &self,
        downstream: &Rc<Downstream>,
        meter: &mut Meter,
    ) -> Result<Vec<Hop>, (ResponseFlag, String)> {
        let gone = || {
            let text = format!("nothing is at {} any more", downstream.destination);
            (ResponseFlag::NoRouteFound, text)
        };
        let destination = self.destination(downstream).ok_or_else(gone)?;
        meter.service = destination.service.clone();
        let before = connection(downstream, &destination, destination.policy_address);
        let verdict = authorize(&destination.policies.authorization, &before, None);
        let course = destination.course(&verdict, None);
        if let Course::Denied = course {
            return Err((
                ResponseFlag::UnauthorizedExternalService,
                verdict.to_string(),
            ));
        }
        if let Some(workload) = &destination.workload {
            let expected = Arc::new([workload.identity()]);
            return Ok(vec![hop(workload, downstream.destination, expected)]);
        }
        let service = destination.service.as_ref().ok_or_else(gone)?.key();
        let (service, port) = match course {
            Course::Connection(selected) => {
                let chosen =
                    backend::choose(&selected.rule.backends, &mut *self.random.borrow_mut());
                match chosen.map(|chosen| &chosen.backend) {
                    Some(BackendRef::Service { service, port, .. }) => (service.clone(), *port),
                    Some(BackendRef::Invalid(why)) => {
                        return Err((ResponseFlag::NoClusterFound, why.to_string()));
                    }
                    None => {
                        let text = format!("{} has no backend", selected.route.key);
                        return Err((ResponseFlag::NoClusterFound, text));
                    }
                }
            }
            // What is only for requests never comes of a connection.
            Course::Direct
            | Course::Denied
            | Course::NoRoute
            | Course::Answer(..)
            | Course::Rule(_) => (service, downstream.destination.port()),
        };
        let unhealthy = |cluster: Option<&Cluster>| match cluster.map(Cluster::why_none) {
            Some(Reason::NoAddress(why)) => (ResponseFlag::DnsResolutionFailed, why.to_string()),
            Some(_) | None => {
                let text = format!("service {service} has no usable endpoint for port {port}");
                (ResponseFlag::NoHealthyUpstream, text)
            }
        };
        let cluster = self.cluster(&service, port);
        let cluster = cluster.ok_or_else(|| unhealthy(None))?;
        let cluster = self.resolved(cluster).await;
        meter.cluster = Some(cluster.name.clone());
        let addressed = destination.service.as_ref().map(|service| service.key());
        let mut hops: Vec<Hop> = Vec::new();
        let mut tried = Vec::new();
        let mut refused = None;
        while tried.len() < CANDIDATES.min(cluster.len()) {
            let chosen = cluster.choose(&tried, &mut *self.random.borrow_mut());
            let Some((pick, hop)) = chosen else { break };
            tried.push(pick.id.clone());
            if !destination.is_decided_for(Some(&service)) {
                let at = (&*hop.workload, hop.target.port());
                let policies = self
                    .plans(|plans| plans.endpoint_policies(&self.gateway, addressed.as_ref(), at));
                let at = connection(downstream, &destination, Some(hop.target));
                let verdict = authorize(&policies.authorization, &at, None);
                if !verdict.is_allowed() {
                    refused = Some(verdict);
                    continue;
                }
            }
            hops.push(hop);
        }
        match (hops.is_empty(), refused) {
            (true, Some(verdict)) => Err((
                ResponseFlag::UnauthorizedExternalService,
                verdict.to_string(),
            )),
            (true, None) => Err(unhealthy(Some(&cluster))),
            (false, _) => {
                meter.active = Some(cluster.begin_request());
                Ok(hops)
            }
        }
    }

    /// Asked again of a connection to an endpoint.
    fn would_allow_connection(&self, downstream: &Downstream, hop: &Hop) -> bool {
        let Some(destination) = self.destination(downstream) else {
            // Services come and go; what is open runs to its end.
            return true;
        };
        let before = connection(downstream, &destination, destination.policy_address);
        let verdict = destination.policies.authorization.authorize(&before, None);
        if destination.is_uniform || is_denied_anyway(&verdict) {
            // A route may have led away from the endpoints that are alike.
            if !verdict.is_allowed() || destination.workload.is_some() {
                return verdict.is_allowed();
            }
        }
        let addressed = destination.service.as_ref().map(|service| service.key());
        let at = (&*hop.workload, hop.target.port());
        let policies =
            self.plans(|plans| plans.endpoint_policies(&self.gateway, addressed.as_ref(), at));
        let at = connection(downstream, &destination, Some(hop.target));
        policies.authorization.authorize(&at, None).is_allowed()
    }

    /// A request that broke HTTP before it was one.
    pub(super) fn rejected(&self, downstream: &Rc<Downstream>, status: StatusCode, reason: &str) {
        metrics::counter!("waypoint_requests_rejected_total", "status" => status.as_str().to_owned())
            .increment(1);
        let mut flags = ResponseFlags::default();
        flags.add(ResponseFlag::DownstreamProtocolError);
        let destination = self.destination(downstream);
        let source = self.source(downstream);
        let peers = Peers {
            source: source.as_ref(),
            source_identity: downstream.source_identity.as_ref(),
            service: destination.as_ref().and_then(|one| one.service.as_ref()),
            destination: None,
        };
        let labels = crate::telemetry::RequestLabels {
            protocol: crate::telemetry::RequestProtocol::Http,
            response_code: status.as_u16(),
            grpc_status: None,
            response_flags: flags,
        };
        let series = self.telemetry.request(&peers, labels);
        series.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(format) = self.shared.config.access_log {
            let mut line = line(format, downstream, SystemTime::now());
            line.response_code = status.as_u16();
            line.response_flags = flags;
            line.response_code_details = format!("http_protocol_error_{reason}").into();
            line.write();
        }
    }
}

/// As policies see it: what was dialled, and the application behind it.
pub(super) fn connection(
    downstream: &Downstream,
    destination: &Destination,
    application: Option<SocketAddr>,
) -> Connection {
    let dialled = downstream.destination;
    Connection {
        source_identity: downstream.source_identity.clone(),
        source_ip: downstream.source.ip(),
        destination: application.unwrap_or(dialled),
        dialled: destination.service.as_ref().map(|_| dialled),
        sni: None,
    }
}
