//! A node: its namespace, its agent, the ztunnel that serves its pods.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cni::agent::Agent;
use istio_compat::kinds;
use istio_compat::kinds::metadata::{Condition, ObjectMeta};
use istio_compat::kinds::node::{NodeAddress, NodeStatus};
use istio_compat::kinds::pod::{ContainerStatus, Pod, PodIp, PodPhase, PodStatus};
use istio_compat::labels::{APP, REGION, TUNNEL, ZONE};
use runtime::admin::Listeners;
use runtime::conntrack::Usage;
use runtime::metrics;

use super::network::{self, Network, PodInterface};
use super::token::{Reference, Subject};

pub(crate) const SYSTEM_NAMESPACE: &str = "weft-system";
/// Of the agent, in the node's namespace.
const AGENT_METRICS_PORT: u16 = 15014;
const HOSTNAME: &str = "kubernetes.io/hostname";

pub(crate) struct Node {
    /// From 1.
    index: usize,
    pub(crate) name: String,
    pub(crate) agent: Agent,
    network: Rc<Network>,
    uid: String,
    ztunnel_uid: String,
}

/// The name of a node, counted from 1.
pub(crate) fn name(index: usize) -> String {
    format!("node-{index}")
}

/// Which node has this name, if it looks like one's.
pub(crate) fn index(name: &str) -> Option<u8> {
    name.strip_prefix("node-")?.parse().ok()
}

// === impl Node ===

impl Node {
    pub(crate) fn new(index: usize, agent: Agent, network: Rc<Network>) -> Self {
        let uid = || uuid::Uuid::new_v4().to_string();
        Self {
            index,
            name: name(index),
            agent,
            network,
            uid: uid(),
            ztunnel_uid: uid(),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.place().ips()
    }

    pub(crate) fn netns(&self) -> BorrowedFd<'_> {
        self.place().netns()
    }

    pub(crate) async fn attach(&self, netns: &OwnedFd) -> anyhow::Result<PodInterface> {
        self.network.attach_pod(self.index, netns).await
    }

    pub(crate) async fn detach(&self, interface: PodInterface) {
        self.network.detach(interface).await;
    }

    /// Where its kernel will soon drop connections, or does: in its own namespace, and in its pods'.
    pub(crate) fn problems(&self) -> Vec<String> {
        let own = cni::netns::run_blocking(self.netns(), Usage::here);
        let own = own.ok().flatten().map(|usage| (self.name.clone(), usage));
        let pods = self.agent.status().pods.into_iter().filter_map(|pod| {
            let name = format!("{}/{} on {}", pod.namespace, pod.name, self.name);
            Some((name, pod.tracking?))
        });
        let all = own.into_iter().chain(pods);
        all.filter(|(_, usage)| usage.is_nearly_full())
            .map(|(place, usage)| {
                format!(
                    "connection tracking of {place} is {usage}: once it is full, new connections \
                     are dropped; raise net.netfilter.nf_conntrack_max"
                )
            })
            .collect()
    }

    /// Tells scrapers of its agent, until dropped.
    pub(crate) fn serve_metrics(&self) -> anyhow::Result<impl Future<Output = ()> + use<>> {
        let runtime = tokio::runtime::Handle::current();
        let listeners = cni::netns::run_blocking(self.netns(), || {
            let _reactor = runtime.enter();
            Listeners::wildcard(AGENT_METRICS_PORT, true)
        })??;
        let router = metrics::router_of(self.agent.collector());
        Ok(listeners.serve("agent metrics", router))
    }

    /// Its ztunnel's program, among those of all nodes in order.
    pub(crate) fn ztunnel_program<'a>(&self, programs: &'a [PathBuf]) -> &'a Path {
        &programs[self.index - 1]
    }

    fn place(&self) -> &network::Node {
        self.network
            .node(self.index)
            .expect("the network has as many nodes as there are")
    }

    /// The labels every node has, under those the folder's Node object sets.
    pub(crate) fn labels(&self, given: Option<&kinds::node::Node>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (HOSTNAME.to_owned(), self.name.clone()),
            (REGION.to_owned(), "local".to_owned()),
            (ZONE.to_owned(), format!("local-{}", self.index)),
        ]);
        labels.extend(
            given
                .into_iter()
                .flat_map(|given| given.metadata.labels.clone()),
        );
        labels
    }

    /// The Node object as Kubernetes would know it.
    pub(crate) fn object(
        &self,
        given: Option<&kinds::node::Node>,
        since: &str,
    ) -> kinds::node::Node {
        let mut metadata = given
            .map(|given| given.metadata.clone())
            .unwrap_or_default();
        metadata.name.clone_from(&self.name);
        metadata.uid.clone_from(&self.uid);
        metadata.labels = self.labels(given);
        metadata.creation_timestamp = Some(since.to_owned());
        let address = |type_: &str, address: String| NodeAddress {
            type_: type_.to_owned(),
            address,
        };
        let internal = self
            .addresses()
            .into_iter()
            .map(|ip| address("InternalIP", ip.to_string()));
        let addresses = internal
            .chain([address("Hostname", self.name.clone())])
            .collect();
        let ready = Condition {
            last_transition_time: Some(since.to_owned()),
            ..Condition::new("Ready", true, "Running", "")
        };
        kinds::node::Node {
            metadata,
            status: NodeStatus {
                addresses,
                conditions: vec![ready],
            },
        }
    }

    /// The pod that the node's ztunnel would be: the control plane checks tokens against it, and pods of
    /// the mesh reach its own ports over HBONE, which it serves for itself. The node has nothing else
    /// at its address.
    pub(crate) fn ztunnel_pod(&self, since: &str) -> Pod {
        let metadata = ObjectMeta {
            name: self.ztunnel_name(),
            namespace: SYSTEM_NAMESPACE.to_owned(),
            uid: self.ztunnel_uid.clone(),
            labels: BTreeMap::from([
                (APP.to_owned(), "ztunnel".to_owned()),
                (TUNNEL.to_owned(), "http".to_owned()),
            ]),
            creation_timestamp: Some(since.to_owned()),
            ..ObjectMeta::default()
        };
        let spec = kinds::pod::PodSpec {
            node_name: self.name.clone(),
            service_account_name: "ztunnel".to_owned(),
            containers: vec![kinds::container::Container {
                name: "istio-proxy".to_owned(),
                command: vec!["ztunnel".to_owned()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let ips = self.addresses();
        let status = PodStatus {
            phase: Some(PodPhase::Running),
            host_ip: ips.first().copied(),
            pod_ip: ips.first().copied(),
            pod_ips: ips.into_iter().map(|ip| PodIp { ip }).collect(),
            start_time: Some(since.to_owned()),
            conditions: vec![Condition::new("Ready", true, "", "")],
            container_statuses: vec![ContainerStatus {
                name: "istio-proxy".to_owned(),
                ready: true,
                started: Some(true),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        };
        Pod {
            metadata,
            spec,
            status,
        }
    }

    pub(crate) fn ztunnel_name(&self) -> String {
        format!("ztunnel-{}", self.name)
    }

    /// Whom this node's tokens are for.
    pub(crate) fn token_subject(&self) -> Subject {
        Subject {
            namespace: SYSTEM_NAMESPACE.to_owned(),
            service_account: Reference {
                name: "ztunnel".to_owned(),
                uid: SYSTEM_NAMESPACE.to_owned(),
            },
            pod: Reference {
                name: self.ztunnel_name(),
                uid: self.ztunnel_uid.clone(),
            },
            node: self.reference(),
        }
    }

    /// The node, as a token names it.
    pub(crate) fn reference(&self) -> Reference {
        Reference {
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}
