//! Random policies, connections and requests, out of few values, so that they meet often.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::request::{Claims, Request};

const PATTERNS: &[&str] = &[
    "/admin",
    "/admin*",
    "*/x",
    "*",
    "/{*}/x",
    "/admin/{**}",
    "/{**}/x",
    "/admin;x",
];

/// An owned request.
#[derive(Clone, Debug)]
pub(super) struct Message {
    method: Method,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    pub(super) remote_ip: IpAddr,
    claims: Option<Claims>,
}

impl Message {
    pub(super) fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            host: &self.host,
            port: self.port,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            remote_ip: self.remote_ip,
            claims: self.claims.as_ref(),
        }
    }
}

/// Mostly none: with many attributes set hardly any match would ever hold.
fn few<T: Clone + fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![5 => Just(Vec::new()), 1 => vec(values, 1..3)]
}

fn texts_of(
    texts: &'static [&'static str],
    number: Range<usize>,
) -> impl Strategy<Value = Vec<StringMatch>> {
    vec(select(texts).prop_map(StringMatch::parse), number)
}

fn any_text(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<StringMatch>> {
    few(select(texts).prop_map(StringMatch::parse))
}

fn any_nets() -> impl Strategy<Value = Vec<IpNet>> {
    const NETS: &[&str] = &[
        "10.0.0.0/8",
        "10.0.0.1/32",
        "192.0.2.0/24",
        "::/0",
        "fd00::/8",
        "0.0.0.0/0",
    ];
    few(select(NETS).prop_map(|net| net.parse().expect("literal")))
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let claim =
        |path: &[&str]| ConditionKey::Claim(path.iter().map(|name| (*name).into()).collect());
    let keys = vec![
        ConditionKey::Header("x-a".into()),
        ConditionKey::Header("x-a".into()),
        ConditionKey::Audiences,
        ConditionKey::Presenter,
        claim(&["groups"]),
        claim(&["scope"]),
        claim(&["nested", "inner"]),
        claim(&["nested"]),
        claim(&["admin"]),
        ConditionKey::TrustDomain,
        ConditionKey::Sni,
    ];
    let values = || {
        texts_of(
            &["*", "a", "b", "a*", "*b", "true", "cluster.local", "A.b"],
            0..3,
        )
    };
    (select(keys), values(), values()).prop_map(|(key, values, not_values)| Condition {
        key,
        values,
        not_values,
    })
}

fn any_request_match() -> impl Strategy<Value = RequestMatch> {
    let hosts = || {
        any_text(&[
            "*",
            "shop.test",
            "SHOP.*",
            "*.test",
            "*:8080",
            "shop.test:80",
        ])
    };
    let methods = || any_text(&["GET", "*", "P*", "*T"]);
    let paths = || few(select(PATTERNS).prop_map(|text| PathPattern::parse(text).expect("valid")));
    let principals = || any_text(&["*", "iss/sub", "iss/*", "*/sub", "iss*", "*ub", "iss/a/sub"]);
    (
        (hosts(), hosts(), methods(), methods()),
        (paths(), paths(), principals(), principals()),
        (any_nets(), any_nets(), few(any_condition())),
    )
        .prop_map(|(operation, more, rest)| RequestMatch {
            hosts: operation.0,
            not_hosts: operation.1,
            methods: operation.2,
            not_methods: operation.3,
            paths: more.0,
            not_paths: more.1,
            request_principals: more.2,
            not_request_principals: more.3,
            remote_ips: rest.0,
            not_remote_ips: rest.1,
            conditions: rest.2,
        })
}

fn any_match_of_everything() -> impl Strategy<Value = Match> {
    let namespaces = || any_text(&["*", "shop", "sh*", "*nk", "other"]);
    let principals = || {
        any_text(&[
            "*",
            "cluster.local/ns/shop/sa/web",
            "*/sa/db",
            "cluster.local/*",
            "*al/ns/shop/sa/web",
            "other",
        ])
    };
    let accounts = || {
        let one = select(&[("shop", "web"), ("bank", "db"), ("shop", "db")][..]);
        few(one.prop_map(|(namespace, account)| ServiceAccountMatch {
            namespace: namespace.into(),
            service_account: account.into(),
        }))
    };
    let ports = || few(select(&[80_u16, 443][..]));
    let request = proptest::option::weighted(0.7, any_request_match().prop_map(Arc::new));
    let unparsable = proptest::option::weighted(0.05, Just("reason".into()));
    (
        (namespaces(), namespaces(), principals(), principals()),
        (accounts(), accounts(), ports(), ports()),
        (any_nets(), any_nets(), any_nets(), any_nets()),
        request,
        unparsable,
    )
        .prop_map(|(texts, rest, nets, request, unparsable)| Match {
            namespaces: texts.0,
            not_namespaces: texts.1,
            principals: texts.2,
            not_principals: texts.3,
            service_accounts: rest.0,
            not_service_accounts: rest.1,
            destination_ports: rest.2,
            not_destination_ports: rest.3,
            source_ips: nets.0,
            not_source_ips: nets.1,
            destination_ips: nets.2,
            not_destination_ips: nets.3,
            request,
            unparsable,
        })
}

/// About one thing only, so that it alone decides.
fn any_match_of_one() -> impl Strategy<Value = RequestMatch> {
    let condition = any_condition().prop_map(|condition| RequestMatch {
        conditions: vec![condition],
        ..RequestMatch::default()
    });
    let path = (select(PATTERNS), any::<bool>()).prop_map(|(text, negated)| {
        let patterns = vec![PathPattern::parse(text).expect("valid")];
        let (paths, not_paths) = match negated {
            false => (patterns, Vec::new()),
            true => (Vec::new(), patterns),
        };
        RequestMatch {
            paths,
            not_paths,
            ..RequestMatch::default()
        }
    });
    prop_oneof![2 => condition, 1 => path]
}

/// By which policies are found.
fn any_match_of_sources() -> impl Strategy<Value = Match> {
    let texts = |texts: &'static [&'static str]| texts_of(texts, 0..2);
    let principals = texts(&[
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/bank/sa/db",
        "no",
    ]);
    let account = Just(ServiceAccountMatch {
        namespace: "shop".into(),
        service_account: "db".into(),
    });
    let named = (principals, texts(&["shop", "b*"]), vec(account, 0..2));
    (named, prop::bool::ANY).prop_map(|((principals, namespaces, service_accounts), excepts)| {
        match excepts {
            false => Match {
                principals,
                namespaces,
                service_accounts,
                ..Match::default()
            },
            true => Match {
                not_principals: principals,
                not_namespaces: namespaces,
                not_service_accounts: service_accounts,
                ..Match::default()
            },
        }
    })
}

