//! A service account: the last part of a workload's identity.

use serde::{Deserialize, Serialize};

use crate::kinds::metadata::ObjectMeta;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccount {
    pub metadata: ObjectMeta,
}
