//! From settings as text to the typed configuration.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hbone::settings::Settings;
use identity::{KeyExchange, grpc};
use ipnet::IpNet;
use mesh::balancing::ejection::Limits;

use super::raw::Raw;
use super::{
    ADMIN_PORT, Config, Dns, LocalXds, Mode, Node, Ports, READINESS_PORT, STATS_PORT, workers,
};
use crate::metrics::IDLE;
use crate::proxy::config::{Keepalive, OriginalSource};
use crate::proxy::{self, WorkloadInfo};

/// SO_MARK by which a pod's redirect rules know the tunnel's own sockets.
const PACKET_MARK: u32 = 1337;
const ZDS: &str = "/var/run/ztunnel/ztunnel.sock";
/// Beside the agent's socket, in a folder that all tunnels of a node see.
const HANDOVER: &str = "handover.sock";
const HANDOVER_DEADLINE: Duration = Duration::from_secs(600);
/// RFC 9113 §6.9.1.
const WINDOWS: RangeInclusive<u32> = 1..=(1 << 31) - 1;
/// RFC 9113 §6.5.2.
const FRAMES: RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

pub(super) fn config(raw: &mut Raw, cpus: usize) -> Option<Config> {
    let mode = mode(raw);
    let mut node = node(raw);
    // A tunnel of one workload introduces itself as that workload.
    if let Some(Mode::Dedicated { workload }) = &mode {
        let or = |text: &mut String, default: &str| {
            if text.is_empty() {
                *text = default.to_owned();
            }
        };
        or(&mut node.pod_name, &workload.name);
        or(&mut node.pod_namespace, &workload.namespace);
        or(&mut node.service_account, &workload.service_account);
    }
    refuse_tls12(raw);
    // Where the mode is a mistake, the other settings are still looked at.
    let assumed = mode.clone().unwrap_or_else(|| shared(raw));
    let config = Config {
        mode: assumed.clone(),
        xds: control_plane(raw, "XDS"),
        ca: control_plane(raw, "CA"),
        local_xds: local_xds(raw),
        xds_on_demand: on_demand(raw),
        preferred_service_namespace: raw.text("PREFERED_SERVICE_NAMESPACE").map(Into::into),
        fake_ca: raw.truth("FAKE_CA", false),
        crl_path: raw.text("CRL_PATH").map(Into::into),
        secret_ttl: raw.duration("SECRET_TTL", Duration::from_secs(86_400)),
        node_metadata: raw.node_metadata(),
        enable_proxy: raw.truth("ENABLE_PROXY", true),
        proxy: proxy(raw, &node, &assumed),
        dns: dns(raw),
        termination_deadline: termination_deadline(raw),
        handover_uds: handover_uds(raw, &assumed),
        handover_deadline: raw.duration("ZTUNNEL_HANDOVER_DEADLINE", HANDOVER_DEADLINE),
        worker_threads: workers::threads(raw, cpus),
        ports: Ports {
            admin: raw.proxy_config.proxy_admin_port.unwrap_or(ADMIN_PORT),
            stats: raw.proxy_config.stats_port.unwrap_or(STATS_PORT),
            readiness: READINESS_PORT,
        },
        metrics_idle_timeout: metrics_idle_timeout(raw),
        key_exchange: key_exchange(raw),
        ipv6: raw.truth("IPV6_ENABLED", true),
        oddities: raw.oddities(),
        log_levels: raw.parsed("RUST_LOG").unwrap_or_default(),
        log_format: raw.parsed("LOG_FORMAT").unwrap_or_default(),
        node,
    };
    mode.map(|_| config)
}

/// Istio's tunnel can be told to speak TLS 1.2. Whoever asks for that must not believe to have it:
/// there certificates, and with them identities, cross in clear, and no key exchange is
/// post-quantum.
fn refuse_tls12(raw: &mut Raw) {
    if raw.truth("TLS12_ENABLED", false) {
        raw.mistake("TLS12_ENABLED: tunnels speak TLS 1.3 only; unset it, or set it to false");
    }
}

