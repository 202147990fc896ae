//! Every attribute of a request, row by row, and what once went wrong in other proxies.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;

use super::super::{
    Action, Authorization, Clause, Connection, Match, PathPattern, Rule, Scope, ServiceAccountMatch,
};
use super::*;
use crate::identity::Identity;

/// A request to change; `GET http://shop.test/` by default.
struct Message {
    method: Method,
    host: &'static str,
    port: Option<u16>,
    path: &'static str,
    query: Option<&'static str>,
    headers: HeaderMap,
    remote_ip: &'static str,
    claims: Option<Claims>,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            method: Method::GET,
            host: "shop.test",
            port: None,
            path: "/",
            query: None,
            headers: HeaderMap::new(),
            remote_ip: "192.0.2.1",
            claims: None,
        }
    }
}

impl Message {
    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            host: self.host,
            port: self.port,
            path: self.path,
            query: self.query,
            headers: &self.headers,
            remote_ip: self.remote_ip.parse().expect("address"),
            claims: self.claims.as_ref(),
        }
    }

    fn path(path: &'static str) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    fn headers(headers: &[(&'static str, &'static [u8])]) -> Self {
        let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("allowed");
        let header = |(name, bytes): &(&'static str, &'static [u8])| {
            (HeaderName::from_static(name), value(bytes))
        };
        Self {
            headers: headers.iter().map(header).collect(),
            ..Self::default()
        }
    }

    fn claims(claims: serde_json::Value) -> Self {
        let text = |name: &str| claims[name].as_str().unwrap_or_default().into();
        Self {
            claims: Some(Claims {
                issuer: text("iss"),
                subject: text("sub"),
                audiences: vec!["shop".into(), "bank".into()],
                presenter: claims["azp"].as_str().map(Into::into),
                all: claims.as_object().expect("object").clone(),
                space_delimited: vec!["scope".into(), "permission".into()],
            }),
            ..Self::default()
        }
    }
}

fn connection() -> Connection {
    Connection::new(
        Some(Identity::new("cluster.local", "shop", "web")),
        [10, 0, 0, 1].into(),
        ([10, 0, 0, 2], 8080).into(),
    )
}

fn policy(action: Action, one: Match) -> Authorization {
    Authorization {
        name: "policy".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause { matches: vec![one] }],
        }],
    }
}

/// Whether an ALLOW and a DENY policy of this one match hold.
fn holds(one: RequestMatch, message: &Message) -> (bool, bool) {
    let one = Match {
        request: Some(Arc::new(one)),
        ..Match::default()
    };
    let request = message.request();
    let of = |action| policy(action, one.clone()).matches(&connection(), Some(&request));
    (of(Action::Allow), of(Action::Deny))
}

fn patterns(texts: &[&str]) -> Vec<StringMatch> {
    texts.iter().map(|text| StringMatch::parse(text)).collect()
}

fn when(key: ConditionKey, values: &[&str], not_values: &[&str]) -> RequestMatch {
    RequestMatch {
        conditions: vec![Condition {
            key,
            values: patterns(values),
            not_values: patterns(not_values),
        }],
        ..RequestMatch::default()
    }
}

fn when_header(values: &[&str], not_values: &[&str]) -> RequestMatch {
    when(ConditionKey::Header("x-a".into()), values, not_values)
}

fn claim(path: &[&str]) -> ConditionKey {
    ConditionKey::Claim(path.iter().map(|name| (*name).into()).collect())
}

const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);
/// What is in doubt doesn't allow, and denies.
const DOUBT: (bool, bool) = (false, true);