fn any_match() -> impl Strategy<Value = Match> {
    let of_one = any_match_of_one().prop_map(|one| Match {
        request: Some(Arc::new(one)),
        ..Match::default()
    });
    prop_oneof![2 => any_match_of_everything(), 2 => of_one, 1 => any_match_of_sources()]
}

pub(super) fn any_policies() -> impl Strategy<Value = Vec<Authorization>> {
    policies(0..4)
}

pub(super) fn policies(number: Range<usize>) -> impl Strategy<Value = Vec<Authorization>> {
    let clause = vec(any_match(), 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    let action = select(&[Action::Allow, Action::Deny, Action::Audit][..]);
    let one = (action, proptest::bool::weighted(0.1), vec(rule, 0..3));
    vec(one, number).prop_map(|policies| {
        let number = |(n, (action, dry_run, rules))| Authorization {
            dry_run,
            ..policy(&format!("policy-{n}"), action, rules)
        };
        policies.into_iter().enumerate().map(number).collect()
    })
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    const IPS: &[&str] = &[
        "10.0.0.1",
        "10.9.9.9",
        "192.0.2.7",
        "fd00::1",
        "2001:db8::1",
    ];
    select(IPS).prop_map(|ip| ip.parse().expect("literal"))
}

pub(super) fn any_connection() -> impl Strategy<Value = Connection> {
    let identity = select(&[("shop", "web"), ("shop", "db"), ("bank", "db")][..])
        .prop_map(|(namespace, account)| Identity::new("cluster.local", namespace, account));
    let sni = proptest::option::of(select(&["a.B", "b"][..]).prop_map(Arc::from));
    (
        proptest::option::of(identity),
        any_ip(),
        any_ip(),
        select(&[80_u16, 443, 8080][..]),
        sni,
    )
        .prop_map(|(source_identity, source_ip, ip, port, sni)| Connection {
            sni,
            ..Connection::new(source_identity, source_ip, SocketAddr::new(ip, port))
        })
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let issuer = select(&["iss", "iss/a", "other"][..]);
    let subject = select(&["sub", "", "a/sub"][..]);
    let groups = select(vec![
        json!(["a", "c"]),
        json!([]),
        json!([7, true]),
        json!("a"),
        json!(null),
        json!([["a"]]),
    ]);
    let scope = select(&["a b", "b", "c"][..]);
    let audiences = vec(select(&["a", "b", "c"][..]).prop_map(Arc::from), 0..3);
    let presenter = proptest::option::of(select(&["a", "c"][..]).prop_map(Arc::from));
    (
        issuer,
        subject,
        groups,
        scope,
        audiences,
        presenter,
        any::<bool>(),
    )
        .prop_map(
            |(issuer, subject, groups, scope, audiences, presenter, admin)| {
                let all = json!({
                    "groups": groups,
                    "scope": scope,
                    "nested": {"inner": ["b"]},
                    "admin": admin,
                });
                Claims {
                    issuer: issuer.into(),
                    subject: subject.into(),
                    audiences,
                    presenter,
                    all: all.as_object().expect("object").clone(),
                    space_delimited: vec!["scope".into()],
                }
            },
        )
}

pub(super) fn any_message() -> impl Strategy<Value = Message> {
    let method = select(&["GET", "POST", "PUT"][..]).prop_map(|m| m.parse().expect("method"));
    let host = select(&["shop.test", "bank.test", "other"][..]).prop_map(String::from);
    let port = proptest::option::of(select(&[80_u16, 8080][..]));
    const PATHS: &[&str] = &[
        "/",
        "/admin",
        "/admin;x",
        "/admin/x",
        "/admin;y/x",
        "/*/x",
        "/a/b/x",
        "/x",
    ];
    let path = select(PATHS).prop_map(String::from);
    const VALUES: &[&[u8]] = &[b"a", b"b", b"", b"a\xff", b"\xfe b"];
    let headers = vec(select(VALUES), 0..3).prop_map(|values| {
        let name = HeaderName::from_static("x-a");
        let value = |value: &[u8]| HeaderValue::from_bytes(value).expect("allowed");
        values
            .into_iter()
            .map(|bytes| (name.clone(), value(bytes)))
            .collect()
    });
    (
        (method, host, port, path),
        headers,
        any_ip(),
        proptest::option::of(any_claims()),
    )
        .prop_map(|(line, headers, remote_ip, claims)| Message {
            method: line.0,
            host: line.1,
            port: line.2,
            path: line.3,
            query: None,
            headers,
            remote_ip,
            claims,
        })
}
