//! Reading settings as text, with every mistake collected instead of the first one returned.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Where Istio mounts the mesh's configuration, relative to the working directory.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";

/// Settings as they were given.
#[derive(Debug)]
pub struct Raw {
    environment: BTreeMap<String, String>,
    pub(super) proxy_config: ProxyConfig,
    mistakes: Vec<String>,
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

/// The process's environment; a value that is not text is a mistake if it could matter.
pub(super) fn environment() -> (BTreeMap<String, String>, Vec<String>) {
    let mut mistakes = Vec::new();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            match value.into_string() {
                Ok(value) => Some((name, value)),
                Err(_) => {
                    if is_ours(&name) {
                        mistakes.push(format!("{name}: not valid UTF-8"));
                    }
                    None
                }
            }
        })
        .collect();
    (environment, mistakes)
}

fn is_ours(name: &str) -> bool {
    name.starts_with("ISTIO_META") || name.starts_with("XDS_") || name.starts_with("CA_")
}

/// The mesh config file, where there is one.
pub(super) fn mesh_config_file(mistakes: &mut Vec<String>) -> Option<String> {
    match std::fs::read_to_string(MESH_CONFIG) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            mistakes.push(format!("{MESH_CONFIG}: {error}"));
            None
        }
    }
}

// === impl Raw ===

impl Raw {
    pub(super) fn new(
        environment: BTreeMap<String, String>,
        mesh_config: Option<&str>,
        mistakes: Vec<String>,
    ) -> Self {
        let mut raw = Self {
            environment,
            proxy_config: ProxyConfig::default(),
            mistakes,
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
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(self.mistakes)
        }
    }

    pub(super) fn mistake(&mut self, text: impl Into<String>) {
        let text = text.into();
        // Some settings are asked for more than once.
        if !self.mistakes.contains(&text) {
            self.mistakes.push(text);
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.set_text(name).filter(|text| !text.is_empty())
    }

    /// A variable that is set, perhaps to nothing.
    pub(super) fn set_text(&self, name: &str) -> Option<String> {
        self.environment
            .get(name)
            .map(|text| text.trim().to_owned())
    }

    /// A variable that proxyMetadata may give too.
    pub(super) fn meta(&self, name: &str) -> Option<String> {
        self.text(name)
            .or_else(|| self.proxy_config.proxy_metadata.get(name).cloned())
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(format!("{name}: {text:?}: {error}"));
                None
            }
        }
    }

    pub(super) fn truth(&mut self, name: &str, default: bool) -> bool {
        match self.text(name).map(|text| text.to_ascii_lowercase()) {
            None => default,
            Some(text) if text == "true" || text == "1" => true,
            Some(text) if text == "false" || text == "0" => false,
            Some(text) => {
                self.mistake(format!("{name}: {text:?} is neither true nor false"));
                default
            }
        }
    }

    /// `5s`, `10m`, `1h30m`.
    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else {
            return default;
        };
        match humantime::parse_duration(&text) {
            Ok(duration) => duration,
            Err(error) => {
                self.mistake(format!("{name}: {text:?} is not a duration: {error}"));
                default
            }
        }
    }

    /// Every `PREFIXname=value`, as (name, value).
    pub(super) fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        self.environment
            .iter()
            .filter_map(|(name, value)| {
                let name = name.strip_prefix(prefix).filter(|name| !name.is_empty())?;
                Some((name.to_owned(), value.clone()))
            })
            .collect()
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
                Err(error) => self.mistake(format!("ISTIO_METAJSON_{name}: {error}")),
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