#[test]
fn hosts() {
    for (pattern, host, port, expected) in [
        ("shop.test", "shop.test", None, BOTH),
        ("shop.test", "shop.test", Some(8080), BOTH),
        ("shop.test:8080", "shop.test", Some(8080), BOTH),
        ("shop.test:8080", "shop.test", Some(80), NEITHER),
        ("shop.test:8080", "shop.test", None, NEITHER),
        ("*.test", "shop.test", Some(80), BOTH),
        ("*:80", "shop.test", Some(80), BOTH),
        ("shop.*", "shop.test", None, BOTH),
        ("*", "shop.test", None, BOTH),
        ("*", "", None, NEITHER),
        ("shop.test", "shop.testing", None, NEITHER),
        ("shop.test", "a.shop.test", None, NEITHER),
        ("[fd00::1]:80", "[fd00::1]", Some(80), BOTH),
    ] {
        let message = Message {
            host,
            port,
            ..Message::default()
        };
        let one = RequestMatch {
            hosts: patterns(&[pattern]),
            ..RequestMatch::default()
        };
        assert_eq!(holds(one, &message), expected, "{pattern} {host} {port:?}");
        let one = RequestMatch {
            not_hosts: patterns(&[pattern]),
            ..RequestMatch::default()
        };
        let (allow, deny) = expected;
        assert_eq!(
            holds(one, &message),
            (!allow, !deny),
            "not {pattern} {host}"
        );
    }
}

#[test]
fn methods() {
    for (values, not_values, expected) in [
        (&["GET", "HEAD"][..], &[][..], BOTH),
        (&["POST"], &[], NEITHER),
        (&["get"], &[], NEITHER),
        (&["G*"], &[], BOTH),
        (&["*"], &[], BOTH),
        (&[], &["POST"], BOTH),
        (&[], &["POST", "GET"], NEITHER),
        (&["GET"], &["*"], NEITHER),
    ] {
        let one = RequestMatch {
            methods: patterns(values),
            not_methods: patterns(not_values),
            ..RequestMatch::default()
        };
        let held = holds(one, &Message::default());
        assert_eq!(held, expected, "{values:?} {not_values:?}");
    }
}

#[test]
fn paths() {
    for (pattern, path, expected) in [
        ("/admin", "/admin", BOTH),
        ("/admin", "/Admin", NEITHER),
        ("/admin", "/admin/", NEITHER),
        ("/admin*", "/admin/x", BOTH),
        ("*.jpg", "/a/b.jpg", BOTH),
        ("*", "/", BOTH),
        ("/a/{*}", "/a/b", BOTH),
        ("/a/{**}", "/a/b/c", BOTH),
        ("/a/{*}", "/a/b/c", NEITHER),
    ] {
        let parsed = || vec![PathPattern::parse(pattern).expect("valid")];
        let one = RequestMatch {
            paths: parsed(),
            ..RequestMatch::default()
        };
        assert_eq!(
            holds(one, &Message::path(path)),
            expected,
            "{pattern} {path}"
        );
        let one = RequestMatch {
            not_paths: parsed(),
            ..RequestMatch::default()
        };
        let (allow, deny) = expected;
        let held = holds(one, &Message::path(path));
        assert_eq!(held, (!allow, !deny), "not {pattern} {path}");
    }
}

#[test]
fn a_template_that_is_none_allows_nothing_and_denies() {
    let one = RequestMatch {
        paths: vec![PathPattern::Template("/{*}.txt".into())],
        ..RequestMatch::default()
    };
    assert_eq!(holds(one, &Message::path("/a")), DOUBT);
}

#[test]
fn request_principals_split_at_the_last_slash() {
    let token = json!({"iss": "https://issuer.test", "sub": "me"});
    let (longer, unnamed) = (
        json!({"iss": "https://issuer.test/evil", "sub": "me"}),
        json!({"iss": "https://issuer.test"}),
    );
    for (pattern, claims, expected) in [
        ("https://issuer.test/me", &token, BOTH),
        ("https://issuer.test/you", &token, NEITHER),
        ("https://issuer.test/*", &token, BOTH),
        ("https://issuer.test/m*", &token, BOTH),
        ("*/me", &token, BOTH),
        ("*.test/me", &token, BOTH),
        ("*", &token, BOTH),
        // Its text begins like the pattern, its issuer isn't the pattern's.
        ("https://issuer.test/*", &longer, DOUBT),
        ("*", &unnamed, DOUBT),
    ] {
        let message = Message::claims(claims.clone());
        let one = RequestMatch {
            request_principals: patterns(&[pattern]),
            ..RequestMatch::default()
        };
        assert_eq!(holds(one, &message), expected, "{pattern} {claims}");
        let one = RequestMatch {
            not_request_principals: patterns(&[pattern]),
            ..RequestMatch::default()
        };
        let not = match expected {
            DOUBT => DOUBT,
            (allow, deny) => (!allow, !deny),
        };
        assert_eq!(holds(one, &message), not, "not {pattern} {claims}");
    }
}

