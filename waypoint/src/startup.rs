//! What a waypoint gives up of the powers it was started with.

use anyhow::Context;
use runtime::confinement::{self, capabilities, system_calls};

/// Gives up every capability: a waypoint needs none. Must be called while the process has one
/// thread.
pub fn confine() -> anyhow::Result<()> {
    confinement::without_core_dumps().context("cannot forbid core dumps")?;
    Ok(capabilities::keep(&[])?)
}

/// Gives up the system calls that a serving waypoint never makes; everything has started by now.
pub(crate) fn confine_system_calls() -> anyhow::Result<()> {
    Ok(system_calls::leave_to_waypoints()?)
}
