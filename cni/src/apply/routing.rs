//! Policy routing of a pod: packets with the connection mark are delivered locally, so that an
//! application's answer to a borrowed client address reaches ztunnel's transparent socket. And the
//! IPv6 addresses that outbound capture spreads connections over, which are local by a route.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use futures::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::Error;
use crate::netns;
use crate::rules::{
    CAPTURE_PREFIX, CONNECTION_MARK, Family, MARK_MASK, Options, ROUTE_RULE_PRIORITY, ROUTE_TABLE,
};

/// The loopback interface is the first of every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Where every namespace keeps the routes of its own addresses.
const LOCAL_TABLE: u32 = libc::RT_TABLE_LOCAL as u32;

/// What of the routing a namespace has.
pub(super) struct Present {
    pub(super) rule: bool,
    pub(super) route: bool,
    /// IPv4's loopback needs none.
    pub(super) capture_route: bool,
}

pub(super) async fn ensure(netns: impl AsFd, options: &Options) -> Result<(), Error> {
    let handle = netns::netlink(netns).map_err(Error::Namespace)?;
    for family in options.families() {
        let mut rule = handle.rule().add();
        *rule.message_mut() = wanted_rule(family);
        tolerate(rule.execute().await, libc::EEXIST)?;
        for route in wanted_routes(family) {
            let route = handle.route().add(route).replace();
            route.execute().await.map_err(Error::Routing)?;
        }
    }
    Ok(())
}

pub(super) async fn remove(netns: impl AsFd) -> Result<(), Error> {
    let handle = netns::netlink(netns).map_err(Error::Namespace)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        // Without IPv6 in the kernel there is nothing to look for.
        let Ok(present) = present(&handle, family).await else {
            continue;
        };
        if present.rule {
            let rule = wanted_rule(family);
            tolerate(handle.rule().del(rule).execute().await, libc::ENOENT)?;
        }
        let routes = [present.route, present.capture_route];
        for (route, present) in wanted_routes(family).into_iter().zip(routes) {
            if present {
                tolerate(handle.route().del(route).execute().await, libc::ESRCH)?;
            }
        }
    }
    Ok(())
}

pub(super) async fn present(handle: &Handle, family: Family) -> Result<Present, Error> {
    let rules: Vec<RuleMessage> = handle
        .rule()
        .get(match family {
            Family::Ipv4 => IpVersion::V4,
            Family::Ipv6 => IpVersion::V6,
        })
        .execute()
        .try_collect()
        .await
        .map_err(Error::Routing)?;
    let routes: Vec<RouteMessage> = handle
        .route()
        .get(marked_route(family))
        .execute()
        .try_collect()
        .await
        .map_err(Error::Routing)?;
    let has = |wanted: &RouteMessage| routes.iter().any(|route| is_route(wanted, route));
    Ok(Present {
        rule: rules.iter().any(is_wanted_rule),
        route: has(&marked_route(family)),
        capture_route: family == Family::Ipv4 || has(&capture_route()),
    })
}

fn wanted_rule(family: Family) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Table(ROUTE_TABLE),
        RuleAttribute::Priority(ROUTE_RULE_PRIORITY),
        RuleAttribute::FwMark(CONNECTION_MARK),
        RuleAttribute::FwMask(MARK_MASK),
    ];
    rule
}

fn wanted_routes(family: Family) -> Vec<RouteMessage> {
    match family {
        Family::Ipv4 => vec![marked_route(family)],
        Family::Ipv6 => vec![marked_route(family), capture_route()],
    }
}

fn marked_route(family: Family) -> RouteMessage {
    match family {
        Family::Ipv4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(ROUTE_TABLE)
            .output_interface(LOOPBACK_INDEX)
            .build(),
        Family::Ipv6 => RouteMessageBuilder::<Ipv6Addr>::new()
            .kind(RouteType::Local)
            .table_id(ROUTE_TABLE)
            .output_interface(LOOPBACK_INDEX)
            .build(),
    }
}

fn capture_route() -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .kind(RouteType::Local)
        .table_id(LOCAL_TABLE)
        .destination_prefix(CAPTURE_PREFIX.network(), CAPTURE_PREFIX.prefix_len())
        .output_interface(LOOPBACK_INDEX)
        .build()
}

fn is_wanted_rule(rule: &RuleMessage) -> bool {
    [
        RuleAttribute::Table(ROUTE_TABLE),
        RuleAttribute::Priority(ROUTE_RULE_PRIORITY),
        RuleAttribute::FwMark(CONNECTION_MARK),
        RuleAttribute::FwMask(MARK_MASK),
    ]
    .iter()
    .all(|attribute| rule.attributes.contains(attribute))
}

/// Whether a route that the kernel lists is the wanted one. It says more of it than was asked for.
fn is_route(wanted: &RouteMessage, route: &RouteMessage) -> bool {
    let (listed, header) = (&route.header, &wanted.header);
    (listed.kind, listed.table, listed.destination_prefix_length)
        == (header.kind, header.table, header.destination_prefix_length)
        && wanted
            .attributes
            .iter()
            .all(|attribute| route.attributes.contains(attribute))
}

fn tolerate(result: Result<(), rtnetlink::Error>, code: i32) -> Result<(), Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -code => Ok(()),
        other => other.map_err(Error::Routing),
    }
}
