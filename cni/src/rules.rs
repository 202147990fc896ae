//! The redirect rules of one pod, as data: which packets of its network namespace go to ztunnel.
//!
//! Nothing here touches a kernel. [`redirect`] gives the rules in evaluation order, [`nftables`]
//! turns them into a transaction, and `apply` carries that into a namespace.

mod nftables;

pub use nftables::{capture, release, remove};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// ztunnel marks every socket it opens in a pod with this, under [`MARK_MASK`].
pub const ZTUNNEL_MARK: u32 = 0x539;
/// Connections that ztunnel opened with a borrowed source address carry this as connection mark.
pub const CONNECTION_MARK: u32 = 0x111;
pub const MARK_MASK: u32 = 0xfff;

pub const OUTBOUND_PORT: u16 = 15001;
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
pub const HBONE_PORT: u16 = 15008;
pub const DNS_PORT: u16 = 15053;

/// Where connection tracking keeps what ztunnel opens and could be taken for what is redirected to it.
const OWN_ZONE: u16 = 1;

/// Policy routing that brings answers to borrowed source addresses back to ztunnel.
pub const ROUTE_TABLE: u32 = 100;
pub const ROUTE_RULE_PRIORITY: u32 = 32764;

/// Where outbound capture sends a pod's IPv6 connections: IPv6 has one loopback address, so this
/// is made another by a route. Beside the prefix that Istio reserves for probes.
pub const CAPTURE_PREFIX: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1501, 0, 0, 0, 0),
    64,
);

/// Source addresses that a node gives to its own probes, so that they pass without capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeAddresses {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// A network interface as the kernel names it, safe to stand in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a network interface")]
pub struct InvalidInterfaceName(String);

/// What varies between pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    pub ipv4: bool,
    pub ipv6: bool,
    /// Refuses the IPv6 that can't be captured, but for what would not be.
    pub refuse_ipv6: bool,
    /// Sends the pod's DNS to ztunnel's DNS proxy.
    pub dns_capture: bool,
    /// `ambient.istio.io/bypass-inbound-capture`: the pod takes its own plaintext, as ingress gateways do.
    pub bypass_inbound: bool,
    /// `istio.io/reroute-virtual-interfaces`: traffic that virtual machines inside the pod send in through these.
    pub virtual_interfaces: Vec<InterfaceName>,
    pub exclude: Exclusions,
    pub probe: ProbeAddresses,
}

/// `traffic.sidecar.istio.io/exclude…`: TCP that the pod sends and takes itself. Its tunnel's port
/// serves excluded ports as any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exclusions {
    pub inbound_ports: Vec<u16>,
    pub outbound_ports: Vec<u16>,
    pub outbound_ranges: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// One rule: it acts on packets for which every match holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub table: Table,
    pub chain: Chain,
    pub matches: Vec<Match>,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Mangle,
    Nat,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    Prerouting,
    Output,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Ipv4,
    Ipv6,
    InInterface(InterfaceName),
    OutLoopback,
    NotOutLoopback,
    Source(IpAddr),
    Destination(IpAddr),
    NotDestination(IpAddr),
    DestinationRange(IpNet),
    Tcp,
    /// The packet that opens a TCP connection: SYN without ACK, RST or FIN.
    ///
    /// Rules may appear while a pod has connections. Connection tracking meets those in
    /// mid-stream and reports their next packet as new, so a redirect of "new" connections
    /// would tear them away from their peer.
    TcpOpening,
    TcpDestinationPort(u16),
    NotTcpDestinationPort(u16),
    UdpDestinationPort(u16),
    UdpSourcePort(u16),
    ZtunnelMark,
    NotZtunnelMark,
    /// The mark of a connection that ztunnel opened, given by the mangle table.
    RestoredMark,
    NotRestoredMark,
    ConnectionMark,
    /// Of packets that answer those that opened their connection.
    Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Accept,
    /// Answered by a reset. To the pod itself that takes loopback: without it, the connection times out.
    Refuse,
    /// Answered by nothing; what the pod itself sends fails at once.
    Drop,
    /// To a port of the address that the packet came to, or of loopback if it starts here.
    Redirect {
        port: u16,
    },
    /// To a port of an address of this very host that follows from both ends' addresses.
    ///
    /// A client may use one source port towards two destinations. Redirected to one address they
    /// would be one connection, so the kernel gives the later a random source port. A connection
    /// that ztunnel's end closed first may linger under it, whose timestamps (RFC 7323 section 5)
    /// follow another destination's clock: the new one's SYN is refused, and sent again a second
    /// later. So destinations are kept apart here too; two ports of one, whose clock is the same,
    /// are not.
    Spread {
        family: Family,
        port: u16,
    },
    SetConnectionMark,
    /// As if the packet's sender had set what [`Action::SetConnectionMark`] leaves.
    SetMark,
    RestoreMark,
    ConntrackZone(u16),
    /// Only of packets that go the way of the one that opened the connection: answers need no rule.
    ConntrackZoneOfOriginal(u16),
}

