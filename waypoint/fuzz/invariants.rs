//! What must hold of any input: nothing panics, and what has been made normal is normal.
//!
//! Both the fuzz targets and the replay of their corpora call these.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use mesh::authority::Authority;
use mesh::authorization::{Action, Authorization, Clause, PolicySet, Rule, Scope};
use mesh::authorization::{
    Condition, ConditionKey, Connection, Match, PathPattern, RequestMatch, StringMatch,
};
use mesh::json_web_token::{KeySet, Token, location};
use mesh::path::{self, PathNormalization};
use mesh::request::{Request, remote_ip};
use mesh::request_authentication::TokenLocation;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::Workload;

pub(crate) fn http1_request(input: &[u8]) {
    waypoint::http1::fuzz::request(input);
}

pub(crate) fn http1_response(input: &[u8]) {
    waypoint::http1::fuzz::response(input);
}

pub(crate) fn http1_chunked(input: &[u8]) {
    waypoint::http1::fuzz::chunked(input);
}

/// Normalizing twice changes nothing, and no step upwards is left for a later reader.
pub(crate) fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for normalization in [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ] {
        for method in [Method::GET, Method::OPTIONS] {
            let _ = normalization.target(&method, text);
        }
        let Ok(once) = normalization.path(text) else {
            continue;
        };
        assert!(once.starts_with('/') || normalization == PathNormalization::None);
        assert_eq!(normalization.path(&once), Ok(once.clone()), "{text:?}");
        let _ = path::without_parameters(&once);
        if normalization != PathNormalization::None {
            let climbs = |path: &str| path.split('/').any(|one| one == "." || one == "..");
            assert!(!climbs(&once), "{text:?} became {once:?}");
            if let Some(stripped) = path::without_parameters(&once) {
                assert!(!climbs(&stripped), "{text:?} became {stripped:?}");
            }
        }
    }
    if let Ok(PathPattern::Template(template)) = PathPattern::parse(text) {
        assert_eq!(
            PathPattern::parse(&template),
            Ok(PathPattern::Template(template.clone()))
        );
    }
}

/// What is read of an authority reads as itself again.
pub(crate) fn authority(input: &[u8]) {
    let Ok(authority) = Authority::parse(input) else {
        return;
    };
    let written = match authority.port {
        Some(port) => format!("{}:{port}", authority.host),
        None => authority.host.to_string(),
    };
    assert_eq!(Authority::parse(written.as_bytes()), Ok(authority));
}

/// The first line is a pattern, the others are values of one header: whatever they are, an ALLOW
/// and a DENY of the same condition agree.
pub(crate) fn header_values(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let pattern = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let Ok(value) = HeaderValue::from_bytes(line) else {
            continue;
        };
        for name in [
            "x-custom",
            "x-forwarded-for",
            "content-type",
            "grpc-timeout",
            "grpc-status",
        ] {
            headers.append(name, value.clone());
        }
    }
    let _ = mesh::grpc::is_grpc(&headers);
    let _ = mesh::grpc::GrpcCode::of(&headers);
    for value in headers.get_all("grpc-timeout") {
        let _ = mesh::timeout::parse_grpc_timeout(value);
    }
    let encoded = mesh::grpc::encode_message(&pattern);
    assert!(
        encoded
            .as_bytes()
            .iter()
            .all(|byte| (b' '..=b'~').contains(byte))
    );
    let remote = remote_ip(&headers).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let request = Request {
        method: &Method::GET,
        host: "web",
        port: None,
        path: "/",
        query: None,
        headers: &headers,
        remote_ip: remote,
        claims: None,
    };
    let connection = Connection {
        source_identity: None,
        source_ip: remote,
        destination: SocketAddr::from(([10, 0, 0, 1], 80)),
        dialled: None,
        sni: None,
    };
    let verdict = |action: Action| {
        let condition = Condition {
            key: ConditionKey::Header("x-custom".into()),
            values: vec![StringMatch::parse(&pattern)],
            not_values: Vec::new(),
        };
        let set = only(action, condition);
        set.authorize(&connection, Some(&request)).is_allowed()
    };
    let (allowed, spared) = (verdict(Action::Allow), verdict(Action::Deny));
    assert!(
        !(allowed && spared),
        "a value both matches and does not: {pattern:?}"
    );
}

fn only(action: Action, condition: Condition) -> PolicySet {
    let request = RequestMatch {
        conditions: vec![condition],
        ..RequestMatch::default()
    };
    let policy = Authorization {
        name: "one".into(),
        namespace: "shop".into(),
        scope: Scope::Global,
        action,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    request: Some(Arc::new(request)),
                    ..Match::default()
                }],
            }],
        }],
    };
    let mut snapshot = Snapshot::default();
    snapshot.apply([Change::Authorization(policy)]);
    PolicySet::of(
        &snapshot,
        &Workload::new("Kubernetes//Pod/shop/web", "web", "shop"),
    )
}

/// Tokens are found where they are and read without a key; none is verified by a key set of
/// strangers.
pub(crate) fn json_web_token(input: &[u8]) {
    let _ = KeySet::parse(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(token) = Token::parse(text) {
        assert!(text.contains(token.payload));
        assert!(token.verify(&strangers()).is_err());
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert("authorization", value.clone());
        headers.insert("cookie", value);
    }
    for place in [
        TokenLocation::Header {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        },
        TokenLocation::Param("access_token".into()),
        TokenLocation::Cookie("session".into()),
    ] {
        for found in location::tokens(&place, &headers, Some(text)).unwrap_or_default() {
            assert!(!found.is_empty() && text.contains(found));
            let _ = Token::parse(found);
        }
    }
}

/// The example key of RFC 8037 §A.2: whoever signed the input did not have it.
fn strangers() -> KeySet {
    let key = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    KeySet::parse(key).expect("a key")
}
