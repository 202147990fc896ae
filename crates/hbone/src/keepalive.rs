//! Probes a silent connection; one that carries data is its own proof of life.

use std::rc::Rc;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time;

use crate::tls::Activity;

/// Has a connection probed at once, whoever doubts it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Rc<Notify>);

/// Returns when the peer has answered nothing for too long.
pub(crate) async fn peer_lost(
    mut pings: PingPong,
    activity: Activity,
    doubt: Doubt,
    interval: Duration,
    timeout: Duration,
) {
    loop {
        let before = activity.reads();
        let doubted = time::timeout(interval, doubt.0.notified()).await.is_ok();
        if !doubted && activity.reads() != before {
            continue;
        }
        match time::timeout(timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is ending by itself, and says why to whoever drives it.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

// === impl Doubt ===

impl Doubt {
    pub(crate) fn raise(&self) {
        self.0.notify_one();
    }
}
