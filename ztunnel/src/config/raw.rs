//! The environment with Istio's two ProxyConfigs beside it.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use runtime::environment::Environment;
use serde::Deserialize;

/// Where Istio mounts the mesh's configuration, relative to the working directory.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";

/// Settings as they were given: the environment, and what the ProxyConfigs add to it.
#[derive(Debug)]
pub struct Raw {
    environment: Environment,
    pub(super) proxy_config: ProxyConfig,
    oddities: Vec<String>,
}

/// The keys of Istio's ProxyConfig that a tunnel reads; others are for other proxies.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    pub(super) proxy_admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    pub(super) concurrency: Option<usize>,
    pub(super) proxy_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: ProxyConfig,
}

/// The process's environment.
pub(super) fn environment() -> Environment {
    Environment::of_process(|name| {
        name.starts_with("ISTIO_META") || name.starts_with("XDS_") || name.starts_with("CA_")
    })
}

/// The mesh config file, where there is one.
pub(super) fn mesh_config_file(environment: &mut Environment) -> Option<String> {
    match std::fs::read_to_string(MESH_CONFIG) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            environment.mistake(format!("{MESH_CONFIG}: {error}"));
            None
        }
    }
}

// === impl Raw ===

impl Raw {
    pub(super) fn new(environment: Environment, mesh_config: Option<&str>) -> Self {
        let mut raw = Self {
            environment,
            proxy_config: ProxyConfig::default(),
            oddities: Vec::new(),
        };
        let mesh: MeshConfig = match mesh_config {
            Some(text) => raw.yaml(MESH_CONFIG, text),
            None => MeshConfig::default(),
        };
        let own: ProxyConfig = match raw.text("PROXY_CONFIG") {
            Some(text) => raw.yaml("PROXY_CONFIG", &text),
            None => ProxyConfig::default(),
        };
        raw.proxy_config = own.over(mesh.default_config);
        raw
    }

    pub(super) fn finish(self) -> Result<(), Vec<String>> {
        self.environment.finish()
    }

    /// `ISTIO_META_name`, which proxyMetadata may give too, with the prefix or without.
    pub(super) fn meta(&self, name: &str) -> Option<String> {
        let full = format!("ISTIO_META_{name}");
        let given = &self.proxy_config.proxy_metadata;
        self.text(&full)
            .or_else(|| given.get(&full).or_else(|| given.get(name)).cloned())
    }

    /// What is not understood and can be done without.
    pub(super) fn oddities(&mut self) -> Vec<String> {
        std::mem::take(&mut self.oddities)
    }

    /// What xDS is told of the node besides the tunnel's own name: `ISTIO_META_X` as X,
    /// `ISTIO_METAJSON_X` as the value it parses to.
    pub(super) fn node_metadata(&mut self) -> serde_json::Map<String, serde_json::Value> {
        let mut metadata = serde_json::Map::new();
        for (name, value) in &self.proxy_config.proxy_metadata {
            let name = name.strip_prefix("ISTIO_META_").unwrap_or(name);
            metadata.insert(name.to_owned(), value.as_str().into());
        }
        for (name, value) in self.prefixed("ISTIO_META_") {
            metadata.insert(name, value.into());
        }
        for (name, value) in self.prefixed("ISTIO_METAJSON_") {
            match serde_json::from_str(&value) {
                Ok(value) => {
                    metadata.insert(name, value);
                }
                // The control plane's business, and Istio's tunnel goes on too.
                Err(error) => {
                    let oddity = format!("ISTIO_METAJSON_{name}: {error}");
                    self.oddities.push(oddity);
                }
            }
        }
        metadata
    }

    fn yaml<T: Default + for<'de> Deserialize<'de>>(&mut self, name: &str, text: &str) -> T {
        match serde_saphyr::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                self.mistake(format!("{name}: {error}"));
                T::default()
            }
        }
    }
}

impl Deref for Raw {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.environment
    }
}

impl DerefMut for Raw {
    fn deref_mut(&mut self) -> &mut Environment {
        &mut self.environment
    }
}

// === impl ProxyConfig ===

impl ProxyConfig {
    /// These settings, and `below` where they say nothing.
    fn over(self, below: Self) -> Self {
        let mut proxy_metadata = below.proxy_metadata;
        proxy_metadata.extend(self.proxy_metadata);
        Self {
            discovery_address: self.discovery_address.or(below.discovery_address),
            proxy_admin_port: self.proxy_admin_port.or(below.proxy_admin_port),
            stats_port: self.stats_port.or(below.stats_port),
            concurrency: self.concurrency.or(below.concurrency),
            proxy_metadata,
        }
    }
}