fn metrics_idle_timeout(raw: &mut Raw) -> Duration {
    let name = "METRICS_IDLE_TIMEOUT";
    let timeout = raw.duration(name, IDLE);
    if timeout < Duration::from_secs(1) {
        raw.mistake(format!(
            "{name}: less than a second is too short to be scraped"
        ));
    }
    timeout
}

fn local_xds(raw: &mut Raw) -> Option<LocalXds> {
    let file = raw.text("LOCAL_XDS_PATH").map(PathBuf::from);
    let text = raw.text("LOCAL_XDS");
    if file.is_some() && text.is_some() {
        raw.mistake("LOCAL_XDS, LOCAL_XDS_PATH: only one of them can be the mesh");
    }
    file.map(LocalXds::File).or(text.map(LocalXds::Text))
}

fn on_demand(raw: &mut Raw) -> bool {
    let on_demand = raw.truth("XDS_ON_DEMAND", false);
    // A name can't be asked for before it is known whose it is.
    if on_demand && dns(raw).is_some() {
        raw.mistake("XDS_ON_DEMAND: needs ISTIO_META_DNS_CAPTURE=false");
    }
    on_demand
}

fn key_exchange(raw: &mut Raw) -> KeyExchange {
    match raw.text("COMPLIANCE_POLICY").as_deref() {
        None => KeyExchange::Preferred,
        Some("pqc") => KeyExchange::PostQuantumOnly,
        Some(other) => {
            raw.mistake(format!(
                "COMPLIANCE_POLICY: {other:?} is not supported, only pqc is"
            ));
            KeyExchange::PostQuantumOnly
        }
    }
}

fn shared(raw: &Raw) -> Mode {
    Mode::Shared {
        inpod_uds: raw.text("INPOD_UDS").unwrap_or_else(|| ZDS.into()).into(),
    }
}

fn mode(raw: &mut Raw) -> Option<Mode> {
    match raw.text("PROXY_MODE").as_deref() {
        None | Some("shared") => Some(shared(raw)),
        Some("dedicated") => {
            let Some(text) = raw.text("PROXY_WORKLOAD_INFO") else {
                raw.mistake("PROXY_WORKLOAD_INFO: required when PROXY_MODE is dedicated");
                return None;
            };
            let parts: Vec<&str> = text.split('/').collect();
            let [namespace, name, service_account] = parts[..] else {
                raw.mistake(format!(
                    "PROXY_WORKLOAD_INFO: {text:?} is not namespace/name/service-account"
                ));
                return None;
            };
            Some(Mode::Dedicated {
                workload: WorkloadInfo {
                    name: name.into(),
                    namespace: namespace.into(),
                    service_account: service_account.into(),
                },
            })
        }
        Some(other) => {
            raw.mistake(format!(
                "PROXY_MODE: {other:?} is neither shared nor dedicated"
            ));
            None
        }
    }
}

fn node(raw: &mut Raw) -> Node {
    let text = |name: &str, default: &str| raw.text(name).unwrap_or_else(|| default.into());
    Node {
        name: text("NODE_NAME", "").into(),
        network: text("NETWORK", "").into(),
        cluster_id: cluster_id(raw).into(),
        cluster_domain: text("CLUSTER_DOMAIN", "cluster.local").into(),
        trust_domain: text("TRUST_DOMAIN", "cluster.local").into(),
        pod_name: text("POD_NAME", ""),
        pod_namespace: text("POD_NAMESPACE", ""),
        service_account: text("SERVICE_ACCOUNT", ""),
        instance_ip: raw.parsed("INSTANCE_IP"),
    }
}

fn cluster_id(raw: &Raw) -> String {
    raw.text("ISTIO_META_CLUSTER_ID")
        .or_else(|| raw.text("CLUSTER_ID"))
        .unwrap_or_else(|| "Kubernetes".to_owned())
}

