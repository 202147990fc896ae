//! The tries of one request: endpoint, policy of that endpoint, time, and whether to try again.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, Version, header};
use http_body::Body as _;
use mesh::destination::Hop;
use mesh::local_reply::response_flag::ResponseFlag;
use mesh::local_reply::{LocalReply, Reason};
use mesh::retry::{Circumstances, Decision, Final, Outcome, Retries, RetryPolicy};
use mesh::route::{PathMatch, Timeouts};
use mesh::timeout::Limits;
use mesh::waypoint::Destination;
use mesh::workload::WorkloadUid;
use tokio::time::{Instant, sleep, timeout_at};

use super::Worker;
use super::authentication::Authenticated;
use super::authorization::{authorize, denial};
use super::cluster::{Chosen, Cluster};
use super::connection::connection;
use super::exchange::{Flight, Head};
use super::filters::Filters;
use super::headers;
use super::mirror;
use super::request_body::RequestBody;
use crate::message::{
    Body, BodyError, Endpoint, Interim, Protocol, UpgradeRequested, Upstream, UpstreamError,
};

/// How long a mirror may take where its request has no limit.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a request goes, and what its rule says of the way.
pub(crate) struct To<'a> {
    pub(crate) destined: Destined,
    pub(crate) filters: Filters<'a>,
    pub(crate) backend_filters: Filters<'a>,
    pub(crate) matched: Option<&'a PathMatch>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: RetryPolicy<'a>,
}

pub(crate) enum Destined {
    Cluster(Rc<Cluster>),
    /// The one that was dialled.
    Workload(Option<Hop>),
}

/// What one try came to.
enum Tried {
    Response(Response<Body>),
    Failed(UpstreamError),
    PerTryTimeout,
    RequestTimeout,
}

// === impl Worker ===

