//! Which endpoints of a service a client should try, best first.

use rand::Rng;

use crate::snapshot::{Endpoint, ServiceEntry};
use crate::workload::Workload;

/// The endpoints eligible for `client` on `service_port`, in the order to try them:
/// the locality scopes decide who takes part, capacity weighs a random draw among them.
///
/// At most `limit` endpoints are returned; an empty answer means no usable endpoint.
pub fn candidates<'a>(
    _entry: &'a ServiceEntry,
    _client: &Workload,
    _service_port: u16,
    _limit: usize,
    _random: &mut impl Rng,
) -> Vec<&'a Endpoint> {
    Vec::new()
}
