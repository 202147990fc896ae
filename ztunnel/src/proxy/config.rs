//! The data path's settings, with Istio's defaults.

use std::sync::Arc;
use std::time::Duration;

use hbone::settings::Settings;
use ipnet::IpNet;
use mesh::balancing::ejection::Limits;
use mesh::destination::OWN_PORTS;

/// Where outbound connections are redirected to.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where inbound plaintext is redirected to.
pub const PLAINTEXT_PORT: u16 = 15006;
/// Where applications that speak SOCKS connect to, on their own loopback.
pub const SOCKS5_PORT: u16 = 15080;
/// Where tunnels arrive.
pub const HBONE_PORT: u16 = mesh::destination::HBONE_PORT;

#[derive(Clone, Debug)]
pub struct Config {
    pub network: Arc<str>,
    /// This node's name.
    pub node: Arc<str>,
    pub cluster_id: Arc<str>,
    /// The domain of services' names.
    pub cluster_domain: Arc<str>,
    /// Of the identity of a workload that has this process to itself.
    pub trust_domain: Arc<str>,
    /// SO_MARK of every socket made for a pod, so that it is not redirected again.
    pub packet_mark: Option<u32>,
    pub original_source: OriginalSource,
    pub keepalive: Option<Keepalive>,
    /// Whether TCP_USER_TIMEOUT is set, to what the keepalive allows.
    pub user_timeout: bool,
    /// TCP_MAXSEG of tunnels, for paths that lose long packets without a word.
    pub max_segment: Option<u32>,
    /// For one TCP connection attempt.
    pub connect_timeout: Duration,
    /// How long a new connection waits for its own workload to be known.
    pub workload_wait: Duration,
    /// Addresses of pods and services: one of them that nothing known has is no stranger's, but
    /// not known yet.
    pub cluster_cidrs: Vec<IpNet>,
    /// How long a connection to such an address waits for its owner to be known.
    pub owner_wait: Duration,
    /// How long a connection with one direction closed may be silent.
    pub half_closed_timeout: Duration,
    /// Whether connections between two pods of this process go without a tunnel.
    pub same_node_direct: bool,
    /// How long a tunnel without streams is kept.
    pub pool_idle: Duration,
    /// Whether a 200 describes the workload reached, and requests' descriptions are read.
    pub response_baggage: bool,
    /// Whether applications that take the PROXY protocol are reached on loopback, where
    /// nobody else reaches them.
    pub localhost_app_tunnel: bool,
    pub ipv6: bool,
    /// Whether another process may listen on the same ports while it takes over.
    pub port_reuse: bool,
    /// Whether what policy says of each connection is logged at info, not at debug.
    pub policy_info_logging: bool,
    /// Whether pods get a SOCKS5 listener.
    pub socks5: bool,
    /// How far endpoints that can't be reached are left alone.
    pub ejection: Limits,
    pub tunnel: Settings,
}

/// Whether applications see the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalSource {
    /// Where the namespace lets us.
    BestEffort,
    /// Or the connection fails.
    Required,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub time: Duration,
    pub interval: Duration,
    pub retries: u32,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            network: "".into(),
            node: "".into(),
            cluster_id: "Kubernetes".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: mesh::identity::DEFAULT_TRUST_DOMAIN.into(),
            packet_mark: Some(1337),
            original_source: OriginalSource::BestEffort,
            keepalive: Some(Keepalive::default()),
            user_timeout: false,
            max_segment: None,
            connect_timeout: Duration::from_secs(10),
            workload_wait: Duration::from_secs(5),
            cluster_cidrs: Vec::new(),
            owner_wait: Duration::from_secs(1),
            half_closed_timeout: Duration::from_secs(300),
            same_node_direct: true,
            pool_idle: Duration::from_secs(300),
            response_baggage: true,
            localhost_app_tunnel: true,
            ipv6: true,
            port_reuse: true,
            policy_info_logging: false,
            socks5: false,
            ejection: Limits::default(),
            tunnel: Settings::default(),
        }
    }
}

// === impl Config ===

impl Config {
    /// Whether the tunnel listens on this port of every pod, so that a call to it would be one to
    /// itself. DNS is no such port: whoever asks it gets an answer.
    pub(crate) fn is_own_port(&self, port: u16) -> bool {
        OWN_PORTS.contains(&port) || (self.socks5 && port == SOCKS5_PORT)
    }
}

// === impl Keepalive ===

impl Default for Keepalive {
    /// A peer that is gone is found within 90 s. Probes come before the minute is over after which
    /// connection tracking forgets that a half-closed connection was redirected.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(45),
            interval: Duration::from_secs(15),
            retries: 3,
        }
    }
}

impl Keepalive {
    /// How long a peer may acknowledge nothing before it is given up.
    pub(crate) fn patience(&self) -> Duration {
        self.time + self.interval * self.retries
    }
}
