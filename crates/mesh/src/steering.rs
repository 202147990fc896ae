//! What a client asks of the proxy for one request of its own, in Envoy's headers.
//!
//! Istio documents them for applications, and its proxies take them out unread all the same: Envoy
//! goes by addresses to know whom it may trust (CVE-2024-45806). Here the client is known by its
//! certificate. What it asks can only cost less than the route allows: time is shortened, never
//! lengthened, and retries that a route turns off stay off.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::route::RetryOn;

/// Tries besides the first that a client may ask for.
const MOST_RETRIES: u32 = 10;
/// Conditions that are read; more of them are noise.
const MOST_CONDITIONS: usize = 32;

const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");

/// The wishes of one request. What is malformed is no wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Tries besides the first.
    pub max_retries: Option<u32>,
    /// Conditions besides the route's.
    pub retry_on: Vec<RetryOn>,
    /// For the whole exchange.
    pub request: Option<Duration>,
    pub per_try: Option<Duration>,
}

// === impl Steering ===

impl Steering {
    /// Nothing is read of a request that was forwarded for somebody else (`x-forwarded-for`): who
    /// forwards it may have passed on what a stranger asked.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key("x-forwarded-for") {
            return Self::default();
        }
        let number = |name: &HeaderName| -> Option<u64> {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(only), None) => only.to_str().ok()?.trim().parse().ok(),
                (_, _) => None,
            }
        };
        let time = |name| {
            let millis = number(name).filter(|millis| *millis > 0)?;
            Some(Duration::from_millis(millis))
        };
        let retries = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            max_retries: number(&MAX_RETRIES).map(|number| retries(number).min(MOST_RETRIES)),
            retry_on: conditions(headers),
            request: time(&TIMEOUT),
            per_try: time(&PER_TRY_TIMEOUT),
        }
    }
}

fn conditions(headers: &HeaderMap) -> Vec<RetryOn> {
    let listed = |name: &HeaderName| {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect::<Vec<_>>()
    };
    let on = listed(&RETRY_ON);
    let mut conditions: Vec<RetryOn> = on.iter().copied().filter_map(RetryOn::named).collect();
    let grpc = listed(&RETRY_GRPC_ON).into_iter();
    conditions.extend(grpc.filter_map(RetryOn::named).filter(|one| one.is_grpc()));
    if on.contains(&"retriable-status-codes") {
        let codes = listed(&STATUS_CODES).into_iter();
        let codes = codes.filter_map(|code| code.parse().ok());
        conditions.extend(
            codes
                .filter(|code| (400..600).contains(code))
                .map(RetryOn::Status),
        );
    }
    conditions.truncate(MOST_CONDITIONS);
    conditions
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(fields: &[(&'static str, &str)]) -> Steering {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Steering::of(&headers)
    }

    #[test]
    fn each_header_is_a_wish() {
        let asked = of(&[
            ("x-envoy-max-retries", "3"),
            ("x-envoy-retry-on", "5xx, reset"),
            ("x-envoy-retry-grpc-on", "internal,5xx"),
            ("x-envoy-upstream-rq-timeout-ms", "1500"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
        ]);
        let expected = Steering {
            max_retries: Some(3),
            retry_on: vec![RetryOn::ServerError, RetryOn::Reset, RetryOn::Internal],
            request: Some(Duration::from_millis(1500)),
            per_try: Some(Duration::from_millis(200)),
        };
        assert_eq!(asked, expected);
    }

    #[test]
    fn statuses_are_read_where_they_are_asked_for() {
        let codes = ("x-envoy-retriable-status-codes", "409,503,99,x");
        assert_eq!(of(&[codes]).retry_on, []);
        let asked = of(&[codes, ("x-envoy-retry-on", "retriable-status-codes")]);
        assert_eq!(asked.retry_on, [RetryOn::Status(409), RetryOn::Status(503)]);
    }

    #[test]
    fn what_is_malformed_or_too_much_is_no_wish() {
        for (name, value) in [
            ("x-envoy-max-retries", "-1"),
            ("x-envoy-max-retries", "two"),
            ("x-envoy-retry-on", "whenever"),
            ("x-envoy-retry-grpc-on", "5xx"),
            ("x-envoy-upstream-rq-timeout-ms", "0"),
            ("x-envoy-upstream-rq-timeout-ms", "1s"),
            ("x-envoy-upstream-rq-timeout-ms", "18446744073709551616"),
        ] {
            assert_eq!(of(&[(name, value)]), Steering::default(), "{name}: {value}");
        }
        let most = of(&[("x-envoy-max-retries", "4000000000000")]);
        assert_eq!(most.max_retries, Some(MOST_RETRIES));
        let twice = ("x-envoy-max-retries", "1");
        assert_eq!(of(&[twice, twice]), Steering::default());
        let many = "5xx,".repeat(1000);
        let on = of(&[("x-envoy-retry-on", &many)]).retry_on;
        assert_eq!(on.len(), MOST_CONDITIONS);
    }

    #[test]
    fn a_request_from_further_away_asks_for_nothing() {
        let asked = of(&[
            ("x-envoy-max-retries", "3"),
            ("x-forwarded-for", "10.0.0.7"),
        ]);
        assert_eq!(asked, Steering::default());
    }

    proptest! {
        #[test]
        fn no_value_panics(text in prop::collection::vec(32u8..=255, 0..40)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                for name in [MAX_RETRIES, RETRY_ON, RETRY_GRPC_ON, STATUS_CODES, TIMEOUT] {
                    headers.insert(name, value.clone());
                }
                Steering::of(&headers);
            }
        }
    }
}
