//! A response's body on its way to the client: counted, cut at its deadline or when policy
//! changes its mind, and the end of the request's record.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use mesh::local_reply::response_flag::ResponseFlag;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::cluster::{Active, Chosen};
use super::record::Record;
use super::streams::Watched;
use crate::message::{Body, BodyError};

/// What lasts as long as the response.
#[derive(Default)]
pub(crate) struct Lasting {
    pub(crate) deadline: Option<Instant>,
    pub(crate) watched: Option<Rc<Watched>>,
    pub(crate) active: Option<(Active, Chosen)>,
}

/// Hands the record over to the body, or ends it where there is nothing to wait for.
pub(crate) fn observe(
    mut record: Box<Record>,
    lasting: Lasting,
    response: Response<Body>,
) -> Response<Body> {
    record.response(response.status(), response.headers());
    response.map(|body| match body {
        Body::Empty => {
            record.finish();
            Body::Empty
        }
        Body::Full(data) => {
            record.response_data(&data);
            record.finish();
            Body::Full(data)
        }
        Body::Stream(inner) => Body::stream(Observed {
            inner: Body::Stream(inner),
            deadline: lasting.deadline.map(|at| Box::pin(sleep_until(at))),
            record,
            lasting,
        }),
        Body::Upgraded(io) => Body::Upgraded(Box::pin(ObservedIo {
            inner: io,
            record,
            lasting,
        })),
    })
}

struct Observed {
    inner: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    record: Box<Record>,
    lasting: Lasting,
}

/// Both directions of an upgraded connection.
struct ObservedIo<I: ?Sized> {
    record: Box<Record>,
    lasting: Lasting,
    inner: Pin<Box<I>>,
}

// === impl Observed ===

impl Observed {
    fn cut(&mut self, flag: ResponseFlag, details: &'static str, error: BodyError) -> BodyError {
        self.record.flags.add(flag);
        self.record.details = details.into();
        self.record.finish();
        self.inner = Body::Empty;
        error
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(watched) = &this.lasting.watched
            && watched.is_denied(cx)
        {
            let denied = BodyError::Reset("a policy denies it now".to_owned());
            let details = "rbac_access_denied_policy_changed";
            return Poll::Ready(Some(Err(this.cut(
                ResponseFlag::LocalReset,
                details,
                denied,
            ))));
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let flag = ResponseFlag::UpstreamRequestTimeout;
            let error = this.cut(flag, "response_timeout", BodyError::Timeout);
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.record.response_data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.record.response_trailers(trailers);
                }
                // Whoever knows that this was all does not ask again.
                if this.inner.is_end_stream() {
                    this.record.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let flag = match error {
                    BodyError::Reset(_) => ResponseFlag::UpstreamConnectionTermination,
                    BodyError::Protocol(_) => ResponseFlag::UpstreamProtocolError,
                    BodyError::Timeout => ResponseFlag::StreamIdleTimeout,
                };
                let details = "upstream_reset_after_response_started";
                let error = this.cut(flag, details, error);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.record.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl ObservedIo ===

impl<I: ?Sized> ObservedIo<I> {
    fn check(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let watched = self.lasting.watched.as_ref();
        if watched.is_some_and(|watched| watched.is_denied(cx)) {
            self.record.details = "rbac_access_denied_policy_changed".into();
            self.record.flags.add(ResponseFlag::LocalReset);
            return Err(std::io::Error::other("a policy denies it now"));
        }
        Ok(())
    }
}

impl<I: AsyncRead + ?Sized> AsyncRead for ObservedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        ready!(self.inner.as_mut().poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        self.record.response_data(read);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + ?Sized> AsyncWrite for ObservedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(self.inner.as_mut().poll_write(cx, buf))?;
        self.record.upgraded_data(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}

impl<I: ?Sized> Drop for ObservedIo<I> {
    fn drop(&mut self) {
        // However it ended, it was served.
        self.record.finish();
    }
}
