//! ROUND_ROBIN: turns in proportion to weights, the earliest deadline first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::Rng;

/// The time between two turns of an endpoint of weight 1.
const PERIOD: u128 = 1 << 32;

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    turns: BinaryHeap<Reverse<Turn>>,
    /// Those that were passed over in one search.
    passed: Vec<Turn>,
}

/// In the order of deadlines, then of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    deadline: u128,
    at: usize,
    period: u128,
}

// === impl Schedule ===

impl Schedule {
    /// First turns are spread at random, so that of several schedules not all begin with the
    /// same endpoint. Endpoints of weight 0 have no turn.
    pub(super) fn new(weights: impl Iterator<Item = u32>, random: &mut impl Rng) -> Self {
        let turns = weights.enumerate().filter(|(_, weight)| *weight > 0);
        let turns = turns
            .map(|(at, weight)| {
                let period = PERIOD / u128::from(weight);
                let deadline = random.random_range(0..period);
                Reverse(Turn {
                    deadline,
                    at,
                    period,
                })
            })
            .collect();
        Self {
            turns,
            passed: Vec::new(),
        }
    }

    /// The next that qualifies. Those before it lose this turn.
    pub(super) fn next(&mut self, qualifies: impl Fn(usize) -> bool) -> Option<usize> {
        let mut found = None;
        while let Some(Reverse(turn)) = self.turns.pop() {
            self.passed.push(turn);
            if qualifies(turn.at) {
                found = Some(turn.at);
                break;
            }
        }
        let after = |turn: Turn| {
            Reverse(Turn {
                deadline: turn.deadline + turn.period,
                ..turn
            })
        };
        self.turns.extend(self.passed.drain(..).map(after));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    proptest! {
        /// At no time is anyone more than a turn from its share.
        #[test]
        fn turns_are_in_proportion_to_weights(
            weights in prop::collection::vec(0u32..6, 1..6),
            rounds in 1u32..20,
            seed: u64,
        ) {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(weights.iter().copied(), &mut random);
            let total: u32 = weights.iter().sum();
            let mut turns = vec![0u32; weights.len()];
            for _ in 0..total * rounds {
                turns[schedule.next(|_| true).unwrap()] += 1;
            }
            for (weight, turns) in weights.iter().zip(turns) {
                prop_assert!(turns.abs_diff(weight * rounds) <= 1, "{turns} of {}", weight * rounds);
            }
        }

        #[test]
        fn only_those_that_qualify_have_turns(
            of in prop::collection::vec((0u32..6, any::<bool>()), 1..6),
            seed: u64,
        ) {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(of.iter().map(|(weight, _)| *weight), &mut random);
            let some = of.iter().any(|(weight, fit)| *weight > 0 && *fit);
            for _ in 0..50 {
                let next = schedule.next(|at| of[at].1);
                prop_assert_eq!(next.is_some(), some);
                prop_assert!(next.is_none_or(|at| of[at].1 && of[at].0 > 0));
            }
        }
    }

    #[test]
    fn who_was_away_gets_no_turns_in_arrears() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut schedule = Schedule::new([1, 1].into_iter(), &mut random);
        for _ in 0..100 {
            assert_eq!(schedule.next(|at| at == 0), Some(0));
        }
        let turns = (0..10)
            .filter(|_| schedule.next(|_| true) == Some(1))
            .count();
        assert!((4..=6).contains(&turns), "{turns}");
    }
}
