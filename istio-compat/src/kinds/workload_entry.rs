//! Istio's WorkloadEntry: an endpoint that is no pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kinds::metadata::ObjectMeta;
use crate::kinds::selector::Labels;
use crate::kinds::{ConditionsStatus, unset};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    pub metadata: ObjectMeta,
    pub spec: WorkloadEntrySpec,
    #[serde(skip_serializing_if = "unset")]
    pub status: ConditionsStatus,
}

/// Also one of the `endpoints` of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// An IP address or a DNS name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    #[serde(skip_serializing_if = "unset")]
    pub weight: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

// === impl WorkloadEntry ===

impl WorkloadEntry {
    /// Labels of the object and of its spec, the spec's winning.
    pub fn labels(&self) -> Labels {
        let mut labels = self.metadata.labels.clone();
        labels.extend(self.spec.labels.clone());
        labels
    }
}
