//! One name: what is served of it, and when to ask again.
//!
//! ```text
//!            lifetime × 4/5         lifetime                    + STALE
//!  answer ───────┼──────────────────────┼─────────────────────────┼──▶
//!            asked again            (would have expired)     served no more
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Addresses are used for as long as their records say, within these.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// How long addresses are used past that, while nobody answers.
const STALE: Duration = Duration::from_secs(3600);
/// That a name has no address is believed for as long as its zone says, within these.
const SHORTEST_NEGATIVE: Duration = Duration::from_secs(1);
const LONGEST_NEGATIVE: Duration = Duration::from_secs(30);
/// The pause after a failure; it doubles with each in a row.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a name is kept fresh that nobody needs.
const IDLE: Duration = Duration::from_secs(600);

/// What a question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Addresses(Vec<IpAddr>, Duration),
    /// The name's own zone says that it has none, and for how long that is so.
    None(String, Option<Duration>),
    /// Nobody could say.
    Failure(String),
}

/// A name's addresses, at least one; or why there are none.
pub(crate) type Served = Result<Arc<[IpAddr]>, Arc<str>>;

#[derive(Debug)]
pub(super) struct Entry {
    served: Option<Served>,
    /// What is served is not from then on.
    until: Instant,
    ask_at: Instant,
    /// In a row.
    failures: u32,
    needed: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask,
    Wait(Instant),
    Forget,
}

// === impl Entry ===

impl Entry {
    /// A name that has to be asked for.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            served: None,
            until: now,
            ask_at: now,
            failures: 0,
            needed: now,
        }
    }

    /// What is served now, to one who needs it.
    pub(super) fn served(&mut self, now: Instant) -> Option<Served> {
        match self.touch(now) {
            true => self.served.clone(),
            false => None,
        }
    }

    /// Whether anything is served now, to one who needs it.
    pub(super) fn touch(&mut self, now: Instant) -> bool {
        self.needed = now;
        self.served.is_some() && now < self.until
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        if now < self.ask_at {
            Next::Wait(self.ask_at)
        } else if now.duration_since(self.needed) >= IDLE {
            Next::Forget
        } else {
            Next::Ask
        }
    }

    /// Whether another thing is served than before.
    pub(super) fn answered(&mut self, hostname: &str, answer: Answer, now: Instant) -> bool {
        let why = |why: String| Err(format!("the host {hostname} can't be resolved: {why}").into());
        match answer {
            Answer::Addresses(mut addresses, lifetime) => {
                addresses.sort_unstable();
                addresses.dedup();
                if addresses.is_empty() {
                    let none = "it has no address".to_owned();
                    return self.answered(hostname, Answer::None(none, None), now);
                }
                let lifetime = lifetime.clamp(SHORTEST, LONGEST);
                self.failures = 0;
                // Before it expires, so that nobody waits for the next answer.
                self.ask_at = now + lifetime * 4 / 5;
                self.serve(Ok(addresses.into()), now + lifetime + STALE)
            }
            Answer::None(text, lifetime) => {
                let lifetime = lifetime.unwrap_or(SHORTEST_NEGATIVE);
                let lifetime = lifetime.clamp(SHORTEST_NEGATIVE, LONGEST_NEGATIVE);
                self.failures = 0;
                self.ask_at = now + lifetime * 4 / 5;
                self.serve(why(text), now + lifetime)
            }
            Answer::Failure(text) => {
                let pause = PAUSE * (1 << self.failures.min(5));
                self.failures += 1;
                self.ask_at = now + pause.min(LONGEST_PAUSE);
                if matches!(self.served, Some(Ok(_))) && now < self.until {
                    if self.failures == 1 {
                        tracing::warn!(hostname, why = text, "its last addresses are used on");
                    }
                    // Whoever needs it then asks, and does not wait for a pause to end.
                    self.ask_at = self.ask_at.min(self.until);
                    return false;
                }
                self.serve(why(text), self.ask_at)
            }
        }
    }

    fn serve(&mut self, served: Served, until: Instant) -> bool {
        self.until = until;
        let is_new = self.served.as_ref() != Some(&served);
        if is_new {
            if let Err(why) = &served {
                tracing::info!("{why}");
            }
            self.served = Some(served);
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
