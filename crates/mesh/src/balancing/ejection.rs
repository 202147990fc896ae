//! Endpoints that could not be connected to, left alone for a while: passive health.
//!
//! An endpoint that fails is ejected at once, for [`Limits::base`], and twice as long each further
//! time in a row, up to [`Limits::longest`]. When the time is over one connection tries it; only
//! when that one succeeds do others follow. No more than a share of a service's endpoints are
//! ejected at a time, and those are still tried when nothing else is left, so that an ejection
//! refuses nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::HashMap;

use crate::address::NamespacedHostname;
use crate::workload::{Workload, WorkloadUid};

/// How long failures are remembered when the endpoint might be tried again and is not.
const MEMORY: Duration = Duration::from_secs(60);
/// Failures remembered in all.
const MAXIMUM: usize = 1024;

/// One port of a service: an endpoint may well serve one and not another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    pub service: NamespacedHostname,
    pub port: u16,
}

/// Those of which some are ejected: the endpoints of one port of a service.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub destination: &'a ServicePort,
    pub count: usize,
}

/// How far ejection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an endpoint is left alone after its first failure.
    pub base: Duration,
    /// And at most, however often it has failed.
    pub longest: Duration,
    /// How many of a service's endpoints may be ejected at a time; none where it is 0.
    pub percent: u8,
}

/// All that is remembered of failures. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct Ejections {
    limits: Limits,
    services: HashMap<ServicePort, Failing>,
}

/// The endpoints of one port of a service that have failed.
#[derive(Clone, Debug, Default)]
pub struct Failing(HashMap<WorkloadUid, Ejection>);

#[derive(Clone, Debug)]
struct Ejection {
    /// What failed: an endpoint that has changed since is another one.
    workload: Arc<Workload>,
    /// In a row.
    failures: u32,
    until: Instant,
    /// Whether a connection tries the endpoint meanwhile.
    on_trial: bool,
}

/// An endpoint that is left alone, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejected<'a> {
    pub destination: &'a ServicePort,
    pub endpoint: &'a WorkloadUid,
    pub failures: u32,
    pub remaining: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            percent: 50,
        }
    }
}

impl Limits {
    /// Whether so many of a service's endpoints may be ejected at a time.
    fn admit(self, ejected: usize, endpoints: usize) -> bool {
        ejected * 100 <= endpoints * usize::from(self.percent)
    }

    /// How long an endpoint is left alone that has failed so often in a row.
    fn pause(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.base.saturating_mul(1 << doublings).min(self.longest)
    }
}

// === impl Ejections ===

impl Ejections {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub fn of(&self, destination: &ServicePort) -> Option<&Failing> {
        self.services.get(destination)
    }

    /// Whether a connection that is about to try the endpoint has to say so by
    /// [`Self::try_out`].
    pub fn needs_trial(
        &self,
        destination: &ServicePort,
        endpoints: usize,
        workload: &Arc<Workload>,
        now: Instant,
    ) -> bool {
        self.of(destination).is_some_and(|failing| {
            let known = failing.get(workload);
            known.is_some_and(|ejection| ejection.until <= now)
                && self.has_room(failing, endpoints, &workload.uid, now)
        })
    }

    /// A connection tries an endpoint whose time is over: others stay away until it is known how
    /// that goes, so that a black hole swallows one connection and not all.
    pub fn try_out(
        &mut self,
        destination: &ServicePort,
        endpoints: usize,
        workload: &Arc<Workload>,
        now: Instant,
    ) {
        if !self.needs_trial(destination, endpoints, workload, now) {
            return;
        }
        let limits = self.limits;
        let failing = self.services.get_mut(destination);
        if let Some(ejection) = failing.and_then(|failing| failing.0.get_mut(&workload.uid)) {
            ejection.on_trial = true;
            ejection.until = now + limits.pause(ejection.failures);
        }
    }

    /// An endpoint of a service that has `endpoints` could not be connected to. Tells for how long
    /// it is left alone; none where it is already, or where too many others are.
    pub fn failed(
        &mut self,
        destination: &ServicePort,
        endpoints: usize,
        workload: &Arc<Workload>,
        now: Instant,
    ) -> Option<Duration> {
        self.forget(now);
        let failing = self.of(destination);
        let known = failing.and_then(|failing| failing.get(workload));
        // Connections that were under way when the first of them failed tell nothing new.
        if known.is_some_and(|ejection| ejection.until > now && !ejection.on_trial) {
            return None;
        }
        let has_room = match failing {
            Some(failing) => self.has_room(failing, endpoints, &workload.uid, now),
            None => self.limits.admit(1, endpoints),
        };
        if !has_room || (known.is_none() && self.len() >= MAXIMUM) {
            return None;
        }
        let failures = known.map_or(0, |ejection| ejection.failures) + 1;
        let pause = self.limits.pause(failures);
        let ejection = Ejection {
            workload: workload.clone(),
            failures,
            until: now + pause,
            on_trial: false,
        };
        let failing = self.services.entry(destination.clone()).or_default();
        failing.0.insert(workload.uid.clone(), ejection);
        Some(pause)
    }

    /// An endpoint has been connected to: its failures are forgotten.
    pub fn succeeded(&mut self, destination: &ServicePort, endpoint: &WorkloadUid) {
        let Some(failing) = self.services.get_mut(destination) else {
            return;
        };
        failing.0.remove(endpoint);
        if failing.0.is_empty() {
            self.services.remove(destination);
        }
    }

    /// Those that are left alone now.
    pub fn ejected(&self, now: Instant) -> impl Iterator<Item = Ejected<'_>> {
        self.services
            .iter()
            .flat_map(move |(destination, failing)| {
                let ejected = failing.0.iter().filter(move |(_, one)| one.until > now);
                ejected.map(move |(endpoint, ejection)| Ejected {
                    destination,
                    endpoint,
                    failures: ejection.failures,
                    remaining: ejection.until.saturating_duration_since(now),
                })
            })
    }

    /// Whether the endpoint may be ejected besides those that are.
    fn has_room(
        &self,
        failing: &Failing,
        endpoints: usize,
        endpoint: &WorkloadUid,
        now: Instant,
    ) -> bool {
        let others = failing.0.iter().filter(|(other, _)| *other != endpoint);
        let ejected = others.filter(|(_, one)| one.until > now).count();
        self.limits.admit(ejected + 1, endpoints)
    }

    fn len(&self) -> usize {
        self.services.values().map(|failing| failing.0.len()).sum()
    }

    /// Drops what nobody has tried for long.
    fn forget(&mut self, now: Instant) {
        let is_old = |one: &Ejection| one.until + MEMORY <= now;
        let old = self.services.iter().flat_map(|(destination, failing)| {
            let old = failing.0.iter().filter(|(_, one)| is_old(one));
            old.map(|(endpoint, _)| (destination.clone(), endpoint.clone()))
        });
        for (destination, endpoint) in old.collect::<Vec<_>>() {
            self.succeeded(&destination, &endpoint);
        }
    }
}

// === impl Failing ===

impl Failing {
    /// Whether the endpoint is to be left alone.
    pub fn is_ejected(&self, workload: &Arc<Workload>, now: Instant) -> bool {
        self.get(workload).is_some_and(|one| one.until > now)
    }

    fn get(&self, workload: &Arc<Workload>) -> Option<&Ejection> {
        let known = self.0.get(&workload.uid);
        known.filter(|known| Arc::ptr_eq(&known.workload, workload))
    }
}

#[cfg(test)]
mod tests;
