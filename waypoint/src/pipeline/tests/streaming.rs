//! Responses that last: counted to their end, cut when policy changes, told with their trailers.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use mesh::authorization::Action;
use mesh::snapshot::Change;

use super::harness::{Mesh, frames, get, post, read, run};
use super::policies::policy;
use crate::message::{Body, BodyError};
use crate::pipeline::mirror;

#[test]
fn an_open_stream_ends_when_a_policy_denies_it() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let (mut tee, copy) = mirror::copy(1024);
        mesh.upstream
            .respond(move || Response::new(Body::stream(copy)));
        let response = mesh.start(get("/events")).await;
        let reading = tokio::task::spawn_local(read(response.into_body()));
        tee.push_data(&bytes::Bytes::from_static(b"first"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        mesh.apply(vec![Change::AuthorizationPolicy(policy(
            "other",
            Action::Deny,
            "/else",
        ))]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!reading.is_finished());
        mesh.apply(vec![Change::AuthorizationPolicy(policy(
            "events",
            Action::Deny,
            "/events",
        ))]);
        let (body, _) = reading.await.expect("no panic");
        assert!(matches!(body, Err(BodyError::Reset(_))), "{body:?}");
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_flags=\"LR\""), "{lines:#?}");
    });
}

#[test]
fn grpc_is_told_with_its_messages_and_the_status_of_its_trailers() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let (mut tee, copy) = mirror::copy(1024);
        tee.push_data(&bytes::Bytes::from_static(b"\0\0\0\0\x01x\0\0\0\0\0"));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        tee.push_trailers(&trailers);
        tee.end();
        mesh.upstream
            .respond(move || Response::new(Body::stream(copy)));
        let mut request = post("/pkg.Service/Method", frames(&[b"\0\0\0\0\x02", b"ab"]));
        let kind = HeaderValue::from_static("application/grpc+proto");
        request.headers_mut().insert("content-type", kind);
        let got = mesh.send(request).await;
        assert_eq!(got.trailers.expect("trailers")["grpc-status"], "5");
        let requests = mesh.metrics("istio_requests_total");
        assert!(
            requests[0].contains("grpc_response_status=\"5\""),
            "{requests:?}"
        );
        let sent = mesh.metrics("istio_request_messages_total");
        assert!(sent[0].ends_with(" 1"), "{sent:?}");
        let received = mesh.metrics("istio_response_messages_total");
        assert!(received[0].ends_with(" 2"), "{received:?}");
    });
}

#[test]
fn a_response_that_breaks_off_is_told_so() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let (mut tee, copy) = mirror::copy(1024);
        tee.push_data(&bytes::Bytes::from_static(b"half"));
        mesh.upstream
            .respond(move || Response::new(Body::stream(copy)));
        let response = mesh.start(get("/")).await;
        drop(tee);
        let (body, _) = read(response.into_body()).await;
        assert!(body.is_err());
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_flags=\"UC\""), "{lines:#?}");
        assert!(lines[0].contains("response_code=\"200\""), "{lines:#?}");
    });
}
