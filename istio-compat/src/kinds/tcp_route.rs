//! Gateway API's TCPRoute: where connections go.

use serde::{Deserialize, Serialize};

use crate::kinds::metadata::ObjectMeta;
use crate::kinds::route::{BackendRef, ParentReference, RouteStatus};
use crate::kinds::unset;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "TCPRoute", rename_all = "camelCase", default)]
pub struct TcpRoute {
    pub metadata: ObjectMeta,
    pub spec: TcpRouteSpec,
    #[serde(skip_serializing_if = "unset")]
    pub status: RouteStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "TCPRouteSpec", rename_all = "camelCase", default)]
pub struct TcpRouteSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<TcpRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "TCPRouteRule", rename_all = "camelCase", default)]
pub struct TcpRouteRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
}
