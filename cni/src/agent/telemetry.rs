//! What a scraper is told of the agent.

use std::sync::atomic::{AtomicU64, Ordering};

use runtime::metrics::{Exposition, Kind};

/// How often a pod's rules were found changed, and what came of that.
#[derive(Debug, Default)]
pub(super) struct Changes {
    repaired: AtomicU64,
    failed: AtomicU64,
}

// === impl Changes ===

impl Changes {
    pub(super) fn count<E>(&self, repair: &Result<(), E>) {
        let counter = match repair {
            Ok(()) => &self.repaired,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn collect(&self, exposition: &mut Exposition) {
        let name = "weft_redirect_rules_changed_total";
        let help = "Times that a pod's redirect rules were found changed";
        let mut family = exposition.family(name, Kind::Counter, help);
        for (outcome, count) in [("repaired", &self.repaired), ("failed", &self.failed)] {
            family.sample(&[("outcome", outcome)], count.load(Ordering::Relaxed));
        }
    }
}
