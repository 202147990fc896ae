//! Connection tracking of the pods served here, and of our own namespace: where it is full, and what
//! is told of it.

use std::fmt;
use std::os::fd::OwnedFd;

use runtime::conntrack::Usage;
use runtime::metrics::{Exposition, Kind};

use super::netns;
use super::pods::{Pods, Served};

/// Why a connection was never answered: it found no place in this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    of: Table,
    usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Pod,
    /// The ztunnel's own: its node's, through which tunnels leave.
    Node,
}

/// The full table, if there is one, on the way of what is sent from this namespace.
pub(crate) fn full(netns: Option<&OwnedFd>) -> Option<Full> {
    let pod = netns.map(|netns| (Table::Pod, Some(netns)));
    let tables = pod.into_iter().chain([(Table::Node, None)]);
    let mut full = tables.filter_map(|(of, netns)| {
        let usage = usage(netns).filter(|usage| usage.is_full())?;
        Some(Full { of, usage })
    });
    full.next()
}

/// The node's table, and of the pods' the fullest: what one pod does to itself says nothing of others.
pub(crate) fn collect(pods: &Pods, exposition: &mut Exposition) {
    let of_pod = |usage: &Usage| usage.percent();
    let all = pods.all();
    // This process may be one of them: its table is the node's.
    let captured = all.iter().filter(|pod| pod.served == Served::Everything);
    let of_pods = captured.filter_map(|pod| usage(pod.netns.as_deref()));
    let help = "Entries of connection tracking, in percent of its limit; of pods, the most of any";
    let mut family = exposition.family("weft_conntrack_used_percent", Kind::Gauge, help);
    for (netns, usage) in [("node", usage(None)), ("pod", of_pods.max_by_key(of_pod))] {
        if let Some(usage) = usage {
            family.sample(&[("netns", netns)], usage.percent());
        }
    }
}

fn usage(netns: Option<&OwnedFd>) -> Option<Usage> {
    netns::within(netns, || Ok(Usage::here())).ok().flatten()
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Table::Pod => "the pod",
            Table::Node => "the node",
        };
        write!(f, "connection tracking of {of} is {}", self.usage)
    }
}
