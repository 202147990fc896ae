//! The one task that fetches: it follows the schedule, publishes states and answers those who wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::identity::Identity;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::schedule::{Priority, Schedule, renew_after};
use super::{EXPIRED, Failure, State, States, Unavailable};
use crate::WorkloadCertificate;
use crate::ca_client::{CaClient, Fault, FetchError};

/// A CA that accepts and then says nothing must not hold one of the few places.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often certificates are compared with the wall's clock. Renewal is due by another, which stands
/// still while a machine sleeps.
const LOOK: Duration = Duration::from_secs(10);
/// Those who ask wait for a retry no further away than this.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) type Reply = oneshot::Sender<Result<Arc<WorkloadCertificate>, Unavailable>>;

/// What handles ask of the worker.
pub(super) enum Command {
    Want(Identity, Priority, Option<Reply>),
    Forget(Identity),
    RenewAll(Duration),
}

type Outcome = Result<WorkloadCertificate, FetchError>;

pub(super) struct Worker {
    ca: Arc<dyn CaClient>,
    states: States,
    schedule: Schedule,
    waiting: HashMap<Identity, Vec<Reply>>,
    fetches: JoinSet<Outcome>,
    fetching: HashMap<task::Id, Identity>,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(ca: Arc<dyn CaClient>, states: States) -> Self {
        Self {
            ca,
            states,
            schedule: Schedule::default(),
            waiting: HashMap::new(),
            fetches: JoinSet::new(),
            fetching: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_due();
            let due = self.schedule.next_due();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Want(identity, priority, reply)) => {
                        self.want(&identity, priority, reply);
                    }
                    Some(Command::Forget(identity)) => self.forget(&identity),
                    Some(Command::RenewAll(spread)) => self
                        .schedule
                        .renew_all(Instant::now(), || spread.mul_f64(rand::random())),
                    None => return,
                },
                Some(finished) = self.fetches.join_next_with_id() => self.joined(finished),
                () = async { time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
                _ = looks.tick() => self.look_for_expired(),
            }
        }
    }

    fn look_for_expired(&mut self) {
        let now = Instant::now();
        for (identity, state) in self.states.load().iter() {
            if let State::Available(certificate) = state
                && certificate.is_expired()
            {
                self.schedule.overdue(identity, now);
            }
        }
    }

    fn start_due(&mut self) {
        while let Some(identity) = self.schedule.start_next(Instant::now()) {
            debug!(%identity, "fetching a certificate");
            let (ca, asked) = (self.ca.clone(), identity.clone());
            let fetch = self.fetches.spawn(async move {
                time::timeout(FETCH_TIMEOUT, ca.fetch(&asked))
                    .await
                    .unwrap_or(Err(FetchError::Timeout))
            });
            self.fetching.insert(fetch.id(), identity);
        }
    }

    /// A fetch that panicked is a bug, but one identity's: the others must still be renewed.
    fn joined(&mut self, finished: Result<(task::Id, Outcome), JoinError>) {
        let (id, outcome) = finished.unwrap_or_else(|error| {
            let failed = FetchError::Request(format!("the fetch ended early: {error}"));
            (error.id(), Err(failed))
        });
        if let Some(identity) = self.fetching.remove(&id) {
            self.finish(&identity, outcome);
        }
    }

    fn want(&mut self, identity: &Identity, priority: Priority, reply: Option<Reply>) {
        let state = self.state(identity);
        if let State::Available(certificate) = &state {
            if let Some(reply) = reply {
                // The asker may have given up; that is its own affair.
                let _ = reply.send(Ok(certificate.clone()));
            }
            return;
        }
        let now = Instant::now();
        if !self.schedule.wants(identity) {
            self.publish(identity, Some(State::Initializing));
        }
        // One that has ended since the last look is not waited for until the next.
        self.schedule.overdue(identity, now);
        self.schedule.request(identity, priority, now);
        let Some(reply) = reply else { return };
        match state {
            State::Unavailable(failure) if self.patience_is_over(identity, now) => {
                let _ = reply.send(Err(unavailable(identity, failure)));
            }
            State::Initializing | State::Available(_) | State::Unavailable(_) => self
                .waiting
                .entry(identity.clone())
                .or_default()
                .push(reply),
        }
    }

    fn forget(&mut self, identity: &Identity) {
        self.schedule.forget(identity);
        self.publish(identity, None);
        let gone = Failure {
            reason: "no workload with this identity is left".into(),
            fault: Fault::Refused,
        };
        self.answer(identity, Err(gone));
    }

    fn finish(&mut self, identity: &Identity, outcome: Outcome) {
        let now = Instant::now();
        let outcome = outcome.and_then(|certificate| match certificate.is_expired() {
            true => Err(FetchError::Expired),
            false => Ok(Arc::new(certificate)),
        });
        match outcome {
            Ok(certificate) => {
                let renew_after =
                    renew_after(certificate.now(), certificate.not_after(), rand::random());
                self.schedule.succeeded(identity, now, renew_after);
                if !self.schedule.wants(identity) {
                    return;
                }
                info!(%identity, serial = certificate.serial(), "certificate available");
                self.publish(identity, Some(State::Available(certificate.clone())));
                self.answer(identity, Ok(certificate));
            }
            Err(error) => {
                self.schedule.failed(identity, now, rand::random());
                if !self.schedule.wants(identity) {
                    return;
                }
                warn!(%identity, %error, "no certificate");
                let failure = self.failure(identity, &error);
                if !self.may_be_good_again(identity) {
                    self.publish(identity, Some(State::Unavailable(failure.clone())));
                }
                if self.patience_is_over(identity, now) {
                    self.answer(identity, Err(failure));
                }
            }
        }
    }

    /// What the failure means for those who have a certificate, had one, or never had.
    fn failure(&self, identity: &Identity, error: &FetchError) -> Failure {
        let known = self.states.load();
        match known.get(identity) {
            Some(State::Available(certificate)) if certificate.is_expired() => {
                Failure::expired(certificate, &error.to_string())
            }
            // Since when is in the log of its first failure.
            Some(State::Unavailable(known)) if known.reason.starts_with(EXPIRED) => known.clone(),
            Some(State::Available(_) | State::Unavailable(_) | State::Initializing) | None => {
                Failure {
                    reason: error.to_string().into(),
                    fault: error.fault(),
                }
            }
        }
    }

    /// Whether there is a certificate, be it one that has ended: where that is only what a clock says
    /// for a moment, it is there when the clock is right again.
    fn may_be_good_again(&self, identity: &Identity) -> bool {
        match self.states.load().get(identity) {
            Some(State::Available(certificate)) => !certificate.has_lived(),
            Some(State::Initializing | State::Unavailable(_)) | None => false,
        }
    }

    fn patience_is_over(&self, identity: &Identity, now: Instant) -> bool {
        self.schedule
            .wait(identity, now)
            .is_none_or(|wait| wait > PATIENCE)
    }

    fn state(&self, identity: &Identity) -> State {
        self.states
            .load()
            .get(identity)
            .cloned()
            .map_or(State::Initializing, State::at_present)
    }

    fn publish(&self, identity: &Identity, state: Option<State>) {
        let mut states = (**self.states.load()).clone();
        match state {
            Some(state) => states.insert(identity.clone(), state),
            None => states.remove(identity),
        };
        self.states.store(Arc::new(states));
    }

    fn answer(&mut self, identity: &Identity, answer: Result<Arc<WorkloadCertificate>, Failure>) {
        for reply in self.waiting.remove(identity).into_iter().flatten() {
            let answer = answer.clone();
            let _ = reply.send(answer.map_err(|failure| unavailable(identity, failure)));
        }
    }
}

