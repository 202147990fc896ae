//! Which node a pod runs on. No I/O.
use std::collections::BTreeMap;

use istio_compat::kinds::pod::PodSpec;

/// A node as the scheduler sees it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// Pods of the same owner there.
    pub(crate) siblings: usize,
    pub(crate) pods: usize,
}

/// The node's name, or why there is none.
pub(crate) fn choose(spec: &PodSpec, nodes: &[Candidate<'_>]) -> Result<String, String> {
    let names = || {
        nodes
            .iter()
            .map(|node| node.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !spec.node_name.is_empty() {
        return match nodes.iter().find(|node| node.name == spec.node_name) {
            Some(node) => Ok(node.name.to_owned()),
            None => Err(format!(
                "there is no node {:?}, only {}",
                spec.node_name,
                names()
            )),
        };
    }
    nodes
        .iter()
        .filter(|node| {
            spec.node_selector
                .iter()
                .all(|(key, value)| node.labels.get(key) == Some(value))
        })
        .min_by_key(|node| (node.siblings, node.pods, node.name))
        .map(|node| node.name.to_owned())
        .ok_or_else(|| {
            let selector: Vec<_> = spec
                .node_selector
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("no node has the labels {}", selector.join(","))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: serde_json::Value) -> PodSpec {
        serde_json::from_value(text).unwrap()
    }

    fn check(given: serde_json::Value, occupied: [(usize, usize); 2]) -> Result<String, String> {
        let labels = ["a", "b"].map(|zone| BTreeMap::from([("zone".to_owned(), zone.to_owned())]));
        let candidate = |index: usize| Candidate {
            name: ["node-1", "node-2"][index],
            labels: &labels[index],
            siblings: occupied[index].0,
            pods: occupied[index].1,
        };
        choose(&spec(given), &[candidate(0), candidate(1)])
    }

    #[test]
    fn pods_spread_by_owner_then_by_number() {
        assert_eq!(
            check(serde_json::json!({}), [(0, 0), (0, 0)]).unwrap(),
            "node-1"
        );
        assert_eq!(
            check(serde_json::json!({}), [(1, 1), (0, 5)]).unwrap(),
            "node-2"
        );
        assert_eq!(
            check(serde_json::json!({}), [(0, 3), (0, 2)]).unwrap(),
            "node-2"
        );
    }

    #[test]
    fn a_name_or_a_selector_places_a_pod() {
        assert_eq!(
            check(serde_json::json!({"nodeName": "node-2"}), [(0, 0), (9, 9)]).unwrap(),
            "node-2"
        );
        assert_eq!(
            check(
                serde_json::json!({"nodeSelector": {"zone": "b"}}),
                [(0, 0), (9, 9)]
            )
            .unwrap(),
            "node-2"
        );
    }

    #[test]
    fn what_fits_nowhere_says_why() {
        assert!(
            check(serde_json::json!({"nodeName": "node-9"}), [(0, 0); 2])
                .unwrap_err()
                .contains("node-1, node-2")
        );
        assert!(
            check(
                serde_json::json!({"nodeSelector": {"zone": "c"}}),
                [(0, 0); 2]
            )
            .unwrap_err()
            .contains("zone=c")
        );
    }
}
