//! An HTTP/2 connection to an endpoint, shared by requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::spawn_local;
use tokio::time::{self, Instant};

use super::body::{Received, SendError, Sending};
use super::message;
use crate::deadline::Deadline;
use crate::http1::call::MOST_INTERIM;
use crate::limits::Limits;
use crate::message::{Body, BodyError, Interim, UpstreamError};
use crate::transport::{Stream, Transport};

/// What the library takes for the endpoint's limit of streams until SETTINGS have come; none of
/// theirs can say it.
const UNSAID: usize = usize::MAX - 1;

/// One connection. It closes when it has been dropped and its last stream has ended.
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    state: Rc<State>,
    idle_timeout: Duration,
}

struct State {
    streams: Cell<usize>,
    closed: Cell<bool>,
    used: Cell<Instant>,
}

struct TooMany;

/// A stream's place on its connection.
pub(crate) struct Slot(Rc<State>);

/// The request's body on its way out.
#[expect(
    clippy::large_enum_variant,
    reason = "it lasts as long as the body, and a box would cost each request that has one"
)]
enum Upload {
    Running(Sending),
    Done,
}

/// A response's body; the request's goes on with it.
struct ResponseBody {
    body: Body,
    upload: Upload,
    _slot: Slot,
}

/// Starts HTTP/2 on a connection, which is one once its endpoint admits a stream. Must be called
/// on the worker's `LocalSet`.
pub(crate) async fn handshake<T: Transport>(
    transport: T,
    limits: &Limits,
) -> Result<Client, UpstreamError> {
    let shaking = shake(transport, limits);
    match time::timeout(limits.connect_timeout, shaking).await {
        Ok(result) => result,
        Err(_) => Err(UpstreamError::Connect("HTTP/2: timed out".to_owned())),
    }
}

async fn shake<T: Transport>(transport: T, limits: &Limits) -> Result<Client, UpstreamError> {
    let io = Stream::new(transport, Bytes::new());
    let shaken = Builder::new()
        .initial_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.http2.send_buffer)
        .initial_max_send_streams(UNSAID)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await;
    let (requests, mut connection) =
        shaken.map_err(|error| UpstreamError::Connect(error.to_string()))?;
    let patience = limits.http2.no_streams_timeout;
    admitted(&requests, &mut connection, patience).await?;
    let state = Rc::new(State {
        streams: Cell::new(0),
        closed: Cell::new(false),
        used: Cell::new(Instant::now()),
    });
    let driven = state.clone();
    spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 endpoint ended");
        }
        driven.closed.set(true);
    });
    let client = Client {
        requests,
        state,
        idle_timeout: limits.body_idle_timeout,
    };
    match client.is_usable() {
        true => Ok(client),
        false => Err(UpstreamError::Connect(
            "the endpoint is going away".to_owned(),
        )),
    }
}

/// Reads until the endpoint has said how many streams it admits, and admits one.
///
/// A request that it never admits would wait in the library's queue for ever, where nothing tells
/// it from one that waits for its answer (CVE-2021-32780). RFC 9113 §6.5.2: a limit of zero is for
/// short durations only.
async fn admitted<T: Transport>(
    requests: &SendRequest<Bytes>,
    connection: &mut Connection<Stream<T>, Bytes>,
    patience: Duration,
) -> Result<(), UpstreamError> {
    let refuse = |why: String| Poll::Ready(Err(UpstreamError::Connect(why)));
    let mut waited = Deadline::default();
    poll_fn(|cx| {
        match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(Ok(())) => return refuse("the endpoint closed".to_owned()),
            Poll::Ready(Err(error)) => return refuse(error.to_string()),
            Poll::Pending => {}
        }
        match requests.current_max_send_streams() {
            UNSAID => Poll::Pending,
            0 => {
                if !waited.is_set() {
                    waited.set(patience);
                }
                ready!(waited.poll_elapsed(cx));
                refuse("the endpoint admits no streams".to_owned())
            }
            _ => Poll::Ready(Ok(())),
        }
    })
    .await
}

