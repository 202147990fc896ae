//! Whether, when and where a request is sent again.
//!
//! The conditions are Envoy's, under their names there; what they let happen twice is bounded
//! by attempts, by a budget per destination and by what is safe to happen twice.

pub mod budget;
pub mod previous_hosts;

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use rand::Rng;

use crate::grpc::GrpcCode;
use crate::route::{Retry, RetryOn};
use crate::steering::Steering;

/// What a try came to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The head of a response, of which nothing was forwarded yet.
    Response {
        status: StatusCode,
        headers: &'a HeaderMap,
    },
    /// Nothing reached an endpoint.
    ConnectFailure,
    /// The endpoint says it did not process the request (RFC 9113 §8.7).
    RefusedStream,
    /// The connection ended without a response.
    Reset { head_sent: bool },
    /// No response within the time of one try.
    PerTryTimeout,
}

/// What applies to the requests of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy<'a> {
    /// Tries besides the first.
    attempts: u32,
    on: &'a [RetryOn],
    /// What the client says may happen twice.
    asked: &'a [RetryOn],
    backoff: Backoff,
    chosen_by: ChosenBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChosenBy {
    Mesh,
    /// Who writes a policy says that its requests may happen twice.
    User,
}

/// The pauses before tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backoff {
    base: Duration,
    /// No pause is shorter.
    minimum: Duration,
}

/// One request's way through its policy.
#[derive(Clone, Copy, Debug)]
pub struct Retries<'a> {
    policy: RetryPolicy<'a>,
    is_idempotent: bool,
    /// Tries besides the first that were made.
    made: u32,
}

/// What a try's outcome meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// Whether all of the body that was sent is kept.
    pub is_replayable: bool,
    /// Whether the destination's budget admits one more.
    pub is_within_budget: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Retry { after: Duration },
    Final(Final),
}

/// Why an outcome is the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    /// No condition holds; success, as a rule.
    NoCondition,
    /// The service asks not to (`x-envoy-overloaded`).
    Overloaded,
    /// It may have happened, may not happen twice, and nobody said that it may.
    NotIdempotent,
    /// All attempts were made: flag URX.
    LimitReached,
    NotReplayable,
    /// Flag UO.
    OverBudget,
}

// === impl RetryOn ===

impl RetryOn {
    const NAMED: [Self; 12] = [
        Self::ServerError,
        Self::GatewayError,
        Self::Reset,
        Self::ResetBeforeRequest,
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::Retriable4xx,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Internal,
        Self::ResourceExhausted,
        Self::Unavailable,
    ];

    /// Envoy's name; none for a status.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::ServerError => Some("5xx"),
            Self::GatewayError => Some("gateway-error"),
            Self::Reset => Some("reset"),
            Self::ResetBeforeRequest => Some("reset-before-request"),
            Self::ConnectFailure => Some("connect-failure"),
            Self::RefusedStream => Some("refused-stream"),
            Self::Retriable4xx => Some("retriable-4xx"),
            Self::Cancelled => Some("cancelled"),
            Self::DeadlineExceeded => Some("deadline-exceeded"),
            Self::Internal => Some("internal"),
            Self::ResourceExhausted => Some("resource-exhausted"),
            Self::Unavailable => Some("unavailable"),
            Self::Status(_) => None,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|one| one.name() == Some(name))
    }

    /// Whether it is about gRPC's own status.
    pub fn is_grpc(self) -> bool {
        match self {
            Self::Cancelled
            | Self::DeadlineExceeded
            | Self::Internal
            | Self::ResourceExhausted
            | Self::Unavailable => true,
            Self::ServerError
            | Self::GatewayError
            | Self::Reset
            | Self::ResetBeforeRequest
            | Self::ConnectFailure
            | Self::RefusedStream
            | Self::Retriable4xx
            | Self::Status(_) => false,
        }
    }

    fn holds(self, outcome: &Outcome<'_>) -> bool {
        match self {
            Self::ServerError => outcome.status().is_server_error(),
            Self::GatewayError => matches!(outcome.status().as_u16(), 502..=504),
            Self::Reset => match outcome {
                Outcome::Reset { .. } | Outcome::RefusedStream | Outcome::PerTryTimeout => true,
                Outcome::Response { .. } | Outcome::ConnectFailure => false,
            },
            Self::ResetBeforeRequest => match outcome {
                Outcome::Reset { head_sent } => !head_sent,
                Outcome::Response { .. }
                | Outcome::ConnectFailure
                | Outcome::RefusedStream
                | Outcome::PerTryTimeout => false,
            },
            Self::ConnectFailure => matches!(outcome, Outcome::ConnectFailure),
            Self::RefusedStream => matches!(outcome, Outcome::RefusedStream),
            Self::Retriable4xx => outcome.status() == StatusCode::CONFLICT,
            Self::Status(status) => outcome.status().as_u16() == status,
            Self::Cancelled => outcome.grpc_code() == Some(GrpcCode::Cancelled),
            Self::DeadlineExceeded => outcome.grpc_code() == Some(GrpcCode::DeadlineExceeded),
            Self::Internal => outcome.grpc_code() == Some(GrpcCode::Internal),
            Self::ResourceExhausted => outcome.grpc_code() == Some(GrpcCode::ResourceExhausted),
            Self::Unavailable => outcome.grpc_code() == Some(GrpcCode::Unavailable),
        }
    }
}

// === impl Outcome ===

