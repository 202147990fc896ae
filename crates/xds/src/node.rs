//! Who an xDS client says it is: `TYPE~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN` and metadata.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::discovery::Node;

pub const ZTUNNEL: &str = "ztunnel";
pub const WAYPOINT: &str = "waypoint";

/// A client as its first request describes it. Nothing in it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyNode {
    pub id: String,
    /// [`ZTUNNEL`] or [`WAYPOINT`], as far as we serve them.
    pub proxy_type: String,
    pub pod: String,
    pub namespace: String,
    /// The Kubernetes node it runs on (`NODE_NAME`); empty where it does not say.
    pub node_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node id {0:?} is not of the form TYPE~IP~POD.NAMESPACE~DOMAIN")]
pub struct ParseNodeError(String);

// === impl ProxyNode ===

impl TryFrom<&Node> for ProxyNode {
    type Error = ParseNodeError;

    fn try_from(node: &Node) -> Result<Self, Self::Error> {
        let malformed = || ParseNodeError(node.id.clone());
        let mut parts = node.id.split('~');
        let (Some(proxy_type), Some(_ip), Some(name), Some(_domain), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(malformed());
        };
        // A pod's name may contain dots, a namespace's may not.
        let (pod, namespace) = name.rsplit_once('.').ok_or_else(malformed)?;
        Ok(Self {
            id: node.id.clone(),
            proxy_type: proxy_type.to_owned(),
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            node_name: metadata(node, "NODE_NAME").unwrap_or_default().to_owned(),
        })
    }
}

/// A text in the node's metadata.
pub fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &node.metadata.as_ref()?.fields.get(key)?.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// The node of a ztunnel. `metadata` may be any JSON value per key.
pub fn ztunnel(
    ip: &str,
    pod: &str,
    namespace: &str,
    metadata: impl IntoIterator<Item = (String, serde_json::Value)>,
) -> Node {
    node(ZTUNNEL, ip, pod, namespace, metadata)
}

/// The node of a waypoint, likewise.
pub fn waypoint(
    ip: &str,
    pod: &str,
    namespace: &str,
    metadata: impl IntoIterator<Item = (String, serde_json::Value)>,
) -> Node {
    node(WAYPOINT, ip, pod, namespace, metadata)
}

fn node(
    proxy_type: &str,
    ip: &str,
    pod: &str,
    namespace: &str,
    metadata: impl IntoIterator<Item = (String, serde_json::Value)>,
) -> Node {
    Node {
        id: format!("{proxy_type}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: proxy_type.to_owned(),
        metadata: Some(Struct {
            fields: metadata
                .into_iter()
                .map(|(key, value)| (key, from_json(value)))
                .collect(),
        }),
        build_version: String::new(),
    }
}

fn from_json(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.into_iter().map(from_json).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields
                .into_iter()
                .map(|(key, value)| (key, from_json(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ztunnel_is_read_back() {
        let node = ztunnel(
            "1.1.1.1",
            "ztunnel-node.1",
            "weft-system",
            [("NODE_NAME".to_owned(), "node-1".into())],
        );
        let proxy = ProxyNode::try_from(&node).expect("well formed");
        assert_eq!(proxy.proxy_type, "ztunnel");
        assert_eq!(proxy.pod, "ztunnel-node.1");
        assert_eq!(proxy.namespace, "weft-system");
        assert_eq!(proxy.node_name, "node-1");
    }

    #[test]
    fn any_other_id_is_malformed() {
        for id in ["", "ztunnel", "a~b~c~d", "a~b~c.d", "a~b~c.d~e~f"] {
            let node = Node {
                id: id.to_owned(),
                ..Default::default()
            };
            assert!(ProxyNode::try_from(&node).is_err(), "{id:?}");
        }
    }
}
