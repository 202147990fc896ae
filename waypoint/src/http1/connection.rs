//! A client's HTTP/1.1 connection: requests one after the other, each answered before the next
//! is read. One task serves it; the pipeline and the call to the endpoint run within.

mod body;

mod respond;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};

use self::body::RequestBody;
use self::respond::Outcome;
use super::encode::{self, Trailers};
use super::framing::{FramingError, Length};
use super::head::{self, HeadError, Persistence, RequestHead};
use super::wire::{Decoder, ReadError, Wire};
use crate::deadline::Deadline;
use crate::drain::{Member, Phase};
use crate::limits::{HalfClose, UserConnect};
use crate::message::{Body, Interim, Io, Pipeline, UpgradeRequested};
use crate::session::Session;
use crate::transport::Transport;
use crate::upgrade;

/// Pipelined bytes read while a request is answered; more wait in the tunnel.
const READ_AHEAD: usize = 64 << 10;

/// The connection, shared with the body of the request under way.
pub(crate) struct Shared<T> {
    wire: RefCell<Wire<T>>,
    decoder: RefCell<Decoder>,
    /// Which request the decoder is for: a body kept for longer reads nothing of the next.
    generation: Cell<u64>,
    /// Bytes came since the deadline was last set.
    progress: Cell<bool>,
}

struct Connection<T, P> {
    shared: Rc<Shared<T>>,
    session: Session<P>,
    interim: Interim,
    drain: Member,
    deadline: Deadline,
}

/// What the response depends on besides itself.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    version: Version,
    persistence: Persistence,
    trailers: Trailers,
    upgrade: bool,
    expects_continue: bool,
}

/// Serves a connection to its end. `received` has been read from it already.
pub(crate) async fn serve<T: Transport, P: Pipeline>(
    transport: T,
    received: Bytes,
    session: Session<P>,
) {
    let shared = Rc::new(Shared {
        wire: RefCell::new(Wire::new(transport, received)),
        decoder: RefCell::new(Decoder::Done),
        generation: Cell::new(0),
        progress: Cell::new(false),
    });
    let interim = Interim(Rc::new({
        let shared = Rc::downgrade(&shared);
        move |response: Response<()>| {
            if let Some(shared) = shared.upgrade() {
                encode::interim(&mut shared.wire.borrow_mut().output, &response);
            }
        }
    }));
    let mut connection = Connection {
        shared,
        drain: session.drain.member(),
        session,
        interim,
        deadline: Deadline::default(),
    };
    while let Some(head) = connection.next_head().await {
        match connection.request(head).await {
            Next::Request => {}
            Next::Close => return connection.close().await,
            Next::Abort => return connection.shared.wire.borrow_mut().transport.abort(),
            Next::Switch(server) => return connection.switch(server).await,
        }
    }
}

/// What becomes of the connection after a request.
enum Next {
    Request,
    /// The response is out; the client may still be sending.
    Close,
    /// The client must see that something is missing.
    Abort,
    Switch(Pin<Box<dyn Io>>),
}

/// How waiting for a response ended.
enum Waited {
    Response(Response<Body>),
    ClientGone,
}

/// Why no request follows.
enum NoHead {
    Ended,
    Gone,
    Silent,
    SlowHead,
    Drained,
    Refused(HeadError),
}

impl<T: Transport, P: Pipeline> Connection<T, P> {
    /// The next request's head; none where the connection is over, with the client told why.
    async fn next_head(&mut self) -> Option<RequestHead> {
        self.deadline.set(self.session.limits.idle_timeout);
        let mut begun = false;
        let read = poll_fn(|cx| self.poll_next_head(cx, &mut begun)).await;
        self.deadline.clear();
        let failure = match read {
            Ok(head) => return Some(head),
            Err(failure) => failure,
        };
        let (status, reason) = match &failure {
            NoHead::Ended | NoHead::Silent | NoHead::Drained => {
                self.close().await;
                return None;
            }
            NoHead::Gone => return None,
            NoHead::SlowHead => (StatusCode::REQUEST_TIMEOUT, "head timed out".to_owned()),
            NoHead::Refused(error) => (status_of(error), error.to_string()),
        };
        self.refuse(status, &reason).await;
        None
    }

