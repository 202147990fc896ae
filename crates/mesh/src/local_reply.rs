//! What the proxy answers itself: each reason to its status, flag, details and body.
//!
//! Flags and details are Envoy's well-known words, as dashboards and searches know them.

pub mod response_flag;

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};

use crate::authorization::PolicyKey;
use crate::grpc::{self, GrpcCode};
use response_flag::ResponseFlag;

/// Why the proxy answers in place of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request can't be understood in one way; says how.
    BadRequest(Cow<'static, str>),
    /// The body is larger than what has to be kept of it.
    PayloadTooLarge,
    /// A token is malformed, expired, or of an issuer that is not accepted; says which.
    InvalidToken(Cow<'static, str>),
    /// By this policy, or by none that allows.
    AuthorizationDenied(Option<PolicyKey>),
    ExternalAuthorizationDenied(StatusCode),
    ExternalAuthorizationError,
    RateLimited,
    /// Routes are attached and none is about the request.
    NoRoute,
    /// The rule has no backend with a weight, or the one drawn is not there.
    NoBackend(Arc<str>),
    NoHealthyUpstream,
    /// The name of the only endpoint leads nowhere; says why.
    NoAddress(Arc<str>),
    /// Nothing reached an endpoint.
    ConnectFailure(Arc<str>),
    UpstreamReset,
    /// Closed without a response.
    UpstreamClosed,
    UpstreamRefusedStream,
    UpstreamProtocolError(Arc<str>),
    /// The whole exchange took too long.
    RequestTimeout,
    /// One try did, and there is no other.
    PerTryTimeout,
    StreamIdleTimeout,
    /// A limit of connections, requests or retries of the destination.
    Overflow,
    /// A limit of the proxy itself.
    Overload,
    /// A fault that was asked for.
    FaultAbort(StatusCode),
    /// Nobody is there to be answered; for the log.
    DownstreamClosed,
}

/// What is answered and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub status: StatusCode,
    pub flag: Option<ResponseFlag>,
    /// `response_code_details`.
    pub details: Cow<'static, str>,
    pub body: Cow<'static, str>,
    pub header: Option<(HeaderName, HeaderValue)>,
}

// === impl Reason ===

