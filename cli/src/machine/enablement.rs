//! Which pods are captured: by their own label, else by their namespace's. No I/O.
use std::collections::BTreeMap;

use istio_compat::kinds::pod::Pod;
use istio_compat::labels::{DATAPLANE_MODE, SIDECAR_STATUS};

/// Istio's agent leaves it alone by default.
const EXCLUDED_NAMESPACE: &str = "kube-system";

pub(crate) fn is_enabled(pod: &Pod, namespace: Option<&BTreeMap<String, String>>) -> bool {
    if pod.spec.host_network
        || pod.metadata.namespace == EXCLUDED_NAMESPACE
        || pod.metadata.annotations.contains_key(SIDECAR_STATUS)
    {
        return false;
    }
    let mode =
        |labels: &BTreeMap<String, String>| labels.get(DATAPLANE_MODE).cloned().unwrap_or_default();
    match mode(&pod.metadata.labels).as_str() {
        "ambient" => true,
        "none" => false,
        _ => namespace.is_some_and(|labels| mode(labels) == "ambient"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: serde_json::Value, namespace: Option<&str>) -> bool {
        let pod = serde_json::from_value(pod).unwrap();
        let labels =
            namespace.map(|mode| BTreeMap::from([(DATAPLANE_MODE.to_owned(), mode.to_owned())]));
        is_enabled(&pod, labels.as_ref())
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces() {
        let labelled = |mode: &str| serde_json::json!({"metadata": {"namespace": "a", "labels": {DATAPLANE_MODE: mode}}});
        let plain = serde_json::json!({"metadata": {"namespace": "a"}});
        assert!(check(plain.clone(), Some("ambient")));
        assert!(!check(plain.clone(), Some("none")) && !check(plain, None));
        assert!(check(labelled("ambient"), None));
        assert!(!check(labelled("none"), Some("ambient")));
    }

    #[test]
    fn sidecars_host_network_and_the_system_stay_out() {
        assert!(!check(
            serde_json::json!({"metadata": {"annotations": {SIDECAR_STATUS: "{}"}}}),
            Some("ambient")
        ));
        assert!(!check(
            serde_json::json!({"spec": {"hostNetwork": true}}),
            Some("ambient")
        ));
        assert!(!check(
            serde_json::json!({"metadata": {"namespace": "kube-system"}}),
            Some("ambient")
        ));
    }
}
