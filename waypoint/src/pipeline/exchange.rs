//! One request, from its head to its answer: made canonical, authenticated, authorized, routed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{HOST, HeaderMap};
use http::{Method, Request, Response, Version};
use mesh::local_reply::{LocalReply, Reason};
use mesh::request::Claims;
use mesh::retry::RetryPolicy;
use mesh::route::select::Selected;
use mesh::route::{Backend, BackendRef, Timeouts, backend};
use mesh::steering::Steering;
use mesh::waypoint::{Course, Destination, answer};
use mesh::workload::Workload;

use super::Worker;
use super::authentication::Authenticated;
use super::authorization::{authorize, denial};
use super::canonical::Canonical;
use super::cluster::{Cluster, hop};
use super::connection::connection;
use super::filters::{Filters, direct_answer};
use super::forward::{Destined, To};
use super::headers;
use super::record::Record;
use super::response_body::{Lasting, observe};
use crate::message::{Body, Downstream, Interim, UpgradeRequested, Upstream};

/// The head of a request, in its one form.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) canonical: Canonical,
    pub(crate) upgrade: bool,
    /// What the client asks of its own request; most ask for nothing.
    pub(crate) steering: Option<Box<Steering>>,
}

/// A request on its way.
pub(crate) struct Flight<'a> {
    pub(crate) downstream: &'a Rc<Downstream>,
    pub(crate) interim: &'a Interim,
    pub(crate) head: Rc<Head>,
    pub(crate) body: Body,
    pub(crate) record: Box<Record>,
    pub(crate) lasting: Lasting,
}

// === impl Worker ===

