//! The network of a mesh on one machine: nodes, their pods, and what a cluster's network does.
//!
//! Every namespace is held by descriptors alone and vanishes with the process. Nodes hang on a
//! switch; pods hang on their node by a cable each, so that all traffic between two pods is routed
//! by a node. There is no way out: names and addresses beyond the mesh do not exist in it.
//!
//! - [`plan`]: which address is whose
//! - [`link`]: cables, addresses and routes, over netlink
//! - [`service`]: what there is to reach, as handed in by the machine
//! - [`service_proxy`]: service addresses for pods outside the mesh, and for UDP
//! - [`cluster_dns`]: names of services
pub(crate) mod cluster_dns;
mod link;
pub(crate) mod plan;
pub(crate) mod service;
mod service_proxy;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use cni::netns;
use tokio::task::JoinSet;

use cluster_dns::ClusterDns;
use link::{Cable, End, Links, Sysctls};
use plan::{AddressPool, NodePlan};
use service::Service;

const SWITCH_BRIDGE: &str = "weft0";
const INTERFACE: &str = "eth0";

/// All of it; dropping it takes everything down that no process still lives in.
#[derive(Debug)]
pub(crate) struct Network {
    switch: OwnedFd,
    control_plane: OwnedFd,
    nodes: Vec<Node>,
}

/// A node's namespace and what serves in it.
#[derive(Debug)]
pub(crate) struct Node {
    plan: NodePlan,
    netns: OwnedFd,
    links: Links,
    addresses: Mutex<AddressPool>,
    /// The ruleset in force; held while one is written.
    service_proxy: tokio::sync::Mutex<String>,
    cluster_dns: ClusterDns,
    _servers: JoinSet<()>,
    ipv6: bool,
}

/// A pod's place on its node. Give it back with [`Network::detach`], or its address stays taken.
#[derive(Debug)]
pub(crate) struct PodInterface {
    /// IPv4 first.
    pub(crate) ips: Vec<IpAddr>,
    node: usize,
    host: u8,
    /// Of the node's end of the cable; the kernel never gives a number twice.
    index: u32,
}

// === impl Network ===

impl Network {
    /// Builds `nodes` nodes on a switch. Must be called inside a Tokio runtime.
    pub(crate) async fn new(nodes: usize) -> Result<Network> {
        ensure!(
            (1..=plan::MAX_NODES).contains(&nodes),
            "a mesh has 1 to {} nodes, not {nodes}",
            plan::MAX_NODES
        );
        let switch = netns::create().context("cannot make a network namespace")?;
        let ipv6 = netns::run(&switch, || {
            std::path::Path::new("/proc/sys/net/ipv6").exists()
        })
        .await?;
        if !ipv6 {
            tracing::warn!("this kernel has no IPv6: the mesh is IPv4 only");
        }
        let switch_links = Links::new(&switch)?;
        link::sysctls(&switch, Sysctls::Switch).await?;
        switch_links.up_loopback().await?;
        let bridge = switch_links.bridge(SWITCH_BRIDGE).await?;

        let control_plane = netns::create()?;
        link::sysctls(&control_plane, Sysctls::Pod).await?;
        let uplink = Uplink {
            switch: &switch_links,
            bridge,
            ipv6,
            nodes,
        };
        uplink
            .connect(&control_plane, "control-plane", plan::CONTROL_PLANE_HOST)
            .await
            .context("cannot connect the control plane")?;
        let mut network = Network {
            switch,
            control_plane,
            nodes: Vec::new(),
        };
        for number in 1..=nodes {
            let node = Node::new(number, &uplink)
                .await
                .with_context(|| format!("cannot build node-{number}"))?;
            network.nodes.push(node);
        }
        Ok(network)
    }

