//! One tunnelled connection: an HTTP/2 stream after its 200.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::client::{Stall, StreamSlot, TunnelState};

/// Why a tunnel was cut, and its streams with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("the peer's certificate has been revoked")]
    Revoked,
    #[error("the peer no longer answers")]
    PeerLost,
}

/// Both directions of a tunnelled connection. Dropping it resets what is still open.
#[derive(Debug)]
pub struct Stream {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// Keeps its place in the tunnel's count of streams.
    slot: Option<StreamSlot>,
}

/// Towards the peer.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: SendStream<Bytes>,
    /// While the peer's window admits nothing of what there is to send.
    stall: Option<Stall>,
}

/// From the peer.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: RecvStream,
    /// While something has been taken and not been handed on.
    stall: Option<Stall>,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(
        sender: SendStream<Bytes>,
        receiver: RecvStream,
        slot: Option<StreamSlot>,
    ) -> Self {
        let stall = || slot.as_ref().map(StreamSlot::stall);
        Self {
            sender: Sender {
                stream: sender,
                stall: stall(),
            },
            receiver: Receiver {
                stream: receiver,
                stall: stall(),
            },
            slot,
        }
    }

    /// Why the tunnel that a client opened it on was cut, or the one around that, where it was.
    pub fn cut(&self) -> Option<Cut> {
        self.slot.as_ref().and_then(StreamSlot::cut)
    }

    /// The tunnel that a client opened it on.
    pub(crate) fn tunnel(&self) -> Option<Rc<TunnelState>> {
        self.slot.as_ref().map(StreamSlot::tunnel)
    }

    /// The next bytes; none once the peer has ended its direction. Only what has been taken is
    /// admitted again: a reader that stops asking holds up its peer.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        loop {
            match ready!(self.receiver.poll_data(cx)) {
                // The end is announced by a frame of its own.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.receiver.release(data.len());
                    return Poll::Ready(Some(Ok(data)));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Takes from `data` what the peer's window admits; ready once nothing is left of it.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), h2::Error>> {
        self.sender.poll_send(cx, data)
    }

    /// Ends the direction towards the peer.
    pub fn finish(&mut self) -> Result<(), h2::Error> {
        self.sender.finish()
    }

    /// Ready once the peer no longer reads.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<h2::Error> {
        self.sender.poll_closed(cx)
    }

    #[cfg(test)]
    pub(crate) fn stop_reading(&mut self) {
        self.sender.stream.send_reset(Reason::NO_ERROR);
    }

    /// Ends both directions at once, so that the peer sees a broken connection.
    pub fn abort(&mut self) {
        // RFC 9113 §8.5: an error of the TCP connection is a stream error CONNECT_ERROR.
        self.sender.stream.send_reset(Reason::CONNECT_ERROR);
    }
}

// === impl Sender ===

impl Sender {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), h2::Error>> {
        while !data.is_empty() {
            ready!(self.poll_send_some(cx, data))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes from `data`, which is not empty, what the peer's window admits.
    pub(crate) fn poll_send_some(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), h2::Error>> {
        // Capacity is asked for only while there are bytes: a reservation of an idle
        // stream would be taken from the window its siblings share.
        self.stream.reserve_capacity(data.len());
        let mut capacity = self.stream.capacity();
        if capacity == 0 {
            set(&mut self.stall, true);
            capacity = ready!(self.poll_capacity(cx))?;
        }
        set(&mut self.stall, false);
        let admitted = data.split_to(capacity.min(data.len()));
        Poll::Ready(self.stream.send_data(admitted, false))
    }

    pub(crate) fn finish(&mut self) -> Result<(), h2::Error> {
        self.stream.send_data(Bytes::new(), true)
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, h2::Error>> {
        match ready!(self.stream.poll_capacity(cx)) {
            Some(capacity) => Poll::Ready(capacity),
            // The stream has ended; its reset says why, where there was one.
            None => Poll::Ready(Err(match self.poll_closed(cx) {
                Poll::Ready(error) => error,
                Poll::Pending => Reason::STREAM_CLOSED.into(),
            })),
        }
    }

    /// Ready once the peer no longer reads, with its reason.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<h2::Error> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(reason.into()),
            Err(error) => Poll::Ready(error),
        }
    }
}

// === impl Receiver ===

impl Receiver {
    /// The next bytes; none at the end. What is taken must be [`Receiver::release`]d.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                set(&mut self.stall, !data.is_empty());
                Poll::Ready(Some(Ok(data)))
            }
            // Istio's ztunnel drops a stream it is done with, which is a reset of these kinds.
            Some(Err(error))
                if matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL))
                    && !error.is_io()
                    && !error.is_go_away() =>
            {
                Poll::Ready(None)
            }
            other => Poll::Ready(other),
        }
    }

    /// Bytes that have come and have not been released.
    pub(crate) fn held(&mut self) -> usize {
        self.stream.flow_control().used_capacity()
    }

    /// Lets the peer send as many bytes more.
    pub(crate) fn release(&mut self, amount: usize) {
        // Fails only for more than was received, or after the stream's end.
        let _ = self.stream.flow_control().release_capacity(amount);
        set(&mut self.stall, false);
    }
}

fn set(stall: &mut Option<Stall>, stalled: bool) {
    if let Some(stall) = stall {
        stall.set(stalled);
    }
}