fn control_plane(raw: &mut Raw, prefix: &str) -> Option<grpc::Config> {
    let discovery_address = raw.proxy_config.discovery_address.clone();
    let mut config = grpc::Config::read(raw, prefix, discovery_address)?;
    config
        .headers
        .insert(0, ("clusterid".to_owned(), cluster_id(raw)));
    Some(config)
}

fn proxy(raw: &mut Raw, node: &Node, mode: &Mode) -> proxy::config::Config {
    let defaults = proxy::config::Config::default();
    let settings = Settings::default();
    let stream_window =
        within(raw, "HTTP2_STREAM_WINDOW_SIZE", WINDOWS).unwrap_or(settings.stream_window);
    let client_streams = raw
        .parsed("POOL_MAX_STREAMS_PER_CONNECTION")
        .unwrap_or(settings.client_streams);
    let mark = match mode {
        Mode::Shared { .. } => Some(PACKET_MARK),
        Mode::Dedicated { .. } => None,
    };
    proxy::config::Config {
        network: node.network.clone(),
        node: node.name.clone(),
        cluster_id: node.cluster_id.clone(),
        cluster_domain: node.cluster_domain.clone(),
        trust_domain: node.trust_domain.clone(),
        packet_mark: raw.parsed("PACKET_MARK").or(mark),
        original_source: match raw.text("ENABLE_ORIG_SRC") {
            None => OriginalSource::BestEffort,
            Some(_) if raw.truth("ENABLE_ORIG_SRC", true) => OriginalSource::Required,
            Some(_) => OriginalSource::Never,
        },
        keepalive: keepalive(raw),
        user_timeout: raw.truth("USER_TIMEOUT_ENABLED", false),
        connect_timeout: raw.duration("CONNECT_TIMEOUT", defaults.connect_timeout),
        half_closed_timeout: raw.duration("HALF_CLOSED_TIMEOUT", defaults.half_closed_timeout),
        max_segment: raw.parsed("MAX_SEGMENT_SIZE"),
        same_node_direct: raw.truth("ENABLE_SAME_NODE_DIRECT", true),
        pool_idle: raw.duration("POOL_UNUSED_RELEASE_TIMEOUT", defaults.pool_idle),
        response_baggage: raw.truth("ENABLE_RESPONSE_BAGGAGE", true),
        localhost_app_tunnel: raw.truth("LOCALHOST_APP_TUNNEL", true),
        ipv6: raw.truth("IPV6_ENABLED", true),
        port_reuse: raw.truth("INPOD_PORT_REUSE", true),
        policy_info_logging: raw.truth("AUTHZ_POLICY_INFO_LOGGING", false),
        socks5: raw.truth("UNSTABLE_ENABLE_SOCKS5", false),
        ejection: ejection(raw),
        cluster_cidrs: cluster_cidrs(raw),
        tunnel: Settings {
            stream_window,
            // Follows the windows it is the sum of, where it is not said.
            connection_window: within(raw, "HTTP2_CONNECTION_WINDOW_SIZE", WINDOWS)
                .unwrap_or_else(|| Settings::window_for(stream_window, client_streams)),
            frame_size: within(raw, "HTTP2_FRAME_SIZE", FRAMES).unwrap_or(settings.frame_size),
            client_streams,
            ping_interval: raw.duration("HTTP2_PING_INTERVAL", settings.ping_interval),
            ping_timeout: raw.duration("HTTP2_PING_TIMEOUT", settings.ping_timeout),
            handshake_timeout: raw.duration("HANDSHAKE_TIMEOUT", settings.handshake_timeout),
            response_timeout: raw.duration("CONNECT_TIMEOUT", settings.response_timeout),
            ..settings
        },
        ..defaults
    }
}

fn within(raw: &mut Raw, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
    let value = raw.parsed(name)?;
    if !range.contains(&value) {
        let (least, most) = range.into_inner();
        raw.mistake(format!("{name}: {value} is not from {least} to {most}"));
        return None;
    }
    Some(value)
}

