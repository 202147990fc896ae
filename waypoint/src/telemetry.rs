//! What is counted of requests and connections: Istio's standard metrics, as a waypoint reports them.
//!
//! A worker counts into series of its own, so that a request costs a few uncontended additions;
//! workers' shares are added up when they are asked for.
//!
//! - `labels`: what a series is about.
//! - `histogram`: Istio's buckets.
//! - `registry`: all series of the process, and their rendering.
//! - `worker`: one worker's handles.

mod labels;

mod histogram;

pub(crate) mod registry;

mod worker;

pub(crate) use self::labels::{Peers, RequestLabels, RequestProtocol};
pub(crate) use self::registry::{MessageSeries, TcpSeries};
pub(crate) use self::worker::Telemetry;

#[cfg(test)]
mod tests;
