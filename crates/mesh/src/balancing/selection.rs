//! The endpoints that clients of one place may use on one port of a service, sorted by how close
//! they are: made once while the service's endpoints are what they are, then drawn from for each
//! connection, in time that does not depend on how many there are.

mod ranking;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use self::ranking::Ranking;
use super::active::Active;
use super::ejection::{Candidates, Ejections, ServicePort};
use super::weights::Weights;
use super::{is_reachable, least_request};
use crate::service::{Algorithm, LoadBalancingMode};
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::{Locality, Workload};

/// Selections kept. Whoever dials more ports of more services than this has them made anew.
const MAXIMUM: usize = 4096;

/// Endpoints to draw from.
#[derive(Debug)]
pub struct Selection {
    entry: Arc<ServiceEntry>,
    destination: ServicePort,
    /// The client's.
    network: Arc<str>,
    /// Of endpoints that differ: what the tiers are made of.
    ranking: Ranking,
    /// Closest first; none is empty.
    tiers: Vec<Tier>,
}

/// Endpoints that are equally close.
#[derive(Debug)]
struct Tier {
    members: Members,
    weights: Weights,
}

#[derive(Debug)]
enum Members {
    /// All endpoints of the service, where they are equal: those that can't be used are found out
    /// when they are drawn. Of a large service one endpoint or other changes all the time, and
    /// nobody has to go through the list each time.
    All,
    /// By where they are in the service's list.
    Some(Box<[u32]>),
}

/// An endpoint that was drawn, by its place in the service's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drawn(u32);

/// What connections have taught about endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// None: nothing failed.
    pub ejections: Option<&'a Ejections>,
    /// None: nothing is under way.
    pub active: Option<&'a Active>,
    pub now: Instant,
}

/// Selections by what they are for, kept across snapshots.
#[derive(Debug, Default)]
pub struct Selections {
    known: HashMap<(ServicePort, Place), Known>,
    /// Snapshots since it was looked for what has gone.
    snapshots: usize,
}

#[derive(Debug)]
struct Known {
    selection: Arc<Selection>,
    /// Whether anybody has asked since it was looked for what has gone.
    is_used: bool,
}

/// All of a client that its distance to endpoints depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    network: Arc<str>,
    locality: Arc<Locality>,
    node: Arc<str>,
    cluster_id: Arc<str>,
}

// === impl Observed ===

impl Observed<'_> {
    pub fn nothing(now: Instant) -> Self {
        Self {
            ejections: None,
            active: None,
            now,
        }
    }
}

// === impl Selection ===

impl Selection {
    pub fn new(entry: &Arc<ServiceEntry>, client: &Workload, service_port: u16) -> Self {
        Self::following(None, entry, client, service_port)
    }

    /// The selection that takes the place of another one, for clients of the same place, when the
    /// service's endpoints have changed and nothing else of it.
    fn following(
        before: Option<&Self>,
        entry: &Arc<ServiceEntry>,
        client: &Workload,
        service_port: u16,
    ) -> Self {
        let (ranking, tiers) = match entry.service.load_balancing.mode {
            LoadBalancingMode::Standard | LoadBalancingMode::Passthrough
                if entry.endpoints.have_equal_capacity() =>
            {
                let all = Tier::of_all(entry).into_iter().collect();
                (Ranking::default(), all)
            }
            LoadBalancingMode::Standard
            | LoadBalancingMode::Passthrough
            | LoadBalancingMode::Strict
            | LoadBalancingMode::Failover => {
                let before = before.map(|before| &before.ranking);
                let ranking = Ranking::of(entry, client, service_port, before);
                let tiers = ranking.tiers().map(|equals| Tier {
                    members: Members::Some(equals.places),
                    weights: equals.weights,
                });
                let tiers = tiers.collect();
                (ranking, tiers)
            }
        };
        Self {
            ranking,
            tiers,
            destination: ServicePort {
                service: entry.service.key(),
                port: service_port,
            },
            network: client.network.clone(),
            entry: entry.clone(),
        }
    }

    pub fn entry(&self) -> &Arc<ServiceEntry> {
        &self.entry
    }

    /// What the endpoints are drawn for.
    pub fn destination(&self) -> &ServicePort {
        &self.destination
    }