fn keepalive(raw: &mut Raw) -> Option<Keepalive> {
    let defaults = Keepalive::default();
    raw.truth("KEEPALIVE_ENABLED", true).then(|| Keepalive {
        time: raw.duration("KEEPALIVE_TIME", defaults.time),
        interval: raw.duration("KEEPALIVE_INTERVAL", defaults.interval),
        retries: raw.parsed("KEEPALIVE_RETRIES").unwrap_or(defaults.retries),
    })
}

/// As Kubernetes' own settings name them: `10.244.0.0/16,10.96.0.0/12`.
fn cluster_cidrs(raw: &mut Raw) -> Vec<IpNet> {
    let text = raw.text("CLUSTER_CIDRS").unwrap_or_default();
    let mut cidrs = Vec::new();
    for cidr in text
        .split(',')
        .map(str::trim)
        .filter(|cidr| !cidr.is_empty())
    {
        match cidr.parse() {
            Ok(cidr) => cidrs.push(cidr),
            Err(_) => raw.mistake(format!(
                "CLUSTER_CIDRS: {cidr:?} is not a network like 10.244.0.0/16"
            )),
        }
    }
    cidrs
}

fn ejection(raw: &mut Raw) -> Limits {
    let defaults = Limits::default();
    let limits = Limits {
        base: raw.duration("EJECTION_BASE_TIME", defaults.base),
        longest: raw.duration("EJECTION_MAX_TIME", defaults.longest),
        percent: raw
            .parsed("EJECTION_MAX_PERCENT")
            .unwrap_or(defaults.percent),
    };
    if limits.percent > 100 {
        raw.mistake("EJECTION_MAX_PERCENT: more than 100 percent");
    }
    if limits.base.is_zero() || limits.base > limits.longest {
        raw.mistake("EJECTION_BASE_TIME: must be above 0 and at most EJECTION_MAX_TIME");
    }
    limits
}

fn dns(raw: &mut Raw) -> Option<Dns> {
    let capture = raw.meta("DNS_CAPTURE");
    let on = capture.is_none_or(|text| text.eq_ignore_ascii_case("true"));
    let port = match raw.meta("DNS_PROXY_ADDR") {
        None => Some(15053),
        // Only the port can differ: the listeners are on the pods' loopback addresses.
        Some(text) => match text.rsplit_once(':').map(|(_, port)| port.parse()) {
            Some(Ok(port)) => Some(port),
            _ => {
                raw.mistake(format!(
                    "ISTIO_META_DNS_PROXY_ADDR: {text:?} is not address:port"
                ));
                None
            }
        },
    };
    on.then_some(Dns { port: port? })
}

/// `off`, a path, or by default beside the agent's socket; without an agent there is no default.
fn handover_uds(raw: &Raw, mode: &Mode) -> Option<PathBuf> {
    match raw.text("ZTUNNEL_HANDOVER_UDS").as_deref() {
        Some("off") => None,
        Some(path) => Some(path.into()),
        None => match mode {
            Mode::Shared { inpod_uds } => Some(inpod_uds.with_file_name(HANDOVER)),
            Mode::Dedicated { .. } => None,
        },
    }
}

/// How long connections may go on after SIGTERM: said, or a little less than the grace
/// period after which the process is killed.
fn termination_deadline(raw: &mut Raw) -> Duration {
    let grace = raw.text("TERMINATION_GRACE_PERIOD_SECONDS").map(|text| {
        let seconds = text.parse().map(Duration::from_secs);
        seconds.unwrap_or_else(|_| raw.duration("TERMINATION_GRACE_PERIOD_SECONDS", Duration::ZERO))
    });
    let default = match grace.map(|grace| grace.as_secs()) {
        None => 5,
        Some(seconds) if seconds > 10 => seconds - 5,
        Some(seconds) => seconds.saturating_sub(1).max(1),
    };
    raw.duration(
        "CONNECTION_TERMINATION_DEADLINE",
        Duration::from_secs(default),
    )
}
