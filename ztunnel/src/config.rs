//! What the tunnel is told: environment variables and two optional files, read once.
//!
//! Names, defaults and precedence are Istio's: environment over `PROXY_CONFIG` over the mesh
//! config file. All mistakes are reported together.
//!
//! - [`raw`]: reading, with mistakes collected.
//! - `build`: what the settings mean.
//! - [`workers`]: how many worker threads.

pub mod raw;

mod build;

pub mod workers;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::{KeyExchange, grpc};
use runtime::environment::Environment;
use runtime::logs;
use serde::Serialize;

use self::raw::Raw;
use crate::proxy::{self, WorkloadInfo};

/// TCP port of the admin server, on localhost.
pub const ADMIN_PORT: u16 = 15000;
/// TCP port of the metrics server.
pub const STATS_PORT: u16 = 15020;
/// TCP port of the readiness server.
pub const READINESS_PORT: u16 = 15021;

/// Everything, validated.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub mode: Mode,
    pub node: Node,
    /// None: the mesh is not asked for.
    #[serde(serialize_with = "as_address")]
    pub xds: Option<grpc::Config>,
    /// None: no certificates can be had.
    #[serde(serialize_with = "as_address")]
    pub ca: Option<grpc::Config>,
    /// The mesh from a text besides the control plane, or instead.
    #[serde(skip)]
    pub local_xds: Option<LocalXds>,
    /// Addresses are asked for when a connection needs them, not subscribed to as a whole.
    pub xds_on_demand: bool,
    /// Whose services win among those of one hostname.
    pub preferred_service_namespace: Option<Arc<str>>,
    /// Certificates are signed here, with a root that no other process trusts.
    pub fake_ca: bool,
    /// PEM revocation lists that peers' certificates are looked up in.
    pub crl_path: Option<PathBuf>,
    #[serde(serialize_with = "as_duration")]
    pub secret_ttl: Duration,
    pub node_metadata: serde_json::Map<String, serde_json::Value>,
    /// False: the data path stays off.
    pub enable_proxy: bool,
    #[serde(skip)]
    pub proxy: proxy::config::Config,
    pub dns: Option<Dns>,
    #[serde(serialize_with = "as_duration")]
    pub termination_deadline: Duration,
    /// Where a successor finds this process; none: there is no handover.
    pub handover_uds: Option<PathBuf>,
    /// How long connections may go on after a successor has taken over.
    #[serde(serialize_with = "as_duration")]
    pub handover_deadline: Duration,
    pub worker_threads: NonZeroUsize,
    pub ports: Ports,
    /// Metric series that nothing changed for so long are forgotten.
    #[serde(serialize_with = "as_duration")]
    pub metrics_idle_timeout: Duration,
    #[serde(skip)]
    pub key_exchange: KeyExchange,
    pub ipv6: bool,
    /// What was not understood and is gone without, for the log.
    pub oddities: Vec<String>,
    #[serde(skip)]
    pub log_levels: logs::Levels,
    #[serde(skip)]
    pub log_format: logs::Format,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Mode {
    /// All pods of the node, handed over by the CNI agent.
    Shared { inpod_uds: PathBuf },
    /// One workload in the tunnel's own network namespace.
    Dedicated { workload: WorkloadInfo },
}

/// Where a mesh without a control plane is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalXds {
    File(PathBuf),
    Text(String),
}

/// Who and where the tunnel itself is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: Arc<str>,
    pub network: Arc<str>,
    pub cluster_id: Arc<str>,
    pub cluster_domain: Arc<str>,
    pub trust_domain: Arc<str>,
    pub pod_name: String,
    pub pod_namespace: String,
    pub service_account: String,
    pub instance_ip: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    pub admin: u16,
    pub stats: u16,
    pub readiness: u16,
}

/// Everything wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

// === impl Config ===

impl Config {
    /// Reads the process's environment and files.
    pub fn read() -> Result<Self, ConfigError> {
        let mut environment = raw::environment();
        let mesh_config = raw::mesh_config_file(&mut environment);
        let cpus = workers::usable_cpus();
        Self::parse(environment, mesh_config.as_deref(), cpus)
    }

    /// Validates what was read.
    pub fn parse(
        environment: Environment,
        mesh_config: Option<&str>,
        cpus: usize,
    ) -> Result<Self, ConfigError> {
        let mut raw = Raw::new(environment, mesh_config);
        let config = build::config(&mut raw, cpus);
        raw.finish().map_err(ConfigError)?;
        // Without a mistake every required value was there.
        config.ok_or_else(|| ConfigError(vec!["incomplete configuration".to_owned()]))
    }

    /// Which workload of the mesh a node's tunnel is itself, where it is told.
    pub fn itself(&self) -> Option<WorkloadInfo> {
        match self.mode {
            Mode::Shared { .. } => {}
            Mode::Dedicated { .. } => return None,
        }
        let told = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Some(WorkloadInfo {
            name: told(&self.node.pod_name)?,
            namespace: told(&self.node.pod_namespace)?,
            service_account: told(&self.node.service_account)?,
        })
    }
}

/// Roots are long and tokens secret: a dump shows where a service is.
fn as_address<S: serde::Serializer>(
    config: &Option<grpc::Config>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    config
        .as_ref()
        .map(|config| &config.address)
        .serialize(serializer)
}

fn as_duration<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration")?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
