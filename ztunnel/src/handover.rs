//! One process taking another's place on a node, with no connection lost: the predecessor's
//! sockets are handed to its successor, which shares their queues until it is ready, and alone
//! accepts from there on.
//!
//! ```text
//! successor                                     predecessor
//!     │ Hello: version ──────────────────────▶ │ serves on
//!     │ ◀──────────── Welcome, or why not      │
//!     │ a pod's sockets? ────────────────────▶ │
//!     │ ◀──────────── descriptors              │
//!     │ mesh known, pods and certificates here │
//!     │ accepts; Ready ──────────────────────▶ │ stops accepting, sends GOAWAY
//!     │ ◀──────────── Released                 │ what is open runs to its end, or the deadline
//!     │ ◀──────────── Farewell: what was cut   │ exits
//! ```
//! A successor that dies before Ready leaves nothing behind, and a predecessor that dies leaves
//! its queues to its successor. Where there is no handover, both listen side by side
//! (SO_REUSEPORT) and whoever looks after them stops the former one.
//!
//! - [`inherited`]: sockets that were handed over, until they are accepted from.
//! - [`successor`]: the side that takes over.
//! - [`predecessor`]: the side that is replaced.
//! - [`upgrade`]: having a successor started, by a command.

pub mod inherited;

pub mod successor;

pub mod predecessor;

pub mod upgrade;

use std::sync::Arc;

use crate::inpod::NetnsId;

/// Whose sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Pod {
        uid: Arc<str>,
        netns: NetnsId,
    },
    /// The process itself: its servers for people and machines.
    Process {
        netns: NetnsId,
    },
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Tcp(u16),
    Udp(u16),
}
