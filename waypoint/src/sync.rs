//! Keeps the data path's state in step with the control plane.

use std::sync::Arc;

use identity::grpc::ControlPlane;
use mesh::snapshot::Snapshot;
use runtime::readiness::Task;
use serde_json::Value;
use tokio::sync::oneshot;
use xds::client::{Client, Event, Subscription};
use xds::resource_type::Layer;
use xds::state::State;

use crate::config::Proxy;

/// Follows the control plane until dropped. `synced` is told, and `task` dropped, once every
/// type of resource has arrived.
pub async fn run(
    proxy: Proxy,
    control_plane: ControlPlane,
    state: Arc<State>,
    task: Task,
    synced: oneshot::Sender<()>,
) {
    let client = Client::new(xds::client::Config {
        node: node(&proxy),
        // The transport authenticates.
        token: Arc::new(|| Ok(None)),
        headers: Vec::new(),
        layer: Layer::L7,
        addresses: Subscription::Wildcard,
    });
    let mut snapshot = Snapshot::default();
    let mut first = Some((task, synced));
    let on_event = |event| match event {
        Event::Connected => tracing::info!("connected to the control plane"),
        Event::Update(update) => {
            tracing::debug!(changes = update.changes.len(), "applying xDS changes");
            snapshot.apply(update.changes);
            // Before everything is here, what is decided could lack a policy.
            if first.is_none() {
                state.publish(snapshot.clone());
            }
        }
        Event::Synced => {
            if let Some((_, synced)) = first.take() {
                state.publish(snapshot.clone());
                tracing::info!(
                    workloads = snapshot.workloads().count(),
                    services = snapshot.services().count(),
                    routes = snapshot.routes().count(),
                    policies = snapshot.authorization_policies().count(),
                    "in sync with the control plane"
                );
                // Nobody waits any more when the process is stopping.
                let _ = synced.send(());
            }
        }
        Event::Disconnected { reason } => {
            tracing::warn!(
                reason,
                "not connected to the control plane; going on with what is known"
            );
        }
    };
    let connect = || std::future::ready(Ok(control_plane.clone()));
    match client.run(connect, on_event).await {}
}

/// How the waypoint introduces itself.
fn node(proxy: &Proxy) -> proto::discovery::Node {
    let ip = proxy.address.to_string();
    let metadata = [
        ("NAME", &*proxy.pod),
        ("NAMESPACE", &*proxy.namespace),
        ("INSTANCE_IPS", &ip),
        ("NODE_NAME", &*proxy.node),
        ("CLUSTER_ID", &*proxy.cluster_id),
        ("NETWORK", &*proxy.network),
        ("GATEWAY_NAME", &*proxy.gateway),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), Value::from(value)));
    xds::node::waypoint(&ip, &proxy.pod, &proxy.namespace, metadata)
}