#[test]
fn without_a_token_only_what_must_not_be_in_one_holds() {
    let any = patterns(&["*"]);
    let with = RequestMatch {
        request_principals: any.clone(),
        ..RequestMatch::default()
    };
    let without = RequestMatch {
        not_request_principals: any,
        ..RequestMatch::default()
    };
    assert_eq!(holds(with, &Message::default()), NEITHER);
    assert_eq!(holds(without, &Message::default()), BOTH);
    for key in [
        ConditionKey::Audiences,
        ConditionKey::Presenter,
        claim(&["a"]),
    ] {
        let held = |values, not| holds(when(key.clone(), values, not), &Message::default());
        assert_eq!(held(&["*"], &[]), NEITHER);
        assert_eq!(held(&[], &["a"]), BOTH);
    }
}

#[test]
fn remote_addresses_are_the_client_s() {
    for (net, remote_ip, expected) in [
        ("192.0.2.0/24", "192.0.2.1", BOTH),
        ("192.0.2.0/24", "::ffff:192.0.2.1", BOTH),
        ("10.0.0.0/8", "192.0.2.1", NEITHER),
        ("fd00::/8", "fd00::1", BOTH),
    ] {
        let message = Message {
            remote_ip,
            ..Message::default()
        };
        let one = RequestMatch {
            remote_ips: vec![net.parse().expect("net")],
            ..RequestMatch::default()
        };
        assert_eq!(holds(one, &message), expected, "{net} {remote_ip}");
        let one = RequestMatch {
            not_remote_ips: vec![net.parse().expect("net")],
            ..RequestMatch::default()
        };
        let (allow, deny) = expected;
        assert_eq!(
            holds(one, &message),
            (!allow, !deny),
            "not {net} {remote_ip}"
        );
    }
}

#[test]
fn headers() {
    for (values, not_values, headers, expected) in [
        (&["a"][..], &[][..], &[("x-a", &b"a"[..])][..], BOTH),
        (&["a"], &[], &[("x-b", b"a")], NEITHER),
        (&["a"], &[], &[("x-a", b"A")], NEITHER),
        (&["a*"], &[], &[("x-a", b"abc")], BOTH),
        (&["*c"], &[], &[("x-a", b"abc")], BOTH),
        (&["*"], &[], &[("x-a", b"")], BOTH),
        (&["*"], &[], &[], NEITHER),
        (&[], &["a"], &[], BOTH),
        (&[], &["*"], &[("x-a", b"")], NEITHER),
        (&["a*"], &["*c"], &[("x-a", b"abc")], NEITHER),
    ] {
        let held = holds(when_header(values, not_values), &Message::headers(headers));
        assert_eq!(held, expected, "{values:?} {not_values:?} {headers:?}");
    }
}

#[test]
fn the_request_line_has_headers_names_too() {
    let message = Message {
        port: Some(8080),
        path: "/a",
        query: Some("b=c"),
        ..Message::headers(&[("host", b"other.test")])
    };
    for (name, value, expected) in [
        (":method", "GET", BOTH),
        (":path", "/a?b=c", BOTH),
        (":path", "/a", NEITHER),
        (":authority", "SHOP.test:8080", BOTH),
        ("host", "shop.test", BOTH),
        ("host", "other.test", NEITHER),
        (":scheme", "http", DOUBT),
    ] {
        let one = when(ConditionKey::Header(name.into()), &[value], &[]);
        assert_eq!(holds(one, &message), expected, "{name} {value}");
    }
}

