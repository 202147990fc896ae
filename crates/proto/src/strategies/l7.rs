//! Arbitrary routes, whole policies and accepted tokens.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use mesh::authorization::{
    Action, Authorization, Clause, Condition, ConditionKey, Match, PathPattern, RequestMatch, Rule,
    Scope,
};
use mesh::policy_target::PolicyTarget;
use mesh::request_authentication::{
    ClaimToHeader, JwtKeys, JwtRule, RequestAuthentication, TokenLocation,
};
use mesh::route::{
    Backend, BackendRef, Cors, Filter, HeaderMatch, HeaderModifier, HttpMatch, HttpRule, PathMatch,
    PathModifier, Pattern, QueryParamMatch, RequestMirror, RequestRedirect, Retry, RetryOn, Route,
    RouteKey, RouteKind, RouteParent, RouteRules, TcpRule, Timeouts, UrlRewrite, ValueMatch,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{matching_range, name, one_match, service_key, string_match, text};

fn texts() -> impl Strategy<Value = Vec<Arc<str>>> {
    vec(text(), 0..3)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..1_000_000_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

// === Route ===

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z]{0,4}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|text| Pattern::new(&text).expect("a pattern"))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::PathPrefix),
        text().prop_map(PathMatch::StringPrefix),
        pattern().prop_map(PathMatch::RegularExpression),
    ]
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Prefix),
        pattern().prop_map(ValueMatch::RegularExpression),
        Just(ValueMatch::Present),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z-]{0,7}".prop_map(|text| text.parse().expect("a header name"))
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let header =
        (header_name(), value_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let param = (text(), value_match()).prop_map(|(name, value)| QueryParamMatch { name, value });
    let method = select(vec![Method::GET, Method::POST, Method::OPTIONS]);
    (
        option::of(path_match()),
        option::of(method),
        vec(header, 0..3),
        vec(param, 0..3),
    )
        .prop_map(|(path, method, headers, query_params)| HttpMatch {
            path,
            method,
            headers,
            query_params,
        })
}

fn header_modifier() -> impl Strategy<Value = HeaderModifier> {
    let value = || {
        vec(0x21..=0xff_u8, 0..5)
            .prop_filter("DEL", |bytes| !bytes.contains(&0x7f))
            .prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("visible"))
    };
    let headers = || vec((header_name(), value()), 0..3);
    (headers(), headers(), vec(header_name(), 0..3)).prop_map(|(set, add, remove)| HeaderModifier {
        set,
        add,
        remove,
    })
}

fn path_modifier() -> impl Strategy<Value = PathModifier> {
    prop_oneof![
        text().prop_map(PathModifier::ReplaceFullPath),
        text().prop_map(PathModifier::ReplacePrefixMatch),
    ]
}