    /// The namespace whose bridge carries everything between nodes: where to capture packets.
    pub(crate) fn switch(&self) -> BorrowedFd<'_> {
        self.switch.as_fd()
    }

    pub(crate) fn control_plane(&self) -> BorrowedFd<'_> {
        self.control_plane.as_fd()
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.nodes.iter().any(|node| node.ipv6)
    }

    /// Node `number`, counted from 1.
    pub(crate) fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(number.checked_sub(1)?)
    }

    /// Gives the pod living in `netns` its interface and addresses, on node `node`.
    pub(crate) async fn attach_pod(&self, node: usize, netns: impl AsFd) -> Result<PodInterface> {
        let netns = netns.as_fd().try_clone_to_owned()?;
        match self.node(node) {
            Some(node) => node.attach(&netns).await,
            None => bail!("there is no node-{node}"),
        }
    }

    /// Takes the pod's cable away. Its addresses go to the end of the queue of free ones.
    pub(crate) async fn detach(&self, interface: PodInterface) {
        if let Some(node) = self.node(interface.node) {
            node.detach(interface).await;
        }
    }

    /// Makes `services` reachable by address and by name on every node; does nothing for what is
    /// so already. Each node gets all of it or keeps what it had.
    pub(crate) async fn set_services(&self, services: &[Service]) -> Result<()> {
        let zone = Arc::new(cluster_dns::Zone::new(services));
        for node in &self.nodes {
            node.cluster_dns.serve(zone.clone());
            node.set_services(services)
                .await
                .with_context(|| format!("service proxy of {}", node.name()))?;
        }
        Ok(())
    }
}

// === impl Node ===

impl Node {
    async fn new(number: usize, uplink: &Uplink<'_>) -> Result<Node> {
        let plan = NodePlan::new(number);
        let netns = netns::create()?;
        link::sysctls(&netns, Sysctls::Node).await?;
        let links = uplink.connect(&netns, &plan.name(), plan.host()).await?;
        let mut own = vec![IpAddr::from(plan::CLUSTER_DNS_IPV4)];
        links.address(link::LOOPBACK, own[0], 32).await?;
        links
            .unreachable(plan.pods_ipv4().into())
            .await
            .context("route of the node's own pods")?;
        if uplink.ipv6 {
            own.push(plan::CLUSTER_DNS_IPV6.into());
            links.address(link::LOOPBACK, own[1], 128).await?;
            links.unreachable(plan.pods_ipv6().into()).await?;
        }
        // Only so that the node's own processes have a route to services at all: the service proxy
        // sends what goes there elsewhere.
        let index = links.index(INTERFACE).await?;
        for network in plan::service_networks(uplink.ipv6) {
            links.on_link(index, network).await?;
        }
        let cluster_dns = ClusterDns::default();
        let servers = cluster_dns::listen(&netns, &own, &cluster_dns).await?;
        let node = Node {
            addresses: Mutex::new(AddressPool::new()),
            service_proxy: tokio::sync::Mutex::default(),
            _servers: servers,
            ipv6: uplink.ipv6,
            plan,
            netns,
            links,
            cluster_dns,
        };
        node.set_services(&[]).await?;
        Ok(node)
    }

    pub(crate) fn name(&self) -> String {
        self.plan.name()
    }