#[test]
fn claims() {
    let token = json!({
        "iss": "issuer", "sub": "me", "azp": "app",
        "groups": ["admin", "staff"],
        "scope": "read write",
        "title": "read write",
        "realm": {"roles": ["owner"], "name": "north"},
        "admin": true, "level": 3, "nothing": null,
    });
    for (key, value, expected) in [
        (claim(&["groups"]), "admin", BOTH),
        (claim(&["groups"]), "adm*", BOTH),
        (claim(&["groups"]), "other", NEITHER),
        (claim(&["scope"]), "write", BOTH),
        (claim(&["scope"]), "read write", NEITHER),
        (claim(&["title"]), "write", NEITHER),
        (claim(&["title"]), "read write", BOTH),
        (claim(&["realm", "roles"]), "owner", BOTH),
        (claim(&["realm", "name"]), "north", BOTH),
        (claim(&["realm"]), "*", NEITHER),
        (claim(&["realm", "name", "deeper"]), "*", NEITHER),
        (claim(&["admin"]), "true", BOTH),
        (claim(&["level"]), "3", BOTH),
        (claim(&["nothing"]), "*", NEITHER),
        (claim(&[]), "*", NEITHER),
        (ConditionKey::Audiences, "bank", BOTH),
        (ConditionKey::Audiences, "other", NEITHER),
        (ConditionKey::Presenter, "app", BOTH),
    ] {
        let message = Message::claims(token.clone());
        let one = when(key.clone(), &[value], &[]);
        assert_eq!(holds(one, &message), expected, "{key} {value}");
        let (allow, deny) = expected;
        let one = when(key.clone(), &[], &[value]);
        assert_eq!(holds(one, &message), (!allow, !deny), "{key} not {value}");
    }
}

#[test]
fn trust_domain_and_server_name_are_the_connection_s() {
    let with = |sni: Option<&str>| Connection {
        sni: sni.map(Into::into),
        ..connection()
    };
    let plaintext = Connection {
        source_identity: None,
        ..with(None)
    };
    for (key, value, connection, expected) in [
        (ConditionKey::TrustDomain, "cluster.local", with(None), true),
        (ConditionKey::TrustDomain, "other", with(None), false),
        (ConditionKey::TrustDomain, "*", plaintext, false),
        (
            ConditionKey::Sni,
            "*.shop.test",
            with(Some("A.Shop.Test")),
            true,
        ),
        (ConditionKey::Sni, "*", with(None), false),
    ] {
        let one = Match {
            request: Some(Arc::new(when(key, &[value], &[]))),
            ..Match::default()
        };
        for action in [Action::Allow, Action::Deny] {
            let policy = policy(action, one.clone());
            assert_eq!(policy.matches(&connection, None), expected, "{value}");
        }
    }
}

#[test]
fn a_condition_without_values_allows_nothing_and_denies() {
    assert_eq!(holds(when_header(&[], &[]), &Message::default()), DOUBT);
}

#[test]
fn an_empty_request_match_never_holds() {
    assert_eq!(holds(RequestMatch::default(), &Message::default()), NEITHER);
}

#[test]
fn every_attribute_must_hold() {
    let one = |host| RequestMatch {
        hosts: patterns(&[host]),
        methods: patterns(&["GET"]),
        paths: vec![PathPattern::parse("/").expect("valid")],
        ..RequestMatch::default()
    };
    assert_eq!(holds(one("shop.test"), &Message::default()), BOTH);
    assert_eq!(holds(one("bank.test"), &Message::default()), NEITHER);
}

// === What went wrong elsewhere ===

#[test]
fn cve_2019_12243_deny_rules_about_requests_hold_for_tcp() {
    let one = Match {
        destination_ports: vec![8080],
        request: Some(Arc::new(RequestMatch {
            methods: patterns(&["GET"]),
            not_paths: vec![PathPattern::parse("/health").expect("valid")],
            ..RequestMatch::default()
        })),
        ..Match::default()
    };
    let matches = |action, one: &Match| policy(action, one.clone()).matches(&connection(), None);
    assert!(matches(Action::Deny, &one));
    assert!(matches(Action::Audit, &one));
    assert!(!matches(Action::Allow, &one));
    let elsewhere = Match {
        destination_ports: vec![443],
        ..one
    };
    assert!(!matches(Action::Deny, &elsewhere));
}

#[test]
fn cve_2020_16844_principals_by_their_end_deny_on_tcp() {
    let one = Match {
        principals: patterns(&["*/ns/shop/sa/web"]),
        ..Match::default()
    };
    assert!(policy(Action::Deny, one).matches(&connection(), None));
    let across = Match {
        principals: patterns(&["*al/ns/shop/sa/web"]),
        ..Match::default()
    };
    assert!(policy(Action::Deny, across).matches(&connection(), None));
}

