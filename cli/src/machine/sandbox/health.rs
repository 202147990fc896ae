//! A container's health while it runs: when its probes ask, and what follows from their answers.
use std::time::Duration;

use istio_compat::kinds::probe::Probe;

use super::container::Container;
use super::probe::{self, Thresholds};

/// A container that was never ready yet is asked this often: applications start faster than most periods.
const EAGER: Duration = Duration::from_millis(200);

// === impl Container ===

impl Container {
    /// Never ends while the container is well.
    pub(super) async fn probe(&self) -> String {
        let spec = self.spec();
        if let Some(startup) = &spec.startup_probe {
            if let Err(reason) = self.started_by(startup).await {
                return reason;
            }
            let ready = spec.readiness_probe.is_none();
            self.update(|status| {
                status.started = Some(true);
                status.ready = ready;
            });
            self.started.cancel();
        }
        let readiness = async {
            match &spec.readiness_probe {
                Some(probe) => self.follow_readiness(probe).await,
                None => std::future::pending().await,
            }
        };
        let liveness = async {
            match &spec.liveness_probe {
                Some(probe) => self.alive_by(probe).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = liveness => reason,
            () = readiness => std::future::pending().await,
        }
    }

    async fn started_by(&self, probe: &Probe) -> Result<(), String> {
        let mut thresholds = Thresholds::new(probe);
        let mut due = first_time(probe, period(probe));
        loop {
            due.tick().await;
            let answer = self.ask("startup", probe).await;
            self.shared.probed(&self.spec().name, answer.clone().err());
            match (thresholds.record(answer.is_ok()), answer) {
                (Some(true), _) => return Ok(()),
                (Some(false), Err(failure)) => return Err(failure),
                _ => {}
            }
        }
    }

    async fn alive_by(&self, probe: &Probe) -> String {
        let mut thresholds = Thresholds::new(probe);
        let mut due = first_time(probe, period(probe));
        loop {
            due.tick().await;
            let answer = self.ask("liveness", probe).await;
            if let (Some(false), Err(failure)) = (thresholds.record(answer.is_ok()), answer) {
                return failure;
            }
        }
    }

    async fn follow_readiness(&self, probe: &Probe) {
        let mut thresholds = Thresholds::new(probe);
        let mut due = first_time(probe, EAGER.min(period(probe)));
        let mut eager = true;
        loop {
            due.tick().await;
            let answer = self.ask("readiness", probe).await;
            let verdict = thresholds.record(answer.is_ok());
            self.shared.probed(&self.spec().name, answer.err());
            if let Some(ready) = verdict {
                self.update(|status| status.ready = ready);
            }
            if eager && verdict == Some(true) {
                eager = false;
                due = tokio::time::interval_at(
                    tokio::time::Instant::now() + period(probe),
                    period(probe),
                );
            }
        }
    }

    async fn ask(&self, kind: &str, probe: &Probe) -> Result<(), String> {
        let target = probe::Target {
            address: self.shared.pod.ips().first().copied(),
            container: self.spec(),
            run: &|command| Ok(self.spawn(command, false)?),
        };
        let answer = probe::ask(probe, &target).await;
        answer.map_err(|error| format!("{kind} probe failed: {error:#}"))
    }
}

fn first_time(probe: &Probe, period: Duration) -> tokio::time::Interval {
    let delay = Duration::from_secs(probe.initial_delay_seconds.into());
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + delay, period);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    due
}

fn period(probe: &Probe) -> Duration {
    Duration::from_secs(probe.period_seconds.max(1).into())
}