    /// What an ejected endpoint is one of.
    pub fn candidates(&self) -> Candidates<'_> {
        Candidates {
            destination: &self.destination,
            count: self.entry.endpoints.len(),
        }
    }

    pub fn endpoint(&self, drawn: Drawn) -> &Endpoint {
        &self.entry.endpoints[drawn.0 as usize]
    }

    /// Draws one that has not been `tried`, of the closest that have one which is not ejected;
    /// where all are, of the closest. None where all have been tried.
    pub fn draw(
        &self,
        tried: &[Drawn],
        observed: Observed<'_>,
        random: &mut impl Rng,
    ) -> Option<Drawn> {
        let ejections = observed.ejections;
        let failing = ejections.and_then(|ejections| ejections.of(&self.destination));
        let Some(failing) = failing else {
            return self.draw_of(|at| !tried.contains(&at), observed.active, random);
        };
        let is_ejected = |at: Drawn| failing.is_ejected(&self.endpoint(at).workload, observed.now);
        let qualifies = |at: Drawn| !tried.contains(&at) && !is_ejected(at);
        self.draw_of(qualifies, observed.active, random)
            .or_else(|| self.draw_of(|at| !tried.contains(&at), observed.active, random))
    }

    fn draw_of(
        &self,
        qualifies: impl Fn(Drawn) -> bool,
        active: Option<&Active>,
        random: &mut impl Rng,
    ) -> Option<Drawn> {
        self.tiers.iter().find_map(|tier| {
            let at = |index: usize| tier.at(index);
            let qualifies = |index: usize| qualifies(at(index)) && self.is_usable(tier, index);
            let index = match (self.entry.service.load_balancing.algorithm, active) {
                (Algorithm::LeastRequest, Some(active)) => {
                    let count = |index| active.count(&self.endpoint(at(index)).workload.uid);
                    least_request::choose(&tier.weights, count, qualifies, random)
                }
                (Algorithm::LeastRequest, None) | (Algorithm::Random, _) => {
                    tier.weights.draw(qualifies, random)
                }
            };
            index.map(at)
        })
    }

    /// Whether a member of a tier may be used, where that is not known of all.
    fn is_usable(&self, tier: &Tier, index: usize) -> bool {
        match &tier.members {
            Members::All => is_reachable(
                &self.entry,
                self.endpoint(tier.at(index)),
                &self.network,
                self.destination.port,
            ),
            Members::Some(_) => true,
        }
    }
}

// === impl Tier ===

impl Tier {
    /// None where there is no endpoint at all.
    fn of_all(entry: &ServiceEntry) -> Option<Self> {
        let count = entry.endpoints.len();
        (count > 0).then_some(Self {
            members: Members::All,
            weights: Weights::Equal { count, weight: 1 },
        })
    }

    fn at(&self, index: usize) -> Drawn {
        match &self.members {
            Members::All => Drawn(u32::try_from(index).unwrap_or(u32::MAX)),
            Members::Some(places) => Drawn(places[index]),
        }
    }
}

// === impl Selections ===

impl Selections {
    /// The selection for `client`, made where the service's endpoints are others than last time.
    pub fn of(
        &mut self,
        entry: &Arc<ServiceEntry>,
        client: &Workload,
        service_port: u16,
    ) -> Arc<Selection> {
        let destination = ServicePort {
            service: entry.service.key(),
            port: service_port,
        };
        let key = (destination, Place::of(client));
        let mut before = None;
        if let Some(known) = self.known.get_mut(&key) {
            let selection = &known.selection;
            known.is_used = true;
            if Arc::ptr_eq(&selection.entry, entry) {
                return selection.clone();
            }
            // Who is how close depends on the service, too.
            let is_same = Arc::ptr_eq(&selection.entry.service, &entry.service);
            before = is_same.then(|| selection.clone());
        }
        if self.known.len() >= MAXIMUM {
            self.known.clear();
        }
        let made = Selection::following(before.as_deref(), entry, client, service_port);
        let known = Known {
            selection: Arc::new(made),
            is_used: true,
        };
        let selection = known.selection.clone();
        self.known.insert(key, known);
        selection
    }

    /// Lets go of what the snapshot no longer has, unless it has been used lately: the next one is
    /// made of it. It looks once in as many snapshots as there are selections, so that what one
    /// costs does not grow with their number.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        self.snapshots += 1;
        if self.snapshots <= self.known.len() {
            return;
        }
        self.snapshots = 0;
        self.known.retain(|(destination, _), known| {
            let was_used = std::mem::take(&mut known.is_used);
            let current = snapshot.service(&destination.service);
            current.is_some_and(|current| {
                let entry = &known.selection.entry;
                let is_next = was_used && Arc::ptr_eq(&current.service, &entry.service);
                is_next || Arc::ptr_eq(current, entry)
            })
        });
    }
}

// === impl Place ===

impl Place {
    fn of(client: &Workload) -> Self {
        Self {
            network: client.network.clone(),
            locality: client.locality.clone(),
            node: client.node.clone(),
            cluster_id: client.cluster_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
