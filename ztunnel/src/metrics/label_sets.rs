//! How many label sets the recorder may hold at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use metrics::Label;
use tokio::time::Instant;

/// Longer than the recorder takes to look for what is idle.
const GRACE: Duration = Duration::from_secs(120);

/// The label sets that the recorder holds, or may hold still: it forgets them some time after
/// their last use, and only then is there room for others.
#[derive(Debug)]
pub(super) struct LabelSets {
    maximum: usize,
    kept: Duration,
    hasher: RandomState,
    last_used: HashMap<u64, Instant>,
}

// === impl LabelSets ===

impl LabelSets {
    pub(super) fn new(maximum: usize, idle: Duration) -> Self {
        Self {
            maximum,
            kept: idle + GRACE.min(idle),
            hasher: RandomState::new(),
            last_used: HashMap::new(),
        }
    }

    /// The label set's key, if it is held or there is room for it.
    pub(super) fn admit(&mut self, labels: &[Label]) -> Option<u64> {
        let key = self.hasher.hash_one(labels);
        if self.last_used.len() >= self.maximum && !self.last_used.contains_key(&key) {
            return None;
        }
        self.touch(key);
        Some(key)
    }

    /// The key of one that there is always room for.
    pub(super) fn admit_anyway(&mut self, labels: &[Label]) -> u64 {
        let key = self.hasher.hash_one(labels);
        self.touch(key);
        key
    }

    pub(super) fn touch(&mut self, key: u64) {
        self.last_used.insert(key, Instant::now());
    }

    /// Makes room of what the recorder has forgotten.
    pub(super) fn forget(&mut self) {
        let now = Instant::now();
        self.last_used.retain(|_, last| now - *last < self.kept);
        self.last_used.shrink_to_fit();
    }
}