impl Reason {
    /// The one mapping from reasons to answers.
    pub fn reply(&self) -> LocalReply {
        use ResponseFlag as Flag;
        match self {
            Self::BadRequest(what) => reply(400, "bad_request", format!("bad request: {what}"))
                .flag(Flag::DownstreamProtocolError),
            Self::PayloadTooLarge => reply(413, "request_payload_too_large", "payload too large"),
            Self::InvalidToken(what) => reply(
                401,
                format!("jwt_authn_access_denied{{{}}}", word(what)),
                what.clone(),
            )
            .flag(Flag::UnauthorizedExternalService)
            .header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            Self::AuthorizationDenied(policy) => {
                let matched = policy.as_ref().map_or_else(
                    || "none".to_owned(),
                    |key| format!("ns[{}]-policy[{}]", key.namespace, key.name),
                );
                let details = format!("rbac_access_denied_matched_policy[{matched}]");
                reply(403, details, "RBAC: access denied")
            }
            Self::ExternalAuthorizationDenied(status) => reply(
                status.as_u16(),
                "ext_authz_denied",
                "external authorization denied",
            )
            .flag(Flag::UnauthorizedExternalService),
            Self::ExternalAuthorizationError => {
                reply(403, "ext_authz_error", "external authorization failed")
                    .flag(Flag::UnauthorizedExternalService)
            }
            Self::RateLimited => reply(429, "request_rate_limited", "rate limited")
                .flag(Flag::RateLimited)
                .header(HeaderName::from_static("x-envoy-ratelimited"), "true"),
            Self::NoRoute => reply(404, "route_not_found", "no route matches the request")
                .flag(Flag::NoRouteFound),
            Self::NoBackend(which) => {
                reply(500, "cluster_not_found", format!("no backend: {which}"))
                    .flag(Flag::NoClusterFound)
            }
            Self::NoHealthyUpstream => reply(503, "no_healthy_upstream", "no healthy upstream")
                .flag(Flag::NoHealthyUpstream),
            Self::NoAddress(why) => reply(
                503,
                "dns_resolution_failure",
                format!("no healthy upstream: {why}"),
            )
            .flag(Flag::DnsResolutionFailed),
            Self::ConnectFailure(why) => reset(
                "connection_failure",
                format!("upstream connect error: {why}"),
            )
            .flag(Flag::UpstreamConnectionFailure),
            Self::UpstreamReset => reset("remote_reset", "upstream reset before a response")
                .flag(Flag::UpstreamRemoteReset),
            Self::UpstreamClosed => reset(
                "connection_termination",
                "upstream closed before a response",
            )
            .flag(Flag::UpstreamConnectionTermination),
            Self::UpstreamRefusedStream => {
                reset("remote_refused_stream_reset", "upstream refused the stream")
                    .flag(Flag::UpstreamRemoteReset)
            }
            Self::UpstreamProtocolError(what) => LocalReply {
                status: StatusCode::BAD_GATEWAY,
                ..reset("protocol_error", format!("upstream protocol error: {what}"))
                    .flag(Flag::UpstreamProtocolError)
            },
            Self::RequestTimeout => reply(504, "response_timeout", "upstream request timeout")
                .flag(Flag::UpstreamRequestTimeout),
            Self::PerTryTimeout => {
                reply(504, "upstream_per_try_timeout", "upstream request timeout")
                    .flag(Flag::UpstreamRequestTimeout)
            }
            Self::StreamIdleTimeout => {
                reply(504, "stream_idle_timeout", "stream timeout").flag(Flag::StreamIdleTimeout)
            }
            Self::Overflow => reset("overflow", "upstream overflow")
                .flag(Flag::UpstreamOverflow)
                .header(HeaderName::from_static("x-envoy-overloaded"), "true"),
            Self::Overload => reply(503, "overload", "the proxy is overloaded")
                .flag(Flag::OverloadManager)
                .header(HeaderName::from_static("x-envoy-overloaded"), "true"),
            Self::FaultAbort(status) => {
                reply(status.as_u16(), "fault_filter_abort", "fault filter abort")
                    .flag(Flag::FaultInjected)
            }
            // 499, as others log what was never sent.
            Self::DownstreamClosed => reply(499, "downstream_remote_disconnect", "")
                .flag(Flag::DownstreamConnectionTermination),
        }
    }
}

fn reply(
    status: u16,
    details: impl Into<Cow<'static, str>>,
    body: impl Into<Cow<'static, str>>,
) -> LocalReply {
    LocalReply {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        flag: None,
        details: details.into(),
        body: body.into(),
        header: None,
    }
}

fn reset(why: &str, body: impl Into<Cow<'static, str>>) -> LocalReply {
    let details = format!("upstream_reset_before_response_started{{{why}}}");
    reply(503, details, body)
}

/// Details are one word in a log's line.
fn word(text: &str) -> String {
    text.replace(|character: char| !character.is_ascii_alphanumeric(), "_")
}

// === impl LocalReply ===

impl LocalReply {
    fn flag(self, flag: ResponseFlag) -> Self {
        let flag = Some(flag);
        Self { flag, ..self }
    }

    fn header(self, name: HeaderName, value: &'static str) -> Self {
        let header = Some((name, HeaderValue::from_static(value)));
        Self { header, ..self }
    }

    /// The response to a request with these headers. To gRPC it is one without messages: the
    /// status of HTTP is 200, that of gRPC is in the head.
    pub fn response(&self, request: &HeaderMap) -> Response<Cow<'static, str>> {
        let is_grpc = grpc::is_grpc(request);
        let (status, kind, body) = if is_grpc {
            (StatusCode::OK, "application/grpc", Cow::Borrowed(""))
        } else {
            (self.status, "text/plain", self.body.clone())
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if is_grpc {
            let code = GrpcCode::of_status(self.status).as_str();
            headers.insert("grpc-status", HeaderValue::from_static(code));
            headers.insert("grpc-message", grpc::encode_message(&self.body));
        }
        if let Some((name, value)) = &self.header {
            headers.insert(name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests;
