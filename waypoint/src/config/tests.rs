//! Settings from given environments; nothing here reads the real one.

use super::*;

const REQUIRED: [(&str, &str); 6] = [
    ("POD_NAME", "waypoint-1"),
    ("POD_NAMESPACE", "shop"),
    ("GATEWAY_NAME", "waypoint"),
    ("INSTANCE_IP", "10.0.0.9"),
    ("XDS_ADDRESS", "cp:15012"),
    ("CA_ADDRESS", "cp:15012"),
];

fn parse(settings: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::parse(environment, 3).map_err(|error| error.0)
}

fn with(settings: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    parse(&[&REQUIRED, settings].concat())
}

#[test]
fn a_waypoint_is_named_after_its_gateway() {
    let config = with(&[]).expect("valid");
    assert_eq!(
        config.proxy.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/waypoint"
    );
    assert_eq!(
        config.proxy.hostname().to_string(),
        "shop/waypoint.shop.svc.cluster.local"
    );
    let classed = with(&[("GATEWAY_CLASS_NAME", "weft-waypoint")]).expect("valid");
    assert_eq!(&*classed.proxy.gateway_class, "weft-waypoint");
    assert_eq!(config.xds.address, "https://cp:15012");
    assert_eq!(config.worker_threads.get(), 3);
    assert_eq!(config.access_log, Some(Format::Text));
    assert_eq!(config.path_normalization, PathNormalization::Base);
}

#[test]
fn keys_are_not_fetched_from_the_host_and_the_cloud() {
    let config = with(&[]).expect("valid");
    let blocked = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        let ranges = &config.jwks.blocked_cidrs;
        ranges.iter().any(|range| range.contains(&address))
    };
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "0.0.0.0",
    ] {
        assert!(blocked(address), "{address}");
    }
    assert!(!blocked("10.0.0.1"));
    assert!(!blocked("8.8.8.8"));
    let config = with(&[("BLOCKED_CIDRS_IN_JWKS_URIS", "")]).expect("valid");
    assert!(config.jwks.blocked_cidrs.is_empty());
}

#[test]
fn all_mistakes_are_reported_together() {
    let mistakes = with(&[
        ("PATH_NORMALIZATION", "SOME"),
        ("ACCESS_LOG_ENCODING", "XML"),
        ("BLOCKED_CIDRS_IN_JWKS_URIS", "10.0.0.0/8,ten"),
        ("SECRET_TTL", "soon"),
        ("RUST_LOG", "loud"),
        ("MAX_REQUEST_HEADERS_COUNT", "9999"),
    ])
    .expect_err("invalid");
    assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
    let mistakes = parse(&[("XDS_ADDRESS", ""), ("CA_ADDRESS", "")]).expect_err("incomplete");
    for name in [
        "POD_NAME:",
        "POD_NAMESPACE:",
        "GATEWAY_NAME:",
        "INSTANCE_IP:",
        "XDS_ADDRESS:",
        "CA_ADDRESS:",
    ] {
        assert!(
            mistakes.iter().any(|mistake| mistake.starts_with(name)),
            "{name} in {mistakes:#?}"
        );
    }
}

#[test]
fn a_token_is_never_dumped() {
    let config = with(&[("AUTH_TOKEN", "s3cr3t"), ("XDS_HEADER_key", "s3cr3t")]).expect("valid");
    let dump = serde_json::to_string(&config).expect("serialises");
    assert!(!dump.contains("s3cr3t"), "{dump}");
}

#[test]
fn capacity_and_underscores_are_set() {
    let config = with(&[
        ("MAX_TUNNELS", "10"),
        ("MAX_CONNECTIONS", "20"),
        ("MAX_REQUESTS", "30"),
        ("HEADERS_WITH_UNDERSCORES_ACTION", "REJECT_REQUEST"),
    ])
    .expect("valid");
    let capacity = config.limits.capacity;
    assert_eq!(
        (capacity.tunnels, capacity.connections, capacity.requests),
        (10, 20, 30)
    );
    assert_eq!(config.underscores, Underscores::Reject);
    assert!(with(&[("HEADERS_WITH_UNDERSCORES_ACTION", "NO")]).is_err());
}