fn backend_ref() -> impl Strategy<Value = BackendRef> {
    let service = (service_key(), any::<u16>(), option::of(text()));
    prop_oneof![
        service.prop_map(|(service, port, subset)| BackendRef::Service {
            service,
            port,
            subset,
        }),
        text().prop_map(BackendRef::Invalid),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let redirect = (
        option::of(text()),
        option::of(text()),
        option::of(path_modifier()),
        option::of(any::<u16>()),
        (301..=308_u16).prop_map(|code| StatusCode::from_u16(code).expect("a status")),
    )
        .prop_map(|(scheme, hostname, path, port, status)| RequestRedirect {
            scheme,
            hostname,
            path,
            port,
            status,
        });
    let rewrite = (option::of(text()), option::of(path_modifier()))
        .prop_map(|(hostname, path)| UrlRewrite { hostname, path });
    let mirror = (backend_ref(), any::<u32>(), any::<u32>()).prop_map(
        |(backend, numerator, denominator)| RequestMirror {
            backend,
            numerator,
            denominator,
        },
    );
    let cors = (
        (texts(), any::<bool>()),
        (texts(), texts(), texts()),
        option::of(duration()),
    )
        .prop_map(|(origins, names, max_age)| Cors {
            allow_origins: origins.0,
            allow_credentials: origins.1,
            allow_methods: names.0,
            allow_headers: names.1,
            expose_headers: names.2,
            max_age,
        });
    prop_oneof![
        header_modifier().prop_map(Filter::RequestHeaderModifier),
        header_modifier().prop_map(Filter::ResponseHeaderModifier),
        redirect.prop_map(Filter::RequestRedirect),
        rewrite.prop_map(Filter::UrlRewrite),
        mirror.prop_map(Filter::RequestMirror),
        cors.prop_map(Filter::Cors),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    (backend_ref(), any::<u32>(), vec(filter(), 0..2)).prop_map(|(backend, weight, filters)| {
        Backend {
            backend,
            weight,
            filters,
        }
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let on = select(vec![
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::Reset,
        RetryOn::ResetBeforeRequest,
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Retriable4xx,
        RetryOn::Status(503),
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
    ]);
    (any::<u32>(), vec(on, 0..4), option::of(duration())).prop_map(|(attempts, on, backoff)| {
        Retry {
            attempts,
            on,
            backoff,
        }
    })
}

fn http_rule() -> impl Strategy<Value = HttpRule> {
    let timeouts =
        (option::of(duration()), option::of(duration())).prop_map(|(request, backend_request)| {
            Timeouts {
                request,
                backend_request,
            }
        });
    (
        option::of(text()),
        vec(http_match(), 0..3),
        vec(filter(), 0..3),
        vec(backend(), 0..3),
        timeouts,
        option::of(retry()),
    )
        .prop_map(
            |(name, matches, filters, backends, timeouts, retry)| HttpRule {
                name,
                matches,
                filters,
                backends,
                timeouts,
                retry,
            },
        )
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    let kind = select(vec![
        RouteKind::Grpc,
        RouteKind::Http,
        RouteKind::VirtualService,
        RouteKind::Tls,
        RouteKind::Tcp,
    ]);
    let parent = (service_key(), option::of(any::<u16>()), option::of(name())).prop_map(
        |(service, port, clients)| RouteParent {
            service,
            port,
            clients,
        },
    );
    let tcp_rule = (option::of(text()), vec(backend(), 0..3))
        .prop_map(|(name, backends)| TcpRule { name, backends });
    let rules = prop_oneof![
        3 => vec(http_rule(), 0..3).prop_map(RouteRules::Http),
        1 => vec(tcp_rule, 0..3).prop_map(RouteRules::Tcp),
    ];
    (
        (kind, name(), name()),
        vec(parent, 0..3),
        any::<i64>(),
        rules,
    )
        .prop_map(|(key, parents, created, rules)| Route {
            key: RouteKey::new(key.0, key.1, key.2),
            parents,
            created,
            rules,
        })
}

// === AuthorizationPolicy ===

fn scope() -> impl Strategy<Value = Scope> {
    select(vec![
        Scope::Global,
        Scope::Namespace,
        Scope::WorkloadSelector,
        Scope::Target,
    ])
}

fn policy_target() -> impl Strategy<Value = PolicyTarget> {
    prop_oneof![
        service_key().prop_map(PolicyTarget::Service),
        (name(), name()).prop_map(|(namespace, name)| PolicyTarget::Gateway { namespace, name }),
        name().prop_map(PolicyTarget::GatewayClass),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let key = prop_oneof![
        text().prop_map(ConditionKey::Header),
        Just(ConditionKey::Audiences),
        Just(ConditionKey::Presenter),
        texts().prop_map(ConditionKey::Claim),
        Just(ConditionKey::TrustDomain),
        Just(ConditionKey::Sni),
    ];
    let strings = || vec(string_match(), 0..3);
    (key, strings(), strings()).prop_map(|(key, values, not_values)| Condition {
        key,
        values,
        not_values,
    })
}

fn request_match() -> impl Strategy<Value = RequestMatch> {
    let strings = || vec(string_match(), 0..2);
    let paths = || {
        let path = prop_oneof![
            string_match().prop_map(PathPattern::Text),
            text().prop_map(PathPattern::Template),
        ];
        vec(path, 0..2)
    };
    let ranges = || vec(matching_range(), 0..2);
    (
        (strings(), strings(), strings(), strings()),
        (paths(), paths()),
        (strings(), strings()),
        (ranges(), ranges()),
        vec(condition(), 0..3),
    )
        .prop_map(
            |(strings, paths, principals, ips, conditions)| RequestMatch {
                hosts: strings.0,
                not_hosts: strings.1,
                methods: strings.2,
                not_methods: strings.3,
                paths: paths.0,
                not_paths: paths.1,
                request_principals: principals.0,
                not_request_principals: principals.1,
                remote_ips: ips.0,
                not_remote_ips: ips.1,
                conditions,
            },
        )
}

pub(crate) fn authorization_policy() -> impl Strategy<Value = Authorization> {
    let one = (one_match(), option::of(request_match())).prop_map(|(one, request)| Match {
        request: request.filter(|_| one.unparsable.is_none()).map(Arc::new),
        ..one
    });
    let clause = vec(one, 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    (
        (name(), name()),
        (scope(), vec(policy_target(), 0..3)),
        select(vec![Action::Allow, Action::Deny, Action::Audit]),
        any::<bool>(),
        vec(rule, 0..3),
    )
        .prop_map(|(key, attached, action, dry_run, rules)| Authorization {
            name: key.0,
            namespace: key.1,
            scope: attached.0,
            targets: attached.1,
            action,
            dry_run,
            rules,
        })
}

// === RequestAuthentication ===

fn jwt_rule() -> impl Strategy<Value = JwtRule> {
    let keys = prop_oneof![
        text().prop_map(JwtKeys::Inline),
        text().prop_map(JwtKeys::Uri),
        Just(JwtKeys::Discovery),
    ];
    let location = prop_oneof![
        (text(), text()).prop_map(|(name, prefix)| TokenLocation::Header { name, prefix }),
        text().prop_map(TokenLocation::Param),
        text().prop_map(TokenLocation::Cookie),
    ];
    let output = (text(), text()).prop_map(|(header, claim)| ClaimToHeader { header, claim });
    (
        (text(), texts(), keys),
        vec(location, 0..3),
        (option::of(text()), vec(output, 0..3)),
        (any::<bool>(), duration(), texts()),
    )
        .prop_map(|(verified, locations, output, rest)| JwtRule {
            issuer: verified.0,
            audiences: verified.1,
            keys: verified.2,
            locations,
            output_payload_to_header: output.0,
            output_claim_to_headers: output.1,
            forward_original_token: rest.0,
            timeout: rest.1,
            space_delimited_claims: rest.2,
        })
}

pub(crate) fn request_authentication() -> impl Strategy<Value = RequestAuthentication> {
    (
        (name(), name()),
        (scope(), vec(policy_target(), 0..3)),
        vec(jwt_rule(), 0..3),
        option::of(text()),
    )
        .prop_map(|(key, attached, rules, unparsable)| RequestAuthentication {
            namespace: key.0,
            name: key.1,
            scope: attached.0,
            targets: attached.1,
            rules,
            unparsable,
        })
}