#[test]
fn cve_2020_25017_and_2021_32777_each_value_of_a_repeated_header_counts() {
    for headers in [
        [("x-a", &b"good"[..]), ("x-a", &b"evil"[..])],
        [("x-a", &b"evil"[..]), ("x-a", &b"good"[..])],
    ] {
        let message = Message::headers(&headers);
        assert_eq!(holds(when_header(&["evil"], &[]), &message), DOUBT);
        assert_eq!(holds(when_header(&["good"], &[]), &message), DOUBT);
        assert_eq!(holds(when_header(&["good", "evil"], &[]), &message), BOTH);
        // Not good is what the second value is, and not what the first one is.
        assert_eq!(holds(when_header(&[], &["good"]), &message), DOUBT);
        assert_eq!(
            holds(when_header(&[], &["good", "evil"]), &message),
            NEITHER
        );
    }
}

#[test]
fn cve_2026_26308_repeated_headers_are_not_one_text() {
    let message = Message::headers(&[("x-a", b"evil"), ("x-a", b"evil")]);
    assert_eq!(holds(when_header(&["evil"], &[]), &message), BOTH);
    for joined in ["evil,evil", "evil, evil"] {
        assert_eq!(holds(when_header(&[joined], &[]), &message), NEITHER);
    }
}

#[test]
fn cve_2026_73552_bytes_that_are_no_text_are_compared_as_they_are() {
    let message = Message::headers(&[("x-a", b"evil\xff")]);
    assert_eq!(holds(when_header(&["evil*"], &[]), &message), BOTH);
    assert_eq!(holds(when_header(&[], &["evil*"]), &message), NEITHER);
    assert_eq!(holds(when_header(&["*"], &[]), &message), BOTH);
    assert_eq!(holds(when_header(&["good"], &[]), &message), NEITHER);
    let both = Message::headers(&[("x-a", b"\xff"), ("x-a", b"good")]);
    assert_eq!(holds(when_header(&["good"], &[]), &both), DOUBT);
}

#[test]
fn cve_2021_39155_hosts_have_no_letter_case() {
    for pattern in ["SHOP.test", "*.TEST", "Shop.*", "shop.TEST:80"] {
        let one = RequestMatch {
            hosts: patterns(&[pattern]),
            ..RequestMatch::default()
        };
        let message = Message {
            port: Some(80),
            ..Message::default()
        };
        assert_eq!(holds(one, &message), BOTH, "{pattern}");
    }
}

#[test]
fn cve_2025_46821_a_star_in_the_path_is_no_operator() {
    let one = RequestMatch {
        paths: vec![PathPattern::parse("/admin/{*}").expect("valid")],
        ..RequestMatch::default()
    };
    assert_eq!(holds(one, &Message::path("/admin/*")), BOTH);
}

#[test]
fn cve_2026_39350_a_dot_in_a_service_account_is_a_dot() {
    let one = |account: &str| Match {
        service_accounts: vec![ServiceAccountMatch {
            namespace: "shop".into(),
            service_account: account.into(),
        }],
        ..Match::default()
    };
    assert!(policy(Action::Allow, one("web")).matches(&connection(), None));
    for other in ["w.b", "we.", "*", "we*", "web.*"] {
        let policy = policy(Action::Allow, one(other));
        assert!(!policy.matches(&connection(), None), "{other}");
    }
}

#[test]
fn cve_2026_73551_and_73553_a_path_is_read_with_and_without_parameters() {
    let of = |pattern: &str, path| {
        let one = RequestMatch {
            paths: vec![PathPattern::parse(pattern).expect("valid")],
            ..RequestMatch::default()
        };
        holds(one, &Message::path(path))
    };
    assert_eq!(of("/admin", "/admin;x=y"), DOUBT);
    assert_eq!(of("/admin/{*}", "/admin;x/a"), DOUBT);
    assert_eq!(of("/admin*", "/admin;x"), BOTH);
    assert_eq!(of("*.css", "/admin;x.css"), DOUBT);
    assert_eq!(of("/admin;v=1", "/admin;v=1"), BOTH);
}

#[test]
fn cve_2020_8595_the_query_is_no_part_of_the_path() {
    let one = RequestMatch {
        paths: vec![PathPattern::parse("/admin").expect("valid")],
        ..RequestMatch::default()
    };
    let message = Message {
        query: Some("a=/b"),
        ..Message::path("/admin")
    };
    assert_eq!(holds(one, &message), BOTH);
}
