//! Names in the background, on a clock that is paused.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::task::LocalSet;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Nameservers that take their time, and what they were asked.
#[derive(Clone, Default)]
struct Fake {
    answers: Rc<RefCell<VecDeque<(Duration, Answer)>>>,
    asked: Rc<Cell<usize>>,
}

impl Fake {
    fn names(&self) -> Names {
        let fake = self.clone();
        Names::asking(Box::new(move |_| {
            fake.asked.set(fake.asked.get() + 1);
            let answer = fake.answers.borrow_mut().pop_front();
            Box::pin(async move {
                let Some((takes, answer)) = answer else {
                    return std::future::pending().await;
                };
                time::sleep(takes).await;
                answer
            })
        }))
    }

    fn answers(&self, takes: u64, answer: Answer) {
        let takes = Duration::from_secs(takes);
        self.answers.borrow_mut().push_back((takes, answer));
    }
}

fn at(last: u8) -> Answer {
    Answer::Addresses(vec![[192, 0, 2, last].into()], Duration::from_secs(60))
}

fn last_of(seen: &Seen) -> IpAddr {
    seen.served.clone().expect("an address")[0]
}

/// On a clock that moves only when nothing else does.
fn run(test: impl AsyncFnOnce(Fake, Names, Arc<str>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let fake = Fake::default();
        let names = fake.names();
        test(fake, names, "db.example".into()).await;
    });
}

async fn seconds(seconds: u64) {
    time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn the_first_answer_is_awaited_by_all_who_need_it_and_asked_for_once() {
    run(async |fake, names, host| {
        fake.answers(3, at(1));
        assert!(names.look_at(&host).is_none());
        let began = Instant::now();
        let waiting = (0..10).map(|_| names.resolve(&host, TIMEOUT));
        futures::future::join_all(waiting).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        let seen = names.look_at(&host).expect("known");
        assert_eq!(last_of(&seen), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(fake.asked.get(), 1);
    });
}

#[test]
fn nobody_waits_for_a_fresh_answer() {
    run(async |fake, names, host| {
        fake.answers(0, at(1));
        fake.answers(30, at(2));
        names.resolve(&host, TIMEOUT).await;
        let first = names.look_at(&host).expect("known");
        seconds(60).await;
        // The answer has expired, the next one has been asked for and is not there yet.
        assert_eq!(fake.asked.get(), 2);
        let began = Instant::now();
        names.resolve(&host, TIMEOUT).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(first.is_current(Instant::now()));
        seconds(30).await;
        assert!(!first.is_current(Instant::now()));
        let second = names.look_at(&host).expect("known");
        assert_eq!(last_of(&second), IpAddr::from([192, 0, 2, 2]));
    });
}

#[test]
fn the_same_answer_changes_nothing() {
    run(async |fake, names, host| {
        fake.answers(0, at(1));
        fake.answers(0, at(1));
        names.resolve(&host, TIMEOUT).await;
        let first = names.look_at(&host).expect("known");
        seconds(60).await;
        assert_eq!(fake.asked.get(), 2);
        assert!(first.is_current(Instant::now()));
    });
}

#[test]
fn addresses_outlive_nameservers_that_fail() {
    run(async |fake, names, host| {
        fake.answers(0, at(1));
        for _ in 0..5 {
            fake.answers(0, Answer::Failure("refused".to_owned()));
        }
        names.resolve(&host, TIMEOUT).await;
        let first = names.look_at(&host).expect("known");
        seconds(48 + 16).await;
        assert_eq!(fake.asked.get(), 6);
        assert!(first.is_current(Instant::now()));
    });
}

#[test]
fn a_name_without_addresses_is_not_asked_for_each_time() {
    run(async |fake, names, host| {
        let lifetime = Some(Duration::from_secs(20));
        fake.answers(1, Answer::None("NXDomain".to_owned(), lifetime));
        for _ in 0..10 {
            names.resolve(&host, TIMEOUT).await;
            let seen = names.look_at(&host).expect("known");
            assert!(seen.served.is_err());
            seconds(1).await;
        }
        assert_eq!(fake.asked.get(), 1);
    });
}

#[test]
fn who_waits_in_vain_waits_no_longer_than_asked() {
    run(async |_, names, host| {
        let began = Instant::now();
        names.resolve(&host, TIMEOUT).await;
        assert_eq!(began.elapsed(), TIMEOUT);
        assert!(names.look_at(&host).is_none());
    });
}

#[test]
fn a_name_that_nobody_needs_is_forgotten() {
    run(async |fake, names, host| {
        for _ in 0..20 {
            fake.answers(0, at(1));
        }
        names.resolve(&host, TIMEOUT).await;
        let first = names.look_at(&host).expect("known");
        seconds(700).await;
        let asked = fake.asked.get();
        seconds(700).await;
        assert_eq!(fake.asked.get(), asked);
        // What is kept of it from then is of no use.
        assert!(!first.is_current(Instant::now()));
        assert!(names.look_at(&host).is_none());
        names.resolve(&host, TIMEOUT).await;
        assert!(names.look_at(&host).is_some());
    });
}
