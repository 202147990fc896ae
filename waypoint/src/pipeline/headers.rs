//! Headers that are not the client's to set, and those every request and response gets.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, SERVER};
use mesh::local_reply::Reason;
use mesh::request::is_internal;
use mesh::steering::Steering;
use rand::Rng;
use uuid::Uuid;

use crate::config::Underscores;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const SERVER_NAME: HeaderValue = HeaderValue::from_static("istio-envoy");

/// Takes out what is no client's to set, and adds what applications may count on. What a client
/// asks of its own request has been read by then.
pub(crate) fn sanitize(headers: &mut HeaderMap, random: &mut impl Rng) -> Option<Box<Steering>> {
    let mut steering = None;
    while let Some(internal) = headers.keys().find(|name| is_internal(name)) {
        steering.get_or_insert_with(|| Box::new(Steering::of(headers)));
        let internal = internal.clone();
        headers.remove(internal);
    }
    if !headers.contains_key(REQUEST_ID) {
        let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
        headers.insert(REQUEST_ID, uuid_value(id));
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    steering
}

/// Deals with names that have an underscore as it is configured.
pub(crate) fn check_names(headers: &mut HeaderMap, action: Underscores) -> Result<(), Reason> {
    let has_underscore = |name: &&HeaderName| name.as_str().contains('_');
    match action {
        Underscores::Allow => {}
        Underscores::Reject => {
            if headers.keys().any(|name| has_underscore(&name)) {
                return Err(Reason::BadRequest("underscore in a header's name".into()));
            }
        }
        Underscores::Drop => {
            while let Some(name) = headers.keys().find(has_underscore).cloned() {
                headers.remove(name);
            }
        }
    }
    Ok(())
}

fn uuid_value(id: Uuid) -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).expect("hexadecimal digits and hyphens are a header's value")
}

/// Of one try.
pub(crate) fn set_attempt(headers: &mut HeaderMap, attempt: u32) {
    headers.insert(ATTEMPT_COUNT, attempt.into());
}

/// Of an upstream's response.
pub(crate) fn set_service_time(headers: &mut HeaderMap, time: Duration) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    headers.insert(UPSTREAM_SERVICE_TIME, millis.into());
}

/// Of every response.
pub(crate) fn set_server(headers: &mut HeaderMap) {
    headers.insert(SERVER, SERVER_NAME);
}
