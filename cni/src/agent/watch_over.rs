//! What the agent does unasked: offers pending pods again, and puts changed rules back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::telemetry::Changes;
use super::{Enrolled, Inner, Rules};
use crate::apply::Verifier;
use crate::zds_server::Delivery;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(5);
const VERIFY_EVERY: Duration = Duration::from_secs(5);

/// When a pending pod is offered next, and how long to wait after that.
struct Retry {
    at: Instant,
    pause: Duration,
}

/// Offers pods that ztunnel refused, with growing pauses. Without a ztunnel there is nobody to
/// ask: the snapshot that the next one gets holds them all.
pub(super) async fn offer_pending(inner: Arc<Inner>) {
    let mut changed = inner.server.changed();
    let mut retries: HashMap<String, Retry> = HashMap::new();
    loop {
        // Seen before looking, so that a change while looking wakes us again.
        changed.mark_unchanged();
        let pending = pending(&inner);
        retries.retain(|uid, _| pending.contains(uid));
        for uid in pending {
            retries.entry(uid).or_insert_with(|| Retry {
                at: Instant::now() + FIRST_RETRY,
                pause: FIRST_RETRY,
            });
        }
        let next = retries.values().map(|retry| retry.at).min();
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                offer_due(&inner, &mut retries).await;
            }
        }
    }
}

async fn offer_due(inner: &Inner, retries: &mut HashMap<String, Retry>) {
    for (uid, retry) in retries {
        if retry.at > Instant::now() {
            continue;
        }
        if let Ok(Delivery::Done) = inner.server.deliver(uid).await {
            tracing::info!(uid, "ztunnel took the pod");
        }
        retry.pause = (retry.pause * 2).min(LAST_RETRY);
        retry.at = Instant::now() + retry.pause;
    }
}

/// Pods that a connected ztunnel has been offered and does not have.
fn pending(inner: &Inner) -> Vec<String> {
    // During the snapshot every pod is on its way.
    if !inner.server.peers().last().is_some_and(|peer| peer.synced) {
        return Vec::new();
    }
    inner
        .all()
        .into_iter()
        .map(|enrolled| enrolled.pod.uid.clone())
        .filter(|uid| match inner.server.delivery(uid) {
            Some(Delivery::Pending { .. }) => true,
            Some(Delivery::Done | Delivery::Offered) | None => false,
        })
        .collect()
}

/// Looks at every pod's rules, again and again, and puts back what differs.
pub(super) async fn repair_rules(inner: Arc<Inner>) {
    let mut verifier = Verifier::default();
    let mut ticks = tokio::time::interval(VERIFY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        repair_all(&inner, &mut verifier).await;
    }
}

pub(super) async fn repair_all(inner: &Inner, verifier: &mut Verifier) {
    for enrolled in inner.all() {
        repair(&enrolled, verifier, &inner.changes).await;
    }
}

async fn repair(enrolled: &Enrolled, verifier: &mut Verifier, changes: &Changes) {
    let mut rules = enrolled.rules.lock().await;
    let Rules::Capture { options, seen } = &mut *rules else {
        return;
    };
    let uid = &enrolled.pod.uid;
    let differences = match verifier.verify(&enrolled.netns, options, seen).await {
        Ok(differences) if differences.is_empty() => return,
        Ok(differences) => differences,
        Err(error) => {
            tracing::warn!(uid, %error, "cannot read the pod's rules back");
            return;
        }
    };
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    let differences = differences.join("; ");
    let repair = enrolled.capture(options).await;
    changes.count(&repair);
    let outcome = match repair {
        Ok(()) => "repaired".to_owned(),
        Err(error) => format!("not repaired: {error}"),
    };
    tracing::warn!(
        uid,
        pod = enrolled.pod.name,
        differences,
        outcome,
        "the pod's redirect rules were changed"
    );
    *enrolled.drift() = Some(format!("{differences} ({outcome})"));
}
