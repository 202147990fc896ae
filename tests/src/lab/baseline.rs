//! What a mesh holds when nothing happens in it, to be found again after whatever has happened.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::wrapped::sum;
use super::{Lab, SOON, eventually};

/// Connections of this process's own looking, while they close.
const LOOKING: f64 = 2.0;
/// What an allocator may keep of what it got back, unless a test says otherwise.
const KEPT_SHARE: f64 = 0.10;
const KEPT_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// Shows what capture has put into a pod's namespace: what the rules mark is led by routes of its own.
/// Those of an interface's addresses are the kernel's, which adds the last of them when it likes.
pub const RULES: &str = "nft -s list ruleset; for family in -4 -6; do ip $family rule show; \
                         ip $family route show table all | grep -v 'proto kernel' || true; done";

/// Resources of all ztunnels, and of the namespaces they serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    nodes: BTreeMap<String, NodeState>,
    pods: BTreeMap<String, PodState>,
    /// How much more memory a ztunnel may have, as a share of all that it has.
    keeping: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
struct NodeState {
    pid: Value,
    descriptors: f64,
    tasks: f64,
    sockets: f64,
    memory: f64,
    resident: f64,
    tracked: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct PodState {
    rules: String,
    tracked: usize,
}

/// One thing that is not as it was.
struct Excess {
    place: String,
    what: &'static str,
    was: String,
    is: String,
}

// === impl Baseline ===

impl Baseline {
    /// What a mesh at rest holds; waits until it is at rest.
    pub fn of(lab: &Lab) -> Result<Self> {
        let mut last = Self::now(lab)?;
        let mut at_rest = None;
        eventually(SOON, "the mesh is at rest", || {
            let now = Self::now(lab)?;
            let moved = last
                .excess(&now)
                .into_iter()
                .chain(now.excess(&last))
                .next();
            last = now.clone();
            match moved {
                Some(moved) => bail!("{moved}"),
                None => at_rest = Some(now),
            }
            Ok(())
        })?;
        Ok(at_rest.unwrap_or(last))
    }

    /// Allows each ztunnel no more memory beyond what it has for itself now than this share of all
    /// that it has, the pages of its program included.
    #[must_use]
    pub fn keeping(self, share: f64) -> Self {
        Self {
            keeping: Some(share),
            ..self
        }
    }

    /// Expects no more of the ztunnels that have taken the places of those of then.
    pub fn of_successors(mut self, lab: &Lab) -> Result<Self> {
        for (node, state) in &mut self.nodes {
            state.pid = lab.piece("ztunnel", Some(node))?["pid"].clone();
        }
        Ok(self)
    }

    /// Waits until the mesh holds no more than that again, and says what it still holds where
    /// it doesn't.
    pub fn awaited(&self, lab: &Lab, within: Duration) -> Result<()> {
        eventually(within, "all resources are back at their baseline", || {
            let excess = self.excess(&Self::now(lab)?);
            let excess: Vec<_> = excess.iter().map(ToString::to_string).collect();
            ensure!(excess.is_empty(), "{}", excess.join("; "));
            Ok(())
        })
    }

    fn now(lab: &Lab) -> Result<Self> {
        let mut nodes = BTreeMap::new();
        for node in lab.nodes()? {
            let state = NodeState::of(lab, &node)?;
            nodes.insert(node, state);
        }
        let mut pods = BTreeMap::new();
        for pod in lab.pods()? {
            let metadata = &pod["metadata"];
            if metadata["annotations"]["ambient.istio.io/redirection"] == "enabled"
                && let (Some(namespace), Some(name)) =
                    (metadata["namespace"].as_str(), metadata["name"].as_str())
            {
                let place = format!("{namespace}/{name}");
                pods.insert(place.clone(), PodState::of(lab, &place)?);
            }
        }
        Ok(Self {
            nodes,
            pods,
            keeping: None,
        })
    }

    /// What there is now and was not.
    fn excess(&self, now: &Self) -> Vec<Excess> {
        let mut excess = Vec::new();
        let nodes = self.nodes.iter().zip(&now.nodes);
        for ((place, was), (_, is)) in nodes {
            let mut check = |what, was: f64, is: f64, most: f64| {
                if is > most {
                    excess.push(Excess::of(place, what, was, is));
                }
            };
            check(
                "descriptors",
                was.descriptors,
                is.descriptors,
                was.descriptors + LOOKING,
            );
            check("tasks", was.tasks, is.tasks, was.tasks + LOOKING);
            check("sockets", was.sockets, is.sockets, was.sockets);
            let kept = match self.keeping {
                Some(share) => was.resident * share,
                None => was.memory * KEPT_SHARE + KEPT_BYTES,
            };
            let most = was.memory + kept;
            check("bytes of memory", was.memory, is.memory, most);
            let tracked = (was.tracked as f64, is.tracked as f64);
            check(
                "tracked connections",
                tracked.0,
                tracked.1,
                tracked.0 + LOOKING,
            );
            if was.pid != is.pid {
                excess.push(Excess::of(place, "pid", &was.pid, &is.pid));
            }
        }
        for (place, was) in &self.pods {
            let Some(is) = now.pods.get(place) else {
                continue;
            };
            if is.tracked > was.tracked {
                excess.push(Excess::of(
                    place,
                    "tracked connections",
                    was.tracked,
                    is.tracked,
                ));
            }
            if is.rules != was.rules {
                excess.push(Excess::of(place, "rules", &was.rules, &is.rules));
            }
        }
        excess
    }
}

impl NodeState {
    fn of(lab: &Lab, node: &str) -> Result<Self> {
        let metrics = lab.metrics(node)?;
        let number = |name| sum(&metrics, name);
        Ok(Self {
            pid: lab.piece("ztunnel", Some(node))?["pid"].clone(),
            descriptors: number("process_open_fds")?,
            tasks: number("tokio_num_alive_tasks")? + number("weft_worker_tasks_alive")?,
            sockets: number("istio_tcp_sockets_open").unwrap_or_default(),
            memory: lab.own_memory(node)?,
            resident: lab.memory(node, "VmRSS")?,
            tracked: tracked(lab, &format!("node/{node}"))?,
        })
    }
}

impl PodState {
    fn of(lab: &Lab, pod: &str) -> Result<Self> {
        Ok(Self {
            rules: lab.exec(pod, &["sh", "-ec", RULES])?,
            tracked: tracked(lab, pod)?,
        })
    }
}

/// TCP connections that connection tracking takes for open.
fn tracked(lab: &Lab, place: &str) -> Result<usize> {
    let listing = lab.exec(place, &["conntrack", "-L", "-p", "tcp"])?;
    let over = [" TIME_WAIT ", " CLOSE ", " LAST_ACK "];
    let open = listing
        .lines()
        .filter(|line| line.starts_with("tcp") && !over.iter().any(|state| line.contains(state)));
    Ok(open.count())
}

// === impl Excess ===

impl Excess {
    fn of(place: &str, what: &'static str, was: impl ToString, is: impl ToString) -> Self {
        Self {
            place: place.to_owned(),
            what,
            was: was.to_string(),
            is: is.to_string(),
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            what,
            was,
            is,
        } = self;
        write!(f, "{place}: {what} were {was} and are {is}")
    }
}
