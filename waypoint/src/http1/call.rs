//! One request on a connection to an endpoint. Its body goes out while the response comes in;
//! both move when the caller asks for the response, so that a call needs no task of its own.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::encode::{self, Encoder, Trailers, Written};
use super::framing::Length;
use super::head::{self, Persistence, ResponseHead};
use super::wire::{Decoder, ReadError, Wire};
use crate::limits::Limits;
use crate::message::{Body, BodyError, Interim, UpstreamError};
use crate::transport::Transport;

/// Interim responses of one request.
pub(crate) const MOST_INTERIM: usize = 16;

/// Takes a connection back that may carry another request.
pub(crate) trait Recycle<T>: 'static {
    fn recycle(&self, wire: Wire<T>);
}

/// What a request brought.
pub(crate) enum Answer<T> {
    Response(Response<Body>),
    /// 101: the connection is no longer HTTP.
    Switched(Response<()>, Wire<T>),
}

struct Call<T, R> {
    wire: Wire<T>,
    upload: Upload,
    /// Whether the endpoint may have seen any of the request.
    head_sent: bool,
    decoder: Decoder,
    persistence: Persistence,
    recycle: R,
    limits: Rc<Limits>,
}

/// The request's body on its way out.
enum Upload {
    Running(Body, Encoder),
    /// Everything is handed over; some may wait to be written.
    Flushing,
    Done,
    Failed(Failure),
}

/// Whose fault it was.
#[derive(Clone, Debug)]
enum Failure {
    Client(BodyError),
    Endpoint(String),
}

struct ResponseBody<T, R>(Option<Box<Call<T, R>>>);

/// Whether an idle connection is still good: the endpoint has neither closed nor spoken.
pub(crate) fn is_usable<T: Transport>(wire: &mut Wire<T>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    wire.input.is_empty() && !wire.input.ended && wire.poll_more(&mut cx).is_pending()
}

/// Sends a request and waits for its response's head.
pub(crate) async fn send<T: Transport, R: Recycle<T>>(
    wire: Wire<T>,
    request: Request<Body>,
    interim: &Interim,
    recycle: R,
    limits: Rc<Limits>,
) -> Result<Answer<T>, UpstreamError> {
    let (parts, body) = request.into_parts();
    let mut wire = wire;
    let encoder = encode::request(&mut wire.output, &parts, &body);
    let mut call = Call {
        wire,
        upload: Upload::Running(body, encoder),
        head_sent: false,
        decoder: Decoder::Done,
        persistence: Persistence::Close,
        recycle,
        limits,
    };
    let upgrade = parts.headers.contains_key(http::header::UPGRADE);
    let head = call.response_head(&parts.method, upgrade, interim).await?;
    if head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let sent = matches!(call.upload, Upload::Done);
        return match sent {
            true => Ok(Answer::Switched(head.response, call.wire)),
            false => Err(UpstreamError::Protocol(
                "101 before the request's end".to_owned(),
            )),
        };
    }
    call.decoder = Decoder::new(head.length);
    call.persistence = head.persistence;
    let (parts, ()) = head.response.into_parts();
    let body = call.into_body(head.length);
    Ok(Answer::Response(Response::from_parts(parts, body)))
}

// === impl Call ===

