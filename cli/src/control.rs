//! How commands talk to a running machine: requests over `run/control.sock`, file descriptors along with them.
pub(crate) mod client;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a command runs or a connection starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Target {
    Pod { namespace: String, name: String },
    Node(String),
    Switch,
    ControlPlane,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// Comes with three descriptors: standard input, output and error.
    Exec(Exec),
    /// To the command this connection started.
    Signal(i32),
    /// Answered with a connected TCP socket made in the target's network.
    Dial {
        target: Target,
        port: u16,
    },
    /// Has another process take the place of a node's ztunnel.
    UpgradeZtunnel {
        node: String,
        /// The one that runs, where it is none.
        program: Option<PathBuf>,
    },
    Status,
    Shutdown,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exec {
    pub(crate) target: Option<Target>,
    pub(crate) container: Option<String>,
    pub(crate) command: Vec<String>,
    /// Added to the container's own environment.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) tty: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reply {
    /// The command runs; an `Exited` follows.
    Started,
    Exited(i32),
    /// Comes with one descriptor.
    Connected,
    Status(Box<Status>),
    Upgraded(Upgraded),
    ShuttingDown,
    NotFound(String),
    /// The command could not be started.
    NotStarted {
        why: String,
        no_program: bool,
    },
    Failed(String),
}

/// A ztunnel that took another's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upgraded {
    /// As seen inside the machine.
    pub(crate) pid: i32,
    pub(crate) former: i32,
    pub(crate) version: String,
    /// From the new process's start until it served.
    pub(crate) milliseconds: u64,
    /// Whether the listening sockets were handed over; else both listened for a moment, and what
    /// waited in the former's queues may have seen a reset.
    pub(crate) handed_over: bool,
}

/// What the machine knows about itself; `weft status` shows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) version: String,
    /// The launcher's pid, as the host sees it.
    pub(crate) pid: i32,
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) ready: bool,
    pub(crate) folder: PathBuf,
    pub(crate) trust_domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trust_domain_aliases: Vec<String>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    /// What is wrong now, one sentence each: unreadable folder, address conflicts, full disk.
    pub(crate) problems: Vec<String>,
}

/// A supervised process of the mesh itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Piece {
    /// `control-plane` or `ztunnel`.
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    pub(crate) version: String,
    /// As seen inside the machine; `None` while it isn't running.
    pub(crate) pid: Option<i32>,
    pub(crate) restarts: u32,
    /// RFC 3339.
    pub(crate) since: Option<String>,
    pub(crate) last_exit: Option<String>,
    /// Processes that were replaced and let their connections end.
    pub(crate) former: Vec<i32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether the node's ztunnel is connected to its agent.
    pub(crate) ztunnel_connected: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) service_account: String,
    pub(crate) node: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) phase: String,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// RFC 3339.
    pub(crate) created: String,
    /// Why it isn't running or ready.
    pub(crate) reason: Option<String>,
    pub(crate) captured: bool,
    /// RFC 3339.
    pub(crate) captured_since: Option<String>,
    /// Which of its connections are not, as its annotations say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_captured: Option<String>,
    /// It runs a waypoint: nothing captures it.
    pub(crate) waypoint: bool,
    /// Why it isn't captured though it should be.
    pub(crate) capture_pending: Option<String>,
}

// === impl Target ===

impl Target {
    /// `node/node-1`, `switch`, `control-plane`, `pod/NAME` or `NAME`.
    pub(crate) fn parse(text: &str, namespace: &str) -> Self {
        match text.split_once('/') {
            Some(("node", name)) => Self::Node(name.to_owned()),
            Some(("pod", name)) => Self::Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            _ if text == "switch" => Self::Switch,
            _ if text == "control-plane" => Self::ControlPlane,
            _ => Self::Pod {
                namespace: namespace.to_owned(),
                name: text.to_owned(),
            },
        }
    }
}
