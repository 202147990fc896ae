//! Each reason's answer.

use super::*;

#[track_caller]
fn check(reason: Reason, status: u16, flag: &str, details: &str) {
    let reply = reason.reply();
    let short = reply.flag.map_or("-", ResponseFlag::short);
    let actual = (reply.status.as_u16(), short, &*reply.details);
    assert_eq!(actual, (status, flag, details), "{reason:?}");
    // One word in a log's line, one header in a reply to gRPC.
    assert!(!reply.details.contains([' ', '\n', '"']), "{details}");
}

#[test]
fn each_reason_has_its_answer() {
    use Reason as R;
    let policy = PolicyKey {
        namespace: "shop".into(),
        name: "deny".into(),
    };
    let reset = |why| format!("upstream_reset_before_response_started{{{why}}}");
    check(R::BadRequest("no host".into()), 400, "DPE", "bad_request");
    check(R::PayloadTooLarge, 413, "-", "request_payload_too_large");
    check(
        R::InvalidToken("Jwt is expired".into()),
        401,
        "UAEX",
        "jwt_authn_access_denied{Jwt_is_expired}",
    );
    check(
        R::AuthorizationDenied(Some(policy)),
        403,
        "-",
        "rbac_access_denied_matched_policy[ns[shop]-policy[deny]]",
    );
    check(
        R::AuthorizationDenied(None),
        403,
        "-",
        "rbac_access_denied_matched_policy[none]",
    );
    let teapot = StatusCode::IM_A_TEAPOT;
    check(
        R::ExternalAuthorizationDenied(teapot),
        418,
        "UAEX",
        "ext_authz_denied",
    );
    check(
        R::ExternalAuthorizationError,
        403,
        "UAEX",
        "ext_authz_error",
    );
    check(R::RateLimited, 429, "RL", "request_rate_limited");
    check(R::NoRoute, 404, "NR", "route_not_found");
    check(R::NoBackend("a".into()), 500, "NC", "cluster_not_found");
    check(R::NoHealthyUpstream, 503, "UH", "no_healthy_upstream");
    check(
        R::ConnectFailure("a".into()),
        503,
        "UF",
        &reset("connection_failure"),
    );
    check(R::UpstreamReset, 503, "UR", &reset("remote_reset"));
    check(
        R::UpstreamClosed,
        503,
        "UC",
        &reset("connection_termination"),
    );
    check(
        R::UpstreamRefusedStream,
        503,
        "UR",
        &reset("remote_refused_stream_reset"),
    );
    check(
        R::UpstreamProtocolError("a".into()),
        502,
        "UPE",
        &reset("protocol_error"),
    );
    check(R::RequestTimeout, 504, "UT", "response_timeout");
    check(R::PerTryTimeout, 504, "UT", "upstream_per_try_timeout");
    check(R::StreamIdleTimeout, 504, "SI", "stream_idle_timeout");
    check(R::Overflow, 503, "UO", &reset("overflow"));
    check(R::Overload, 503, "OM", "overload");
    check(R::FaultAbort(teapot), 418, "FI", "fault_filter_abort");
    check(
        R::DownstreamClosed,
        499,
        "DC",
        "downstream_remote_disconnect",
    );
}

#[test]
fn a_reply_is_text() {
    let response = Reason::Overflow.reply().response(&HeaderMap::new());
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["x-envoy-overloaded"], "true");
    assert_eq!(response.body(), "upstream overflow");
}

#[test]
fn a_reply_to_grpc_is_a_status_without_messages() {
    let mut request = HeaderMap::new();
    request.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/grpc+proto"),
    );
    let reason = Reason::BadRequest("100% \u{fc}".into());
    let response = reason.reply().response(&request);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "13");
    assert_eq!(
        response.headers()["grpc-message"],
        "bad request: 100%25 %C3%BC"
    );
    assert_eq!(response.body(), "");
    let denied = Reason::AuthorizationDenied(None).reply().response(&request);
    assert_eq!(denied.headers()["grpc-status"], "7");
}

#[test]
fn a_refused_token_says_how_to_authenticate() {
    let response = Reason::InvalidToken("a\r\nb".into())
        .reply()
        .response(&HeaderMap::new());
    assert_eq!(response.status(), 401);
    assert_eq!(
        response.headers()["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
}
