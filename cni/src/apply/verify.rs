//! Reads a captured pod's rules and routes back and reports what differs from what was put there.
//!
//! nft prints rules in its own words, which change between releases. So the expectation is printed
//! by the same nft, from the same rules in an empty namespace.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::AsFd;

use super::{Error, generation, nft, routing, within_reach};
use crate::netns;
use crate::rules::{self, Family, Options, Table};

/// Sets of options that are remembered. Few pods have any of their own.
const MOST: usize = 256;

/// Compares namespaces with their rules; keeps what it learned about each set of options.
#[derive(Debug, Default)]
pub struct Verifier {
    expected: HashMap<Options, Listing>,
}

/// The ruleset of one namespace that was last found right. Until it or loopback changes, it still is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(Option<Right>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Right {
    generation: u32,
    refuse_ipv6: bool,
}

/// Our tables as nft prints them.
type Listing = BTreeMap<Table, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    TableMissing(Table),
    TableChanged(Table),
    /// A table of a feature that is off.
    TableLeftOver(Table),
    RoutingRuleMissing(Family),
    RouteMissing(Family),
    CaptureRouteMissing(Family),
    /// Its IPv6 was captured, and can't be any more.
    LoopbackWithoutIpv6,
    LoopbackWithIpv6,
}

// === impl Verifier ===

impl Verifier {
    /// Compares `netns` with what [`super::capture`] would make of it; empty when nothing differs.
    pub async fn verify(
        &mut self,
        netns: impl AsFd,
        options: &Options,
        seen: &mut Seen,
    ) -> Result<Vec<Drift>, Error> {
        let netns = netns.as_fd();
        let options = within_reach(netns, options).await?;
        // Asked before the tables are read: a change in between shows next time.
        let generation = netns::run(netns, generation::current)
            .await
            .map_err(Error::Namespace)?
            .ok();
        let right = generation.map(|generation| Right {
            generation,
            refuse_ipv6: options.refuse_ipv6,
        });
        let mut drift: Vec<_> = seen.loopback(&options).into_iter().collect();
        // What was put there for another loopback nobody has changed.
        if drift.is_empty() && (right.is_none() || seen.0 != right) {
            let found = ours(&nft::list(netns).await?);
            drift = compare(self.expected(&options).await?, &found);
        }
        seen.0 = right.filter(|_| drift.is_empty());
        let handle = netns::netlink(netns).map_err(Error::Namespace)?;
        for family in options.families() {
            let present = routing::present(&handle, family).await?;
            if !present.rule {
                drift.push(Drift::RoutingRuleMissing(family));
            }
            if !present.route {
                drift.push(Drift::RouteMissing(family));
            }
            if !present.capture_route {
                drift.push(Drift::CaptureRouteMissing(family));
            }
        }
        Ok(drift)
    }

    async fn expected(&mut self, options: &Options) -> Result<&Listing, Error> {
        if self.expected.len() >= MOST && !self.expected.contains_key(options) {
            self.expected.clear();
        }
        match self.expected.entry(options.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let scratch = netns::create().map_err(Error::Namespace)?;
                nft::load(&scratch, rules::capture(options)).await?;
                Ok(vacant.insert(ours(&nft::list(&scratch).await?)))
            }
        }
    }
}

// === impl Seen ===

impl Seen {
    /// What has become of loopback since.
    fn loopback(self, options: &Options) -> Option<Drift> {
        match (self.0?.refuse_ipv6, options.refuse_ipv6) {
            (false, true) => Some(Drift::LoopbackWithoutIpv6),
            (true, false) => Some(Drift::LoopbackWithIpv6),
            (false, false) | (true, true) => None,
        }
    }
}

fn compare(expected: &Listing, found: &Listing) -> Vec<Drift> {
    let mut drift = Vec::new();
    for table in [Table::Mangle, Table::Nat, Table::Raw] {
        match (expected.get(&table), found.get(&table)) {
            (Some(_), None) => drift.push(Drift::TableMissing(table)),
            (None, Some(_)) => drift.push(Drift::TableLeftOver(table)),
            (Some(expected), Some(found)) if expected != found => {
                drift.push(Drift::TableChanged(table));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    drift
}

/// Our tables in a listing, each with its text.
fn ours(listing: &str) -> Listing {
    let mut tables = BTreeMap::new();
    let mut current: Option<(Table, String)> = None;
    for line in listing.lines() {
        if let Some(name) = line
            .strip_prefix("table inet ")
            .and_then(|rest| rest.strip_suffix(" {"))
        {
            current = [Table::Mangle, Table::Nat, Table::Raw]
                .into_iter()
                .find(|table| table.name() == name)
                .map(|table| (table, String::new()));
        } else if line == "}" {
            tables.extend(current.take());
        } else if let Some((_, text)) = &mut current {
            text.push_str(line);
            text.push('\n');
        }
    }
    tables
}

// === impl Drift ===

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::TableMissing(table) => write!(f, "table {} is missing", table.name()),
            Drift::TableChanged(table) => write!(f, "table {} was changed", table.name()),
            Drift::TableLeftOver(table) => write!(f, "table {} should not be there", table.name()),
            Drift::RoutingRuleMissing(family) => {
                write!(f, "the {family} rule for marked packets is missing")
            }
            Drift::RouteMissing(family) => {
                write!(f, "the {family} route for marked packets is missing")
            }
            Drift::CaptureRouteMissing(family) => {
                write!(f, "the {family} route of outbound capture is missing")
            }
            Drift::LoopbackWithoutIpv6 => f.write_str(
                "loopback has no IPv6 any more, which is refused from now on instead of captured",
            ),
            Drift::LoopbackWithIpv6 => f.write_str("loopback has IPv6 again, which is captured"),
        }
    }
}
