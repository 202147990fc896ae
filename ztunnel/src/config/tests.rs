//! Settings from given environments; nothing here reads the real one.

use mesh::balancing::ejection::Limits;

use super::*;
use crate::proxy::config::{Keepalive, OriginalSource};

fn parse(environment: &[(&str, &str)], mesh: Option<&str>) -> Result<Config, Vec<String>> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::parse(environment, mesh, 8).map_err(|error| error.0)
}

fn valid(environment: &[(&str, &str)]) -> Config {
    parse(environment, None).expect("valid")
}

#[test]
fn nothing_set_gives_istios_defaults() {
    let config = valid(&[]);
    assert_eq!(
        config.mode,
        Mode::Shared {
            inpod_uds: "/var/run/ztunnel/ztunnel.sock".into()
        }
    );
    let xds = config.xds.expect("on");
    assert_eq!(xds.address, "https://localhost:15012");
    assert_eq!(xds.headers, [("clusterid".into(), "Kubernetes".into())]);
    assert_eq!(&*config.node.cluster_id, "Kubernetes");
    assert_eq!(config.secret_ttl, Duration::from_secs(86_400));
    assert_eq!(config.proxy.packet_mark, Some(1337));
    assert_eq!(config.proxy.original_source, OriginalSource::BestEffort);
    assert_eq!(config.dns, Some(Dns { port: 15053 }));
    assert_eq!(config.termination_deadline, Duration::from_secs(5));
    assert_eq!(config.worker_threads.get(), 2);
    assert_eq!((config.ports.admin, config.ports.stats), (15000, 15020));
}

#[test]
fn inside_a_cluster_the_control_plane_is_istiod() {
    let config = valid(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);
    assert_eq!(
        config.ca.expect("on").address,
        "https://istiod.istio-system.svc:15012"
    );
}

#[test]
fn an_empty_address_turns_a_service_off() {
    let config = valid(&[("XDS_ADDRESS", ""), ("CA_ADDRESS", "cp:1")]);
    assert!(config.xds.is_none());
    assert_eq!(config.ca.expect("on").address, "https://cp:1");
}

#[test]
fn environment_over_proxy_config_over_mesh_config() {
    let mesh = "defaultConfig:\n  discoveryAddress: mesh:15012\n  statsPort: 1\n  \
                proxyMetadata: {A: mesh, B: mesh}\n";
    let config = parse(
        &[
            (
                "PROXY_CONFIG",
                "{proxyAdminPort: 2, statsPort: 3, proxyMetadata: {B: own}, other: x}",
            ),
            ("ISTIO_META_C", "env"),
            ("ISTIO_METAJSON_D", "{\"x\":1}"),
            ("CA_ADDRESS", "https://env:15012"),
        ],
        Some(mesh),
    )
    .expect("valid");
    assert_eq!(config.xds.expect("on").address, "https://mesh:15012");
    assert_eq!(config.ca.expect("on").address, "https://env:15012");
    assert_eq!((config.ports.admin, config.ports.stats), (2, 3));
    assert_eq!(
        serde_json::Value::Object(config.node_metadata),
        serde_json::json!({"A": "mesh", "B": "own", "C": "env", "D": {"x": 1}})
    );
}

#[test]
fn all_mistakes_are_reported_together() {
    let mistakes = parse(
        &[
            ("SECRET_TTL", "soon"),
            ("PROXY_MODE", "dedicated"),
            ("IPV6_ENABLED", "maybe"),
            ("HTTP2_FRAME_SIZE", "-1"),
            ("ZTUNNEL_WORKER_THREADS", "200%"),
            ("RUST_LOG", "loud"),
            ("PROXY_CONFIG", "{statsPort: many}"),
            ("KEEPALIVE_RETRIES", "few"),
        ],
        None,
    )
    .expect_err("invalid");
    for name in ["SECRET_TTL", "PROXY_WORKLOAD_INFO", "PROXY_CONFIG"] {
        assert!(
            mistakes.iter().any(|mistake| mistake.starts_with(name)),
            "{name} in {mistakes:#?}"
        );
    }
    assert_eq!(mistakes.len(), 8, "{mistakes:#?}");
}

