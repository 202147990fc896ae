//! Responses that last: counted to their end, cut when policy changes, told with their trailers.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mesh::authorization::Action;
use mesh::snapshot::Change;

use super::harness::{Mesh, frames, get, pod, post, read, run};
use super::policies::policy;
use crate::message::{Body, BodyError, ConnectionMeter, Pipeline};
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

/// Both directions of what is no longer HTTP are the request's and the response's.
#[test]
fn an_upgraded_connection_is_counted_both_ways() {
    run(async || {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mesh = Mesh::new(vec![]);
        let (near, mut far) = tokio::io::duplex(64);
        mesh.upstream.respond(move || {
            let mut response = Response::new(Body::Upgraded(Box::pin(near)));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        });
        let response = mesh.start(get("/socket")).await;
        let Body::Upgraded(mut io) = response.into_body() else {
            panic!("not switched");
        };
        io.write_all(&[1; 40]).await.expect("sent");
        far.write_all(&[2; 50]).await.expect("sent");
        io.read_exact(&mut [0; 50]).await.expect("received");
        drop(io);
        let sum = |family: &str| {
            let lines = mesh.metrics(&format!("{family}_sum"));
            lines[0]
                .rsplit(' ')
                .next()
                .and_then(|sum| sum.parse::<f64>().ok())
        };
        let plain = Mesh::new(vec![]);
        plain.send(get("/socket")).await;
        let head = plain.metrics("istio_request_bytes_sum");
        let head: f64 = head[0]
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .parse()
            .expect("a sum");
        assert_eq!(sum("istio_request_bytes"), Some(head + 40.0));
        assert!(sum("istio_response_bytes").is_some_and(|sum| sum >= 50.0));
    });
}

/// A client that makes up paths, hosts and headers makes up no series.
#[test]
fn cve_2025_43915_nothing_that_a_client_says_makes_a_series() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        for number in 0..200 {
            let request = http::Request::get(format!("/{number}?{number}"))
                .header("host", format!("host-{number}.example"))
                .header("user-agent", number.to_string())
                .header("x-request-id", number.to_string())
                .header(format!("x-{number}"), "x");
            let request = request.body(Body::Empty).expect("a request");
            assert_eq!(mesh.send(request).await.status, StatusCode::OK);
        }
        // One for each endpoint.
        assert_eq!(mesh.metrics("istio_requests_total").len(), 2);
    });
}

#[test]
fn messages_are_counted_while_their_stream_is_open() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let (mut tee, copy) = mirror::copy(1024);
        mesh.upstream
            .respond(move || Response::new(Body::stream(copy)));
        let mut request = post("/pkg.Service/Watch", frames(&[b"\0\0\0\0\x01", b"a"]));
        let kind = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert("content-type", kind);
        let response = mesh.start(request).await;
        let reading = tokio::task::spawn_local(read(response.into_body()));
        for count in 1..=3 {
            tee.push_data(&bytes::Bytes::from_static(b"\0\0\0\0\x01x"));
            tokio::time::sleep(Duration::from_secs(1)).await;
            let received = mesh.metrics("istio_response_messages_total");
            assert!(received[0].ends_with(&format!(" {count}")), "{received:?}");
        }
        let sent = mesh.metrics("istio_request_messages_total");
        assert!(sent[0].ends_with(" 1"), "{sent:?}");
        assert!(!sent[0].contains("response_code"), "{sent:?}");
        assert!(mesh.metrics("istio_requests_total").is_empty());
        // However long nothing comes, the count goes on where it was.
        let registry = &mesh.shared.registry;
        let hour = Duration::from_secs(3600);
        let now = std::time::Instant::now();
        registry.forget_idle(now, hour);
        registry.forget_idle(now + 2 * hour, hour);
        tee.push_data(&bytes::Bytes::from_static(b"\0\0\0\0\x01x"));
        tee.end();
        reading.await.expect("no panic").0.expect("a whole body");
        let received = mesh.metrics("istio_response_messages_total");
        assert!(received[0].ends_with(" 4"), "{received:?}");
    });
}

