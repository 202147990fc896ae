//! Writes a response to the client, as fast as the client takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http_body::Body as _;

use super::{Asked, Connection, Watch};
use crate::drain::Phase;
use crate::http1::encode::{self, Encoder, Written};
use crate::http1::head::Persistence;
use crate::message::{Body, Pipeline};
use crate::transport::Transport;

/// How a response went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whole, and another may follow.
    Keep,
    /// Whole, and the client has been told that it is the last.
    Close,
    /// Not whole, or to nobody.
    Abort,
}

/// Frames still to be written.
struct Download {
    body: Body,
    encoder: Encoder,
    ended: bool,
}

impl<T: Transport, P: Pipeline> Connection<T, P> {
    pub(super) async fn respond(&mut self, asked: &Asked, response: Response<Body>) -> Outcome {
        let (parts, body) = response.into_parts();
        let wanted = self.persistence(asked);
        let (encoder, persistence) = {
            let output = &mut self.shared.wire.borrow_mut().output;
            encode::response(output, &parts, &body, &asked.method, asked.version, wanted)
        };
        drop(parts);
        let mut download = Download {
            // What may have no body is not read either: its sender is let go.
            body: match encoder {
                Encoder::None => Body::Empty,
                Encoder::Exact(_) | Encoder::Chunked | Encoder::UntilClose => body,
            },
            encoder,
            ended: false,
        };
        let written = poll_fn(|cx| self.poll_download(cx, &mut download, asked)).await;
        self.deadline.clear();
        match (written, persistence) {
            (Err(()), _) => Outcome::Abort,
            (Ok(()), Persistence::Keep) => Outcome::Keep,
            (Ok(()), Persistence::Close) => Outcome::Close,
        }
    }

    /// Whether another request may follow, as far as is known before the response.
    fn persistence(&self, asked: &Asked) -> Persistence {
        let draining = self.drain.phase() != Phase::Serving;
        let unread = !self.shared.decoder.borrow().is_done() && asked.expects_continue;
        let ended = self.shared.wire.borrow().input.ended;
        if draining || unread || ended {
            return Persistence::Close;
        }
        asked.persistence
    }

    /// Moves the response on. An error is the client's absence, or a response that broke off.
    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Download,
        asked: &Asked,
    ) -> Poll<Result<(), ()>> {
        let limits = self.session.limits.clone();
        loop {
            let waiting = self.shared.wire.borrow().output.len();
            let mut stalled = download.ended;
            if !download.ended && waiting < limits.body_chunk {
                // The body may itself read from this connection.
                match Pin::new(&mut download.body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        let output = &mut self.shared.wire.borrow_mut().output;
                        let written = match frame {
                            Some(Ok(frame)) => {
                                download.encoder.frame(output, frame, asked.trailers)
                            }
                            Some(Err(error)) => Err(error),
                            None => download.encoder.end(output, None).map(|()| Written::End),
                        };
                        match written {
                            Ok(Written::Data) => {}
                            Ok(Written::End) => download.ended = true,
                            Err(error) => {
                                tracing::debug!(%error, "response broke off");
                                return Poll::Ready(Err(()));
                            }
                        }
                        continue;
                    }
                    Poll::Pending => stalled = true,
                }
            }
            let mut wire = self.shared.wire.borrow_mut();
            let waiting = wire.output.len();
            let flushed = wire.poll_flush(cx);
            // Only what the client takes is progress.
            if wire.output.len() < waiting {
                self.shared.progress.set(true);
            }
            match flushed {
                Poll::Ready(Ok(())) if download.ended => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if !stalled => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let watch = Watch {
                shared: &self.shared,
                half_close: limits.half_close,
            };
            if watch.poll_gone(cx, &mut wire).is_ready() {
                return Poll::Ready(Err(()));
            }
            drop(wire);
            if self.shared.progress.take() || !self.deadline.is_set() {
                self.deadline.set(limits.body_idle_timeout);
            }
            return self.deadline.poll_elapsed(cx).map(Err);
        }
    }
}