#[test]
fn a_compliance_policy_is_kept_or_refused() {
    let of = |environment: &[(&str, &str)]| valid(environment).key_exchange;
    assert_eq!(of(&[]), KeyExchange::Preferred);
    let pqc = [("COMPLIANCE_POLICY", "pqc")];
    assert_eq!(of(&pqc), KeyExchange::PostQuantumOnly);
    let mistakes = parse(&[("COMPLIANCE_POLICY", "fips-140-9")], None).expect_err("unknown");
    assert!(mistakes[0].starts_with("COMPLIANCE_POLICY"), "{mistakes:?}");
}

#[test]
fn revocation_lists_are_read() {
    let crl_path = valid(&[("CRL_PATH", "/crl.pem")]).crl_path;
    assert_eq!(crl_path, Some("/crl.pem".into()));
}

#[test]
fn old_tls_is_refused() {
    valid(&[("TLS12_ENABLED", "false")]);
    let mistakes = parse(&[("TLS12_ENABLED", "true")], None).expect_err("refused");
    assert!(mistakes[0].contains("TLS 1.3 only"), "{mistakes:?}");
}

#[test]
fn dedicated_mode_names_its_workload() {
    let config = valid(&[
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
    ]);
    let Mode::Dedicated { workload } = config.mode else {
        panic!("not dedicated");
    };
    assert_eq!((&*workload.namespace, &*workload.name), ("shop", "web-0"));
    assert_eq!(&*workload.service_account, "web");
    assert_eq!(config.proxy.packet_mark, None);
    assert_eq!(config.node.pod_name, "web-0");
    assert_eq!(config.node.pod_namespace, "shop");
}

#[test]
fn a_nodes_tunnel_is_a_workload_only_where_all_of_it_is_told() {
    let own = [
        ("POD_NAME", "ztunnel-abcde"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ztunnel"),
    ];
    let itself = valid(&own).itself().expect("told");
    assert_eq!(&*itself.name, "ztunnel-abcde");
    assert_eq!(&*itself.namespace, "istio-system");
    assert_eq!(&*itself.service_account, "ztunnel");
    for missing in 0..own.len() {
        let mut some = own.to_vec();
        some.remove(missing);
        assert_eq!(valid(&some).itself(), None, "{some:?}");
        some.push((own[missing].0, ""));
        assert_eq!(valid(&some).itself(), None, "{some:?}");
    }
    let mut dedicated = own.to_vec();
    dedicated.extend([
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
    ]);
    assert_eq!(valid(&dedicated).itself(), None);
}

#[test]
fn the_deadline_stays_below_the_grace_period() {
    let check = |environment: &[(&str, &str)], seconds| {
        let deadline = valid(environment).termination_deadline;
        assert_eq!(deadline, Duration::from_secs(seconds), "{environment:?}");
    };
    check(&[("TERMINATION_GRACE_PERIOD_SECONDS", "30")], 25);
    check(&[("TERMINATION_GRACE_PERIOD_SECONDS", "10")], 9);
    check(&[("TERMINATION_GRACE_PERIOD_SECONDS", "1")], 1);
    check(&[("TERMINATION_GRACE_PERIOD_SECONDS", "30s")], 25);
    check(
        &[
            ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
            ("CONNECTION_TERMINATION_DEADLINE", "7s"),
        ],
        7,
    );
}

#[test]
fn worker_threads_by_number_share_and_resources() {
    let check = |environment: &[(&str, &str)], threads| {
        let config = valid(environment);
        assert_eq!(config.worker_threads.get(), threads, "{environment:?}");
    };
    check(&[("ZTUNNEL_WORKER_THREADS", "5")], 5);
    check(&[("ZTUNNEL_WORKER_THREADS", "0")], 8);
    check(&[("ZTUNNEL_WORKER_THREADS", "30%")], 3);
    check(&[("ZTUNNEL_WORKER_THREADS", "12.5%")], 1);
    check(&[("ZTUNNEL_WORKER_THREADS", "12.5001%")], 2);
    check(&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "2.0")], 2);
    check(&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "1.5")], 2);
    check(&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "4.0000001")], 5);
    check(
        &[
            ("ZTUNNEL_WORKER_THREADS", "100%"),
            ("ZTUNNEL_CPU_LIMIT", "4"),
        ],
        4,
    );
    check(&[("ZTUNNEL_RESOURCE_CPU_REQUEST", "3")], 3);
    check(
        &[
            ("ZTUNNEL_RESOURCE_CPU_LIMIT", "1"),
            ("ZTUNNEL_RESOURCE_CPU_REQUEST", "200m"),
        ],
        1,
    );
    check(&[("PROXY_CONFIG", "{concurrency: 6}")], 6);
}

