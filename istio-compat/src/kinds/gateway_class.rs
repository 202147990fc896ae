//! Gateway API's GatewayClass: which controller makes Gateways of a class.

use serde::{Deserialize, Serialize};

use crate::kinds::gateway::ParametersReference;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::{ConditionsStatus, unset};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayClass {
    pub metadata: ObjectMeta,
    pub spec: GatewayClassSpec,
    #[serde(skip_serializing_if = "unset")]
    pub status: ConditionsStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    pub controller_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersReference>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}
