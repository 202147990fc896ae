//! Whether a pod is captured into the mesh, and why not.

use std::fmt;

use crate::kinds::namespace::Namespace;
use crate::kinds::pod::Pod;
use crate::labels;

/// Namespaces that never take part.
const EXCLUDED_NAMESPACES: &[&str] = &["kube-system"];
/// Where the node's proxy itself runs.
const SYSTEM_NAMESPACES: &[&str] = &["weft-system", "istio-system"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enablement {
    Captured,
    NotCaptured(Reason),
}

/// Why a pod stays outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither the pod nor its namespace asks for it.
    NotEnabled,
    /// The pod's own label says `none`.
    OptedOut,
    HostNetwork,
    /// It has a sidecar.
    Sidecar,
    ExcludedNamespace,
    /// It is the node's proxy.
    Ztunnel,
    Finished,
}

/// The pod's label wins over its namespace's.
pub fn is_ambient(pod: &Pod, namespace: Option<&Namespace>) -> Enablement {
    match reason_against(pod, namespace) {
        Some(reason) => Enablement::NotCaptured(reason),
        None => Enablement::Captured,
    }
}

fn reason_against(pod: &Pod, namespace: Option<&Namespace>) -> Option<Reason> {
    let metadata = &pod.metadata;
    let of_namespace = namespace.and_then(|one| one.metadata.label(labels::DATAPLANE_MODE));
    let in_any = |namespaces: &[&str]| namespaces.contains(&metadata.namespace.as_str());
    match (metadata.label(labels::DATAPLANE_MODE), of_namespace) {
        (Some("ambient"), _) => {}
        (Some("none"), _) => return Some(Reason::OptedOut),
        (_, Some("ambient")) => {}
        _ => return Some(Reason::NotEnabled),
    }
    if pod.spec.host_network {
        Some(Reason::HostNetwork)
    } else if metadata.annotation(labels::SIDECAR_STATUS).is_some() {
        Some(Reason::Sidecar)
    } else if in_any(EXCLUDED_NAMESPACES) {
        Some(Reason::ExcludedNamespace)
    } else if in_any(SYSTEM_NAMESPACES) && metadata.label(labels::APP) == Some("ztunnel") {
        Some(Reason::Ztunnel)
    } else if pod.is_finished() {
        Some(Reason::Finished)
    } else {
        None
    }
}

impl Enablement {
    pub fn is_captured(&self) -> bool {
        match self {
            Self::Captured => true,
            Self::NotCaptured(_) => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEnabled => "neither the pod nor its namespace has istio.io/dataplane-mode",
            Self::OptedOut => "the pod has istio.io/dataplane-mode: none",
            Self::HostNetwork => "the pod uses the host's network",
            Self::Sidecar => "the pod has a sidecar",
            Self::ExcludedNamespace => "the namespace is excluded",
            Self::Ztunnel => "the pod is the node's proxy",
            Self::Finished => "the pod has finished",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(mode: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "shop".into();
        let labels = &mut pod.metadata.labels;
        labels.extend(mode.map(|mode| (labels::DATAPLANE_MODE.into(), mode.into())));
        pod
    }

    fn namespace(mode: Option<&str>) -> Namespace {
        let mut namespace = Namespace::default();
        let labels = &mut namespace.metadata.labels;
        labels.extend(mode.map(|mode| (labels::DATAPLANE_MODE.into(), mode.into())));
        namespace
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces() {
        use Reason::{NotEnabled, OptedOut};
        for (of_pod, of_namespace, expected) in [
            (None, None, Some(NotEnabled)),
            (None, Some("none"), Some(NotEnabled)),
            (None, Some("ambient"), None),
            (Some("none"), Some("ambient"), Some(OptedOut)),
            (Some("ambient"), Some("none"), None),
            (Some("ambient"), None, None),
            (Some("other"), Some("ambient"), None),
            (Some("other"), None, Some(NotEnabled)),
        ] {
            let answer = reason_against(&pod(of_pod), Some(&namespace(of_namespace)));
            assert_eq!(answer, expected, "{of_pod:?} in {of_namespace:?}");
        }
        assert!(is_ambient(&pod(Some("ambient")), None).is_captured());
    }

    #[test]
    fn some_pods_stay_outside_whatever_the_labels() {
        let check = |change: fn(&mut Pod), expected| {
            let mut pod = pod(Some("ambient"));
            change(&mut pod);
            assert_eq!(is_ambient(&pod, None), Enablement::NotCaptured(expected));
        };
        check(|pod| pod.spec.host_network = true, Reason::HostNetwork);
        check(
            |pod| {
                let annotations = &mut pod.metadata.annotations;
                annotations.insert(labels::SIDECAR_STATUS.into(), "{}".into());
            },
            Reason::Sidecar,
        );
        check(
            |pod| pod.metadata.namespace = "kube-system".into(),
            Reason::ExcludedNamespace,
        );
        check(
            |pod| {
                pod.metadata.namespace = "weft-system".into();
                pod.metadata.labels.insert("app".into(), "ztunnel".into());
            },
            Reason::Ztunnel,
        );
        check(
            |pod| pod.status.phase = Some(crate::kinds::pod::PodPhase::Succeeded),
            Reason::Finished,
        );
    }
}