impl<T: Transport, R: Recycle<T>> Call<T, R> {
    async fn response_head(
        &mut self,
        method: &Method,
        upgrade: bool,
        Interim(forward): &Interim,
    ) -> Result<ResponseHead, UpstreamError> {
        for _ in 0..=MOST_INTERIM {
            let head = poll_fn(|cx| self.poll_head(cx, method)).await?;
            let status = head.response.status();
            if !status.is_informational() {
                return Ok(head);
            }
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return match upgrade {
                    true => Ok(head),
                    false => Err(UpstreamError::Protocol("101 without an upgrade".to_owned())),
                };
            }
            forward(head.response);
        }
        Err(UpstreamError::Protocol(
            "too many interim responses".to_owned(),
        ))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        self.poll_upload(cx);
        if let Upload::Failed(Failure::Client(error)) = &self.upload {
            return Poll::Ready(Err(UpstreamError::RequestBody(error.clone())));
        }
        let limits = &self.limits.head;
        let parse = |input: &mut Bytes| head::parse_response(input, method, limits);
        // A response may have come although the endpoint takes no more of the request.
        let reason = match ready!(self.wire.poll_head(cx, limits, parse)) {
            Ok(Some(head)) => return Poll::Ready(Ok(head)),
            Err(ReadError::Head(error)) => {
                return Poll::Ready(Err(UpstreamError::Protocol(error.to_string())));
            }
            Ok(None) => match &self.upload {
                Upload::Failed(Failure::Endpoint(reason)) => reason.clone(),
                _ => "closed before a response".to_owned(),
            },
            Err(ReadError::Truncated) => "closed within a response's head".to_owned(),
            Err(ReadError::Io(error)) => error.to_string(),
        };
        Poll::Ready(Err(UpstreamError::Reset {
            head_sent: self.head_sent,
            reason,
        }))
    }

    /// Moves the request's body as far as it goes now. What fails is kept.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        loop {
            let output = &mut self.wire.output;
            if let Upload::Running(body, encoder) = &mut self.upload
                && output.len() < self.limits.body_chunk
            {
                match poll_frame(body, encoder, output, cx) {
                    Poll::Ready(Ok(Written::Data)) => continue,
                    Poll::Ready(Ok(Written::End)) => self.upload = Upload::Flushing,
                    Poll::Ready(Err(error)) => {
                        self.upload = Upload::Failed(Failure::Client(error));
                        return;
                    }
                    Poll::Pending => {
                        let _ = self.poll_flush(cx);
                        return;
                    }
                }
            }
            match &self.upload {
                Upload::Done | Upload::Failed(_) => return,
                Upload::Running(..) | Upload::Flushing => {}
            }
            if self.poll_flush(cx).is_pending() {
                return;
            }
            if let Upload::Flushing = self.upload {
                self.upload = Upload::Done;
            }
        }
    }

    /// Writes what waits. What fails is kept.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let flushed = self.wire.poll_flush(cx);
        let waiting = match &flushed {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        };
        match flushed {
            Poll::Ready(Err(error)) => {
                self.upload = Upload::Failed(Failure::Endpoint(error.to_string()));
            }
            Poll::Ready(Ok(())) | Poll::Pending => self.head_sent = true,
        }
        waiting
    }

    /// The response's body: at once where all of it is here, so that the connection is free.
    fn into_body(mut self, length: Length) -> Body {
        let pending = &mut self.wire.input.pending;
        let here = match length {
            Length::None => Some(Body::Empty),
            Length::Exact(length) => usize::try_from(length)
                .ok()
                .filter(|length| *length <= pending.len())
                .map(|length| Body::Full(pending.split_to(length))),
            Length::Chunked | Length::UntilClose => None,
        };
        match here {
            Some(body) => {
                self.finish();
                body
            }
            None => Body::stream(ResponseBody(Some(Box::new(self)))),
        }
    }

    /// Gives the connection back, if its request went out whole and nothing follows the
    /// response: excess bytes would be taken for the next one.
    fn finish(self) {
        let clean = matches!(self.upload, Upload::Done)
            && self.persistence == Persistence::Keep
            && self.wire.input.is_empty()
            && self.wire.output.is_empty()
            && !self.wire.input.ended;
        if clean {
            let mut wire = self.wire;
            wire.input = Default::default();
            self.recycle.recycle(wire);
        }
    }
}

/// Writes one frame of a body; ready with the end once.
pub(crate) fn poll_frame(
    body: &mut Body,
    encoder: &mut Encoder,
    output: &mut super::wire::Output,
    cx: &mut Context<'_>,
) -> Poll<Result<Written, BodyError>> {
    match ready!(Pin::new(&mut *body).poll_frame(cx)) {
        Some(Ok(frame)) => {
            let written = encoder.frame(output, frame, Trailers::Send);
            Poll::Ready(written)
        }
        Some(Err(error)) => Poll::Ready(Err(error)),
        None => Poll::Ready(encoder.end(output, None).map(|()| Written::End)),
    }
}

// === impl ResponseBody ===

impl<T: Transport, R: Recycle<T>> http_body::Body for ResponseBody<T, R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(call) = &mut self.0 else {
            return Poll::Ready(None);
        };
        call.poll_upload(cx);
        let Call {
            wire,
            decoder,
            limits,
            ..
        } = &mut **call;
        let frame = ready!(wire.poll_body(cx, decoder, &limits.head));
        let over = decoder.is_done();
        match frame {
            Some(Err(error)) => {
                self.0 = None;
                Poll::Ready(Some(Err(error)))
            }
            frame => {
                if over && let Some(call) = mem::take(&mut self.0) {
                    call.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(call) => match call.decoder.exact() {
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
