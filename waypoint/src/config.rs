//! What the waypoint is told: environment variables, read once. All mistakes are reported together.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::grpc;
use ipnet::IpNet;
use mesh::address::NamespacedHostname;
use mesh::identity::Identity;
use mesh::path::PathNormalization;
use runtime::environment::Environment;
use runtime::logs;
use serde::Serialize;

use crate::access_log::Format;
use crate::limits::Limits;

/// TCP port of the admin server, on localhost.
pub const ADMIN_PORT: u16 = 15000;
/// TCP port of the metrics server.
pub const STATS_PORT: u16 = 15020;
/// TCP port of the readiness server.
pub const READINESS_PORT: u16 = 15021;

/// Where keys are never fetched from unless it is said: this host, its neighbours on the link, the
/// metadata services of clouds, and what no network routes.
const BLOCKED_CIDRS: &str = "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,224.0.0.0/4,240.0.0.0/4,\
                             100.100.100.200/32,::/128,::1/128,fe80::/10,fd00:ec2::254/128,ff00::/8";

/// Everything, validated.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub proxy: Proxy,
    #[serde(serialize_with = "as_address")]
    pub xds: grpc::Config,
    #[serde(serialize_with = "as_address")]
    pub ca: grpc::Config,
    #[serde(serialize_with = "as_duration")]
    pub secret_ttl: Duration,
    /// The file of revocation lists.
    pub crl_path: Option<PathBuf>,
    pub worker_threads: NonZeroUsize,
    #[serde(serialize_with = "as_debug")]
    pub path_normalization: PathNormalization,
    #[serde(serialize_with = "as_debug")]
    pub underscores: Underscores,
    #[serde(serialize_with = "as_debug")]
    pub limits: Limits,
    /// Bytes of a request kept for sending it again, and for a mirror that is slow.
    pub replay_buffer: usize,
    /// None: requests are not logged.
    #[serde(serialize_with = "as_debug")]
    pub access_log: Option<Format>,
    pub jwks: Jwks,
    /// How long what is open may go on after SIGTERM.
    #[serde(serialize_with = "as_duration")]
    pub termination_deadline: Duration,
    pub ports: Ports,
    pub ipv6: bool,
    #[serde(skip)]
    pub log_levels: logs::Levels,
    #[serde(skip)]
    pub log_format: logs::Format,
}

/// What becomes of request headers with an underscore in their name: to some applications
/// `x_role` is `x-role`, which a policy would not have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// As in Istio, inside a mesh.
    #[default]
    Allow,
    Reject,
    Drop,
}

/// Who and where the waypoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// The Gateway it belongs to.
    pub gateway: Arc<str>,
    pub gateway_class: Arc<str>,
    pub pod: Arc<str>,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    pub address: IpAddr,
    pub node: Arc<str>,
    pub cluster_id: Arc<str>,
    pub network: Arc<str>,
    pub trust_domain: Arc<str>,
    pub cluster_domain: Arc<str>,
}

/// How keys for tokens are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    /// Addresses that are never dialled for them.
    pub blocked_cidrs: Vec<IpNet>,
    /// Bytes of one document.
    pub maximum_size: usize,
    #[serde(serialize_with = "as_duration")]
    pub refresh: Duration,
    /// The certificates by which `https` servers are verified.
    pub roots: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    pub hbone: u16,
    pub admin: u16,
    pub stats: u16,
    pub readiness: u16,
}

/// Everything wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

// === impl Config ===

impl Config {
    /// Reads the process's environment.
    pub fn read() -> Result<Self, ConfigError> {
        let matters = |name: &str| name.starts_with("XDS_") || name.starts_with("CA_");
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::parse(Environment::of_process(matters), cpus)
    }

    /// Validates what was read.
    pub fn parse(mut environment: Environment, cpus: usize) -> Result<Self, ConfigError> {
        let config = build(&mut environment, cpus);
        environment.finish().map_err(ConfigError)?;
        // Without a mistake every required value was there.
        config.ok_or_else(|| ConfigError(vec!["incomplete configuration".to_owned()]))
    }
}