    fn poll_next_head(
        &mut self,
        cx: &mut Context<'_>,
        begun: &mut bool,
    ) -> Poll<Result<RequestHead, NoHead>> {
        let limits = &self.session.limits;
        {
            let mut wire = self.shared.wire.borrow_mut();
            let parse = |input: &mut Bytes| head::parse_request(input, &limits.head);
            match wire.poll_head(cx, &limits.head, parse) {
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(NoHead::Ended)),
                Poll::Ready(Err(ReadError::Head(error))) => {
                    return Poll::Ready(Err(NoHead::Refused(error)));
                }
                Poll::Ready(Err(ReadError::Io(_) | ReadError::Truncated)) => {
                    return Poll::Ready(Err(NoHead::Gone));
                }
                Poll::Pending => {}
            }
            if wire.input.is_partial() && !*begun {
                *begun = true;
                self.deadline.set(limits.head_timeout);
            }
        }
        if !*begun && self.drain.poll_reached(cx, Phase::Closing).is_ready() {
            return Poll::Ready(Err(NoHead::Drained));
        }
        match self.deadline.poll_elapsed(cx) {
            Poll::Ready(()) if *begun => Poll::Ready(Err(NoHead::SlowHead)),
            Poll::Ready(()) => Poll::Ready(Err(NoHead::Silent)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Answers a request that broke HTTP. Nothing after it can be trusted.
    async fn refuse(&mut self, status: StatusCode, reason: &str) {
        let session = &self.session;
        session
            .pipeline
            .rejected(&session.downstream, status, reason);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        let asked = Asked {
            method: Method::GET,
            version: Version::HTTP_11,
            persistence: Persistence::Close,
            trailers: Trailers::Drop,
            upgrade: false,
            expects_continue: false,
        };
        if let Outcome::Close | Outcome::Keep = self.respond(&asked, response).await {
            self.close().await;
        }
    }

    async fn request(&mut self, head: RequestHead) -> Next {
        let asked = Asked {
            method: head.request.method().clone(),
            version: head.request.version(),
            persistence: head.persistence,
            trailers: match head.accepts_trailers {
                true => Trailers::Send,
                false => Trailers::Drop,
            },
            upgrade: head.upgrade,
            expects_continue: head.expects_continue,
        };
        if asked.method == Method::CONNECT
            && self.session.limits.user_connect == UserConnect::Refuse
        {
            self.refuse(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not allowed")
                .await;
            return Next::Abort;
        }
        let request = self.receive(head);
        let waited = {
            let session = &self.session;
            // Only a request under way pays for the pipeline's state.
            let exchange = session
                .pipeline
                .exchange(&session.downstream, request, &self.interim);
            let mut exchange = Box::pin(exchange);
            let watch = Watch {
                shared: &self.shared,
                half_close: session.limits.half_close,
            };
            poll_fn(|cx| watch.poll_response(cx, exchange.as_mut())).await
        };
        let mut response = match waited {
            Waited::Response(response) => response,
            Waited::ClientGone => return Next::Abort,
        };
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = match (switching, mem::take(response.body_mut())) {
            (true, Body::Upgraded(server)) if asked.upgrade => Some(server),
            // A switch that nobody asked for would let one side's bytes pass for the other's.
            (true, _) => {
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response.headers_mut().clear();
                None
            }
            (false, body) => {
                *response.body_mut() = body;
                None
            }
        };
        match (self.respond(&asked, response).await, upgraded) {
            (Outcome::Keep | Outcome::Close, Some(upgraded)) => Next::Switch(upgraded),
            (Outcome::Keep, None) if self.drain_request(&asked).await => {
                self.shared.generation.set(self.shared.generation.get() + 1);
                Next::Request
            }
            (Outcome::Keep | Outcome::Close, None) => Next::Close,
            (Outcome::Abort, _) => Next::Abort,
        }
    }

    /// The request as the pipeline gets it.
    fn receive(&self, head: RequestHead) -> Request<Body> {
        let RequestHead {
            mut request,
            length,
            upgrade,
            ..
        } = head;
        if upgrade {
            request.extensions_mut().insert(UpgradeRequested);
        }
        let mut wire = self.shared.wire.borrow_mut();
        let pending = &mut wire.input.pending;
        let body = match length {
            Length::None => Body::Empty,
            Length::Exact(length) if length <= pending.len() as u64 => {
                let length = usize::try_from(length).unwrap_or(pending.len());
                Body::Full(pending.split_to(length))
            }
            Length::Exact(_) | Length::Chunked | Length::UntilClose => {
                *self.shared.decoder.borrow_mut() = Decoder::new(length);
                Body::stream(RequestBody::new(self.shared.clone(), &self.session.limits))
            }
        };
        request.map(|()| body)
    }

    /// Reads what is left of a request that was answered early, if that is little. False where the
    /// connection can't go on.
    async fn drain_request(&mut self, asked: &Asked) -> bool {
        let shared = self.shared.clone();
        if shared.decoder.borrow().is_done() {
            return true;
        }
        let limits = self.session.limits.clone();
        let most = limits.drained_body as u64;
        let left = shared.decoder.borrow().exact();
        // Whoever waits for a 100 sends no body after a final response, or does: nobody knows.
        if asked.expects_continue || left.is_some_and(|left| left > most) {
            return false;
        }
        self.deadline.set(limits.linger);
        let mut drained = 0;
        poll_fn(|cx| {
            let mut decoder = shared.decoder.borrow_mut();
            loop {
                let mut wire = shared.wire.borrow_mut();
                match wire.poll_body(cx, &mut decoder, &limits.head) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Ready(Some(Ok(frame))) => {
                        drained += frame.data_ref().map_or(0, |data| data.len() as u64);
                        if drained > most {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Pending => break,
                }
            }
            self.deadline.poll_elapsed(cx).map(|()| false)
        })
        .await
    }

    /// Ends our direction and lets the client finish: a reset would destroy what it has not
    /// read yet.
    async fn close(&mut self) {
        let shared = self.shared.clone();
        let limits = self.session.limits.clone();
        self.deadline.set(limits.linger);
        let mut finished = false;
        let mut dropped = 0;
        poll_fn(|cx| {
            let mut wire = shared.wire.borrow_mut();
            wire.input.pending = Bytes::new();
            loop {
                if !finished {
                    let flushed = wire.poll_flush(cx);
                    let ended = match flushed {
                        Poll::Ready(Ok(())) => wire.transport.poll_finish(cx),
                        other => other,
                    };
                    match ended {
                        Poll::Ready(Ok(())) => finished = true,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                }
                if wire.input.ended {
                    break;
                }
                match wire.transport.poll_receive(cx) {
                    Poll::Ready(Ok(data)) if data.is_empty() => wire.input.ended = true,
                    Poll::Ready(Ok(data)) => {
                        dropped += data.len();
                        if dropped > limits.drained_body * 4 {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            if finished && wire.input.ended {
                return Poll::Ready(());
            }
            self.deadline.poll_elapsed(cx)
        })
        .await;
    }

    /// Carries bytes to and fro after a 101.
    async fn switch(self, server: Pin<Box<dyn Io>>) {
        let Self {
            shared, session, ..
        } = self;
        // The closure that sends interim responses holds no strong reference.
        if let Ok(shared) = Rc::try_unwrap(shared).map_err(drop) {
            upgrade::run(shared.wire.into_inner(), server, &session).await;
        }
    }
}

/// Watches the client while the pipeline works.
struct Watch<'a, T> {
    shared: &'a Shared<T>,
    half_close: HalfClose,
}

impl<T: Transport> Watch<'_, T> {
    fn poll_response(
        &self,
        cx: &mut Context<'_>,
        exchange: Pin<&mut impl Future<Output = Response<Body>>>,
    ) -> Poll<Waited> {
        if let Poll::Ready(response) = exchange.poll(cx) {
            return Poll::Ready(Waited::Response(response));
        }
        let mut wire = self.shared.wire.borrow_mut();
        if !wire.output.is_empty()
            && let Poll::Ready(Err(_)) = wire.poll_flush(cx)
        {
            return Poll::Ready(Waited::ClientGone);
        }
        match self.poll_gone(cx, &mut wire) {
            Poll::Ready(()) => Poll::Ready(Waited::ClientGone),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads ahead of a request that is here whole, to see whether its client still is.
    fn poll_gone(&self, cx: &mut Context<'_>, wire: &mut Wire<T>) -> Poll<()> {
        if !self.shared.decoder.borrow().is_done() {
            return Poll::Pending;
        }
        while !wire.input.ended && wire.input.pending.len() < READ_AHEAD {
            match wire.poll_more(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        match (wire.input.ended, self.half_close) {
            (true, HalfClose::Abort) => Poll::Ready(()),
            (true, HalfClose::Serve) | (false, _) => Poll::Pending,
        }
    }
}

/// What a client is told of a head that was not understood.
fn status_of(error: &HeadError) -> StatusCode {
    match error {
        HeadError::Malformed(_) => StatusCode::BAD_REQUEST,
        HeadError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        HeadError::TooLarge | HeadError::TooManyFields => {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        }
        HeadError::TargetTooLong => StatusCode::URI_TOO_LONG,
        HeadError::MethodTooLong => StatusCode::NOT_IMPLEMENTED,
        HeadError::Framing(error) => match error {
            FramingError::UnsupportedCoding => StatusCode::NOT_IMPLEMENTED,
            FramingError::Ambiguous
            | FramingError::ContentLength
            | FramingError::TransferEncodingOnHttp10
            | FramingError::TransferEncoding => StatusCode::BAD_REQUEST,
        },
    }
}

#[cfg(test)]
mod tests;