/// What becomes of a family's connections that open, and of its questions for names.
#[derive(Clone, Copy, Debug)]
struct Fate {
    table: Table,
    inbound: Action,
    outbound: Action,
    /// Of virtual machines inside the pod.
    forwarded: Action,
    dns_over_udp: Action,
    dns_over_tcp: Action,
}

// === impl ProbeAddresses ===

impl Default for ProbeAddresses {
    /// The addresses Istio reserves for this.
    fn default() -> Self {
        ProbeAddresses {
            ipv4: Ipv4Addr::new(169, 254, 7, 127),
            ipv6: Ipv6Addr::new(
                0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff,
            ),
        }
    }
}

// === impl InterfaceName ===

impl TryFrom<&str> for InterfaceName {
    type Error = InvalidInterfaceName;

    /// Names come from annotations, and end up in the text of a rule.
    fn try_from(name: &str) -> Result<Self, InvalidInterfaceName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@:".contains(&byte);
        if (1..=15).contains(&name.len()) && name.bytes().all(plain) {
            Ok(InterfaceName(name.to_owned()))
        } else {
            Err(InvalidInterfaceName(name.to_owned()))
        }
    }
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Options {
            ipv4: true,
            ipv6: true,
            refuse_ipv6: false,
            dns_capture: true,
            bypass_inbound: false,
            virtual_interfaces: Vec::new(),
            exclude: Exclusions::default(),
            probe: ProbeAddresses::default(),
        }
    }
}

impl Options {
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        [(self.ipv4, Family::Ipv4), (self.ipv6, Family::Ipv6)]
            .into_iter()
            .filter_map(|(wanted, family)| wanted.then_some(family))
    }

    /// What matches the pod's own connections to elsewhere.
    fn excluded_outbound(&self, family: Family) -> Vec<Match> {
        let ports = self.exclude.outbound_ports.iter();
        let ranges = self.exclude.outbound_ranges.iter();
        let of_family = |range: &&IpNet| match family {
            Family::Ipv4 => matches!(range, IpNet::V4(_)),
            Family::Ipv6 => matches!(range, IpNet::V6(_)),
        };
        ports
            .map(|port| Match::TcpDestinationPort(*port))
            .chain(
                ranges
                    .filter(of_family)
                    .map(|range| Match::DestinationRange(*range)),
            )
            .collect()
    }

    fn probe(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.probe.ipv4.into(),
            Family::Ipv6 => self.probe.ipv6.into(),
        }
    }
}

// === impl Fate ===

impl Fate {
    /// Of a family that ztunnel can't be given: what would be captured is refused, both ways.
    const REFUSED: Self = Self {
        table: Table::Mangle,
        inbound: Action::Refuse,
        outbound: Action::Refuse,
        forwarded: Action::Refuse,
        dns_over_udp: Action::Drop,
        dns_over_tcp: Action::Refuse,
    };

    fn captured(family: Family) -> Self {
        let to = |port| Action::Redirect { port };
        let spread = Action::Spread {
            family,
            port: OUTBOUND_PORT,
        };
        Self {
            table: Table::Nat,
            inbound: to(INBOUND_PLAINTEXT_PORT),
            outbound: spread,
            forwarded: to(OUTBOUND_PORT),
            dns_over_udp: to(DNS_PORT),
            dns_over_tcp: to(DNS_PORT),
        }
    }
}

// === impl Family ===

impl Family {
    fn is(self) -> Match {
        match self {
            Family::Ipv4 => Match::Ipv4,
            Family::Ipv6 => Match::Ipv6,
        }
    }