fn build(environment: &mut Environment, cpus: usize) -> Option<Config> {
    let proxy = proxy(environment);
    let xds = control_plane(environment, "XDS");
    let ca = control_plane(environment, "CA");
    let config = Config {
        proxy: proxy?,
        xds: xds?,
        ca: ca?,
        secret_ttl: environment.duration("SECRET_TTL", Duration::from_secs(86_400)),
        crl_path: environment.text("CRL_PATH").map(Into::into),
        worker_threads: worker_threads(environment, cpus),
        path_normalization: path_normalization(environment),
        underscores: underscores(environment),
        limits: limits(environment),
        replay_buffer: environment.parsed("REPLAY_BUFFER").unwrap_or(64 << 10),
        access_log: access_log(environment),
        jwks: Jwks {
            blocked_cidrs: blocked_cidrs(environment),
            maximum_size: environment.parsed("JWKS_MAX_SIZE").unwrap_or(1 << 20),
            refresh: environment.duration("JWKS_REFRESH", Duration::from_secs(20 * 60)),
            roots: environment
                .text("JWKS_ROOT_CA")
                .unwrap_or_else(|| "/etc/ssl/certs/ca-certificates.crt".to_owned())
                .into(),
        },
        termination_deadline: environment
            .duration("CONNECTION_TERMINATION_DEADLINE", Duration::from_secs(5)),
        ports: Ports {
            hbone: environment
                .parsed("HBONE_PORT")
                .unwrap_or(mesh::destination::HBONE_PORT),
            admin: environment.parsed("ADMIN_PORT").unwrap_or(ADMIN_PORT),
            stats: environment.parsed("STATS_PORT").unwrap_or(STATS_PORT),
            readiness: environment
                .parsed("READINESS_PORT")
                .unwrap_or(READINESS_PORT),
        },
        ipv6: environment.truth("IPV6_ENABLED", true),
        log_levels: environment.parsed("RUST_LOG").unwrap_or_default(),
        log_format: environment.parsed("LOG_FORMAT").unwrap_or_default(),
    };
    Some(config)
}

fn proxy(environment: &mut Environment) -> Option<Proxy> {
    let mut required = |name: &str| -> Option<Arc<str>> {
        let text = environment.text(name);
        if text.is_none() {
            environment.mistake(format!("{name}: required"));
        }
        text.map(Arc::from)
    };
    let pod = required("POD_NAME");
    let namespace = required("POD_NAMESPACE");
    let gateway = required("GATEWAY_NAME");
    required("INSTANCE_IP");
    let address = environment.parsed("INSTANCE_IP");
    let text = |name: &str, default: &str| -> Arc<str> {
        environment
            .text(name)
            .unwrap_or_else(|| default.to_owned())
            .into()
    };
    let gateway = gateway?;
    Some(Proxy {
        // The account that the control plane makes for a Gateway has its name.
        service_account: text("SERVICE_ACCOUNT", &gateway),
        gateway_class: text("GATEWAY_CLASS_NAME", "istio-waypoint"),
        gateway,
        pod: pod?,
        namespace: namespace?,
        address: address?,
        node: text("NODE_NAME", ""),
        cluster_id: text("CLUSTER_ID", "Kubernetes"),
        network: text("NETWORK", ""),
        trust_domain: text("TRUST_DOMAIN", mesh::identity::DEFAULT_TRUST_DOMAIN),
        cluster_domain: text("CLUSTER_DOMAIN", "cluster.local"),
    })
}

fn control_plane(environment: &mut Environment, prefix: &str) -> Option<grpc::Config> {
    let config = grpc::Config::read(environment, prefix, None);
    let Some(mut config) = config else {
        environment.mistake(format!("{prefix}_ADDRESS: required"));
        return None;
    };
    let cluster_id = environment.text("CLUSTER_ID");
    let cluster_id = cluster_id.unwrap_or_else(|| "Kubernetes".to_owned());
    config
        .headers
        .insert(0, ("clusterid".to_owned(), cluster_id));
    Some(config)
}

/// As many as CPUs, unless it is said.
fn worker_threads(environment: &mut Environment, cpus: usize) -> NonZeroUsize {
    let threads = environment.parsed("WAYPOINT_WORKER_THREADS").unwrap_or(0);
    let threads = if threads == 0 { cpus } else { threads };
    NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN)
}

