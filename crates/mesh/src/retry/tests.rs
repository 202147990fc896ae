//! Outcomes of tries, and what follows from them.

use http::HeaderValue;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const FINE: Circumstances = Circumstances {
    is_replayable: true,
    is_within_budget: true,
};

fn response<'a>(status: u16, headers: &'a HeaderMap) -> Outcome<'a> {
    Outcome::Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
    }
}

fn grpc(code: &'static str) -> HeaderMap {
    [(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static(code),
    )]
    .into_iter()
    .collect()
}

fn retry(on: &[RetryOn]) -> Retry {
    Retry {
        attempts: 1,
        on: on.to_vec(),
        backoff: None,
    }
}

fn decide(policy: RetryPolicy<'_>, method: &Method, outcome: &Outcome<'_>) -> Option<Final> {
    let mut retries = Retries::new(policy, method);
    match retries.decide(outcome, FINE, &mut SmallRng::seed_from_u64(1)) {
        Decision::Retry { .. } => None,
        Decision::Final(reason) => Some(reason),
    }
}

#[test]
fn each_condition_holds_for_its_outcomes() {
    let none = HeaderMap::new();
    let [cancelled, deadline, internal, exhausted, unavailable] =
        ["1", "4", "13", "8", "14"].map(grpc);
    let outcomes = [
        ("200", response(200, &none)),
        ("409", response(409, &none)),
        ("500", response(500, &none)),
        ("503", response(503, &none)),
        ("connect", Outcome::ConnectFailure),
        ("refused", Outcome::RefusedStream),
        ("reset-early", Outcome::Reset { head_sent: false }),
        ("reset", Outcome::Reset { head_sent: true }),
        ("timeout", Outcome::PerTryTimeout),
        ("cancelled", response(200, &cancelled)),
        ("deadline", response(200, &deadline)),
        ("internal", response(200, &internal)),
        ("exhausted", response(200, &exhausted)),
        ("unavailable", response(200, &unavailable)),
    ];
    let table: &[(RetryOn, &[&str])] = &[
        (
            RetryOn::ServerError,
            &[
                "500",
                "503",
                "connect",
                "refused",
                "reset-early",
                "reset",
                "timeout",
            ],
        ),
        (
            RetryOn::GatewayError,
            &[
                "503",
                "connect",
                "refused",
                "reset-early",
                "reset",
                "timeout",
            ],
        ),
        (
            RetryOn::Reset,
            &["refused", "reset-early", "reset", "timeout"],
        ),
        (RetryOn::ResetBeforeRequest, &["reset-early"]),
        (RetryOn::ConnectFailure, &["connect"]),
        (RetryOn::RefusedStream, &["refused"]),
        (RetryOn::Retriable4xx, &["409"]),
        (RetryOn::Status(500), &["500"]),
        (RetryOn::Status(504), &["timeout"]),
        (RetryOn::Cancelled, &["cancelled"]),
        (RetryOn::DeadlineExceeded, &["deadline"]),
        (RetryOn::Internal, &["internal"]),
        (RetryOn::ResourceExhausted, &["exhausted"]),
        (RetryOn::Unavailable, &["unavailable"]),
    ];
    for (on, expected) in table {
        let retry = retry(&[*on]);
        let policy = RetryPolicy::of(Some(&retry));
        let holds = outcomes
            .iter()
            .filter(|(_, outcome)| decide(policy, &Method::POST, outcome).is_none());
        let names: Vec<&str> = holds.map(|(name, _)| *name).collect();
        assert_eq!(names, *expected, "{on:?}");
    }
}

#[test]
fn by_default_only_what_is_safe_happens_twice() {
    let unavailable = grpc("14");
    let internal = grpc("13");
    let none = HeaderMap::new();
    for (outcome, expected) in [
        (Outcome::ConnectFailure, None),
        (Outcome::RefusedStream, None),
        (response(200, &unavailable), None),
        (response(200, &internal), Some(Final::NoCondition)),
        (response(503, &none), Some(Final::NoCondition)),
        (Outcome::Reset { head_sent: true }, Some(Final::NoCondition)),
        (
            Outcome::Reset { head_sent: false },
            Some(Final::NoCondition),
        ),
        (Outcome::PerTryTimeout, Some(Final::NoCondition)),
    ] {
        for method in [Method::GET, Method::POST] {
            let verdict = decide(RetryPolicy::of(None), &method, &outcome);
            assert_eq!(verdict, expected, "{method} {outcome:?}");
        }
    }
}

#[test]
fn what_may_have_happened_happens_again_only_where_the_user_says_so() {
    let reset = Outcome::Reset { head_sent: true };
    let chosen = retry(&[RetryOn::Reset]);
    let chosen = RetryPolicy::of(Some(&chosen));
    assert_eq!(decide(chosen, &Method::POST, &reset), None);
    let of_mesh = RetryPolicy {
        chosen_by: ChosenBy::Mesh,
        ..chosen
    };
    assert_eq!(decide(of_mesh, &Method::GET, &reset), None);
    let refused = Some(Final::NotIdempotent);
    assert_eq!(decide(of_mesh, &Method::POST, &reset), refused);
    let early = Outcome::Reset { head_sent: false };
    assert_eq!(decide(of_mesh, &Method::POST, &early), None);
}

