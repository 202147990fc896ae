//! Endpoints that could not be connected to, and are left alone for a while. All workers share
//! them: what one has learnt, the others need not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use mesh::balancing::ejection::Limits;
use mesh::balancing::{Candidates, Ejections as Known};
use mesh::workload::Workload;

#[derive(Debug)]
pub struct Ejections(ArcSwap<Known>);

// === impl Ejections ===

impl Ejections {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(ArcSwap::from_pointee(Known::new(limits)))
    }

    pub fn load(&self) -> Guard<Arc<Known>> {
        self.0.load()
    }

    /// A connection is about to try an endpoint.
    pub(crate) fn trying(&self, among: Candidates<'_>, workload: &Arc<Workload>, now: Instant) {
        let known = self.0.load();
        if known.needs_trial(among.destination, among.count, workload, now) {
            self.change(|known| known.try_out(among.destination, among.count, workload, now));
        }
    }

    pub(crate) fn succeeded(&self, among: Candidates<'_>, workload: &Workload) {
        if self.0.load().of(among.destination).is_some() {
            self.change(|known| known.succeeded(among.destination, &workload.uid));
        }
    }

    /// How long the endpoint is left alone from now on, where it was not already.
    pub(crate) fn failed(
        &self,
        among: Candidates<'_>,
        workload: &Arc<Workload>,
        now: Instant,
    ) -> Option<Duration> {
        self.change(|known| known.failed(among.destination, among.count, workload, now))
    }

    fn change<T>(&self, change: impl Fn(&mut Known) -> T) -> T {
        loop {
            let before = self.0.load();
            let mut after = Known::clone(&before);
            let told = change(&mut after);
            let found = self.0.compare_and_swap(&before, Arc::new(after));
            if Arc::ptr_eq(&found, &before) {
                return told;
            }
        }
    }
}