fn unavailable(identity: &Identity, failure: Failure) -> Unavailable {
    Unavailable {
        identity: identity.clone(),
        reason: failure.reason,
        fault: failure.fault,
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::time::SystemTime;

    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::authority::Signer;

    struct Away;

    impl CaClient for Away {
        fn fetch<'a>(&'a self, _: &'a Identity) -> BoxFuture<'a, Outcome> {
            future::ready(Err(FetchError::Timeout)).boxed()
        }
    }

    #[tokio::test]
    async fn what_a_clock_that_is_wrong_calls_expired_is_there_when_it_is_right_again() {
        const HOUR: Duration = Duration::from_secs(3600);
        let before = SystemTime::now() - HOUR * 2;
        let signer = Signer::self_signed("cluster.local", HOUR * 10, before).expect("a root");
        let web = Identity::new("cluster.local", "shop", "web");
        for (life, stays) in [(HOUR, true), (Duration::from_secs(1), false)] {
            let issued = signer.workload_certificate(&web, life, before);
            let received = match stays {
                true => before,
                false => before + HOUR,
            };
            let certificate = issued.expect("a certificate").received_at(received);
            assert!(certificate.is_expired());
            let mut worker = Worker::new(Arc::new(Away), States::default());
            worker
                .schedule
                .request(&web, Priority::WarmUp, Instant::now());
            worker.publish(&web, Some(State::Available(Arc::new(certificate))));
            worker.finish(&web, Err(FetchError::Timeout));
            let state = worker.states.load()[&web].clone();
            assert_eq!(matches!(state, State::Available(_)), stays, "{life:?}");
        }
    }
}
