//! A request's body, read from its connection when the pipeline or the endpoint takes it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Shared;
use crate::deadline::Deadline;
use crate::limits::Limits;
use crate::message::BodyError;
use crate::transport::Transport;

pub(super) struct RequestBody<T> {
    shared: Rc<Shared<T>>,
    limits: Rc<Limits>,
    generation: u64,
    /// Runs while somebody waits for the client.
    deadline: Deadline,
}

impl<T> RequestBody<T> {
    pub(super) fn new(shared: Rc<Shared<T>>, limits: &Rc<Limits>) -> Self {
        Self {
            generation: shared.generation.get(),
            shared,
            limits: limits.clone(),
            deadline: Deadline::default(),
        }
    }

    fn is_current(&self) -> bool {
        self.generation == self.shared.generation.get()
    }
}

impl<T: Transport> http_body::Body for RequestBody<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.is_current() {
            let reason = "its request has been answered".to_owned();
            return Poll::Ready(Some(Err(BodyError::Reset(reason))));
        }
        let Self {
            shared,
            limits,
            deadline,
            ..
        } = &mut *self;
        let frame = {
            let mut wire = shared.wire.borrow_mut();
            let mut decoder = shared.decoder.borrow_mut();
            wire.poll_body(cx, &mut decoder, &limits.head)
        };
        if frame.is_pending() {
            if !deadline.is_set() {
                deadline.set(limits.body_idle_timeout);
            }
            ready!(deadline.poll_elapsed(cx));
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        deadline.clear();
        shared.progress.set(true);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_current() && self.shared.decoder.borrow().is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.shared.decoder.borrow().exact() {
            Some(left) if self.is_current() => SizeHint::with_exact(left),
            Some(_) | None => SizeHint::new(),
        }
    }
}
