//! What is served at which time, and when it is asked for again.

use super::*;

const HOST: &str = "db.example";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn addresses(last: &[u8], lifetime: u64) -> Answer {
    let addresses = last.iter().map(|last| address(*last)).collect();
    Answer::Addresses(addresses, seconds(lifetime))
}

fn failure() -> Answer {
    Answer::Failure("no answer in time".to_owned())
}

/// An entry that was answered this at `now`.
fn after(answer: Answer, now: Instant) -> Entry {
    let mut entry = Entry::new(now);
    assert!(entry.answered(HOST, answer, now));
    entry
}

#[test]
fn a_name_is_asked_for_at_once_and_again_before_it_expires() {
    let now = Instant::now();
    assert_eq!(Entry::new(now).next(now), Next::Ask);
    assert_eq!(Entry::new(now).served(now), None);
    for (lifetime, asked_after) in [
        (60, seconds(48)),
        (0, seconds(4)),
        (10, seconds(8)),
        (86_400, seconds(240)),
    ] {
        let mut entry = after(addresses(&[1], lifetime), now);
        assert_eq!(entry.next(now), Next::Wait(now + asked_after), "{lifetime}");
        assert_eq!(entry.next(now + asked_after), Next::Ask);
        let served = entry.served(now + asked_after).expect("meanwhile");
        assert_eq!(served.expect("addresses")[..], [address(1)]);
    }
}

#[test]
fn the_order_of_addresses_and_their_repetition_change_nothing() {
    let now = Instant::now();
    let mut entry = after(addresses(&[2, 1, 2], 60), now);
    assert!(!entry.answered(HOST, addresses(&[1, 2], 60), now));
    assert!(entry.answered(HOST, addresses(&[1], 60), now));
}

#[test]
fn addresses_are_served_past_their_lifetime_while_nobody_answers_and_no_longer_than_an_hour() {
    let begin = Instant::now();
    let mut entry = after(addresses(&[1], 60), begin);
    let mut now = begin + seconds(48);
    let mut pauses = Vec::new();
    loop {
        assert!(!entry.answered(HOST, failure(), now));
        let Next::Wait(next) = entry.next(now) else {
            panic!("no pause");
        };
        pauses.push((next - now).as_secs());
        now = next;
        if now >= begin + seconds(60) + STALE {
            break;
        }
        assert!(entry.served(now).expect("stale").is_ok());
    }
    assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(now, begin + seconds(60) + STALE);
    assert_eq!(entry.served(now), None);
    assert_eq!(entry.next(now), Next::Ask);
    assert!(entry.answered(HOST, failure(), now));
    let why = entry.served(now).expect("why").expect_err("none");
    assert!(
        why.contains("db.example can't be resolved: no answer"),
        "{why}"
    );
    // The first answer ends it.
    assert!(entry.answered(HOST, addresses(&[1], 60), now));
    assert_eq!(entry.next(now), Next::Wait(now + seconds(48)));
}

#[test]
fn that_a_name_has_no_address_ends_them_and_is_believed_for_its_time() {
    let now = Instant::now();
    let none = |lifetime: Option<u64>| Answer::None("NXDomain".to_owned(), lifetime.map(seconds));
    for (lifetime, believed) in [
        (None, seconds(1)),
        (Some(0), seconds(1)),
        (Some(10), seconds(10)),
        (Some(900), seconds(30)),
    ] {
        let mut entry = after(addresses(&[1], 60), now);
        assert!(entry.answered(HOST, none(lifetime), now));
        let just_before = now + believed - Duration::from_millis(1);
        let why = entry.served(just_before).expect("why").expect_err("none");
        assert!(why.contains("NXDomain"), "{why}");
        assert_eq!(entry.served(now + believed), None);
        assert_eq!(entry.next(now), Next::Wait(now + believed * 4 / 5));
    }
    let mut empty = Entry::new(now);
    empty.answered(HOST, Answer::Addresses(Vec::new(), seconds(60)), now);
    assert!(empty.served(now).is_some_and(|served| served.is_err()));
}

#[test]
fn a_failure_without_addresses_is_told_until_the_next_question() {
    let now = Instant::now();
    let mut entry = after(failure(), now);
    let Next::Wait(next) = entry.next(now) else {
        panic!("no pause");
    };
    assert_eq!(next, now + PAUSE);
    assert!(entry.served(now).is_some_and(|served| served.is_err()));
    assert_eq!(entry.served(next), None);
}

#[test]
fn a_name_that_nobody_needs_is_forgotten_when_it_would_be_asked_for() {
    let now = Instant::now();
    let mut entry = after(addresses(&[1], 60), now);
    let idle = now + IDLE;
    assert_eq!(entry.next(idle - seconds(1)), Next::Ask);
    assert_eq!(entry.next(idle), Next::Forget);
    assert!(entry.touch(idle - seconds(1)));
    assert_eq!(entry.next(idle), Next::Ask);
}
