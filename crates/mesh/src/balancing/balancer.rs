//! Picks endpoints of one tier request by request, by what each of them has to do.
//!
//! It belongs to one thread; endpoints are whatever the caller names them by.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Instant;

use rand::Rng;

use super::least_request;
use super::peak_ewma::{self, Latency};
use super::round_robin::Schedule;
use super::weights::Weights;

/// How the next endpoint is chosen, under the names of DestinationRule's `simple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
    /// Not Istio's: by observed latency.
    PeakEwma,
}

/// The endpoints of one tier.
#[derive(Debug)]
pub struct Balancer<Id> {
    algorithm: Algorithm,
    endpoints: Vec<(Id, Rc<Load>)>,
    weights: Weights,
    schedule: Schedule,
}

/// What an endpoint has to do. Kept while the endpoint is, and while any request is under way.
#[derive(Debug)]
struct Load {
    active: Cell<u32>,
    /// None: never answered.
    latency: Cell<Option<Latency>>,
}

/// An endpoint that was picked for a request, which is under way until this is dropped.
#[derive(Debug)]
pub struct Pick<Id> {
    pub id: Id,
    load: Rc<Load>,
    began: Instant,
}

// === impl Balancer ===

impl<Id: Clone + Eq + Hash> Balancer<Id> {
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            endpoints: Vec::new(),
            weights: Weights::default(),
            schedule: Schedule::default(),
        }
    }

    /// Replaces the endpoints and their weights; what is known of those that stay is kept.
    pub fn update(
        &mut self,
        endpoints: impl IntoIterator<Item = (Id, u32)>,
        random: &mut impl Rng,
    ) {
        let mut known: HashMap<Id, Rc<Load>> = self.endpoints.drain(..).collect();
        let (endpoints, weights): (Vec<_>, Vec<u32>) = endpoints
            .into_iter()
            .map(|(id, weight)| {
                let load = known.remove(&id).unwrap_or_else(|| Rc::new(Load::new()));
                ((id, load), weight)
            })
            .unzip();
        self.endpoints = endpoints;
        self.weights = weights.iter().copied().collect();
        self.schedule = match self.algorithm {
            Algorithm::RoundRobin => Schedule::new(weights.into_iter(), random),
            Algorithm::LeastRequest | Algorithm::Random | Algorithm::PeakEwma => {
                Schedule::default()
            }
        };
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The next endpoint of those that are available; none where none is.
    pub fn pick(
        &mut self,
        is_available: impl Fn(&Id) -> bool,
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Pick<Id>> {
        let endpoints = &self.endpoints;
        let qualifies = |at: usize| is_available(&endpoints[at].0);
        let active = |at: usize| endpoints[at].1.active.get();
        let at = match self.algorithm {
            Algorithm::LeastRequest => {
                least_request::choose(&self.weights, active, qualifies, random)
            }
            Algorithm::RoundRobin => self.schedule.next(qualifies),
            Algorithm::Random => self.weights.draw(qualifies, random),
            Algorithm::PeakEwma => {
                let load = |at: usize| {
                    let load = &endpoints[at].1;
                    let latency = load.latency.get();
                    (latency.map(|known| known.expected(now)), load.active.get())
                };
                peak_ewma::choose(&self.weights, load, qualifies, random)
            }
        }?;
        let (id, load) = &self.endpoints[at];
        load.active.set(load.active.get() + 1);
        Some(Pick {
            id: id.clone(),
            load: load.clone(),
            began: now,
        })
    }

    /// The requests under way at an endpoint.
    pub fn active(&self, id: &Id) -> u32 {
        let found = self.endpoints.iter().find(|(known, _)| known == id);
        found.map_or(0, |(_, load)| load.active.get())
    }
}

// === impl Load ===

impl Load {
    fn new() -> Self {
        Self {
            active: Cell::new(0),
            latency: Cell::new(None),
        }
    }
}

// === impl Pick ===

impl<Id> Pick<Id> {
    /// The head of the response came.
    pub fn answered(&self, now: Instant) {
        let latency = now.saturating_duration_since(self.began);
        let known = self.load.latency.get();
        self.load
            .latency
            .set(Some(Latency::observe(known, latency, now)));
    }

    /// No response came, or one that says the endpoint is unwell.
    pub fn failed(&self, now: Instant) {
        let known = self.load.latency.get();
        self.load
            .latency
            .set(Some(Latency::observe_failure(known, now)));
    }
}

impl<Id> Drop for Pick<Id> {
    fn drop(&mut self) {
        self.load.active.set(self.load.active.get() - 1);
    }
}

#[cfg(test)]
mod tests;
