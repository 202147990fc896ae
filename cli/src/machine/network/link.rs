//! Cables, addresses, routes and switches of one namespace, over netlink.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cni::netns;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::plan::Mac;

/// The loopback interface is the first of every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// How long an interface may take to carry something, and how often it is looked.
const ACTIVATION: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The interfaces of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Links(rtnetlink::Handle);

/// Two interfaces joined back to back; the far one is in another namespace.
pub(super) struct Cable<'a> {
    pub(super) near: End<'a>,
    pub(super) far: End<'a>,
}

pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sysctls {
    Switch,
    Node,
    Pod,
}

/// Kernel settings of a new namespace, before it has interfaces that would inherit others.
pub(super) async fn sysctls(netns: impl AsFd, kind: Sysctls) -> Result<()> {
    netns::run(netns, move || {
        for (name, value) in settings(kind) {
            let path = format!("/proc/sys/net/{name}");
            match std::fs::write(&path, value) {
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // Only the host can allow a congestion control to namespaces.
                Err(error)
                    if error.kind() == std::io::ErrorKind::PermissionDenied
                        && name.ends_with("congestion_control") => {}
                result => result.with_context(|| format!("cannot set {path} to {value}"))?,
            }
        }
        // Only where the host allows it to namespaces; otherwise they use what the host uses.
        let _ = std::fs::write(CONGESTION_CONTROL, "cubic");
        Ok(())
    })
    .await?
}

fn settings(kind: Sysctls) -> Vec<(&'static str, &'static str)> {
    // No waiting for duplicate addresses: every address is given once, from one place.
    let mut settings = vec![
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/accept_ra", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ];
    match kind {
        Sysctls::Switch => {}
        Sysctls::Node => settings.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            // Pods behind one node reach each other through it, and know no other way.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ]),
        // As container runtimes have it: ports below 1024 are anybody's inside a pod.
        Sysctls::Pod => settings.push(("ipv4/ip_unprivileged_port_start", "0")),
    }
    settings
}

// === impl Links ===

impl Links {
    pub(super) fn new(netns: impl AsFd) -> Result<Links> {
        Ok(Links(netns::netlink(netns)?))
    }

    pub(super) async fn up_loopback(&self) -> Result<()> {
        self.up(LOOPBACK).await
    }

    pub(super) async fn up(&self, index: u32) -> Result<()> {
        let up = LinkUnspec::new_with_index(index).up().build();
        Ok(self.0.link().set(up).execute().await?)
    }

    /// Waits until an interface carries what it is given. The kernel activates the end of a cable
    /// that was up before the other in its own time, milliseconds later on a busy machine; what is
    /// sent until then is lost, and who connects tries again only after a second.
    pub(super) async fn carries(&self, index: u32) -> Result<()> {
        let active = async {
            while !self.is_active(index).await? {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(ACTIVATION, active).await;
        waited.unwrap_or_else(|_| {
            tracing::warn!(index, "an interface is still inactive");
            Ok(())
        })
    }

    async fn is_active(&self, index: u32) -> Result<bool> {
        let request = self.0.link().get().match_index(index);
        let found = request.execute().try_next().await?;
        let link = found.with_context(|| format!("there is no interface {index}"))?;
        Ok(link
            .attributes
            .contains(&LinkAttribute::OperState(State::Up)))
    }

    pub(super) async fn index(&self, name: &str) -> Result<u32> {
        let request = self.0.link().get().match_name(name);
        let found = request.execute().try_next().await?;
        let link = found.with_context(|| format!("there is no interface {name}"))?;
        Ok(link.header.index)
    }

    pub(super) async fn bridge(&self, name: &str) -> Result<u32> {
        let bridge = LinkBridge::new(name).mcast_snooping(false).up().build();
        self.0.link().add(bridge).execute().await?;
        self.index(name).await
    }

    /// The near end here, the far end in `netns`; both down.
    pub(super) async fn cable(&self, cable: &Cable<'_>, netns: impl AsFd) -> Result<()> {
        let far = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new()
            .name(cable.far.name)
            .address(cable.far.mac.to_vec())
            .setns_by_fd(netns.as_fd().as_raw_fd())
            .build();
        let message = LinkVeth::new(cable.near.name, cable.far.name)
            .address(cable.near.mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .build();
        let added = self.0.link().add(message).execute().await;
        added.with_context(|| format!("cannot add the interface {}", cable.near.name))
    }

    pub(super) async fn plug(&self, index: u32, bridge: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).build();
        Ok(self.0.link().set(message).execute().await?)
    }

    pub(super) async fn delete(&self, index: u32) -> Result<()> {
        Ok(self.0.link().del(index).execute().await?)
    }

    pub(super) async fn address(&self, index: u32, address: IpAddr, length: u8) -> Result<()> {
        let mut request = self.0.address().add(index, address, length);
        if address.is_ipv6() {
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
        }
        let added = request.execute().await;
        added.with_context(|| format!("cannot add the address {address}"))
    }

    pub(super) async fn neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.0.neighbours().add(index, address);
        let request = request.link_layer_address(&mac);
        Ok(request.state(NeighbourState::Permanent).execute().await?)
    }

    /// Everything goes through `gateway`, which is at the other end of interface `index`.
    pub(super) async fn default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .onlink()
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
        };
        self.route(route, "the default route").await
    }

    pub(super) async fn via(&self, network: IpNet, gateway: IpAddr) -> Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network.addr(), network.prefix_len())?
            .gateway(gateway)?
            .build();
        self.route(route, &network.to_string()).await
    }

    /// `network` is right behind interface `index`.
    pub(super) async fn on_link(&self, index: u32, network: IpNet) -> Result<()> {
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network.addr(), network.prefix_len())?
            .output_interface(index)
            .build();
        if network.addr().is_ipv4() {
            route.header.scope = RouteScope::Link;
        }
        self.route(route, &network.to_string()).await
    }

    /// Addresses of `network` without a route of their own are nobody's, and who asks hears so.
    pub(super) async fn unreachable(&self, network: IpNet) -> Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network.addr(), network.prefix_len())?
            .kind(RouteType::Unreachable)
            .build();
        self.route(route, &network.to_string()).await
    }

    async fn route(&self, route: RouteMessage, what: &str) -> Result<()> {
        let added = self.0.route().add(route).execute().await;
        added.with_context(|| format!("cannot add the route to {what}"))
    }
}
