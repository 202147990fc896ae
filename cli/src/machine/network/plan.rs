//! Which address is whose: all numbers of the machine's network, and the pool of pod addresses.
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One /24 of host numbers, without the ends and the control plane's.
pub(crate) const MAX_NODES: usize = 253;
pub(super) const CONTROL_PLANE_HOST: u8 = 254;
pub(crate) const CONTROL_PLANE_IPV4: Ipv4Addr = uplink_ipv4(CONTROL_PLANE_HOST);

pub(crate) const CLUSTER_DNS_IPV4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(crate) const CLUSTER_DNS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa);

/// What every pod finds at the other end of its cable.
pub(super) const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub(super) const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub(super) const GATEWAY_MAC: Mac = [0xee; 6];

const PODS_IPV4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
const PODS_IPV6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0), 32);
/// Service addresses, and those that ServiceEntries are given.
const SERVICES_IPV4: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(10, 96, 0, 0), 16),
    (Ipv4Addr::new(240, 240, 0, 0), 16),
];
const SERVICES_IPV6: [(Ipv6Addr, u8); 2] = [
    (Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0), 112),
    (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48),
];

pub(super) type Mac = [u8; 6];

/// The addresses of one node and of the pods on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodePlan(u8);

/// Host numbers of a node's pods: what was given back waits longest before it is given again, so
/// that nobody's late packets or cached names reach a stranger.
#[derive(Debug)]
pub(super) struct AddressPool {
    free: VecDeque<u8>,
}

pub(super) const fn uplink_ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, host)
}

pub(super) const fn uplink_ipv6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, host as u16)
}

pub(super) fn uplink_mac(host: u8) -> Mac {
    [0x02, 0x30, 0, 0, 0, host]
}

/// Of the switch's own end of the cable.
pub(super) fn port_mac(host: u8) -> Mac {
    [0x02, 0x30, 0, 0, 1, host]
}

pub(super) fn service_networks(ipv6: bool) -> Vec<IpNet> {
    let v4 = SERVICES_IPV4
        .into_iter()
        .map(|(address, length)| IpNet::from(Ipv4Net::new_assert(address, length)));
    let v6 = SERVICES_IPV6
        .into_iter()
        .map(|(address, length)| IpNet::from(Ipv6Net::new_assert(address, length)))
        .filter(|_| ipv6);
    v4.chain(v6).collect()
}

/// Every address that a pod or a service may have.
pub(crate) fn cluster_cidrs() -> Vec<IpNet> {
    let (v4, length_v4) = PODS_IPV4;
    let (v6, length_v6) = PODS_IPV6;
    let mut cidrs = service_networks(true);
    cidrs.push(Ipv4Net::new_assert(v4, length_v4).into());
    cidrs.push(Ipv6Net::new_assert(v6, length_v6).into());
    cidrs
}

// === impl NodePlan ===

impl NodePlan {
    /// `number` is from 1 to [`MAX_NODES`].
    pub(super) fn new(number: usize) -> NodePlan {
        debug_assert!((1..=MAX_NODES).contains(&number));
        NodePlan(u8::try_from(number).unwrap_or(u8::MAX))
    }

    pub(super) fn number(self) -> usize {
        self.0.into()
    }

    pub(super) fn host(self) -> u8 {
        self.0
    }

    pub(super) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub(super) fn ipv4(self) -> Ipv4Addr {
        uplink_ipv4(self.0)
    }

    pub(super) fn ipv6(self) -> Ipv6Addr {
        uplink_ipv6(self.0)
    }

    pub(super) fn pods_ipv4(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 244, self.0, 0), 24)
    }

    pub(super) fn pods_ipv6(self) -> Ipv6Net {
        Ipv6Net::new_assert(self.pod_ipv6(0), 64)
    }

    pub(super) fn pod_ipv4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.0, host)
    }

    pub(super) fn pod_ipv6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x244, self.0.into(), 0, 0, 0, 0, host.into())
    }

    pub(super) fn pod_mac(self, host: u8) -> Mac {
        [0x02, 0x24, 0x40, 0, self.0, host]
    }
}

// === impl AddressPool ===

impl AddressPool {
    pub(super) fn new() -> AddressPool {
        AddressPool {
            free: (2..=254).collect(),
        }
    }

    pub(super) fn take(&mut self) -> Option<u8> {
        self.free.pop_front()
    }

    pub(super) fn give_back(&mut self, host: u8) {
        self.free.push_back(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_documented() {
        let node = NodePlan::new(2);
        assert_eq!(node.ipv4().to_string(), "172.30.0.2");
        assert_eq!(node.ipv6().to_string(), "fd00:30::2");
        assert_eq!(node.pod_ipv4(7).to_string(), "10.244.2.7");
        assert_eq!(node.pod_ipv6(7).to_string(), "fd00:244:2::7");
        assert_eq!(node.pods_ipv6().to_string(), "fd00:244:2::/64");
        assert_eq!(uplink_ipv4(CONTROL_PLANE_HOST).to_string(), "172.30.0.254");
        assert_eq!(CLUSTER_DNS_IPV6.to_string(), "fd00:96::a");
        for pods in [node.pods_ipv4().into(), node.pods_ipv6().into()] {
            let pods: IpNet = pods;
            assert!(cluster_cidrs().iter().any(|cidr| cidr.contains(&pods)));
        }
    }

    #[test]
    fn an_address_comes_back_only_after_all_others() {
        let mut pool = AddressPool::new();
        let first = pool.take().unwrap();
        pool.give_back(first);
        let others: Vec<_> = (0..252).map(|_| pool.take().unwrap()).collect();
        assert!(!others.contains(&first));
        assert_eq!(pool.take(), Some(first));
        assert_eq!(pool.take(), None);
    }
}