impl<U: Upstream + Clone + 'static> Worker<U> {
    pub(super) async fn forward(
        self: &Rc<Self>,
        flight: &mut Flight<'_>,
        destination: &Destination,
        before: &Authenticated,
        mut to: To<'_>,
    ) -> Result<Response<Body>, LocalReply> {
        let head = flight.head.clone();
        let limits = Limits::of(to.timeouts, &head.headers);
        let mut limits =
            limits.map_err(|error| Reason::BadRequest(error.to_string().into()).reply())?;
        let mut policy = to.retry;
        if let Some(steering) = &head.steering {
            limits = limits.steered(steering);
            policy = policy.steered(steering);
        }
        let deadline = limits.request.map(|limit| Instant::now() + limit);
        flight.lasting.deadline = deadline;
        if let Destined::Cluster(cluster) = &mut to.destined {
            let resolving = Box::pin(self.resolved(cluster.clone()));
            *cluster = match deadline {
                None => resolving.await,
                Some(at) => {
                    let resolved = timeout_at(at, resolving).await;
                    resolved.map_err(|_| Reason::RequestTimeout.reply())?
                }
            };
        }
        let kept = if policy.is_on() {
            self.shared.config.replay_buffer
        } else {
            0
        };
        let body = std::mem::take(&mut flight.body);
        let body = RequestBody::new(body, kept, flight.record.is_grpc);
        flight.record.request_body = Some(body.clone());
        let cluster = match &to.destined {
            Destined::Cluster(cluster) => Some(cluster.clone()),
            Destined::Workload(_) => None,
        };
        flight.record.upstream_cluster = cluster.as_ref().map(|cluster| cluster.name.clone());
        let active = cluster.as_ref().map(|cluster| cluster.begin_request());
        let mut retrying = None;
        let mut mirrored = false;
        let mut retries = Retries::new(policy, &head.method);
        let mut tried: Vec<WorkloadUid> = Vec::new();
        loop {
            let (chosen, hop) = self
                .next(&to.destined, &tried)
                .map_err(|reason| reason.reply())?;
            flight.record.destination = Some(hop.workload.clone());
            flight.record.upstream_host = Some(hop.target);
            flight.record.count_messages(&body);
            let authenticated = self
                .check_endpoint(flight, destination, before, cluster.as_deref(), &hop)
                .await?;
            let request = self
                .request(&head, &to, &authenticated, retries.attempt())
                .map_err(|reason| reason.reply())?;
            if !std::mem::replace(&mut mirrored, true) {
                self.mirror(&to, &request, &body, limits.request);
            }
            let request = request.map(|()| body.reading());
            let began = Instant::now();
            let endpoint = Endpoint {
                protocol: protocol(cluster.as_deref(), head.version),
                hop,
            };
            let per_try = limits.per_try.map(|limit| began + limit);
            let outcome = self
                .send(&endpoint, request, flight.interim, per_try, deadline)
                .await;
            note(chosen.as_ref(), &outcome);
            let circumstances = Circumstances {
                is_replayable: body.is_replayable(),
                is_within_budget: cluster.as_ref().is_none_or(|it| it.is_within_budget()),
            };
            let decision = match outcome.outcome() {
                Some(outcome) => {
                    retries.decide(&outcome, circumstances, &mut *self.random.borrow_mut())
                }
                None => Decision::Final(Final::NoCondition),
            };
            let reason = match decision {
                Decision::Retry { after } => {
                    tried.extend(chosen.as_ref().map(|chosen| chosen.id.clone()));
                    // What failed is let go of before the pause.
                    drop((outcome, chosen));
                    retrying = cluster.as_ref().map(|cluster| cluster.begin_retry());
                    pause(after, deadline).await?;
                    continue;
                }
                Decision::Final(reason) => reason,
            };
            drop(retrying);
            match reason {
                Final::LimitReached => flight
                    .record
                    .flags
                    .add(ResponseFlag::UpstreamRetryLimitExceeded),
                Final::OverBudget => flight.record.flags.add(ResponseFlag::UpstreamOverflow),
                Final::NoCondition
                | Final::Overloaded
                | Final::NotIdempotent
                | Final::NotReplayable => {}
            }
            let response = match outcome {
                Tried::Response(response) => response,
                Tried::Failed(error) => {
                    flight.record.set_transport_failure(error.to_string());
                    return Err(failure(error, endpoint.protocol).reply());
                }
                Tried::PerTryTimeout => return Err(Reason::PerTryTimeout.reply()),
                Tried::RequestTimeout => return Err(Reason::RequestTimeout.reply()),
            };
            flight.lasting.active = active.zip(chosen);
            self.watch(flight, &authenticated, &endpoint.hop, &response);
            return Ok(respond(flight, &to, response, began.elapsed()));
        }
    }

    /// The endpoint of the next try.
    fn next(
        &self,
        destined: &Destined,
        tried: &[WorkloadUid],
    ) -> Result<(Option<Chosen>, Hop), Reason> {
        match destined {
            Destined::Cluster(cluster) => {
                let chosen = cluster.choose(tried, &mut *self.random.borrow_mut());
                let (chosen, hop) = chosen.ok_or_else(|| cluster.why_none())?;
                Ok((Some(chosen), hop))
            }
            Destined::Workload(hop) => {
                let hop = hop.clone().ok_or(Reason::NoHealthyUpstream)?;
                Ok((None, hop))
            }
        }
    }

    /// What was decided before routing holds for this endpoint, or is decided again.
    async fn check_endpoint(
        self: &Rc<Self>,
        flight: &Flight<'_>,
        destination: &Destination,
        before: &Authenticated,
        cluster: Option<&Cluster>,
        hop: &Hop,
    ) -> Result<Authenticated, LocalReply> {
        let backend = cluster.map(|cluster| cluster.service.key());
        if destination.is_decided_for(backend.as_ref()) {
            return Ok(before.clone());
        }
        let service = destination.service.as_ref().map(|service| service.key());
        let at = (&*hop.workload, hop.target.port());
        let policies =
            self.plans(|plans| plans.endpoint_policies(&self.gateway, service.as_ref(), at));
        let head = &flight.head;
        let authenticated = self
            .authenticate(&policies.authentication, &head.canonical, &head.headers)
            .await?;
        let request = head.request(authenticated.claims.as_deref());
        let connection = connection(flight.downstream, destination, Some(hop.target));
        let verdict = authorize(&policies.authorization, &connection, Some(&request));
        match denial(&verdict) {
            Some(reason) => Err(reason.reply()),
            None => Ok(authenticated),
        }
    }

    /// The request of one try, without its body.
    fn request(
        &self,
        head: &Head,
        to: &To<'_>,
        authenticated: &Authenticated,
        attempt: u32,
    ) -> Result<Request<()>, Reason> {
        let mut canonical = head.canonical.clone();
        let mut headers = head.headers.clone();
        let normalization = self.shared.config.path_normalization;
        let edits = &authenticated.edits;
        edits.apply(&mut headers);
        let mut edit = || -> Result<(), Reason> {
            if let Some(query) = edits.query(canonical.target.query()) {
                canonical.set_query(query.as_deref())?;
            }
            for filters in [to.filters, to.backend_filters] {
                filters.modify_request(&mut canonical, &mut headers, to.matched, normalization)?;
            }
            Ok(())
        };
        edit()?;
        headers::set_attempt(&mut headers, attempt);
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = canonical.uri()?;
        *request.headers_mut() = headers;
        if head.upgrade {
            request.extensions_mut().insert(UpgradeRequested);
        }
        Ok(request)
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
        interim: &Interim,
        per_try: Option<Instant>,
        deadline: Option<Instant>,
    ) -> Tried {
        *request.version_mut() = match endpoint.protocol {
            Protocol::Http1 => Version::HTTP_11,
            Protocol::Http2 => Version::HTTP_2,
        };
        let sent = self.upstream.send(endpoint, request, interim);
        let limit = [per_try, deadline].into_iter().flatten().min();
        let sent = match limit {
            None => Ok(sent.await),
            Some(at) => timeout_at(at, sent).await,
        };
        match sent {
            Ok(Ok(response)) => Tried::Response(response),
            Ok(Err(error)) => Tried::Failed(error),
            Err(_) if limit == deadline => Tried::RequestTimeout,
            Err(_) => Tried::PerTryTimeout,
        }
    }

    /// Responses without an end in sight are asked about again when policies change.
    fn watch(
        self: &Rc<Self>,
        flight: &mut Flight<'_>,
        authenticated: &Authenticated,
        hop: &Hop,
        response: &Response<Body>,
    ) {
        let body = response.body();
        let lasts = match body {
            Body::Stream(_) => body.size_hint().exact().is_none(),
            Body::Upgraded(_) => true,
            Body::Empty | Body::Full(_) => false,
        };
        if !lasts {
            return;
        }
        let worker = Rc::downgrade(self);
        let (downstream, head) = (flight.downstream.clone(), flight.head.clone());
        let (authenticated, hop) = (authenticated.clone(), hop.clone());
        flight.lasting.watched = Some(self.streams.watch(move || {
            worker.upgrade().is_none_or(|worker| {
                let endpoint = (&*hop.workload, hop.target);
                worker.would_allow(&downstream, &head, &authenticated, endpoint)
            })
        }));
    }

    /// Sends copies to those who watch. Nobody waits for them.
    fn mirror(
        self: &Rc<Self>,
        to: &To<'_>,
        request: &Request<()>,
        body: &Rc<RequestBody>,
        limit: Option<Duration>,
    ) {
        for mirror in to.filters.mirrors().chain(to.backend_filters.mirrors()) {
            if !mirror.samples(&mut *self.random.borrow_mut()) {
                continue;
            }
            let Ok(cluster) = self.backend_cluster(&mirror.backend) else {
                metrics::counter!("waypoint_mirrors_failed_total").increment(1);
                continue;
            };
            let (tee, copy) = mirror::copy(self.shared.config.replay_buffer);
            body.add_tee(tee);
            let mut request = request.clone().map(|()| Body::stream(copy));
            request.extensions_mut().clear();
            // The copy may end early: it is not known to be as long.
            request.headers_mut().remove(header::CONTENT_LENGTH);
            let worker = self.clone();
            tokio::task::spawn_local(async move {
                let limit = limit.unwrap_or(MIRROR_TIMEOUT);
                let sent = worker.send_copy(cluster, request);
                let result = tokio::time::timeout(limit, sent).await;
                if !matches!(result, Ok(Ok(()))) {
                    metrics::counter!("waypoint_mirrors_failed_total").increment(1);
                }
            });
        }
    }

    /// Sends a copy, and reads its answer for nobody.
    async fn send_copy(
        self: Rc<Self>,
        cluster: Rc<Cluster>,
        request: Request<Body>,
    ) -> Result<(), UpstreamError> {
        let cluster = self.resolved(cluster).await;
        let chosen = cluster.choose(&[], &mut *self.random.borrow_mut());
        let Some((_under_way, hop)) = chosen else {
            return Err(UpstreamError::Connect("no endpoint".to_owned()));
        };
        let endpoint = Endpoint {
            protocol: cluster.protocol.unwrap_or(Protocol::Http1),
            hop,
        };
        let interim = Interim(Rc::new(|_| {}));
        let sent = self.upstream.send(&endpoint, request, &interim).await?;
        let mut body = sent.into_body();
        let mut body = std::pin::Pin::new(&mut body);
        while std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))
            .await
            .is_some_and(|frame| frame.is_ok())
        {}
        Ok(())
    }
}

