//! Istio's PeerAuthentication: whether plaintext is taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::kinds::metadata::ObjectMeta;
use crate::kinds::selector::WorkloadSelector;
use crate::kinds::{ConditionsStatus, unset};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    pub metadata: ObjectMeta,
    pub spec: PeerAuthenticationSpec,
    #[serde(skip_serializing_if = "unset")]
    pub status: ConditionsStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    #[serde(skip_serializing_if = "unset")]
    pub mtls: MutualTls,
    #[serde(
        deserialize_with = "by_port",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// What the namespace or the mesh says.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

/// Keys are numbers to YAML and texts to JSON.
fn by_port<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u16, MutualTls>, D::Error> {
    struct Ports;
    impl<'de> serde::de::Visitor<'de> for Ports {
        type Value = BTreeMap<u16, MutualTls>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping from port to mode")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut access: A,
        ) -> Result<Self::Value, A::Error> {
            let mut ports = BTreeMap::new();
            while let Some((port, mode)) = access.next_entry::<String, MutualTls>()? {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                    serde::de::Error::custom(format_args!("{port:?} is not a port (1 to 65535)"))
                })?;
                ports.insert(port, mode);
            }
            Ok(ports)
        }
    }
    deserializer.deserialize_map(Ports)
}
