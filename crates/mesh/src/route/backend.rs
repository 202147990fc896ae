//! Which backend of a rule a request goes to.

use rand::Rng;

use super::Backend;

/// Draws by weight. None where no backend has any: the request is answered with 500, as the
/// share of an invalid backend is.
pub fn choose<'a>(backends: &'a [Backend], random: &mut impl Rng) -> Option<&'a Backend> {
    if let [only] = backends {
        return (only.weight > 0).then_some(only);
    }
    let total: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut drawn = random.random_range(0..total);
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let found = drawn < weight;
        drawn = drawn.saturating_sub(weight);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::BackendRef;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn backend(name: usize, weight: u32) -> Backend {
        Backend {
            backend: BackendRef::Invalid(name.to_string().into()),
            weight,
            filters: Vec::new(),
        }
    }

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let numbered = weights.iter().enumerate();
        numbered.map(|(at, weight)| backend(at, *weight)).collect()
    }

    #[test]
    fn no_weight_is_no_backend() {
        let mut random = SmallRng::seed_from_u64(1);
        for weights in [&[][..], &[0], &[0, 0]] {
            assert_eq!(choose(&backends(weights), &mut random), None);
        }
    }

    #[test]
    fn weights_may_be_as_large_as_they_are_written() {
        let mut random = SmallRng::seed_from_u64(1);
        assert!(choose(&backends(&[u32::MAX; 3]), &mut random).is_some());
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_weights(weights in prop::collection::vec(0u32..5, 1..5), seed: u64) {
            let backends = backends(&weights);
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let mut random = SmallRng::seed_from_u64(seed);
            let mut drawn = vec![0u32; weights.len()];
            for _ in 0..4000 {
                let chosen = choose(&backends, &mut random).unwrap();
                let BackendRef::Invalid(name) = &chosen.backend else { unreachable!() };
                drawn[name.parse::<usize>().unwrap()] += 1;
            }
            for (weight, drawn) in weights.iter().zip(drawn) {
                let expected = f64::from(*weight) / f64::from(total);
                let share = f64::from(drawn) / 4000.0;
                // Six standard deviations.
                prop_assert!((share - expected).abs() < 0.05, "{share} of {expected}");
                prop_assert!(*weight > 0 || drawn == 0);
            }
        }
    }
}
