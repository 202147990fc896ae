//! Picks of every algorithm.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const ALL: [Algorithm; 4] = [
    Algorithm::LeastRequest,
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::PeakEwma,
];

struct Scenario {
    balancer: Balancer<usize>,
    random: SmallRng,
    now: Instant,
}

impl Scenario {
    fn new(algorithm: Algorithm, weights: &[u32]) -> Self {
        let mut scenario = Self {
            balancer: Balancer::new(algorithm),
            random: SmallRng::seed_from_u64(3),
            now: Instant::now(),
        };
        scenario.update(weights.iter().copied().enumerate());
        scenario
    }

    fn update(&mut self, endpoints: impl IntoIterator<Item = (usize, u32)>) {
        self.balancer.update(endpoints, &mut self.random);
    }

    fn pick(&mut self) -> Pick<usize> {
        self.pick_of(|_| true).unwrap()
    }

    fn pick_of(&mut self, is_available: impl Fn(&usize) -> bool) -> Option<Pick<usize>> {
        self.balancer.pick(is_available, self.now, &mut self.random)
    }
}

#[test]
fn idle_endpoints_are_used_by_weight() {
    for algorithm in ALL {
        for weights in [&[1, 1, 1, 1][..], &[1, 3], &[5, 1, 2]] {
            let mut scenario = Scenario::new(algorithm, weights);
            let total: u32 = weights.iter().sum();
            let mut picked = vec![0u32; weights.len()];
            for _ in 0..8000 {
                picked[scenario.pick().id] += 1;
            }
            for (weight, picked) in weights.iter().zip(picked) {
                let expected = f64::from(*weight) / f64::from(total);
                let share = f64::from(picked) / 8000.0;
                let near = (share - expected).abs() < 0.03;
                assert!(near, "{algorithm:?} {weights:?}: {share} of {expected}");
            }
        }
    }
}

#[test]
fn a_request_is_under_way_until_its_pick_is_dropped() {
    let mut scenario = Scenario::new(Algorithm::LeastRequest, &[1]);
    let first = scenario.pick();
    let second = scenario.pick();
    assert_eq!(scenario.balancer.active(&0), 2);
    drop(first);
    assert_eq!(scenario.balancer.active(&0), 1);
    scenario.update([]);
    assert!(scenario.balancer.is_empty() && scenario.pick_of(|_| true).is_none());
    drop(second);
}

#[test]
fn what_is_known_of_an_endpoint_outlives_an_update() {
    let mut scenario = Scenario::new(Algorithm::LeastRequest, &[1, 1]);
    let held: Vec<_> = (0..10)
        .filter_map(|_| scenario.pick_of(|id| *id == 0))
        .collect();
    scenario.update([(0, 1), (2, 1)]);
    assert_eq!(scenario.balancer.active(&0), 10);
    for _ in 0..5 {
        assert_eq!(scenario.pick().id, 2);
    }
    drop(held);
    assert_eq!(scenario.balancer.active(&0), 0);
}

#[test]
fn the_least_loaded_of_two_is_picked() {
    let mut scenario = Scenario::new(Algorithm::LeastRequest, &[1, 1]);
    let held: Vec<_> = (0..100).map(|_| scenario.pick()).collect();
    for id in 0..2 {
        assert_eq!(held.iter().filter(|pick| pick.id == id).count(), 50);
    }
    // Loads are compared per weight.
    let mut scenario = Scenario::new(Algorithm::LeastRequest, &[1, 4]);
    let held: Vec<_> = (0..100).map(|_| scenario.pick()).collect();
    let heavier = held.iter().filter(|pick| pick.id == 1).count();
    assert!((78..=82).contains(&heavier), "{heavier}");
}

#[test]
fn a_slow_endpoint_is_left_and_tried_again() {
    let mut scenario = Scenario::new(Algorithm::PeakEwma, &[1, 1]);
    let mut request = |latencies: [u64; 2]| {
        let pick = scenario.pick();
        scenario.now += Duration::from_millis(latencies[pick.id]);
        pick.answered(scenario.now);
        scenario.now += Duration::from_millis(100);
        pick.id
    };
    let slow = (0..1000).filter(|_| request([200, 2]) == 0).count();
    // What was observed of it is forgotten, so that it is asked now and then.
    assert!((1..50).contains(&slow), "{slow}");
    let recovered = (0..3000).filter(|_| request([2, 2]) == 0).count();
    assert!((800..1700).contains(&recovered), "{recovered}");
}

#[test]
fn a_failing_endpoint_is_no_fast_one() {
    let mut scenario = Scenario::new(Algorithm::PeakEwma, &[1, 1]);
    let mut picked = [0u32; 2];
    for _ in 0..200 {
        let pick = scenario.pick();
        if pick.id == 0 {
            scenario.now += Duration::from_millis(1);
            pick.failed(scenario.now);
        } else {
            scenario.now += Duration::from_millis(50);
            pick.answered(scenario.now);
        }
        picked[pick.id] += 1;
    }
    assert!(picked[0] < 50, "{picked:?}");
}

proptest! {
    #[test]
    fn only_available_endpoints_are_picked(
        of in prop::collection::vec((0u32..4, any::<bool>()), 0..20),
        seed: u64,
    ) {
        for algorithm in ALL {
            let mut scenario = Scenario::new(algorithm, &[]);
            scenario.random = SmallRng::seed_from_u64(seed);
            scenario.update(of.iter().map(|(weight, _)| *weight).enumerate());
            let some = of.iter().any(|(weight, fit)| *weight > 0 && *fit);
            let mut held = Vec::new();
            for _ in 0..20 {
                let pick = scenario.pick_of(|id| of[*id].1);
                prop_assert_eq!(pick.is_some(), some);
                prop_assert!(pick.as_ref().is_none_or(|pick| of[pick.id].1 && of[pick.id].0 > 0));
                held.extend(pick);
            }
            let active: u32 = (0..of.len()).map(|id| scenario.balancer.active(&id)).sum();
            prop_assert_eq!(active as usize, held.len());
        }
    }
}
