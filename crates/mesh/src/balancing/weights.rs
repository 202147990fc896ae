//! Random draws by weight.

use rand::Rng;

/// How often a draw is repeated for one that qualifies before all are looked at.
const DRAWS: usize = 8;

/// Weights of a list, ready to be drawn by. Those of weight 0 are never drawn.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    /// So many, each of this weight, which is not 0.
    Equal { count: usize, weight: u32 },
    /// Sums up to and including each.
    Sums(Vec<u64>),
}

// === impl Weights ===

impl Default for Weights {
    fn default() -> Self {
        Self::Sums(Vec::new())
    }
}

impl FromIterator<u32> for Weights {
    fn from_iter<I: IntoIterator<Item = u32>>(weights: I) -> Self {
        let mut first = None;
        let mut are_equal = true;
        let mut sums: Vec<u64> = weights
            .into_iter()
            .scan(0, |sum, weight| {
                are_equal &= weight != 0 && *first.get_or_insert(weight) == weight;
                *sum += u64::from(weight);
                Some(*sum)
            })
            .collect();
        match first {
            Some(weight) if are_equal => Self::Equal {
                count: sums.len(),
                weight,
            },
            Some(_) | None => {
                sums.shrink_to_fit();
                Self::Sums(sums)
            }
        }
    }
}

impl Weights {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Equal { count, .. } => *count,
            Self::Sums(sums) => sums.len(),
        }
    }

    pub(super) fn weight(&self, at: usize) -> u64 {
        match self {
            Self::Equal { weight, .. } => u64::from(*weight),
            Self::Sums(sums) => {
                let before = at.checked_sub(1).map_or(0, |before| sums[before]);
                sums[at] - before
            }
        }
    }

    /// As a multiple of the average.
    pub(super) fn share(&self, at: usize) -> f64 {
        match self {
            Self::Equal { .. } => 1.0,
            Self::Sums(sums) => match sums.last().copied().unwrap_or_default() {
                0 => 1.0,
                total => self.weight(at) as f64 * sums.len() as f64 / total as f64,
            },
        }
    }

    /// One that qualifies, in proportion to its weight among those that do.
    pub(super) fn draw(
        &self,
        qualifies: impl Fn(usize) -> bool,
        random: &mut impl Rng,
    ) -> Option<usize> {
        let total = match self {
            Self::Equal { .. } => 0,
            Self::Sums(sums) => sums.last().copied().filter(|total| *total > 0)?,
        };
        for _ in 0..DRAWS {
            let at = match self {
                Self::Equal { count, .. } => random.random_range(0..*count),
                Self::Sums(sums) => {
                    let drawn = random.random_range(0..total);
                    sums.partition_point(|sum| *sum <= drawn)
                }
            };
            if qualifies(at) {
                return Some(at);
            }
        }
        let mut sum = 0;
        let mut chosen = None;
        for at in (0..self.len()).filter(|at| self.weight(*at) > 0 && qualifies(*at)) {
            let weight = self.weight(at);
            sum += weight;
            if random.random_range(0..sum) < weight {
                chosen = Some(at);
            }
        }
        chosen
    }

    /// Two different ones, where there are two that qualify.
    pub(super) fn draw_two(
        &self,
        qualifies: impl Fn(usize) -> bool,
        random: &mut impl Rng,
    ) -> Option<(usize, Option<usize>)> {
        let first = self.draw(&qualifies, random)?;
        if self.len() == 1 {
            return Some((first, None));
        }
        let second = self.draw(|at| at != first && qualifies(at), random);
        Some((first, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    proptest! {
        #[test]
        fn draws_are_in_proportion_among_those_that_qualify(
            of in prop::collection::vec((0u32..5, any::<bool>()), 1..12),
            seed: u64,
        ) {
            let weights: Weights = of.iter().map(|(weight, _)| *weight).collect();
            let mut random = SmallRng::seed_from_u64(seed);
            let total: u32 = of.iter().filter(|(_, fit)| *fit).map(|(weight, _)| weight).sum();
            let mut drawn = vec![0u32; of.len()];
            for _ in 0..4000 {
                match weights.draw(|at| of[at].1, &mut random) {
                    Some(at) => drawn[at] += 1,
                    None => prop_assert_eq!(total, 0),
                }
            }
            for ((weight, fit), drawn) in of.iter().zip(drawn) {
                let share = f64::from(drawn) / 4000.0;
                let expected = match fit {
                    true if total > 0 => f64::from(*weight) / f64::from(total),
                    true | false => 0.0,
                };
                prop_assert!((share - expected).abs() < 0.05, "{share} of {expected}");
                prop_assert!(drawn == 0 || (*fit && *weight > 0));
            }
        }

        #[test]
        fn two_are_different(weights in prop::collection::vec(0u32..3, 1..5), seed: u64) {
            let fit = weights.iter().filter(|weight| **weight > 0).count();
            let weights: Weights = weights.into_iter().collect();
            let mut random = SmallRng::seed_from_u64(seed);
            match weights.draw_two(|_| true, &mut random) {
                Some((first, Some(second))) => prop_assert!(first != second && fit > 1),
                Some((_, None)) => prop_assert_eq!(fit, 1),
                None => prop_assert_eq!(fit, 0),
            }
        }
    }

    #[test]
    fn shares_are_multiples_of_the_average() {
        let weights: Weights = [1, 3].into_iter().collect();
        assert_eq!([weights.share(0), weights.share(1)], [0.5, 1.5]);
        let equal: Weights = [7, 7, 7].into_iter().collect();
        assert_eq!(equal.share(1), 1.0);
    }
}
