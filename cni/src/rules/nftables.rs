//! Redirect rules as nftables transactions: each text is applied as a whole or not at all.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{
    Action, CONNECTION_MARK, Chain, MARK_MASK, Match, Options, Rule, Table, ZTUNNEL_MARK, hold,
    redirect,
};

const TABLES: [Table; 3] = [Table::Mangle, Table::Nat, Table::Raw];
const CHAINS: [Chain; 2] = [Chain::Prerouting, Chain::Output];

/// Captures a pod, whatever its tables held before.
pub fn capture(options: &Options) -> String {
    transaction(&TABLES, &redirect(options))
}

/// Stops capturing while connections that ztunnel carries live on.
///
/// Removing the tables would unhook address translation and connection tracking, and every
/// redirected connection would lose its way in the middle of a stream. So the hooks stay, with no
/// redirect in them: new connections pass untouched, translated ones keep their translation.
pub fn release() -> String {
    transaction(&TABLES, &hold())
}

/// Leaves nothing of ours in the namespace.
pub fn remove() -> String {
    transaction(&[], &[])
}

fn transaction(keep: &[Table], rules: &[Rule]) -> String {
    let mut text = String::new();
    for table in TABLES {
        let name = table.name();
        // `delete` of a missing table is an error; after `add` it never is.
        let _ = writeln!(text, "add table inet {name}");
        if !keep.contains(&table) {
            let _ = writeln!(text, "delete table inet {name}");
            continue;
        }
        let _ = writeln!(text, "flush table inet {name}");
        for chain in CHAINS {
            declare(&mut text, table, chain);
        }
        for rule in rules.iter().filter(|rule| rule.table == table) {
            let _ = writeln!(text, "add rule inet {name} {}", statement(rule));
        }
    }
    text
}

fn declare(text: &mut String, table: Table, chain: Chain) {
    let (name, base, ours) = (table.name(), chain.base(), chain.ours());
    let kind = match (table, chain) {
        (Table::Nat, Chain::Prerouting | Chain::Output) => "nat",
        // Only a route chain looks the route up again after the mark changed.
        (Table::Mangle, Chain::Output) => "route",
        (Table::Mangle, Chain::Prerouting) | (Table::Raw, Chain::Prerouting | Chain::Output) => {
            "filter"
        }
    };
    let priority = match table {
        Table::Raw => -300,
        Table::Mangle => -150,
        Table::Nat => -100,
    };
    let _ = writeln!(text, "add chain inet {name} {ours}");
    let _ = writeln!(
        text,
        "add chain inet {name} {base} {{ type {kind} hook {base} priority {priority} ; policy accept ; }}"
    );
    let _ = writeln!(text, "add rule inet {name} {base} jump {ours}");
}

fn statement(rule: &Rule) -> String {
    let mut text = rule.chain.ours().to_owned();
    for part in &rule.matches {
        text.push(' ');
        text.push_str(&expression(part));
    }
    text.push(' ');
    text.push_str(&verdict(rule.action));
    text
}

fn expression(part: &Match) -> String {
    match part {
        Match::Ipv4 => "meta nfproto ipv4".into(),
        Match::Ipv6 => "meta nfproto ipv6".into(),
        Match::InInterface(name) => format!("iifname \"{name}\""),
        Match::OutLoopback => "oifname \"lo\"".into(),
        Match::NotOutLoopback => "oifname != \"lo\"".into(),
        Match::Source(address) => format!("{} saddr {address}", family(address)),
        Match::Destination(address) => format!("{} daddr {address}", family(address)),
        Match::NotDestination(address) => format!("{} daddr != {address}", family(address)),
        Match::DestinationRange(range) => {
            format!("{} daddr {range}", family(&range.addr()))
        }
        Match::Tcp => "meta l4proto tcp".into(),
        Match::TcpOpening => "tcp flags & (fin | syn | rst | ack) == syn".into(),
        Match::TcpDestinationPort(port) => format!("tcp dport {port}"),
        Match::NotTcpDestinationPort(port) => format!("tcp dport != {port}"),
        Match::UdpDestinationPort(port) => format!("udp dport {port}"),
        Match::UdpSourcePort(port) => format!("udp sport {port}"),
        Match::ZtunnelMark => format!("meta mark & {MARK_MASK:#x} == {ZTUNNEL_MARK:#x}"),
        Match::NotZtunnelMark => format!("meta mark & {MARK_MASK:#x} != {ZTUNNEL_MARK:#x}"),
        Match::RestoredMark => format!("meta mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x}"),
        Match::NotRestoredMark => format!("meta mark & {MARK_MASK:#x} != {CONNECTION_MARK:#x}"),
        Match::Reply => "ct direction reply".into(),
        Match::ConnectionMark => format!("ct mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x}"),
    }
}

fn verdict(action: Action) -> String {
    match action {
        Action::Accept => "accept".into(),
        Action::Refuse => "reject with tcp reset".into(),
        Action::Drop => "drop".into(),
        Action::Redirect { port } => format!("redirect to :{port}"),
        Action::Spread { family, port } => match family.capture() {
            (IpAddr::V4(first), IpAddr::V4(last)) => format!("dnat ip to {first}-{last}:{port}"),
            (first, last) => format!("dnat ip6 to [{first}]-[{last}]:{port}"),
        },
        Action::SetConnectionMark => {
            format!(
                "ct mark set ct mark & {:#x} | {CONNECTION_MARK:#x}",
                !MARK_MASK
            )
        }
        Action::SetMark => {
            format!(
                "meta mark set meta mark & {:#x} | {CONNECTION_MARK:#x}",
                !MARK_MASK
            )
        }
        Action::RestoreMark => "meta mark set ct mark".into(),
        Action::ConntrackZone(zone) => format!("ct zone set {zone}"),
        Action::ConntrackZoneOfOriginal(zone) => format!("ct original zone set {zone}"),
    }
}

fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

impl Table {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Mangle => "istio-ambient-mangle",
            Table::Nat => "istio-ambient-nat",
            Table::Raw => "istio-ambient-raw",
        }
    }
}

impl Chain {
    fn base(self) -> &'static str {
        match self {
            Chain::Prerouting => "prerouting",
            Chain::Output => "output",
        }
    }

    fn ours(self) -> &'static str {
        match self {
            Chain::Prerouting => "istio-prerouting",
            Chain::Output => "istio-output",
        }
    }
}
