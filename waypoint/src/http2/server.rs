//! A client's HTTP/2 connection: a task drives it, and each stream has one of its own.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::task::spawn_local;
use tokio::time::{self, Instant};

use super::body::{Received, SendError, Sending};
use super::message;
use super::refusals::{self, Accepted, Told, Watched};
use crate::deadline::Deadline;
use crate::drain::{Member, Phase};
use crate::http1::framing;
use crate::message::{Body, Interim, Pipeline};
use crate::session::Session;
use crate::transport::{Stream, Transport};

/// What one connection's streams share with the task that drives it.
struct Shared {
    /// Streams that the client reset before they were answered, since [`Self::since`].
    abandoned: Cell<u32>,
    since: Cell<Instant>,
}

/// Why the connection's task was woken.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would cost each request"
)]
enum Event {
    Stream(Request<RecvStream>, SendResponse<Bytes>),
    Draining,
    Idle,
    Ended(Option<h2::Error>),
}

/// Serves a connection to its end. `received` has been read from it already.
pub(crate) async fn serve<T: Transport, P: Pipeline + 'static>(
    transport: T,
    received: Bytes,
    session: Session<P>,
) {
    let limits = session.limits.clone();
    let accepted = Rc::<Accepted>::default();
    let io = Watched::new(
        Stream::new(transport, received),
        refusals(&session, &accepted),
    );
    let handshake = Builder::new()
        .initial_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_concurrent_streams(limits.http2.concurrent_streams)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.http2.send_buffer)
        .max_pending_accept_reset_streams(limits.http2.pending_accept_resets)
        .max_local_error_reset_streams(Some(limits.http2.local_error_resets))
        .handshake::<_, Bytes>(io);
    let mut connection = match time::timeout(limits.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            told(&session, &error);
            return tracing::debug!(%error, "HTTP/2 handshake failed");
        }
        Err(_) => return tracing::debug!("HTTP/2 handshake timed out"),
    };
    let shared = Rc::new(Shared {
        abandoned: Cell::new(0),
        since: Cell::new(Instant::now()),
    });
    let drain = session.drain.member();
    let mut going_away = false;
    let mut is_cut = false;
    let mut idle = Deadline::default();
    loop {
        match next(
            &mut connection,
            &drain,
            going_away,
            &mut idle,
            limits.idle_timeout,
        )
        .await
        {
            Event::Stream(request, respond) => {
                if shared.is_abused(limits.http2.abandoned_streams) {
                    tracing::debug!("too many streams are reset before they are answered");
                    if !std::mem::replace(&mut is_cut, true) {
                        told(&session, &Reason::ENHANCE_YOUR_CALM.into());
                    }
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    continue;
                }
                let place = accepted.begin(respond.stream_id().into());
                let (session, shared) = (session.clone(), shared.clone());
                // A task is moved into its place by half a dozen copies of all of it.
                spawn_local(Box::pin(async move {
                    let _place = place;
                    stream(&session, &shared, request, respond).await;
                }));
            }
            Event::Draining | Event::Idle => {
                going_away = true;
                connection.graceful_shutdown();
            }
            Event::Ended(None) => return,
            Event::Ended(Some(error)) => {
                if !is_cut {
                    told(&session, &error);
                }
                return tracing::debug!(%error, "HTTP/2 client ended");
            }
        }
    }
}

/// What the library refuses by itself is told like any request that broke HTTP, unless it has
/// become a request, which is told of at its end.
fn refusals<P: Pipeline + 'static>(session: &Session<P>, accepted: &Rc<Accepted>) -> Told {
    let (session, accepted) = (session.clone(), accepted.clone());
    Rc::new(move |stream, reason| {
        let Some(status) = refusals::status(reason) else {
            return;
        };
        let name = format!("{reason:?}");
        metrics::counter!("waypoint_http2_streams_refused_total", "reason" => name).increment(1);
        if !accepted.contains(stream) {
            let why = format!("stream error: {reason}");
            session.pipeline.rejected(&session.downstream, status, &why);
        }
    })
}

/// A connection that we ended for what its client did is told like a request that broke HTTP.
fn told<P: Pipeline>(session: &Session<P>, error: &h2::Error) {
    if error.is_remote() || error.is_io() {
        return;
    }
    let status = match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) => StatusCode::TOO_MANY_REQUESTS,
        Some(_) | None => StatusCode::BAD_REQUEST,
    };
    session
        .pipeline
        .rejected(&session.downstream, status, &error.to_string());
}

