//! Tests of ejection: its times, its bounds, and who tries first.

use std::collections::HashMap as Model;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn web() -> ServicePort {
    ServicePort {
        service: NamespacedHostname::new("shop", "web"),
        port: 80,
    }
}

fn endpoint(name: &str) -> Arc<Workload> {
    Arc::new(Workload::new(name, name, "shop"))
}

fn is_ejected(ejections: &Ejections, workload: &Arc<Workload>, now: Instant) -> bool {
    let failing = ejections.of(&web());
    failing.is_some_and(|failing| failing.is_ejected(workload, now))
}

#[test]
fn a_failure_ejects_for_a_while_and_repeated_ones_for_longer() {
    let (mut ejections, mut now) = (Ejections::default(), Instant::now());
    let one = endpoint("one");
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let pause = ejections.failed(&web(), 4, &one, now);
        assert_eq!(pause, Some(seconds * SECOND));
        assert!(is_ejected(&ejections, &one, now));
        // Others that were under way.
        assert_eq!(ejections.failed(&web(), 4, &one, now), None);
        now += seconds * SECOND;
        assert!(!is_ejected(&ejections, &one, now));
    }
    ejections.succeeded(&web(), &one.uid);
    assert!(ejections.is_empty());
    assert_eq!(ejections.failed(&web(), 4, &one, now), Some(SECOND));
}

#[test]
fn one_connection_tries_an_endpoint_whose_time_is_over() {
    let (mut ejections, mut now) = (Ejections::default(), Instant::now());
    let one = endpoint("one");
    ejections.failed(&web(), 2, &one, now);
    assert!(!ejections.needs_trial(&web(), 2, &one, now));
    now += SECOND;
    assert!(ejections.needs_trial(&web(), 2, &one, now));
    ejections.try_out(&web(), 2, &one, now);
    assert!(is_ejected(&ejections, &one, now), "for everybody else");
    assert!(!ejections.needs_trial(&web(), 2, &one, now));
    let pause = ejections.failed(&web(), 2, &one, now);
    assert_eq!(pause, Some(2 * SECOND));
    // A trial that nobody hears of again is not the last.
    now += 2 * SECOND;
    ejections.try_out(&web(), 2, &one, now);
    now += 2 * SECOND;
    assert!(ejections.needs_trial(&web(), 2, &one, now));
}

#[test]
fn an_endpoint_that_changed_and_another_port_are_others() {
    let (mut ejections, now) = (Ejections::default(), Instant::now());
    let one = endpoint("one");
    ejections.failed(&web(), 2, &one, now);
    assert!(!is_ejected(&ejections, &endpoint("one"), now));
    let metrics = ServicePort {
        port: 9090,
        ..web()
    };
    assert!(ejections.of(&metrics).is_none());
    // It fails again as what it is now.
    let changed = endpoint("one");
    assert_eq!(ejections.failed(&web(), 2, &changed, now), Some(SECOND));
    assert!(is_ejected(&ejections, &changed, now));
}

#[test]
fn the_only_endpoint_and_more_than_half_are_never_ejected() {
    let (mut ejections, now) = (Ejections::default(), Instant::now());
    assert_eq!(ejections.failed(&web(), 1, &endpoint("one"), now), None);
    assert!(ejections.is_empty());
    let all: Vec<_> = (0..5).map(|n| endpoint(&n.to_string())).collect();
    let ejected = all
        .iter()
        .filter(|one| ejections.failed(&web(), 5, one, now).is_some());
    assert_eq!(ejected.count(), 2);
    assert_eq!(ejections.ejected(now).count(), 2);
    assert_eq!(ejections.ejected(now + SECOND).count(), 0);
}

#[test]
fn limits_of_ones_own_hold_instead() {
    let limits = Limits {
        base: 2 * SECOND,
        longest: 5 * SECOND,
        percent: 100,
    };
    let (mut ejections, mut now) = (Ejections::new(limits), Instant::now());
    let one = endpoint("one");
    for seconds in [2, 4, 5, 5] {
        let pause = ejections.failed(&web(), 1, &one, now);
        assert_eq!(pause, Some(seconds * SECOND));
        now += seconds * SECOND;
    }
    let never = Limits {
        percent: 0,
        ..Limits::default()
    };
    let mut ejections = Ejections::new(never);
    assert_eq!(ejections.failed(&web(), 1000, &one, now), None);
}

#[test]
fn memory_is_bounded_in_time_and_number() {
    let (mut ejections, now) = (Ejections::default(), Instant::now());
    for n in 0..2 * MAXIMUM {
        ejections.failed(&web(), 8 * MAXIMUM, &endpoint(&n.to_string()), now);
    }
    assert_eq!(ejections.len(), MAXIMUM);
    let later = now + Limits::default().longest + MEMORY + SECOND;
    ejections.failed(&web(), 2, &endpoint("late"), later);
    assert_eq!(ejections.len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Fail(usize),
    Succeed(usize),
    TryOut(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..6_usize).prop_map(Event::Fail),
        1 => (0..6_usize).prop_map(Event::Succeed),
        2 => (0..6_usize).prop_map(Event::TryOut),
        3 => (0..20_000_u64).prop_map(Event::Pass),
    ]
}

proptest! {
    /// Whatever happens, in whichever order.
    #[test]
    fn never_more_than_half_and_never_longer_than_the_longest(
        endpoints in 1..6_usize,
        events in prop::collection::vec(event(), 0..200),
    ) {
        let all: Vec<_> = (0..6).map(|n| endpoint(&n.to_string())).collect();
        let (mut ejections, mut now) = (Ejections::default(), Instant::now());
        let mut since: Model<usize, Instant> = Model::new();
        let Limits { base, longest, .. } = Limits::default();
        for event in events {
            match event {
                Event::Fail(n) if n < endpoints => {
                    if let Some(pause) = ejections.failed(&web(), endpoints, &all[n], now) {
                        prop_assert!(pause >= base && pause <= longest);
                        since.insert(n, now);
                    }
                }
                Event::TryOut(n) if ejections.needs_trial(&web(), endpoints, &all[n], now) => {
                    ejections.try_out(&web(), endpoints, &all[n], now);
                    since.insert(n, now);
                }
                Event::Succeed(n) => {
                    ejections.succeeded(&web(), &all[n].uid);
                    prop_assert!(!is_ejected(&ejections, &all[n], now));
                }
                Event::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                Event::Fail(_) | Event::TryOut(_) => {}
            }
            let ejected = (0..6).filter(|n| is_ejected(&ejections, &all[*n], now));
            let ejected: Vec<usize> = ejected.collect();
            prop_assert!(ejected.len() * 2 <= endpoints);
            prop_assert!(ejected.iter().all(|n| now - since[n] < longest));
            prop_assert_eq!(ejections.ejected(now).count(), ejected.len());
        }
    }
}