/// As the port says, else as the client speaks.
fn protocol(cluster: Option<&Cluster>, version: Version) -> Protocol {
    let spoken = match version {
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Http1,
    };
    cluster
        .and_then(|cluster| cluster.protocol)
        .unwrap_or(spoken)
}

/// What a balancer learns of an endpoint.
fn note(chosen: Option<&Chosen>, outcome: &Tried) {
    let Some(chosen) = chosen else {
        return;
    };
    let now = Instant::now().into_std();
    match outcome {
        Tried::Response(_) => chosen.answered(now),
        Tried::Failed(_) | Tried::PerTryTimeout | Tried::RequestTimeout => chosen.failed(now),
    }
}

/// Before the next try; the whole may end meanwhile.
async fn pause(after: Duration, deadline: Option<Instant>) -> Result<(), LocalReply> {
    match deadline {
        None => {
            sleep(after).await;
            Ok(())
        }
        Some(deadline) => timeout_at(deadline, sleep(after))
            .await
            .map_err(|_| Reason::RequestTimeout.reply()),
    }
}

fn failure(error: UpstreamError, protocol: Protocol) -> Reason {
    match error {
        UpstreamError::Connect(why) | UpstreamError::Refused(why) => {
            Reason::ConnectFailure(why.into())
        }
        UpstreamError::RefusedStream => Reason::UpstreamRefusedStream,
        UpstreamError::Reset { .. } => match protocol {
            Protocol::Http1 => Reason::UpstreamClosed,
            Protocol::Http2 => Reason::UpstreamReset,
        },
        UpstreamError::Protocol(what) => Reason::UpstreamProtocolError(what.into()),
        UpstreamError::RequestBody(BodyError::Protocol(what)) => Reason::BadRequest(what.into()),
        UpstreamError::RequestBody(BodyError::Reset(_)) => Reason::DownstreamClosed,
        UpstreamError::RequestBody(BodyError::Timeout) => Reason::StreamIdleTimeout,
    }
}

