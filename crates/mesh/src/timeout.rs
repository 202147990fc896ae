//! How long an exchange and each of its tries may take.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::grpc;
use crate::route::Timeouts;
use crate::steering::Steering;

/// What limits one request. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The whole exchange: tries, pauses and the response to its end.
    pub request: Option<Duration>,
    /// One try, up to the head of its response. Always shorter than the whole.
    pub per_try: Option<Duration>,
}

/// Refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not one to eight digits and a unit")]
pub struct InvalidGrpcTimeout;

/// Longer ones mean no limit, and could not be added to a point in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

// === impl Limits ===

impl Limits {
    /// The shorter of the rule's and, for gRPC, what the client gives itself. A limit of zero
    /// in a rule is none (GEP-1742).
    ///
    /// # Errors
    ///
    /// The client's is malformed: one that no server would understand alike.
    pub fn of(timeouts: Timeouts, headers: &HeaderMap) -> Result<Self, InvalidGrpcTimeout> {
        let set =
            |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero() && *limit <= LONGEST);
        let client = match headers.get("grpc-timeout") {
            Some(value) if grpc::is_grpc(headers) => {
                Some(parse_grpc_timeout(value)?).filter(|limit| *limit <= LONGEST)
            }
            Some(_) | None => None,
        };
        let request = [set(timeouts.request), client].into_iter().flatten().min();
        let per_try = set(timeouts.backend_request);
        Ok(Self {
            request,
            per_try: shorter(per_try, request),
        })
    }

    /// The shorter of these and what a client asks for its own request.
    pub fn steered(self, steering: &Steering) -> Self {
        let least = |one: Option<Duration>, other: Option<Duration>| {
            let other = other.filter(|limit| *limit <= LONGEST);
            [one, other].into_iter().flatten().min()
        };
        let request = least(self.request, steering.request);
        Self {
            request,
            per_try: shorter(least(self.per_try, steering.per_try), request),
        }
    }
}

/// A try's limit that the whole's does not make pointless.
fn shorter(per_try: Option<Duration>, request: Option<Duration>) -> Option<Duration> {
    per_try.filter(|one| request.is_none_or(|whole| *one < whole))
}

/// Reads `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2), so that nothing
/// overflows (CVE-2021-28682).
///
/// # Errors
///
/// It is anything else.
pub fn parse_grpc_timeout(value: &HeaderValue) -> Result<Duration, InvalidGrpcTimeout> {
    let (unit, digits) = value.as_bytes().split_last().ok_or(InvalidGrpcTimeout)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidGrpcTimeout);
    }
    let amount = digits
        .iter()
        .fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(InvalidGrpcTimeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Duration, InvalidGrpcTimeout> {
        parse_grpc_timeout(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn each_unit_is_read() {
        for (text, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("00000007n", 7),
            ("0S", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn cve_2021_28682_nothing_overflows() {
        let longest = Duration::from_secs(99_999_999 * 3600);
        assert_eq!(parse("99999999H"), Ok(longest));
        for text in [
            "100000000n",
            "99999999999999999999H",
            "18446744073709551615S",
        ] {
            assert_eq!(parse(text), Err(InvalidGrpcTimeout), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for text in [
            "", "1", "S", "1s", "1h", "-1S", "+1S", "1 S", " 1S", "1.5S", "1SS", "0x1S",
        ] {
            assert_eq!(parse(text), Err(InvalidGrpcTimeout), "{text}");
        }
    }

    fn limits(
        request: Option<u64>,
        backend_request: Option<u64>,
        client: Option<&'static str>,
    ) -> (Option<u64>, Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        if let Some(client) = client {
            headers.insert("grpc-timeout", HeaderValue::from_static(client));
        }
        let timeouts = Timeouts {
            request: request.map(Duration::from_secs),
            backend_request: backend_request.map(Duration::from_secs),
        };
        let limits = Limits::of(timeouts, &headers).unwrap();
        let seconds = |limit: Duration| limit.as_secs();
        (limits.request.map(seconds), limits.per_try.map(seconds))
    }

    #[test]
    fn the_shortest_limit_counts() {
        assert_eq!(limits(None, None, None), (None, None));
        assert_eq!(limits(Some(9), Some(3), None), (Some(9), Some(3)));
        assert_eq!(limits(Some(9), Some(9), None), (Some(9), None));
        assert_eq!(limits(Some(0), Some(0), None), (None, None));
        assert_eq!(limits(None, None, Some("7S")), (Some(7), None));
        assert_eq!(limits(Some(5), None, Some("7S")), (Some(5), None));
        assert_eq!(limits(Some(9), Some(3), Some("2S")), (Some(2), None));
        assert_eq!(limits(Some(9), None, Some("0S")), (Some(0), None));
        assert_eq!(limits(Some(9), None, Some("99999999H")), (Some(9), None));
        assert_eq!(limits(None, None, Some("99999999H")), (None, None));
        assert_eq!(limits(Some(u64::MAX), None, None), (None, None));
    }

    #[test]
    fn a_client_shortens_and_never_lengthens() {
        let limits = |request, per_try| Limits {
            request: Option::map(request, Duration::from_secs),
            per_try: Option::map(per_try, Duration::from_secs),
        };
        let asks = |request, per_try| Steering {
            request: Option::map(request, Duration::from_secs),
            per_try: Option::map(per_try, Duration::from_secs),
            ..Steering::default()
        };
        for (rule, client, both) in [
            ((None, None), (Some(2), Some(1)), (Some(2), Some(1))),
            ((Some(5), Some(3)), (Some(9), Some(4)), (Some(5), Some(3))),
            ((Some(5), Some(3)), (Some(2), None), (Some(2), None)),
            ((Some(5), None), (None, Some(6)), (Some(5), None)),
            ((None, None), (Some(u64::MAX), None), (None, None)),
        ] {
            let steered = limits(rule.0, rule.1).steered(&asks(client.0, client.1));
            assert_eq!(steered, limits(both.0, both.1), "{rule:?} {client:?}");
        }
    }

    #[test]
    fn only_grpc_gives_itself_a_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static("x"));
        let none = Ok(Limits::default());
        assert_eq!(Limits::of(Timeouts::default(), &headers), none);
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        let refused = Err(InvalidGrpcTimeout);
        assert_eq!(Limits::of(Timeouts::default(), &headers), refused);
    }

    proptest! {
        #[test]
        fn no_value_panics(text in prop::collection::vec(32u8..=255, 0..16)) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let _ = parse_grpc_timeout(&value);
            }
        }
    }
}