// === impl Client ===

impl Client {
    /// False once the connection has ended or the endpoint has sent GOAWAY.
    pub(crate) fn is_usable(&self) -> bool {
        if self.state.closed.get() {
            return false;
        }
        let mut requests = self.requests.clone();
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    pub(crate) fn streams(&self) -> usize {
        self.state.streams.get()
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.streams() == 0).then(|| self.state.used.get())
    }

    /// Whether nothing runs here and, as the endpoint has it now, nothing could.
    pub(crate) fn is_barren(&self) -> bool {
        self.streams() == 0 && self.requests.current_max_send_streams() == 0
    }

    /// A place for one more stream, where the endpoint admits one.
    pub(crate) fn reserve(&self, most: usize) -> Option<Slot> {
        let most = most.min(self.requests.current_max_send_streams());
        (self.streams() < most).then(|| {
            self.state.streams.set(self.streams() + 1);
            Slot(self.state.clone())
        })
    }

    pub(crate) async fn send(
        &self,
        slot: Slot,
        request: Request<Body>,
        Interim(forward): &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        let (parts, body) = request.into_parts();
        let request = message::send_request(parts)
            .map_err(|error| UpstreamError::Protocol(error.to_string()))?;
        let mut requests = self.requests.clone();
        let unsent = |error: h2::Error| failure(&error, false);
        poll_fn(|cx| requests.poll_ready(cx))
            .await
            .map_err(unsent)?;
        let empty = body.is_end_stream();
        let (mut response, stream) = requests.send_request(request, empty).map_err(unsent)?;
        let mut upload = match empty {
            true => Upload::Done,
            false => Upload::Running(Sending::new(stream, body, self.idle_timeout)),
        };
        let mut forwarded = 0;
        let response = poll_fn(|cx| {
            if let Err(error) = upload.poll(cx) {
                return Poll::Ready(Err(UpstreamError::RequestBody(error)));
            }
            if poll_interim(&mut response, cx, &mut forwarded, forward.as_ref()).is_err() {
                let why = "too many interim responses".to_owned();
                return Poll::Ready(Err(UpstreamError::Protocol(why)));
            }
            Pin::new(&mut response)
                .poll(cx)
                .map_err(|error| failure(&error, true))
        })
        .await?;
        let (parts, stream) = response.into_parts();
        let body = match Received::body(stream, &parts.headers) {
            Body::Empty => Body::Empty,
            // All of it is here, and nothing is left to be done.
            Body::Full(data) if matches!(upload, Upload::Done) => Body::Full(data),
            body => Body::stream(ResponseBody {
                body,
                upload,
                _slot: slot,
            }),
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// No window holds heads up: an endpoint that never comes to the point would fill the memory for
/// a client that does not read.
fn poll_interim(
    response: &mut ResponseFuture,
    cx: &mut Context<'_>,
    forwarded: &mut usize,
    forward: &dyn Fn(Response<()>),
) -> Result<(), TooMany> {
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        *forwarded += 1;
        if *forwarded > MOST_INTERIM {
            return Err(TooMany);
        }
        forward(interim);
    }
    Ok(())
}

fn failure(error: &h2::Error, head_sent: bool) -> UpstreamError {
    // RFC 9113 §8.7: what was not processed is safe to send again.
    let unprocessed = error.is_remote()
        && (error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)));
    if unprocessed {
        return UpstreamError::RefusedStream;
    }
    UpstreamError::Reset {
        head_sent,
        reason: error.to_string(),
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

// === impl Upload ===

impl Upload {
    /// Moves on. Only the client's own failure is one: an endpoint that takes no more of a
    /// request may still answer it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Self::Running(sending) = self else {
            return Ok(());
        };
        match sending.poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) | Poll::Ready(Err(SendError::Stream(_))) => {
                *self = Self::Done;
                Ok(())
            }
            Poll::Ready(Err(SendError::Body(error))) => {
                *self = Self::Done;
                Err(error)
            }
        }
    }
}

// === impl ResponseBody ===

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Err(error) = self.upload.poll(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