fn path_normalization(environment: &mut Environment) -> PathNormalization {
    match environment.text("PATH_NORMALIZATION").as_deref() {
        None | Some("DEFAULT" | "BASE") => PathNormalization::Base,
        Some("NONE") => PathNormalization::None,
        Some("MERGE_SLASHES") => PathNormalization::MergeSlashes,
        Some("DECODE_AND_MERGE_SLASHES") => PathNormalization::DecodeAndMergeSlashes,
        Some(other) => {
            environment.mistake(format!(
                "PATH_NORMALIZATION: {other:?} is none of NONE, BASE, MERGE_SLASHES, \
                 DECODE_AND_MERGE_SLASHES"
            ));
            PathNormalization::Base
        }
    }
}

fn underscores(environment: &mut Environment) -> Underscores {
    let name = "HEADERS_WITH_UNDERSCORES_ACTION";
    match environment.text(name).as_deref() {
        None | Some("ALLOW") => Underscores::Allow,
        Some("REJECT_REQUEST") => Underscores::Reject,
        Some("DROP_HEADER") => Underscores::Drop,
        Some(other) => {
            environment.mistake(format!(
                "{name}: {other:?} is none of ALLOW, REJECT_REQUEST, DROP_HEADER"
            ));
            Underscores::Reject
        }
    }
}

fn limits(environment: &mut Environment) -> Limits {
    let mut limits = Limits::default();
    for (name, place) in [
        ("MAX_REQUEST_HEADERS_BYTES", &mut limits.head.bytes),
        ("MAX_REQUEST_HEADERS_COUNT", &mut limits.head.fields),
        ("MAX_TUNNELS", &mut limits.capacity.tunnels),
        ("MAX_CONNECTIONS", &mut limits.capacity.connections),
        ("MAX_REQUESTS", &mut limits.capacity.requests),
    ] {
        if let Some(value) = environment.parsed(name) {
            *place = value;
        }
    }
    if limits.head.fields > crate::limits::HeadLimits::MOST_FIELDS {
        environment.mistake(format!(
            "MAX_REQUEST_HEADERS_COUNT: more than {}",
            crate::limits::HeadLimits::MOST_FIELDS
        ));
    }
    if let Some(streams) = environment.parsed("HTTP2_MAX_CONCURRENT_STREAMS") {
        limits.http2.concurrent_streams = streams;
    }
    for (name, place) in [
        ("REQUEST_HEADERS_TIMEOUT", &mut limits.head_timeout),
        ("IDLE_TIMEOUT", &mut limits.idle_timeout),
        ("CONNECT_TIMEOUT", &mut limits.connect_timeout),
        (
            "PROTOCOL_DETECTION_TIMEOUT",
            &mut limits.protocol_detection_timeout,
        ),
        ("TCP_IDLE_TIMEOUT", &mut limits.tcp_idle_timeout),
    ] {
        *place = environment.duration(name, *place);
    }
    limits
}

fn access_log(environment: &mut Environment) -> Option<Format> {
    let format = match environment.text("ACCESS_LOG_ENCODING").as_deref() {
        None | Some("TEXT") => Format::Text,
        Some("JSON") => Format::Json,
        Some(other) => {
            environment.mistake(format!(
                "ACCESS_LOG_ENCODING: {other:?} is neither TEXT nor JSON"
            ));
            Format::Text
        }
    };
    environment.truth("ACCESS_LOG", true).then_some(format)
}

fn blocked_cidrs(environment: &mut Environment) -> Vec<IpNet> {
    let text = environment.set_text("BLOCKED_CIDRS_IN_JWKS_URIS");
    let text = text.as_deref().unwrap_or(BLOCKED_CIDRS);
    let mut blocked = Vec::new();
    for cidr in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match cidr.parse() {
            Ok(cidr) => blocked.push(cidr),
            Err(_) => environment.mistake(format!(
                "BLOCKED_CIDRS_IN_JWKS_URIS: {cidr:?} is not address/prefix"
            )),
        }
    }
    blocked
}

// === impl Proxy ===

impl Proxy {
    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// The Service that the control plane makes of the Gateway, which what is bound to it names.
    pub fn hostname(&self) -> NamespacedHostname {
        let hostname = format!(
            "{}.{}.svc.{}",
            self.gateway, self.namespace, self.cluster_domain
        );
        NamespacedHostname::new(self.namespace.clone(), hostname)
    }
}

/// Roots are long and tokens secret: a dump shows where a service is.
fn as_address<S: serde::Serializer>(
    config: &grpc::Config,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    config.address.serialize(serializer)
}

fn as_duration<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

fn as_debug<T: fmt::Debug, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:?}"))
}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