#[test]
fn conditions_left_out_are_the_defaults() {
    let retry = retry(&[]);
    let policy = RetryPolicy::of(Some(&retry));
    assert_eq!(
        decide(policy, &Method::POST, &Outcome::ConnectFailure),
        None
    );
    assert_eq!(policy.attempts, 1);
}

#[test]
fn attempts_end() {
    let policy = RetryPolicy::of(None);
    let mut retries = Retries::new(policy, &Method::GET);
    let mut random = SmallRng::seed_from_u64(1);
    let mut next = || {
        let attempt = retries.attempt();
        let decision = retries.decide(&Outcome::ConnectFailure, FINE, &mut random);
        (
            attempt,
            matches!(decision, Decision::Retry { .. }),
            decision,
        )
    };
    assert!(matches!(next(), (1, true, _)));
    assert!(matches!(next(), (2, true, _)));
    assert_eq!(next(), (3, false, Decision::Final(Final::LimitReached)));
}

#[test]
fn no_attempts_are_no_retries() {
    let off = Retry {
        attempts: 0,
        ..retry(&[RetryOn::ConnectFailure])
    };
    let policy = RetryPolicy::of(Some(&off));
    assert!(!policy.is_on());
    let verdict = decide(policy, &Method::GET, &Outcome::ConnectFailure);
    assert_eq!(verdict, Some(Final::NoCondition));
}

#[test]
fn circumstances_forbid_retries() {
    let overloaded: HeaderMap = [(
        "x-envoy-overloaded".parse().unwrap(),
        HeaderValue::from_static("true"),
    )]
    .into_iter()
    .collect();
    let retry = retry(&[RetryOn::ServerError]);
    let policy = RetryPolicy::of(Some(&retry));
    let verdict = decide(policy, &Method::GET, &response(503, &overloaded));
    assert_eq!(verdict, Some(Final::Overloaded));
    for (circumstances, reason) in [
        (
            Circumstances {
                is_replayable: false,
                ..FINE
            },
            Final::NotReplayable,
        ),
        (
            Circumstances {
                is_within_budget: false,
                ..FINE
            },
            Final::OverBudget,
        ),
    ] {
        let mut retries = Retries::new(policy, &Method::GET);
        let mut random = SmallRng::seed_from_u64(1);
        let decision = retries.decide(&Outcome::ConnectFailure, circumstances, &mut random);
        assert_eq!(decision, Decision::Final(reason));
        assert_eq!(retries.attempt(), 1);
    }
}

proptest! {
    #[test]
    fn pauses_are_jittered_up_to_their_bound(n in 1u32..1000, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let pause = Backoff::DEFAULT.pause(n, &mut random);
        let bound = Duration::from_millis((25 * (2u64.pow(n.min(10)) - 1)).min(250));
        prop_assert!(pause < bound || pause.is_zero(), "{pause:?} of {bound:?}");
    }

    #[test]
    fn a_chosen_backoff_is_the_shortest_pause(n in 1u32..50, seed: u64, base in 1u64..10_000) {
        let mut random = SmallRng::seed_from_u64(seed);
        let minimum = Duration::from_millis(base);
        let pause = Backoff { base: minimum, minimum }.pause(n, &mut random);
        prop_assert!(pause >= minimum && pause <= minimum * 10);
    }

    #[test]
    fn no_backoff_overflows(n: u32, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let minimum = Duration::MAX;
        prop_assert_eq!(Backoff { base: minimum, minimum }.pause(n, &mut random), minimum);
    }
}

#[test]
fn pauses_spread_over_their_whole_range() {
    let mut random = SmallRng::seed_from_u64(1);
    let pauses: Vec<_> = (0..1000)
        .map(|_| Backoff::DEFAULT.pause(9, &mut random))
        .collect();
    assert!(pauses.iter().any(|pause| pause.as_millis() < 25));
    assert!(pauses.iter().any(|pause| pause.as_millis() > 225));
}

#[test]
fn a_client_asks_for_more_of_its_own_requests() {
    let none = HeaderMap::new();
    let asks = Steering {
        max_retries: Some(3),
        retry_on: vec![RetryOn::ServerError],
        ..Steering::default()
    };
    let outcome = response(500, &none);
    let default = RetryPolicy::of(None);
    assert_eq!(
        decide(default, &Method::POST, &outcome),
        Some(Final::NoCondition)
    );
    let mut retries = Retries::new(default.steered(&asks), &Method::POST);
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..3 {
        let decision = retries.decide(&outcome, FINE, &mut random);
        assert!(matches!(decision, Decision::Retry { .. }));
    }
    let decision = retries.decide(&outcome, FINE, &mut random);
    assert_eq!(decision, Decision::Final(Final::LimitReached));
    let nothing = Steering {
        max_retries: Some(0),
        ..Steering::default()
    };
    assert!(!default.steered(&nothing).is_on());
}

#[test]
fn what_a_route_turns_off_no_client_turns_on() {
    let off = Retry {
        attempts: 0,
        ..retry(&[])
    };
    let asks = Steering {
        max_retries: Some(3),
        ..Steering::default()
    };
    assert!(!RetryPolicy::of(Some(&off)).steered(&asks).is_on());
}

#[test]
fn every_name_is_a_condition_s() {
    for condition in RetryOn::NAMED {
        assert_eq!(condition.name().and_then(RetryOn::named), Some(condition));
    }
    assert_eq!(RetryOn::Status(503).name(), None);
}