impl Outcome<'_> {
    /// The status of the response, or of the local reply that stands for none.
    fn status(&self) -> StatusCode {
        match self {
            Self::Response { status, .. } => *status,
            Self::ConnectFailure | Self::RefusedStream | Self::Reset { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::PerTryTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Of a response without messages: the status is in its head.
    fn grpc_code(&self) -> Option<GrpcCode> {
        match self {
            Self::Response { headers, .. } => GrpcCode::of(headers),
            Self::ConnectFailure
            | Self::RefusedStream
            | Self::Reset { .. }
            | Self::PerTryTimeout => None,
        }
    }

    fn is_overloaded(&self) -> bool {
        match self {
            Self::Response { headers, .. } => headers.contains_key("x-envoy-overloaded"),
            Self::ConnectFailure
            | Self::RefusedStream
            | Self::Reset { .. }
            | Self::PerTryTimeout => false,
        }
    }

    /// Whether the request can't have had an effect, or the service itself says in the head of
    /// its answer that it ended before any.
    fn is_always_safe(&self) -> bool {
        match self {
            Self::ConnectFailure | Self::RefusedStream | Self::Reset { head_sent: false } => true,
            Self::Response { .. } => matches!(
                self.grpc_code(),
                Some(GrpcCode::Unavailable | GrpcCode::Cancelled)
            ),
            Self::Reset { head_sent: true } | Self::PerTryTimeout => false,
        }
    }
}

// === impl RetryPolicy ===

impl RetryPolicy<'static> {
    /// Of Istio, where nobody chose: what is safe to happen twice, two times.
    pub const DEFAULT: Self = Self {
        attempts: 2,
        on: &[
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
        ],
        asked: &[],
        backoff: Backoff::DEFAULT,
        chosen_by: ChosenBy::Mesh,
    };
}

impl<'a> RetryPolicy<'a> {
    /// Of a rule; without conditions of its own it has the default's.
    pub fn of(retry: Option<&'a Retry>) -> Self {
        let Some(retry) = retry else {
            return RetryPolicy::DEFAULT;
        };
        let (on, chosen_by) = match retry.on.as_slice() {
            [] => (RetryPolicy::DEFAULT.on, ChosenBy::Mesh),
            on => (on, ChosenBy::User),
        };
        let backoff = retry.backoff.map_or(Backoff::DEFAULT, |minimum| Backoff {
            base: minimum,
            minimum,
        });
        Self {
            attempts: retry.attempts,
            on,
            asked: &[],
            backoff,
            chosen_by,
        }
    }

    /// With what a client asks for its own request. A rule that turns retries off is not moved.
    pub fn steered(self, steering: &'a Steering) -> Self {
        if self.attempts == 0 {
            return self;
        }
        Self {
            attempts: steering.max_retries.unwrap_or(self.attempts),
            asked: &steering.retry_on,
            ..self
        }
    }

    /// Whether a request may be sent again at all, so that its body is worth keeping.
    pub fn is_on(&self) -> bool {
        self.attempts > 0
    }
}

// === impl Backoff ===

impl Backoff {
    const DEFAULT: Self = Self {
        base: Duration::from_millis(25),
        minimum: Duration::ZERO,
    };

    /// The pause before the `n`th retry: anything up to `(2^n - 1)` times the base, at most ten
    /// times, so that clients that failed together don't come back together. The lower bound,
    /// where there is one, is added.
    fn pause(self, n: u32, random: &mut impl Rng) -> Duration {
        let factor = match n {
            0 => 0,
            1..=3 => (1 << n) - 1,
            4.. => 10,
        };
        let longest = self.base.saturating_mul(factor);
        self.minimum
            .saturating_add(longest.mul_f64(random.random::<f64>()))
            .min(self.base.saturating_mul(10))
    }
}

// === impl Retries ===

impl<'a> Retries<'a> {
    pub fn new(policy: RetryPolicy<'a>, method: &Method) -> Self {
        Self {
            policy,
            is_idempotent: method.is_idempotent(),
            made: 0,
        }
    }

    /// The number of the try that is being made, from 1: `x-envoy-attempt-count`.
    pub fn attempt(&self) -> u32 {
        self.made.saturating_add(1)
    }

    /// Whether this is the last try that may be made.
    pub fn is_last(&self) -> bool {
        self.made >= self.policy.attempts
    }

    /// What follows from a try's outcome; a retry is counted.
    pub fn decide(
        &mut self,
        outcome: &Outcome<'_>,
        circumstances: Circumstances,
        random: &mut impl Rng,
    ) -> Decision {
        match self.obstacle(outcome, circumstances) {
            Some(reason) => Decision::Final(reason),
            None => {
                self.made += 1;
                Decision::Retry {
                    after: self.policy.backoff.pause(self.made, random),
                }
            }
        }
    }

    fn obstacle(&self, outcome: &Outcome<'_>, circumstances: Circumstances) -> Option<Final> {
        let any = |of: &[RetryOn]| of.iter().any(|on| on.holds(outcome));
        let is_asked = any(self.policy.asked);
        if !self.policy.is_on() || !(is_asked || any(self.policy.on)) {
            return Some(Final::NoCondition);
        }
        if outcome.is_overloaded() {
            return Some(Final::Overloaded);
        }
        let may_happen_twice = match self.policy.chosen_by {
            ChosenBy::User => true,
            ChosenBy::Mesh => is_asked || self.is_idempotent || outcome.is_always_safe(),
        };
        if !may_happen_twice {
            return Some(Final::NotIdempotent);
        }
        if self.is_last() {
            return Some(Final::LimitReached);
        }
        if !circumstances.is_replayable {
            return Some(Final::NotReplayable);
        }
        (!circumstances.is_within_budget).then_some(Final::OverBudget)
    }
}

#[cfg(test)]
mod tests;