/// The upstream's response, as the client gets it.
fn respond(
    flight: &mut Flight<'_>,
    to: &To<'_>,
    mut response: Response<Body>,
    service_time: Duration,
) -> Response<Body> {
    flight.record.upstream_service_time = Some(service_time);
    let headers = response.headers_mut();
    headers::set_service_time(headers, service_time);
    let origin = flight.head.headers.get(header::ORIGIN);
    for filters in [to.backend_filters, to.filters] {
        filters.modify_response(origin, headers);
    }
    response
}

// === impl Tried ===

impl Tried {
    /// As conditions of retries see it; none where there can be no other try.
    fn outcome(&self) -> Option<Outcome<'_>> {
        match self {
            Self::Response(response) => Some(Outcome::Response {
                status: response.status(),
                headers: response.headers(),
            }),
            Self::Failed(error) => match error {
                UpstreamError::Connect(_) | UpstreamError::Refused(_) => {
                    Some(Outcome::ConnectFailure)
                }
                UpstreamError::RefusedStream => Some(Outcome::RefusedStream),
                UpstreamError::Reset { head_sent, .. } => Some(Outcome::Reset {
                    head_sent: *head_sent,
                }),
                UpstreamError::Protocol(_) => Some(Outcome::Reset { head_sent: true }),
                UpstreamError::RequestBody(_) => None,
            },
            Self::PerTryTimeout => Some(Outcome::PerTryTimeout),
            Self::RequestTimeout => None,
        }
    }
}