    pub(crate) fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The node's own addresses, IPv4 first.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let ipv6 = self.ipv6.then(|| self.plan.ipv6().into());
        std::iter::once(self.plan.ipv4().into())
            .chain(ipv6)
            .collect()
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, AddressPool> {
        // Every change under the lock is complete in itself.
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn attach(&self, netns: &OwnedFd) -> Result<PodInterface> {
        let Some(host) = self.pool().take() else {
            bail!("{} has no free pod address", self.name());
        };
        let result = self.connect(netns, host).await;
        if result.is_err() {
            // What was made goes with its cable, by name since its number is not known.
            if let Ok(index) = self.links.index(&cable_name(host)).await {
                let _ = self.links.delete(index).await;
            }
            self.pool().give_back(host);
        }
        result
    }

    async fn connect(&self, netns: &OwnedFd, host: u8) -> Result<PodInterface> {
        let pod = Links::new(netns).context("cannot enter the pod's network namespace")?;
        link::sysctls(netns, Sysctls::Pod).await?;
        pod.up_loopback().await?;
        let name = cable_name(host);
        let pod_mac = self.plan.pod_mac(host);
        let cable = Cable {
            near: End {
                name: &name,
                mac: plan::GATEWAY_MAC,
            },
            far: End {
                name: INTERFACE,
                mac: pod_mac,
            },
        };
        self.links.cable(&cable, netns).await?;
        let index = self.links.index(&name).await?;
        let inner = pod.index(INTERFACE).await?;
        let mut families = vec![(
            IpAddr::from(plan::GATEWAY_IPV4),
            IpAddr::from(self.plan.pod_ipv4(host)),
        )];
        if self.ipv6 {
            families.push((plan::GATEWAY_IPV6.into(), self.plan.pod_ipv6(host).into()));
        }
        self.links.up(index).await?;
        pod.up(inner).await?;
        for (gateway, ip) in &families {
            self.links.address(index, *gateway, host_length(ip)).await?;
            self.links.on_link(index, ipnet::IpNet::from(*ip)).await?;
            // Both ends are known, so nobody has to ask for anybody's hardware address.
            self.links.neighbour(index, *ip, pod_mac).await?;
            pod.address(inner, *ip, host_length(ip)).await?;
            pod.neighbour(inner, *gateway, plan::GATEWAY_MAC).await?;
            pod.default_route(inner, *gateway).await?;
        }
        self.links.carries(index).await?;
        pod.carries(inner).await?;
        Ok(PodInterface {
            ips: families.iter().map(|(_, ip)| *ip).collect(),
            node: self.plan.number(),
            host,
            index,
        })
    }

    async fn detach(&self, interface: PodInterface) {
        // A pod whose namespace is gone took its cable along.
        if let Err(error) = self.links.delete(interface.index).await {
            tracing::debug!(%error, "the pod's cable is gone already");
        }
        self.pool().give_back(interface.host);
    }

    async fn set_services(&self, services: &[Service]) -> Result<()> {
        let ruleset = service_proxy::ruleset(services, self.plan.number(), self.ipv6);
        let mut current = self.service_proxy.lock().await;
        if *current != ruleset {
            cni::apply::load(&self.netns, ruleset.clone()).await?;
            *current = ruleset;
        }
        Ok(())
    }
}

fn cable_name(host: u8) -> String {
    format!("veth{host}")
}

fn host_length(ip: &IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// How a namespace gets onto the switch.
struct Uplink<'a> {
    switch: &'a Links,
    bridge: u32,
    ipv6: bool,
    nodes: usize,
}

impl Uplink<'_> {
    /// Plugs `netns` in, with host number `host`, and shows it the way to every other node's pods.
    async fn connect(&self, netns: &OwnedFd, name: &str, host: u8) -> Result<Links> {
        let links = Links::new(netns)?;
        links.up_loopback().await?;
        let cable = Cable {
            near: End {
                name,
                mac: plan::port_mac(host),
            },
            far: End {
                name: INTERFACE,
                mac: plan::uplink_mac(host),
            },
        };
        self.switch.cable(&cable, netns).await?;
        let port = self.switch.index(name).await?;
        self.switch.plug(port, self.bridge).await?;
        self.switch.up(port).await?;
        let index = links.index(INTERFACE).await?;
        links.up(index).await?;
        links
            .address(index, plan::uplink_ipv4(host).into(), 24)
            .await?;
        if self.ipv6 {
            links
                .address(index, plan::uplink_ipv6(host).into(), 64)
                .await?;
        }
        for other in (1..=self.nodes).map(NodePlan::new) {
            if other.host() == host {
                continue;
            }
            links
                .via(other.pods_ipv4().into(), other.ipv4().into())
                .await?;
            if self.ipv6 {
                links
                    .via(other.pods_ipv6().into(), other.ipv6().into())
                    .await?;
            }
        }
        self.switch.carries(port).await?;
        links.carries(index).await?;
        Ok(links)
    }
}

#[cfg(test)]
mod tests;
