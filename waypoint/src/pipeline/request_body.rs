//! A request's body on its way to endpoints: counted once, kept as far as it fits for being sent
//! again, and copied to mirrors.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::messages::Messages;
use super::mirror::Tee;
use crate::message::{Body, BodyError};
use crate::telemetry::MessageSeries;

/// The one reader of what the client sends.
pub(crate) struct RequestBody {
    source: RefCell<Body>,
    kept: RefCell<Kept>,
    /// Bytes read.
    bytes: Cell<u64>,
    messages: RefCell<Messages>,
    /// Where messages are counted, as they pass.
    series: RefCell<Option<Arc<MessageSeries>>>,
    tees: RefCell<Vec<Tee>>,
}

struct Kept {
    /// None once the limit was passed: what was read is gone.
    frames: Option<Vec<Kind>>,
    size: usize,
    limit: usize,
    ended: bool,
}

#[derive(Clone)]
enum Kind {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// One reading, from the beginning.
struct Reading {
    of: Rc<RequestBody>,
    position: usize,
}

// === impl RequestBody ===

impl RequestBody {
    /// Keeps up to `limit` bytes; none with 0.
    pub(crate) fn new(source: Body, limit: usize, is_grpc: bool) -> Rc<Self> {
        // What says that it is too large need not be begun.
        let fits = source.size_hint().lower() <= limit as u64;
        Rc::new(Self {
            source: RefCell::new(source),
            kept: RefCell::new(Kept {
                frames: (limit > 0 && fits).then(Vec::new),
                size: 0,
                limit,
                ended: false,
            }),
            bytes: Cell::new(0),
            messages: RefCell::new(Messages::new(is_grpc)),
            series: RefCell::default(),
            tees: RefCell::default(),
        })
    }

    /// Another reader of the whole; before the first read.
    pub(crate) fn add_tee(&self, tee: Tee) {
        self.tees.borrow_mut().push(tee);
    }

    /// The body for one try. Only the latest one may be read.
    pub(crate) fn reading(self: &Rc<Self>) -> Body {
        let source = self.source.borrow();
        match &*source {
            Body::Empty => {
                self.tees.borrow_mut().drain(..).for_each(Tee::end);
                Body::Empty
            }
            // Bytes are shared, so that a second try costs nothing.
            Body::Full(data) => {
                let data = data.clone();
                drop(source);
                if self.bytes.get() == 0 {
                    self.count(&data);
                    for mut tee in self.tees.borrow_mut().drain(..) {
                        tee.push_data(&data);
                        tee.end();
                    }
                }
                Body::Full(data)
            }
            Body::Stream(_) | Body::Upgraded(_) => Body::stream(Reading {
                of: self.clone(),
                position: 0,
            }),
        }
    }

    /// Whether all that was read is kept.
    pub(crate) fn is_replayable(&self) -> bool {
        let whole = match &*self.source.borrow() {
            Body::Empty | Body::Full(_) => true,
            Body::Stream(_) | Body::Upgraded(_) => false,
        };
        whole || self.kept.borrow().frames.is_some()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Counts the messages of what is read from here on.
    pub(crate) fn count_messages(&self, series: Arc<MessageSeries>) {
        *self.series.borrow_mut() = Some(series);
    }

    fn count(&self, data: &Bytes) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        let begun = self.messages.borrow_mut().read(data);
        if let Some(series) = &*self.series.borrow() {
            series.requests.fetch_add(begun, Ordering::Relaxed);
        }
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx);
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.kept.borrow_mut().frames = None;
                self.tees.borrow_mut().clear();
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.kept.borrow_mut().ended = true;
                self.tees.borrow_mut().drain(..).for_each(Tee::end);
                return Poll::Ready(None);
            }
        };
        let mut tees = self.tees.borrow_mut();
        let kind = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                self.count(data);
                tees.iter_mut().for_each(|tee| tee.push_data(data));
                Some(Kind::Data(data.clone()))
            }
            (None, Some(trailers)) => {
                tees.iter_mut().for_each(|tee| tee.push_trailers(trailers));
                Some(Kind::Trailers(trailers.clone()))
            }
            (None, None) => None,
        };
        if let Some(kind) = kind {
            self.kept.borrow_mut().keep(kind);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

// === impl Kept ===

impl Kept {
    fn keep(&mut self, kind: Kind) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        self.size += match &kind {
            Kind::Data(data) => data.len(),
            Kind::Trailers(trailers) => trailers.len() * 64,
        };
        if self.size > self.limit {
            self.frames = None;
        } else {
            frames.push(kind);
        }
    }
}

// === impl Reading ===

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let position = self.position;
        self.position += 1;
        {
            let kept = self.of.kept.borrow();
            let frame = kept.frames.as_ref().and_then(|frames| frames.get(position));
            if let Some(kind) = frame {
                return Poll::Ready(Some(Ok(match kind {
                    Kind::Data(data) => Frame::data(data.clone()),
                    Kind::Trailers(trailers) => Frame::trailers(trailers.clone()),
                })));
            }
            if kept.ended {
                return Poll::Ready(None);
            }
        }
        let polled = self.of.poll_source(cx);
        if polled.is_pending() {
            self.position = position;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.of.kept.borrow();
        let read = kept.frames.as_ref().map_or(0, Vec::len);
        self.position >= read && (kept.ended || self.of.source.borrow().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.position > 0 {
            return SizeHint::default();
        }
        let left = self.of.source.borrow().size_hint();
        let read = self.of.bytes.get();
        let mut hint = SizeHint::default();
        hint.set_lower(left.lower() + read);
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}

#[cfg(test)]
mod tests;
