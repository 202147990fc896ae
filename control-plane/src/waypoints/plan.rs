//! What to write now and what to remove when, from what is wanted and what is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Remembers since when files are not wanted any more.
pub(super) struct Plan {
    drain: Duration,
    unwanted: BTreeMap<String, Instant>,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) write: Vec<(String, Vec<u8>)>,
    pub(super) remove: Vec<String>,
    /// When there is something to do next.
    pub(super) due: Option<Instant>,
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(drain: Duration) -> Self {
        Self {
            drain,
            unwanted: BTreeMap::new(),
        }
    }

    pub(super) fn next(
        &mut self,
        wanted: BTreeMap<String, Vec<u8>>,
        there: &BTreeMap<String, Vec<u8>>,
        now: Instant,
    ) -> Steps {
        self.unwanted
            .retain(|name, _| there.contains_key(name) && !wanted.contains_key(name));
        let mut steps = Steps::default();
        for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
            let since = *self.unwanted.entry(name.clone()).or_insert(now);
            let due = since + self.drain;
            if due <= now {
                steps.remove.push(name.clone());
            } else {
                steps.due = Some(steps.due.map_or(due, |known| known.min(due)));
            }
        }
        steps.write = wanted
            .into_iter()
            .filter(|(name, content)| there.get(name) != Some(content))
            .collect();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    fn files(names: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let pairs = names.iter();
        pairs
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn what_is_missing_or_different_is_written_at_once() {
        let steps = Plan::new(DRAIN).next(
            files(&[("a", "1"), ("b", "2"), ("c", "3")]),
            &files(&[("a", "1"), ("b", "1")]),
            Instant::now(),
        );
        let names: Vec<&str> = steps.write.iter().map(|(name, _)| &**name).collect();
        assert_eq!((names, steps.due), (vec!["b", "c"], None));
    }

    #[test]
    fn what_is_not_wanted_drains_before_it_goes() {
        let (mut plan, now) = (Plan::new(DRAIN), Instant::now());
        let there = files(&[("a", "1")]);
        let first = plan.next(files(&[]), &there, now);
        assert_eq!(
            (first.remove.len(), first.due),
            (0, Some(now + DRAIN)),
            "nothing goes at once"
        );
        let later = plan.next(files(&[]), &there, now + DRAIN);
        assert_eq!(later.remove, ["a"]);
    }

    #[test]
    fn what_is_wanted_again_stays_and_drains_anew() {
        let (mut plan, now) = (Plan::new(DRAIN), Instant::now());
        let there = files(&[("a", "1")]);
        let half = Duration::from_secs(5);
        plan.next(files(&[]), &there, now);
        assert_eq!(
            plan.next(files(&[("a", "1")]), &there, now + half),
            Steps::default()
        );
        let again = plan.next(files(&[]), &there, now + DRAIN);
        assert_eq!((again.remove.len(), again.due), (0, Some(now + DRAIN * 2)));
    }
}