#[test]
fn requests_beyond_the_capacity_are_answered_503() {
    run(async || {
        let mut config = super::harness::config();
        config.limits.capacity.requests = 1;
        let mesh = Mesh::with(config, vec![]);
        let (tee, copy) = mirror::copy(1024);
        mesh.upstream
            .respond(move || Response::new(Body::stream(copy)));
        let open = mesh.start(get("/")).await;
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(got.header("x-envoy-overloaded"), Some("true"));
        let lines = mesh.metrics("istio_requests_total");
        assert!(lines[0].contains("response_flags=\"OM\""), "{lines:#?}");
        tee.end();
        assert!(read(open.into_body()).await.0.is_ok());
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
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

fn is_denied(meter: &Rc<dyn ConnectionMeter>) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    meter.poll_denied(cx) == Poll::Ready(())
}

#[test]
fn an_open_connection_is_denied_when_a_policy_denies_it() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let downstream = mesh.downstream();
        let route = mesh.pipeline.route_connection(&downstream).await;
        let route = route.expect("nothing denies it");
        route.meter.connected(&route.hops[0], Ok(()));
        assert!(!is_denied(&route.meter));
        let mut elsewhere = policy("elsewhere", Action::Deny, "/x");
        elsewhere.targets = vec![mesh::policy_target::PolicyTarget::Service(
            super::harness::host("other"),
        )];
        mesh.apply(vec![Change::AuthorizationPolicy(elsewhere)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!is_denied(&route.meter));
        let denies = policy("denies", Action::Deny, "/x");
        mesh.apply(vec![Change::AuthorizationPolicy(denies)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(is_denied(&route.meter));
        route.meter.closed(Some("a policy denies it now"));
        let closed = mesh.metrics("istio_tcp_connections_closed_total");
        assert!(closed[0].ends_with(" 1"), "{closed:?}");
    });
}

#[test]
fn a_policy_that_comes_while_an_endpoint_is_dialled_denies_the_connection() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let downstream = mesh.downstream();
        let route = mesh.pipeline.route_connection(&downstream).await;
        let route = route.expect("nothing denies it");
        let denies = policy("denies", Action::Deny, "/x");
        mesh.apply(vec![Change::AuthorizationPolicy(denies)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        route.meter.connected(&route.hops[0], Ok(()));
        assert!(is_denied(&route.meter));
    });
}

/// The endpoints are not alike, so that each is asked about by itself.
#[test]
fn what_is_open_is_asked_about_with_its_endpoint_as_it_is_now() {
    run(async || {
        let own = |name: &str, path: &str| {
            let mut own = policy(name, Action::Deny, path);
            own.targets.clear();
            own.scope = mesh::authorization::Scope::WorkloadSelector;
            own
        };
        let selected = |pod: &str, address: &str, name: &str| {
            let mut pod = self::pod(pod, address, &["web"]);
            pod.request_policies = vec![mesh::authorization::PolicyKey::new("shop", name)];
            Change::Workload(pod)
        };
        let mesh = Mesh::new(vec![
            Change::AuthorizationPolicy(own("zero", "/zero")),
            Change::AuthorizationPolicy(own("one", "/one")),
            selected("web-0", "10.0.0.1", "zero"),
        ]);
        let downstream = mesh.downstream();
        let route = mesh.pipeline.route_connection(&downstream).await;
        let route = route.expect("web-1 has no policy");
        assert_eq!(route.hops[0].workload.name(), "web-1");
        route.meter.connected(&route.hops[0], Ok(()));
        assert!(!is_denied(&route.meter));
        mesh.apply(vec![selected("web-1", "10.0.0.2", "one")]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(is_denied(&route.meter));
        // Asking about what is open must not decide for what comes with the old endpoint either.
        for _ in 0..20 {
            let got = mesh.send(get("/one")).await;
            let reached = mesh.upstream.seen().pop().map(|seen| seen.workload);
            match got.status {
                StatusCode::FORBIDDEN => {}
                _ => assert_eq!(reached.as_deref(), Some("web-0")),
            }
        }
    });
}
