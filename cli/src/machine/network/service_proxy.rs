//! The service proxy of a node, as an nftables ruleset: what kube-proxy does in a cluster.
//!
//! It serves pods outside the mesh, and UDP. TCP of captured pods arrives here as ztunnel's own
//! connections, to pods rather than to services, which no rule here touches.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::plan;
use super::service::{Endpoint, InternalTrafficPolicy, Kind, Protocol, Service};

const TABLE: &str = "weft-services";

/// A service's address and port, and where connections to it may go.
type Targets = BTreeMap<(IpAddr, Protocol, u16), BTreeSet<SocketAddr>>;

/// The whole table of node `node`, in place of what was there, in one transaction.
pub(super) fn ruleset(services: &[Service], node: usize, ipv6: bool) -> String {
    let targets = targets(services, node, ipv6);
    let families: &[Family] = if ipv6 {
        &[Family::Ipv4, Family::Ipv6]
    } else {
        &[Family::Ipv4]
    };
    let mut text =
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for family in families {
        maps(&mut text, *family, &targets);
    }
    for (service, endpoints) in &targets {
        chain(&mut text, service, endpoints);
    }
    base_chains(&mut text, families);
    text.push_str("}\n");
    text
}

fn targets(services: &[Service], node: usize, ipv6: bool) -> Targets {
    let mut targets = Targets::new();
    for service in services {
        let Kind::ClusterIp(addresses) = &service.kind else {
            continue;
        };
        let endpoints =
            service
                .endpoints
                .iter()
                .filter(|endpoint| match service.internal_traffic_policy {
                    InternalTrafficPolicy::Cluster => true,
                    InternalTrafficPolicy::Local => endpoint.node == node,
                });
        let endpoints: Vec<&Endpoint> = endpoints.collect();
        for address in addresses.iter().filter(|address| ipv6 || address.is_ipv4()) {
            for port in &service.ports {
                let key = (port.protocol, port.number);
                let reachable: BTreeSet<_> = endpoints
                    .iter()
                    .filter_map(|endpoint| {
                        let same_family = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4();
                        let ip = endpoint.ips.iter().find(same_family)?;
                        Some(SocketAddr::new(*ip, *endpoint.targets.get(&key)?))
                    })
                    .collect();
                // Of two services with one address the first has it, as everywhere.
                if !reachable.is_empty() && !is_cluster_dns(*address) {
                    targets
                        .entry((*address, port.protocol, port.number))
                        .or_insert(reachable);
                }
            }
        }
    }
    targets
}

fn is_cluster_dns(address: IpAddr) -> bool {
    address == plan::CLUSTER_DNS_IPV4 || address == plan::CLUSTER_DNS_IPV6
}

/// Lookup from service to chain, and every endpoint paired with itself: a pod that reaches itself
/// through a service would see its own address as sender and drop the packet.
fn maps(text: &mut String, family: Family, targets: &Targets) {
    let of_family = || {
        targets
            .iter()
            .filter(|((address, ..), _)| family.has(address))
    };
    let services: Vec<_> = of_family()
        .map(|((address, protocol, port), _)| {
            let chain = chain_name(address, *protocol, *port);
            format!("{address} . {} . {port} : goto {chain}", protocol.name())
        })
        .collect();
    let endpoints: BTreeSet<_> = of_family()
        .flat_map(|(_, endpoints)| endpoints)
        .map(|endpoint| format!("{0} . {0}", endpoint.ip()))
        .collect();
    let (number, kind) = (family.number(), family.kind());
    let _ = writeln!(
        text,
        "\tmap services{number} {{\n\t\ttype {kind} . inet_proto . inet_service : verdict{}\n\t}}",
        elements(services)
    );
    let _ = writeln!(
        text,
        "\tset hairpin{number} {{\n\t\ttype {kind} . {kind}{}\n\t}}",
        elements(endpoints)
    );
}

fn elements(elements: impl IntoIterator<Item = String>) -> String {
    let elements: Vec<_> = elements.into_iter().collect();
    if elements.is_empty() {
        String::new()
    } else {
        format!("\n\t\telements = {{ {} }}", elements.join(",\n\t\t\t"))
    }
}

fn chain(
    text: &mut String,
    (address, protocol, port): &(IpAddr, Protocol, u16),
    endpoints: &BTreeSet<SocketAddr>,
) {
    let name = chain_name(address, *protocol, *port);
    let choices: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : {} . {}", endpoint.ip(), endpoint.port()))
        .collect();
    let _ = writeln!(
        text,
        "\tchain {name} {{\n\t\tmeta l4proto {} dnat {} addr . port to numgen random mod {} map {{ {} }}\n\t}}",
        protocol.name(),
        Family::of(address).keyword(),
        endpoints.len(),
        choices.join(", ")
    );
}

fn chain_name(address: &IpAddr, protocol: Protocol, port: u16) -> String {
    let address = address.to_string().replace(':', "_");
    format!("to/{}/{address}/{port}", protocol.name())
}

fn base_chains(text: &mut String, families: &[Family]) {
    let mut dispatch = String::new();
    let mut hairpin = String::new();
    let mut refuse = String::new();
    for family in families {
        let (number, keyword, dns) = (family.number(), family.keyword(), family.cluster_dns());
        let _ = writeln!(
            dispatch,
            "\t\t{keyword} daddr . meta l4proto . th dport vmap @services{number}"
        );
        let _ = writeln!(
            hairpin,
            "\t\t{keyword} saddr . {keyword} daddr @hairpin{number} masquerade"
        );
        for network in plan::service_networks(true) {
            if family.has(&network.addr()) {
                let _ = writeln!(
                    refuse,
                    "\t\t{keyword} daddr {network} {keyword} daddr != {dns} jump refuse"
                );
            }
        }
    }
    // What is still for a service address after translation has nobody to go to.
    let _ = write!(
        text,
        "\tchain dispatch {{\n{dispatch}\t}}
\tchain refuse {{
\t\tmeta l4proto tcp reject with tcp reset
\t\treject with icmpx type port-unreachable
\t}}
\tchain prerouting {{
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tjump dispatch
\t}}
\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
\t\tjump dispatch
\t}}
\tchain postrouting {{
\t\ttype nat hook postrouting priority 100; policy accept;
{hairpin}\t}}
\tchain refuse-prerouting {{
\t\ttype filter hook prerouting priority -90; policy accept;
{refuse}\t}}
\tchain refuse-output {{
\t\ttype filter hook output priority -90; policy accept;
{refuse}\t}}
"
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

// === impl Family ===

impl Family {
    fn of(address: &IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        Family::of(address) == self
    }

    fn number(self) -> u8 {
        match self {
            Family::Ipv4 => 4,
            Family::Ipv6 => 6,
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        }
    }

    fn cluster_dns(self) -> IpAddr {
        match self {
            Family::Ipv4 => plan::CLUSTER_DNS_IPV4.into(),
            Family::Ipv6 => plan::CLUSTER_DNS_IPV6.into(),
        }
    }
}

#[cfg(test)]
mod tests;
