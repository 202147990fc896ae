//! An application that waits to hear what becomes of its connection.

use std::ops::{Deref, DerefMut};

use hbone::copy;

use super::socks5;
use super::telemetry::Failure;
use super::worker::Accepted;

/// An application's connection. Where it is dropped before its destination has been reached, whatever
/// the reason, the application sees a reset: a FIN would say that this was all there is.
pub(crate) struct Caller {
    accepted: Accepted,
    waits_for: Option<Answer>,
}

/// What an application waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The first bytes, or a reset.
    Bytes,
    /// The reply to its request of SOCKS.
    Reply,
}

// === impl Caller ===

impl Caller {
    /// One that has dialled its destination.
    pub(crate) fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            waits_for: Some(Answer::Bytes),
        }
    }

    /// One that has named its destination over SOCKS.
    pub(crate) fn with_request(accepted: Accepted) -> Self {
        Self {
            accepted,
            waits_for: Some(Answer::Reply),
        }
    }

    /// The destination has been reached.
    pub(crate) async fn reached(&mut self) {
        if self.waits_for == Some(Answer::Reply) {
            Box::pin(socks5::succeeded(&mut self.accepted.tcp)).await;
        }
        self.waits_for = None;
    }

    /// The destination is not reached: the application notices as soon as this is dropped, or hears
    /// why.
    pub(crate) async fn give_up(&mut self, failure: &Failure) {
        if self.waits_for == Some(Answer::Reply) {
            self.waits_for = None;
            Box::pin(socks5::failed(&mut self.accepted.tcp, failure)).await;
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.waits_for.is_some() {
            copy::abort(&self.accepted.tcp);
        }
    }
}

impl Deref for Caller {
    type Target = Accepted;

    fn deref(&self) -> &Accepted {
        &self.accepted
    }
}

impl DerefMut for Caller {
    fn deref_mut(&mut self) -> &mut Accepted {
        &mut self.accepted
    }
}