    fn loopback(self) -> IpAddr {
        match self {
            Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The first and the last of the addresses that [`Action::Spread`] draws from.
    fn capture(self) -> (IpAddr, IpAddr) {
        match self {
            // Without the network's own and its broadcast address.
            Family::Ipv4 => (
                Ipv4Addr::LOCALHOST.into(),
                Ipv4Addr::new(127, 255, 255, 254).into(),
            ),
            Family::Ipv6 => (
                CAPTURE_PREFIX.network().into(),
                CAPTURE_PREFIX.broadcast().into(),
            ),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// The rules of a captured pod. Order within one table and chain is evaluation order.
pub fn redirect(options: &Options) -> Vec<Rule> {
    let mut rules = hold();
    let captured = options
        .families()
        .map(|family| (family, Fate::captured(family)));
    let refused = options.refuse_ipv6.then_some((Family::Ipv6, Fate::REFUSED));
    for (family, fate) in captured.chain(refused) {
        prerouting(options, family, fate, &mut rules);
        output(options, family, fate, &mut rules);
    }
    if options.dns_capture {
        // ztunnel asks upstream from the pod's own address. In a zone of its own, its question
        // can't collide with the redirected question of an application on the same ports.
        rules.push(Rule {
            table: Table::Raw,
            chain: Chain::Output,
            matches: vec![Match::UdpDestinationPort(53), Match::ZtunnelMark],
            action: Action::ConntrackZone(OWN_ZONE),
        });
        rules.push(Rule {
            table: Table::Raw,
            chain: Chain::Prerouting,
            matches: vec![Match::UdpSourcePort(53), Match::NotZtunnelMark],
            action: Action::ConntrackZone(OWN_ZONE),
        });
    }
    rules
}

/// What live connections through ztunnel need, captured or just released: answers of the
/// application to a borrowed client address must find their way back to ztunnel's socket.
///
/// Of a connection that ztunnel opens, that is. What ztunnel accepted needs no other way than it
/// has, and would have its route looked up for each packet.
///
/// And with a client's address ztunnel may use a port that the client itself uses, towards the same
/// application: to connection tracking the one would be the other, but for the zone. Tunnels need none:
/// what the kernel says in the name of a socket that is gone has no mark, and leaves what has a zone behind.
pub fn hold() -> Vec<Rule> {
    vec![
        Rule {
            table: Table::Raw,
            chain: Chain::Output,
            matches: vec![Match::OutLoopback, Match::Tcp, Match::ZtunnelMark],
            action: Action::ConntrackZoneOfOriginal(OWN_ZONE),
        },
        Rule {
            table: Table::Mangle,
            chain: Chain::Prerouting,
            matches: vec![Match::TcpOpening, Match::ZtunnelMark],
            action: Action::SetConnectionMark,
        },
        // The application's socket takes it over where `tcp_fwmark_accept` says so, and looks its
        // route up once; elsewhere, and what the kernel says in the name of a socket that is gone, each
        // packet is given the connection's.
        Rule {
            table: Table::Mangle,
            chain: Chain::Prerouting,
            matches: vec![Match::TcpOpening, Match::ZtunnelMark],
            action: Action::SetMark,
        },
        Rule {
            table: Table::Mangle,
            chain: Chain::Output,
            // A packet whose mark changes has its route looked up again. ztunnel's own need no other, which
            // their mark does not tell: behind a SYN cookie the application's socket takes over ztunnel's.
            matches: vec![Match::NotRestoredMark, Match::ConnectionMark, Match::Reply],
            action: Action::RestoreMark,
        },
    ]
}

fn prerouting(options: &Options, family: Family, fate: Fate, rules: &mut Vec<Rule>) {
    let mut add = |matches, action| {
        rules.push(Rule {
            table: fate.table,
            chain: Chain::Prerouting,
            matches,
            action,
        });
    };
    for interface in &options.virtual_interfaces {
        for excluded in options.excluded_outbound(family) {
            let from = Match::InInterface(interface.clone());
            add(
                vec![family.is(), from, Match::Tcp, excluded],
                Action::Accept,
            );
        }
        add(
            vec![
                family.is(),
                Match::InInterface(interface.clone()),
                Match::TcpOpening,
            ],
            fate.forwarded,
        );
        // What that left alone must not fall through to inbound capture.
        add(
            vec![
                family.is(),
                Match::InInterface(interface.clone()),
                Match::Tcp,
            ],
            Action::Accept,
        );
    }
    if options.bypass_inbound {
        return;
    }
    add(
        vec![Match::Source(options.probe(family)), Match::Tcp],
        Action::Accept,
    );
    for port in &options.exclude.inbound_ports {
        let port = Match::TcpDestinationPort(*port);
        add(vec![family.is(), port], Action::Accept);
    }
    add(
        vec![
            Match::NotDestination(family.loopback()),
            Match::NotTcpDestinationPort(HBONE_PORT),
            Match::TcpOpening,
            Match::NotZtunnelMark,
            Match::NotRestoredMark,
        ],
        fate.inbound,
    );
}

fn output(options: &Options, family: Family, fate: Fate, rules: &mut Vec<Rule>) {
    let mut add = |matches, action| {
        rules.push(Rule {
            table: fate.table,
            chain: Chain::Output,
            matches,
            action,
        });
    };
    add(
        vec![Match::Destination(options.probe(family)), Match::Tcp],
        Action::Accept,
    );
    if options.dns_capture {
        add(
            vec![
                family.is(),
                Match::NotOutLoopback,
                Match::UdpDestinationPort(53),
                Match::NotZtunnelMark,
            ],
            fate.dns_over_udp,
        );
        add(
            vec![
                Match::NotDestination(family.loopback()),
                Match::TcpDestinationPort(53),
                Match::TcpOpening,
                Match::NotZtunnelMark,
            ],
            fate.dns_over_tcp,
        );
    }
    add(
        vec![family.is(), Match::Tcp, Match::RestoredMark],
        Action::Accept,
    );
    for excluded in options.excluded_outbound(family) {
        add(vec![family.is(), Match::Tcp, excluded], Action::Accept);
    }
    // A pod that calls its own address stays inside the pod.
    add(
        vec![Match::NotDestination(family.loopback()), Match::OutLoopback],
        Action::Accept,
    );
    add(
        vec![
            Match::NotDestination(family.loopback()),
            Match::TcpOpening,
            Match::NotZtunnelMark,
        ],
        fate.outbound,
    );
}

#[cfg(test)]
mod tests;