impl<U: Upstream + Clone + 'static> Worker<U> {
    pub(super) async fn exchange(
        self: &Rc<Self>,
        downstream: &Rc<Downstream>,
        request: Request<Body>,
        interim: &Interim,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let format = self.shared.config.access_log;
        let mut record = Record::new(&self.telemetry, downstream, &parts, format);
        record.source = self.source(downstream);
        let normalization = self.shared.config.path_normalization;
        let peer = downstream.source.ip();
        let canonical = match self.is_overloaded() {
            false => headers::check_names(&mut parts.headers, self.shared.config.underscores)
                .and_then(|()| Canonical::read(&parts, peer, normalization)),
            true => Err(Reason::Overload),
        };
        let canonical = match canonical {
            Ok(canonical) => canonical,
            Err(reason) => {
                record.set_address(parts.uri.path(), "");
                let response = local(&reason.reply(), &parts.headers, &mut record);
                return observe(record, Lasting::default(), response);
            }
        };
        parts.headers.remove(HOST);
        let steering = headers::sanitize(&mut parts.headers, &mut *self.random.borrow_mut());
        record.set_address(canonical.target.path(), canonical.authority());
        record.set_request_id(parts.headers.get(headers::REQUEST_ID));
        let mut flight = Flight {
            downstream,
            interim,
            head: Rc::new(Head {
                upgrade: parts.extensions.get::<UpgradeRequested>().is_some(),
                method: parts.method,
                version: parts.version,
                headers: parts.headers,
                canonical,
                steering,
            }),
            body,
            record,
            lasting: Lasting::default(),
        };
        let mut response = match self.answer(&mut flight).await {
            Ok(response) => response,
            Err(reply) => local(&reply, &flight.head.headers, &mut flight.record),
        };
        headers::set_server(response.headers_mut());
        observe(flight.record, flight.lasting, response)
    }

    /// Whether there are more requests than may be. Each worker has its share.
    fn is_overloaded(&self) -> bool {
        let config = &self.shared.config;
        let share = config.limits.capacity.requests / config.worker_threads;
        let is_overloaded = self.telemetry.open() > share.max(1);
        if is_overloaded {
            metrics::counter!("waypoint_overload_total", "of" => "requests").increment(1);
        }
        is_overloaded
    }

    async fn answer(
        self: &Rc<Self>,
        flight: &mut Flight<'_>,
    ) -> Result<Response<Body>, LocalReply> {
        let (downstream, head) = (flight.downstream, flight.head.clone());
        let destination = self
            .destination(downstream)
            .ok_or_else(|| Reason::NoHealthyUpstream.reply())?;
        flight.record.service = destination.service.clone();
        let authenticated = self
            .authenticate(
                &destination.policies.authentication,
                &head.canonical,
                &head.headers,
            )
            .await?;
        let request = head.request(authenticated.claims.as_deref());
        let before = connection(downstream, &destination, destination.policy_address);
        let verdict = authorize(&destination.policies.authorization, &before, Some(&request));
        let denied = denial(&verdict).map(|reason| reason.reply());
        let told = |reason: Reason| denied.clone().unwrap_or_else(|| reason.reply());
        let routed = match destination.course(&verdict, Some(&request)) {
            Course::Denied => return Err(told(Reason::AuthorizationDenied(None))),
            Course::NoRoute => return Err(Reason::NoRoute.reply()),
            Course::Answer(selected, answer) => {
                flight.record.set_route(selected.name);
                flight.record.details = "direct_response".into();
                let port = downstream.destination.port();
                return Ok(direct_answer(answer, &request, port, selected.path));
            }
            Course::Rule(selected) => {
                flight.record.set_route(selected.name);
                Routed::Rule(selected)
            }
            Course::Connection(selected) => Routed::Backends(&selected.rule.backends),
            Course::Direct => Routed::Direct,
        };
        let to = self.to(&routed, &destination, flight).map_err(told)?;
        if let Some(answer) = answer(to.backend_filters.0, &request) {
            if let Some(denied) = denied {
                return Err(denied);
            }
            flight.record.details = "direct_response".into();
            let port = downstream.destination.port();
            return Ok(direct_answer(answer, &request, port, to.matched));
        }
        self.forward(flight, &destination, &authenticated, to).await
    }

    /// The backend that gets the request.
    fn to<'a>(
        &self,
        routed: &Routed<'a>,
        destination: &Destination,
        flight: &Flight<'_>,
    ) -> Result<To<'a>, Reason> {
        let mut to = To {
            destined: Destined::Workload(None),
            filters: Filters(&[]),
            backend_filters: Filters(&[]),
            matched: None,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::DEFAULT,
        };
        let backends = match routed {
            Routed::Rule(selected) => {
                to.filters = Filters(&selected.rule.filters);
                to.matched = selected.path;
                to.timeouts = selected.rule.timeouts;
                to.retry = RetryPolicy::of(selected.rule.retry.as_ref());
                &*selected.rule.backends
            }
            Routed::Backends(backends) => backends,
            Routed::Direct => {
                to.destined = self.direct(destination, flight)?;
                return Ok(to);
            }
        };
        let chosen = backend::choose(backends, &mut *self.random.borrow_mut());
        let chosen = chosen.ok_or_else(|| Reason::NoBackend("none has a weight".into()))?;
        to.backend_filters = Filters(&chosen.filters);
        to.destined = Destined::Cluster(self.backend_cluster(&chosen.backend)?);
        Ok(to)
    }

    pub(super) fn backend_cluster(&self, backend: &BackendRef) -> Result<Rc<Cluster>, Reason> {
        match backend {
            BackendRef::Invalid(why) => Err(Reason::NoBackend(why.clone())),
            BackendRef::Service {
                subset: Some(subset),
                service,
                ..
            } => Err(Reason::NoBackend(
                format!("{service} has no subset {subset}").into(),
            )),
            BackendRef::Service {
                service,
                port,
                subset: None,
            } => self
                .cluster(service, *port)
                .ok_or_else(|| Reason::NoBackend(format!("{service} is not there").into())),
        }
    }

    fn direct(&self, destination: &Destination, flight: &Flight<'_>) -> Result<Destined, Reason> {
        if let Some(workload) = &destination.workload {
            let target = flight.downstream.destination;
            let expected = Arc::new([workload.identity()]);
            return Ok(Destined::Workload(Some(hop(workload, target, expected))));
        }
        let service = destination.service.as_ref();
        let service = service.ok_or(Reason::NoHealthyUpstream)?.key();
        let cluster = self.cluster(&service, destination.port);
        Ok(Destined::Cluster(cluster.ok_or(Reason::NoHealthyUpstream)?))
    }

    /// Whether policies of now would let a request in that was let in before.
    pub(super) fn would_allow(
        &self,
        downstream: &Downstream,
        head: &Head,
        authenticated: &Authenticated,
        endpoint: (&Workload, SocketAddr),
    ) -> bool {
        let Some(destination) = self.destination(downstream) else {
            // Services come and go; what is open runs to its end.
            return true;
        };
        let (policies, address) = if destination.is_uniform {
            (destination.policies.clone(), destination.policy_address)
        } else {
            let service = destination.service.as_ref().map(|service| service.key());
            let at = (endpoint.0, endpoint.1.port());
            let policies =
                self.plans(|plans| plans.endpoint_policies(&self.gateway, service.as_ref(), at));
            (policies, Some(endpoint.1))
        };
        let request = head.request(authenticated.claims.as_deref());
        let connection = connection(downstream, &destination, address);
        policies
            .authorization
            .authorize(&connection, Some(&request))
            .is_allowed()
    }
}

/// What routes say.
enum Routed<'a> {
    Rule(Selected<'a>),
    Backends(&'a [Backend]),
    /// To what was addressed.
    Direct,
}

/// Answers in place of the service.
fn local(reply: &LocalReply, request: &HeaderMap, record: &mut Record) -> Response<Body> {
    if let Some(flag) = reply.flag {
        record.flags.add(flag);
    }
    record.details = reply.details.clone();
    reply.response(request).map(|body| match &*body {
        "" => Body::Empty,
        text => Body::Full(bytes::Bytes::copy_from_slice(text.as_bytes())),
    })
}

// === impl Head ===

impl Head {
    pub(crate) fn request<'a>(&'a self, claims: Option<&'a Claims>) -> mesh::request::Request<'a> {
        self.canonical.request(&self.method, &self.headers, claims)
    }
}
