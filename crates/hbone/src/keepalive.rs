//! Probes a silent connection; one that carries data is its own proof of life.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time;

use crate::tls::Activity;

/// Returns when the peer has answered nothing for too long.
pub(crate) async fn peer_lost(
    mut pings: PingPong,
    activity: Activity,
    interval: Duration,
    timeout: Duration,
) {
    loop {
        let before = activity.reads();
        time::sleep(interval).await;
        if activity.reads() != before {
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