#[test]
fn a_token_is_never_dumped() {
    let config = valid(&[("AUTH_TOKEN", "s3cr3t"), ("XDS_HEADER_key", "s3cr3t")]);
    let dump = serde_json::to_string(&config).expect("serialises");
    assert!(!dump.contains("s3cr3t"), "{dump}");
    assert!(
        dump.contains("\"xds\":\"https://localhost:15012\""),
        "{dump}"
    );
}

#[test]
fn a_local_mesh_is_one_text_and_on_demand_has_no_dns_proxy() {
    let file = valid(&[("LOCAL_XDS_PATH", "/mesh.yaml")]).local_xds;
    assert_eq!(file, Some(LocalXds::File("/mesh.yaml".into())));
    let both = [
        ("LOCAL_XDS_PATH", "/mesh.yaml"),
        ("LOCAL_XDS", "services: []"),
    ];
    let mistakes = parse(&both, None).expect_err("which one?");
    assert!(mistakes[0].starts_with("LOCAL_XDS"), "{mistakes:?}");

    let mistakes = parse(&[("XDS_ON_DEMAND", "true")], None).expect_err("DNS is on");
    assert!(mistakes[0].starts_with("XDS_ON_DEMAND"), "{mistakes:?}");
    let without_dns = [
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
    ];
    assert!(valid(&without_dns).xds_on_demand);
}

#[test]
fn what_istio_can_be_told_is_kept() {
    let config = valid(&[
        ("FAKE_CA", "true"),
        ("INPOD_PORT_REUSE", "false"),
        ("AUTHZ_POLICY_INFO_LOGGING", "true"),
        ("PREFERED_SERVICE_NAMESPACE", "shop"),
    ]);
    assert!(config.fake_ca && config.proxy.policy_info_logging);
    assert!(!config.proxy.port_reuse);
    assert_eq!(config.preferred_service_namespace.as_deref(), Some("shop"));
}