async fn next<T: Transport>(
    connection: &mut h2::server::Connection<Watched<Stream<T>>, Bytes>,
    drain: &Member,
    going_away: bool,
    idle: &mut Deadline,
    idle_timeout: Duration,
) -> Event {
    poll_fn(|cx| {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                return Poll::Ready(Event::Stream(request, respond));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Ended(Some(error))),
            Poll::Ready(None) => return Poll::Ready(Event::Ended(None)),
            Poll::Pending => {}
        }
        if going_away {
            return Poll::Pending;
        }
        if drain.poll_reached(cx, Phase::Draining).is_ready() {
            return Poll::Ready(Event::Draining);
        }
        match (connection.has_streams(), idle.is_set()) {
            (true, _) => idle.clear(),
            (false, false) => idle.set(idle_timeout),
            (false, true) => {}
        }
        idle.poll_elapsed(cx).map(|()| Event::Idle)
    })
    .await
}

/// Serves one request.
async fn stream<P: Pipeline>(
    session: &Session<P>,
    shared: &Shared,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (mut parts, received) = request.into_parts();
    let method = parts.method.clone();
    let checked = match message::receive(&mut parts, &session.limits.head) {
        // RFC 9113 §8.5 and RFC 8441 are for those who are asked to be a tunnel.
        Ok(()) if method == Method::CONNECT => {
            Err((StatusCode::METHOD_NOT_ALLOWED, "CONNECT".to_owned()))
        }
        Ok(()) => Ok(()),
        Err(error) => Err((error.status(), error.to_string())),
    };
    let respond = Rc::new(RefCell::new(respond));
    let response = match checked {
        Ok(()) => {
            let body = Received::body(received, &parts.headers);
            let request = Request::from_parts(parts, body);
            match exchange(session, request, &respond).await {
                Some(response) => response,
                None => return shared.abandoned.set(shared.abandoned.get() + 1),
            }
        }
        Err((status, reason)) => {
            session
                .pipeline
                .rejected(&session.downstream, status, &reason);
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = status;
            response
        }
    };
    let idle_timeout = session.limits.body_idle_timeout;
    send(&respond, &method, response, idle_timeout).await;
}

/// The response; none where the client gave the stream up.
async fn exchange<P: Pipeline>(
    session: &Session<P>,
    request: Request<Body>,
    respond: &Rc<RefCell<SendResponse<Bytes>>>,
) -> Option<Response<Body>> {
    let interim = Interim(Rc::new({
        let respond = respond.clone();
        move |response: Response<()>| {
            let (parts, ()) = response.into_parts();
            // It fails only where the client has gone, which is noticed below.
            let _ = respond
                .borrow_mut()
                .send_informational(message::send_response(parts));
        }
    }));
    let exchange = session
        .pipeline
        .exchange(&session.downstream, request, &interim);
    let mut exchange = Box::pin(exchange);
    poll_fn(|cx| {
        if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        respond.borrow_mut().poll_reset(cx).map(|_| None)
    })
    .await
}

async fn send(
    respond: &RefCell<SendResponse<Bytes>>,
    method: &Method,
    response: Response<Body>,
    idle_timeout: Duration,
) {
    let (mut parts, body) = response.into_parts();
    if parts.status.is_informational() {
        // Nobody asked to switch protocols: there is no such thing in HTTP/2.
        parts.status = StatusCode::BAD_GATEWAY;
        parts.headers.clear();
    }
    let has_body = framing::has_body(method, parts.status);
    let empty = !has_body || http_body::Body::is_end_stream(&body);
    let head = message::send_response(parts);
    let sent = respond.borrow_mut().send_response(head, empty);
    let stream = match sent {
        Ok(_) if empty => return,
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "client left before its response"),
    };
    let mut sending = Sending::new(stream, body, idle_timeout);
    match poll_fn(|cx| sending.poll(cx)).await {
        Ok(()) => {}
        Err(SendError::Body(error)) => tracing::debug!(%error, "response broke off"),
        Err(SendError::Stream(error)) => tracing::debug!(%error, "client left"),
    }
}

// === impl Shared ===

impl Shared {
    /// Whether the client resets streams faster than anyone has a reason to (CVE-2023-44487).
    fn is_abused(&self, most: u32) -> bool {
        if self.abandoned.get() <= most {
            return false;
        }
        let now = Instant::now();
        if now - self.since.get() > Duration::from_secs(1) {
            self.since.set(now);
            self.abandoned.set(0);
            return false;
        }
        true
    }
}
