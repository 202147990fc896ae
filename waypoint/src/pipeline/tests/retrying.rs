//! Tries, their limits in number and time, and what is answered when they are used up.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use mesh::route::{Retry, RetryOn, Timeouts};
use tokio::time::Instant;

use super::harness::{Mesh, frames, get, post, route, rule, run};
use crate::message::{Body, BodyError, UpstreamError};

fn connect() -> UpstreamError {
    UpstreamError::Connect("refused".to_owned())
}

fn reset() -> UpstreamError {
    UpstreamError::Reset {
        head_sent: true,
        reason: "closed".to_owned(),
    }
}

fn retry(attempts: u32, on: &[RetryOn]) -> Mesh {
    let mut rule = rule("/", &[("web", 1)], vec![]);
    rule.retry = Some(Retry {
        attempts,
        on: on.to_vec(),
        backoff: None,
    });
    Mesh::new(vec![route(vec![rule])])
}

fn timeouts(request: Option<u64>, backend_request: Option<u64>) -> Mesh {
    let mut rule = rule("/", &[("web", 1)], vec![]);
    rule.timeouts = Timeouts {
        request: request.map(Duration::from_millis),
        backend_request: backend_request.map(Duration::from_millis),
    };
    Mesh::new(vec![route(vec![rule])])
}

#[test]
fn connections_that_fail_are_tried_elsewhere_with_the_same_body() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        mesh.upstream.fails(connect());
        let got = mesh.send(post("/", frames(&[b"one", b"two"]))).await;
        assert_eq!(got.status, StatusCode::OK);
        let seen = mesh.upstream.seen();
        assert_eq!(seen.len(), 2);
        assert_ne!(seen[0].workload, seen[1].workload);
        assert_eq!(seen[1].body, b"onetwo");
        assert_eq!(seen[1].headers["x-envoy-attempt-count"], "2");
    });
}

#[test]
fn after_three_failures_the_last_one_is_the_answer() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        mesh.upstream
            .fails(connect())
            .fails(connect())
            .fails(connect());
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(got.text().starts_with("upstream connect error"), "{got:?}");
        assert_eq!(mesh.upstream.seen().len(), 3);
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_flags=\"URX,UF\""), "{lines:#?}");
    });
}

#[test]
fn what_may_have_happened_is_not_tried_again_unasked() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        mesh.upstream.fails(reset());
        let got = mesh.send(post("/", Body::Empty)).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(mesh.upstream.seen().len(), 1);
    });
}

#[test]
fn statuses_are_retried_where_a_route_says_so() {
    run(async || {
        let mesh = retry(1, &[RetryOn::Status(503)]);
        mesh.upstream.responds(503);
        let got = mesh
            .send(post("/", Body::Full(Bytes::from_static(b"x"))))
            .await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(mesh.upstream.last().body, b"x");
        mesh.upstream.responds(503).responds(503);
        let got = mesh.send(get("/")).await;
        assert_eq!(
            (got.status, &*got.text()),
            (StatusCode::SERVICE_UNAVAILABLE, "scripted")
        );
    });
}

/// CVE-2024-34364.
#[test]
fn a_body_too_large_to_keep_ends_retries() {
    run(async || {
        let mesh = retry(3, &[RetryOn::Status(503)]);
        mesh.upstream.responds(503);
        static LARGE: [u8; 40 << 10] = [7; 40 << 10];
        let got = mesh.send(post("/", frames(&[&LARGE, &LARGE]))).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(mesh.upstream.seen().len(), 1);
        assert_eq!(mesh.upstream.last().body.len(), 80 << 10);
    });
}

#[test]
fn a_request_takes_no_longer_than_it_may() {
    run(async || {
        let mesh = timeouts(Some(500), None);
        mesh.upstream.takes(Duration::from_secs(5));
        let began = Instant::now();
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(got.text(), "upstream request timeout");
        assert_eq!(began.elapsed().as_millis(), 500);
    });
}

#[test]
fn a_try_takes_no_longer_than_it_may_and_the_whole_bounds_all() {
    run(async || {
        let mut rule = rule("/", &[("web", 1)], vec![]);
        rule.timeouts = Timeouts {
            request: Some(Duration::from_secs(10)),
            backend_request: Some(Duration::from_millis(100)),
        };
        rule.retry = Some(Retry {
            attempts: 1,
            on: vec![RetryOn::ServerError],
            backoff: None,
        });
        let mesh = Mesh::new(vec![route(vec![rule])]);
        mesh.upstream.takes(Duration::from_secs(5));
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::OK);
        mesh.upstream
            .takes(Duration::from_secs(5))
            .takes(Duration::from_secs(5));
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(mesh.upstream.seen().len(), 4);
    });
}

