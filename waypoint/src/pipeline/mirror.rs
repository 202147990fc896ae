//! Copies of requests for a service that is watched: with their bodies, never waited for.
//!
//! What a slow mirror has not read is bounded; past that the copy is broken off.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::message::BodyError;

/// Where the original is read: feeds one mirror. Dropped before its end, it breaks the copy off.
pub(crate) struct Tee(Weak<RefCell<Queue>>);

/// The copy of a body.
pub(crate) struct Copy(Rc<RefCell<Queue>>);

struct Queue {
    frames: VecDeque<Frame<Bytes>>,
    waiting: usize,
    limit: usize,
    end: End,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    /// The original broke off, or the mirror was too slow.
    Broken,
}

/// Both sides of a copy that holds at most `limit` unread bytes.
pub(crate) fn copy(limit: usize) -> (Tee, Copy) {
    let queue = Rc::new(RefCell::new(Queue {
        frames: VecDeque::new(),
        waiting: 0,
        limit,
        end: End::Open,
        reader: None,
    }));
    (Tee(Rc::downgrade(&queue)), Copy(queue))
}

// === impl Tee ===

impl Tee {
    pub(crate) fn push_data(&mut self, data: &Bytes) {
        self.push(Frame::data(data.clone()), data.len());
    }

    pub(crate) fn push_trailers(&mut self, trailers: &HeaderMap) {
        self.push(Frame::trailers(trailers.clone()), 0);
    }

    /// All of the original was read.
    pub(crate) fn end(self) {
        self.finish(End::Whole);
    }

    fn push(&self, frame: Frame<Bytes>, size: usize) {
        let Some(queue) = self.0.upgrade() else {
            return;
        };
        let mut queue = queue.borrow_mut();
        if queue.end != End::Open {
            return;
        }
        queue.waiting += size;
        if queue.waiting > queue.limit {
            metrics::counter!("waypoint_mirrors_broken_total").increment(1);
            queue.end = End::Broken;
            queue.frames.clear();
        } else {
            queue.frames.push_back(frame);
        }
        queue.wake();
    }

    fn finish(&self, end: End) {
        if let Some(queue) = self.0.upgrade() {
            let mut queue = queue.borrow_mut();
            if queue.end == End::Open {
                queue.end = end;
                queue.wake();
            }
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.finish(End::Broken);
    }
}

// === impl Queue ===

impl Queue {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

// === impl Copy ===

impl http_body::Body for Copy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.0.borrow_mut();
        if let Some(frame) = queue.frames.pop_front() {
            queue.waiting -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match queue.end {
            End::Open => {
                queue.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Whole => Poll::Ready(None),
            End::Broken => Poll::Ready(Some(Err(BodyError::Reset(
                "the mirror could not follow".to_owned(),
            )))),
        }
    }
}
