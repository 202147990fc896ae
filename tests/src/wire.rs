//! A bad cable: forwards frames between two interfaces, and delays, drops, doubles, reorders and
//! damages some of them.
//!
//! Which frames, and how, is a pure function of the seed, the direction and the frame's number in
//! it, so that a failure can be repeated.
//!
//! - [`fate`]: what becomes of a frame.
//! - [`queue`]: frames on their way, by when they are due.
//! - [`forward`]: the process that holds both ends.
//! - `socket`: a packet socket on one interface.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod fate;

pub mod queue;

pub mod forward;

mod socket;

/// What is wrong with the cable, both ways. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    pub seed: u64,
    /// Of every frame, each way: a round trip takes twice as long.
    pub delay: Duration,
    /// Share of the frames that vanish.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share that is overtaken by what comes up to [`Self::late`] after it.
    pub reorder: f64,
    pub late: Duration,
    /// Share with a bit flipped somewhere behind the Ethernet header.
    pub corrupt: f64,
    /// Share of the TCP segments with a bit of their payload flipped and the checksum made right
    /// again: what only a cipher notices.
    pub tamper: f64,
    /// Bits per second, each way; none is unlimited. What waits longer than a tenth of a second
    /// is dropped.
    pub rate: Option<u64>,
    /// Longer packets vanish without a word.
    pub mtu: Option<usize>,
    /// Nothing passes.
    pub cut: bool,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the first interface to the second.
    There,
    Back,
}

/// What has happened so far, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub received: u64,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    pub tampered: u64,
}
