//! A ConfigMap: texts by name. Those that a Gateway or its class has shape the waypoint's objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kinds::metadata::ObjectMeta;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    pub metadata: ObjectMeta,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
}