#[test]
fn each_of_istios_variables_has_its_effect() {
    type Check = fn(&Config) -> bool;
    let checks: &[(&str, &str, Check)] = &[
        ("ENABLE_PROXY", "false", |config| !config.enable_proxy),
        ("NETWORK", "west", |config| {
            &*config.node.network == "west" && &*config.proxy.network == "west"
        }),
        ("NODE_NAME", "node-1", |config| {
            &*config.node.name == "node-1" && &*config.proxy.node == "node-1"
        }),
        ("CLUSTER_ID", "east", |config| {
            &*config.proxy.cluster_id == "east"
        }),
        ("ISTIO_META_CLUSTER_ID", "east", |config| {
            &*config.node.cluster_id == "east"
        }),
        ("CLUSTER_DOMAIN", "corp", |config| {
            &*config.node.cluster_domain == "corp" && &*config.proxy.cluster_domain == "corp"
        }),
        ("TRUST_DOMAIN", "td", |config| {
            &*config.node.trust_domain == "td" && &*config.proxy.trust_domain == "td"
        }),
        ("SECRET_TTL", "90m", |config| {
            config.secret_ttl == Duration::from_secs(5400)
        }),
        ("INPOD_UDS", "/z", |config| {
            config.mode
                == Mode::Shared {
                    inpod_uds: "/z".into(),
                }
        }),
        ("PACKET_MARK", "7", |config| {
            config.proxy.packet_mark == Some(7)
        }),
        ("ENABLE_ORIG_SRC", "true", |config| {
            config.proxy.original_source == OriginalSource::Required
        }),
        ("ENABLE_ORIG_SRC", "false", |config| {
            config.proxy.original_source == OriginalSource::Never
        }),
        ("KEEPALIVE_ENABLED", "false", |config| {
            config.proxy.keepalive.is_none()
        }),
        ("KEEPALIVE_TIME", "10s", |config| {
            let time = Duration::from_secs(10);
            config.proxy.keepalive
                == Some(Keepalive {
                    time,
                    ..Keepalive::default()
                })
        }),
        ("KEEPALIVE_INTERVAL", "7s", |config| {
            let interval = Duration::from_secs(7);
            config.proxy.keepalive
                == Some(Keepalive {
                    interval,
                    ..Keepalive::default()
                })
        }),
        ("KEEPALIVE_RETRIES", "5", |config| {
            config
                .proxy
                .keepalive
                .is_some_and(|keepalive| keepalive.retries == 5)
        }),
        ("USER_TIMEOUT_ENABLED", "true", |config| {
            config.proxy.user_timeout
        }),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "7", |config| {
            config.proxy.tunnel.client_streams == 7
        }),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "1m", |config| {
            config.proxy.pool_idle == Duration::from_secs(60)
        }),
        ("HTTP2_STREAM_WINDOW_SIZE", "65536", |config| {
            config.proxy.tunnel.stream_window == 65_536
        }),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "131072", |config| {
            config.proxy.tunnel.connection_window == 131_072
        }),
        ("HTTP2_FRAME_SIZE", "32768", |config| {
            config.proxy.tunnel.frame_size == 32_768
        }),
        ("IPV6_ENABLED", "false", |config| {
            !config.ipv6 && !config.proxy.ipv6
        }),
        ("UNSTABLE_ENABLE_SOCKS5", "true", |config| {
            config.proxy.socks5
        }),
        ("LOCALHOST_APP_TUNNEL", "false", |config| {
            !config.proxy.localhost_app_tunnel
        }),
        ("ENABLE_RESPONSE_BAGGAGE", "false", |config| {
            !config.proxy.response_baggage
        }),
        ("POD_NAME", "z", |config| config.node.pod_name == "z"),
        ("POD_NAMESPACE", "z", |config| {
            config.node.pod_namespace == "z"
        }),
        ("SERVICE_ACCOUNT", "z", |config| {
            config.node.service_account == "z"
        }),
        ("INSTANCE_IP", "192.0.2.1", |config| {
            config.node.instance_ip.is_some()
        }),
        ("XDS_HEADER_a", "b", |config| {
            let xds = config.xds.as_ref().expect("on");
            xds.headers.contains(&("a".into(), "b".into()))
        }),
        ("CA_HEADER_a", "b", |config| {
            let ca = config.ca.as_ref().expect("on");
            ca.headers.contains(&("a".into(), "b".into()))
        }),
        ("ISTIO_META_DNS_CAPTURE", "false", |config| {
            config.dns.is_none()
        }),
        ("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:53", |config| {
            config.dns == Some(Dns { port: 53 })
        }),
        ("LOG_FORMAT", "json", |config| {
            config.log_format == logs::Format::Json
        }),
        ("RUST_LOG", "debug", |config| {
            config.log_levels != logs::Levels::default()
        }),
    ];
    let usual = valid(&[]);
    for (name, value, holds) in checks {
        assert!(holds(&valid(&[(name, value)])), "{name}={value}");
        assert!(!holds(&usual), "{name} unset");
    }
}

#[test]
fn connections_within_a_node_can_be_sent_through_tunnels() {
    assert!(valid(&[]).proxy.same_node_direct);
    let off = valid(&[("ENABLE_SAME_NODE_DIRECT", "false")]);
    assert!(!off.proxy.same_node_direct);
}

#[test]
fn addresses_of_the_cluster_are_networks() {
    assert!(valid(&[]).proxy.cluster_cidrs.is_empty());
    let config = valid(&[("CLUSTER_CIDRS", "10.244.0.0/16, fd00:244::/32")]);
    let cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().expect("a network"));
    assert_eq!(config.proxy.cluster_cidrs, cidrs);
    let mistakes = parse(&[("CLUSTER_CIDRS", "10.0.0.0/8,all")], None).expect_err("refused");
    assert_eq!(
        mistakes,
        ["CLUSTER_CIDRS: \"all\" is not a network like 10.244.0.0/16"]
    );
}