/// The whole may end in the pause between two tries, with nothing under way.
#[test]
fn cve_2024_23322_a_limit_that_ends_in_a_pause_is_answered() {
    run(async || {
        let mut rule = rule("/", &[("web", 1)], vec![]);
        rule.timeouts.request = Some(Duration::from_millis(500));
        rule.retry = Some(Retry {
            attempts: 3,
            on: vec![RetryOn::Status(503)],
            backoff: Some(Duration::from_secs(2)),
        });
        let mesh = Mesh::new(vec![route(vec![rule])]);
        mesh.upstream.responds(503);
        let began = Instant::now();
        let got = mesh.send(post("/", frames(&[b"body"]))).await;
        assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(began.elapsed().as_millis(), 500);
        assert_eq!(mesh.upstream.seen().len(), 1);
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_flags=\"UT\""), "{lines:#?}");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(mesh.upstream.seen().len(), 1);
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
    });
}

#[test]
fn grpc_clients_limit_themselves_and_are_answered_in_grpc() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        mesh.upstream.takes(Duration::from_secs(5));
        let mut request = post("/pkg.Service/Method", Body::Empty);
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-timeout", HeaderValue::from_static("50m"));
        let began = Instant::now();
        let got = mesh.send(request).await;
        assert_eq!(began.elapsed().as_millis(), 50);
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.header("grpc-status"), Some("14"));
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("request_protocol=\"grpc\""), "{lines:#?}");
        assert!(
            lines[0].contains("grpc_response_status=\"14\""),
            "{lines:#?}"
        );
        let mut request = post("/pkg.Service/Method", Body::Empty);
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-timeout", HeaderValue::from_static("99999999999S"));
        let got = mesh.send(request).await;
        assert_eq!(got.header("grpc-status"), Some("13"));
    });
}

#[test]
fn a_limit_holds_until_the_last_byte() {
    run(async || {
        let mesh = timeouts(Some(500), None);
        mesh.upstream.respond(|| {
            let (_tee, copy) = crate::pipeline::mirror::copy(1);
            std::mem::forget(_tee);
            Response::new(Body::stream(copy))
        });
        let began = Instant::now();
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.body, Err(BodyError::Timeout));
        assert_eq!(began.elapsed().as_millis(), 500);
    });
}

#[test]
fn a_client_that_leaves_is_counted() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        mesh.upstream.takes(Duration::from_secs(5));
        let left = tokio::time::timeout(Duration::from_secs(1), mesh.send(get("/"))).await;
        assert!(left.is_err());
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_code=\"0\""), "{lines:#?}");
        assert!(lines[0].contains("response_flags=\"DC\""), "{lines:#?}");
    });
}

fn asking(fields: &[(&'static str, &'static str)]) -> http::Request<Body> {
    let mut request = post("/", Body::Full(Bytes::from_static(b"x")));
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(*name, value);
    }
    request
}

#[test]
fn a_client_asks_for_retries_of_its_own_request() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let on = ("x-envoy-retry-on", "5xx");
        mesh.upstream.responds(500).responds(500).responds(500);
        let got = mesh.send(asking(&[on, ("x-envoy-max-retries", "3")])).await;
        assert_eq!(got.status, StatusCode::OK);
        let seen = mesh.upstream.seen();
        assert_eq!(seen.len(), 4);
        assert!(!seen[0].headers.contains_key("x-envoy-retry-on"));
        assert!(!seen[0].headers.contains_key("x-envoy-max-retries"));
        mesh.upstream.responds(500);
        let got = mesh.send(asking(&[on, ("x-envoy-max-retries", "0")])).await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
        mesh.upstream.responds(500);
        let far = asking(&[on, ("x-forwarded-for", "10.0.0.7")]);
        let got = mesh.send(far).await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
    });
}

#[test]
fn a_client_shortens_the_time_that_a_route_allows() {
    run(async || {
        let mesh = timeouts(Some(500), None);
        for (asked, passed) in [("200", 200), ("9000", 500)] {
            mesh.upstream.takes(Duration::from_secs(5));
            let began = Instant::now();
            let request = asking(&[("x-envoy-upstream-rq-timeout-ms", asked)]);
            let got = mesh.send(request).await;
            assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(began.elapsed().as_millis(), passed);
        }
        mesh.upstream.takes(Duration::from_secs(5));
        let got = mesh
            .send(asking(&[
                ("x-envoy-upstream-rq-per-try-timeout-ms", "100"),
                ("x-envoy-retry-on", "reset"),
            ]))
            .await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(mesh.upstream.seen().len(), 4);
    });
}
