//! Keeps the data path's state in step with the control plane.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use identity::grpc::ControlPlane;
use mesh::snapshot::{Change, Snapshot};
use runtime::readiness::Task;
use serde_json::Value;
use tokio::sync::oneshot;
use xds::client::{Client, Event, Subscription};
use xds::resource_type::Layer;

use crate::config::Config;
use crate::proxy::on_demand::OnDemand;
use crate::proxy::state::State;

/// Changes in one response after which more memory is free than what comes next will need.
const MANY: usize = 10_000;

/// What a node without an address of its own says, as Istio's does.
const NO_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(1, 1, 1, 1));

/// The mesh as far as it has been told, and as it is in force.
pub struct Known {
    pub state: Arc<State>,
    pub snapshot: Snapshot,
}

/// Whether what is known of the mesh is kept up to date; clones share it.
#[derive(Clone, Debug)]
pub struct Freshness(Arc<Mutex<Option<SystemTime>>>);

/// A client of the control plane, not yet running.
pub fn client(config: &Config) -> Client {
    Client::new(xds::client::Config {
        node: node(config),
        // The transport authenticates.
        token: Arc::new(|| Ok(None)),
        headers: Vec::new(),
        layer: Layer::L4,
        addresses: match config.xds_on_demand {
            true => Subscription::OnDemand,
            false => Subscription::Wildcard,
        },
    })
}

/// Follows the control plane until dropped, beginning with what is known already. `synced` is told, and `task` dropped, once every
/// type of resource has arrived.
pub async fn run(
    client: Client,
    freshness: Freshness,
    control_plane: ControlPlane,
    on_demand: Option<Arc<OnDemand>>,
    mut known: Known,
    task: Task,
    synced: oneshot::Sender<()>,
) {
    let mut first = Some((task, synced));
    let on_event = |event| match event {
        Event::Connected => {
            freshness.set(None);
            tracing::info!("connected to the control plane");
        }
        Event::Update(update) => {
            tracing::debug!(changes = update.changes.len(), "applying xDS changes");
            let absent: Vec<_> = match &on_demand {
                Some(_) => update.changes.iter().filter_map(removed_address).collect(),
                None => Vec::new(),
            };
            known.apply(update.changes);
            if let Some(on_demand) = &on_demand {
                absent.iter().for_each(|name| on_demand.absent(name));
            }
        }
        Event::Synced => {
            if let Some((_, synced)) = first.take() {
                let snapshot = &known.snapshot;
                tracing::info!(
                    workloads = snapshot.workloads().count(),
                    services = snapshot.services().count(),
                    policies = snapshot.policies().count(),
                    "in sync with the control plane"
                );
                // Nobody waits any more when the process is stopping.
                let _ = synced.send(());
            }
        }
        Event::Disconnected { reason } => {
            freshness.lost(SystemTime::now());
            tracing::warn!(
                reason,
                "not connected to the control plane; going on with what is known"
            );
        }
    };
    let connect = || std::future::ready(Ok(control_plane.clone()));
    match client.run(connect, on_event).await {}
}

// === impl Known ===

impl Known {
    /// Takes changes in and puts them in force.
    pub fn apply(&mut self, changes: Vec<Change>) {
        let many = changes.len() >= MANY;
        let changed = self.snapshot.apply(changes);
        self.state.publish_changed(self.snapshot.clone(), changed);
        if many {
            runtime::allocator::give_back();
        }
    }
}

// === impl Freshness ===

impl Freshness {
    /// Stale from the start: nothing has been heard yet.
    pub fn new(now: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(Some(now))))
    }

    /// Since when nothing has been heard of the control plane; none while it is connected.
    pub fn stale_since(&self) -> Option<SystemTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long that is; nothing while it is connected.
    pub fn stale_for(&self, now: SystemTime) -> Duration {
        let since = self.stale_since();
        since.map_or(Duration::ZERO, |since| {
            now.duration_since(since).unwrap_or_default()
        })
    }

    /// The first loss counts, not every attempt that fails after it.
    fn lost(&self, now: SystemTime) {
        let since = self.stale_since().unwrap_or(now);
        self.set(Some(since));
    }

    fn set(&self, since: Option<SystemTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

fn removed_address(change: &Change) -> Option<Arc<str>> {
    let Change::RemoveAddress(name) = change else {
        return None;
    };
    Some(name.clone())
}

/// How the tunnel introduces itself.
fn node(config: &Config) -> proto::discovery::Node {
    let node = &config.node;
    let ip = node.instance_ip.unwrap_or(NO_ADDRESS).to_string();
    let own = [
        ("NAME", node.pod_name.as_str()),
        ("NAMESPACE", &node.pod_namespace),
        ("INSTANCE_IPS", &ip),
        ("NODE_NAME", &node.name),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), Value::from(value)));
    let configured = config.node_metadata.clone();
    xds::node::ztunnel(
        &ip,
        &node.pod_name,
        &node.pod_namespace,
        own.into_iter().chain(configured),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_counts_from_the_loss_not_from_the_last_attempt() {
        let start = SystemTime::UNIX_EPOCH;
        let freshness = Freshness::new(start);
        freshness.lost(start + Duration::from_secs(5));
        assert_eq!(freshness.stale_since(), Some(start));
        freshness.set(None);
        assert_eq!(freshness.stale_since(), None);
        let lost = start + Duration::from_secs(60);
        freshness.lost(lost);
        freshness.lost(lost + Duration::from_secs(9));
        assert_eq!(freshness.stale_since(), Some(lost));
        let stale_for = freshness.stale_for(lost + Duration::from_secs(70));
        assert_eq!(stale_for, Duration::from_secs(70));
        // The clock was set back.
        assert_eq!(freshness.stale_for(start), Duration::ZERO);
    }
}