#[test]
fn ejection_has_limits_that_make_sense() {
    let config = valid(&[
        ("EJECTION_BASE_TIME", "5s"),
        ("EJECTION_MAX_TIME", "1m"),
        ("EJECTION_MAX_PERCENT", "10"),
    ]);
    let limits = Limits {
        base: Duration::from_secs(5),
        longest: Duration::from_secs(60),
        percent: 10,
    };
    assert_eq!(config.proxy.ejection, limits);
    for (name, value) in [
        ("EJECTION_BASE_TIME", "0s"),
        ("EJECTION_BASE_TIME", "31s"),
        ("EJECTION_MAX_PERCENT", "101"),
        ("EJECTION_MAX_PERCENT", "-1"),
    ] {
        let mistakes = parse(&[(name, value)], None).expect_err("refused");
        assert!(mistakes[0].starts_with(name), "{mistakes:?}");
    }
}

#[test]
fn the_metadata_wins_over_the_own_name_of_a_cluster() {
    let both = [("CLUSTER_ID", "own"), ("ISTIO_META_CLUSTER_ID", "meta")];
    let config = valid(&both);
    assert_eq!(&*config.node.cluster_id, "meta");
    let xds = config.xds.expect("on");
    assert_eq!(xds.headers[0], ("clusterid".into(), "meta".into()));
}

#[test]
fn dns_is_as_proxy_metadata_says_with_the_prefix_or_without() {
    let on = |port| Some(Dns { port });
    for (metadata, expected) in [
        ("{}", on(15053)),
        ("{DNS_CAPTURE: 'False'}", None),
        (
            "{DNS_CAPTURE: 'TRUE', DNS_PROXY_ADDR: 'localhost:53'}",
            on(53),
        ),
        ("{ISTIO_META_DNS_CAPTURE: 'false'}", None),
        (
            "{ISTIO_META_DNS_CAPTURE: 'True', DNS_CAPTURE: 'false'}",
            on(15053),
        ),
    ] {
        let text = format!("{{proxyMetadata: {metadata}}}");
        assert_eq!(valid(&[("PROXY_CONFIG", &text)]).dns, expected, "{text}");
        let over = [
            ("PROXY_CONFIG", &*text),
            ("ISTIO_META_DNS_CAPTURE", "false"),
        ];
        assert_eq!(valid(&over).dns, None, "{text}");
    }
}

#[test]
fn what_no_tunnel_could_be_opened_with_is_refused_at_the_start() {
    for (name, value) in [
        ("HTTP2_FRAME_SIZE", "16383"),
        ("HTTP2_FRAME_SIZE", "16777216"),
        ("HTTP2_STREAM_WINDOW_SIZE", "0"),
        ("HTTP2_STREAM_WINDOW_SIZE", "2147483648"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "2147483648"),
    ] {
        let mistakes = parse(&[(name, value)], None).expect_err("refused");
        let start = format!("{name}: {value} is not from ");
        assert!(mistakes[0].starts_with(&start), "{mistakes:?}");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }
    for (name, value) in [
        ("HTTP2_FRAME_SIZE", "16384"),
        ("HTTP2_FRAME_SIZE", "16777215"),
        ("HTTP2_STREAM_WINDOW_SIZE", "2147483647"),
    ] {
        valid(&[(name, value)]);
    }
}

#[test]
fn metadata_that_is_no_json_is_gone_without() {
    let config = valid(&[("ISTIO_METAJSON_D", "{"), ("ISTIO_METAJSON_E", "1")]);
    assert_eq!(
        serde_json::Value::Object(config.node_metadata),
        serde_json::json!({"E": 1})
    );
    assert_eq!(config.oddities.len(), 1);
    assert!(config.oddities[0].starts_with("ISTIO_METAJSON_D: "));
}

#[test]
fn probes_find_a_peer_gone_and_come_before_connection_tracking_forgets_one_half_closed() {
    // nf_conntrack_tcp_timeout_close_wait, unless told otherwise.
    const FORGETS: Duration = Duration::from_secs(60);
    let keepalive = Keepalive::default();
    assert!(keepalive.time < FORGETS);
    assert!(keepalive.patience() <= Duration::from_secs(90));
}
