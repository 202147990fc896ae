//! Fields that Kubernetes and Istio know and Weft does not use: a pure table.
//!
//! What may be left out without surprise is accepted in silence; what the author would
//! miss is warned of.

use crate::node::Value;

pub(crate) enum Treatment {
    Accept,
    Warn,
}

/// None for a field that the type does not have at all.
pub(crate) fn treatment(kind: &str, field: &str, value: &Value) -> Option<Treatment> {
    let (accepted, missed) = fields(kind);
    if accepted.contains(&field) || is_default(kind, field, value) {
        Some(Treatment::Accept)
    } else if missed.contains(&field) {
        Some(Treatment::Warn)
    } else {
        None
    }
}

/// Whether the value says what holds anyway, as the API server writes out for everybody.
fn is_default(kind: &str, field: &str, value: &Value) -> bool {
    match (kind, field, value) {
        ("ServiceSpec", "sessionAffinity", Value::String(text)) => text == "None",
        ("ServiceSpec", "sessionAffinity", Value::Null) => true,
        _ => false,
    }
}

type Fields = &'static [&'static str];

/// Accepted in silence, and warned of, by the Rust name of the type.
fn fields(kind: &str) -> (Fields, Fields) {
    match kind {
        "ObjectMeta" => (
            &[
                "finalizers",
                "generation",
                "managedFields",
                "resourceVersion",
                "selfLink",
                "deletionGracePeriodSeconds",
            ],
            &[],
        ),
        "OwnerReference" => (&["blockOwnerDeletion"], &[]),
        "Condition" => (&["lastProbeTime", "lastUpdateTime"], &[]),
        "ConditionsStatus" => (
            &[
                "loadBalancer",
                "observedGeneration",
                "supportedFeatures",
                "validationMessages",
            ],
            &[],
        ),
        "Namespace" => (&["spec", "status"], &[]),
        "ServiceAccount" => (
            &[
                "secrets",
                "imagePullSecrets",
                "automountServiceAccountToken",
            ],
            &[],
        ),
        "ConfigMap" => (&["binaryData", "immutable"], &[]),
        "Node" => (&["spec"], &[]),
        "NodeStatus" => (
            &[
                "allocatable",
                "capacity",
                "config",
                "daemonEndpoints",
                "features",
                "images",
                "nodeInfo",
                "phase",
                "runtimeHandlers",
                "volumesAttached",
                "volumesInUse",
            ],
            &[],
        ),
        "PodSpec" => (
            &[
                "affinity",
                "automountServiceAccountToken",
                "enableServiceLinks",
                "imagePullSecrets",
                "os",
                "overhead",
                "preemptionPolicy",
                "priority",
                "priorityClassName",
                "resources",
                "runtimeClassName",
                "schedulerName",
                "schedulingGates",
                "securityContext",
                "setHostnameAsFQDN",
                "tolerations",
                "topologySpreadConstraints",
            ],
            &[
                "activeDeadlineSeconds",
                "ephemeralContainers",
                "hostAliases",
                "hostIPC",
                "hostPID",
                "hostUsers",
                "readinessGates",
                "resourceClaims",
                "shareProcessNamespace",
                "volumes",
            ],
        ),
        "PodStatus" => (
            &[
                "ephemeralContainerStatuses",
                "hostIPs",
                "nominatedNodeName",
                "observedGeneration",
                "qosClass",
                "resize",
                "resourceClaimStatuses",
            ],
            &[],
        ),
        "Container" => (
            &[
                "imagePullPolicy",
                "resizePolicy",
                "resources",
                "securityContext",
                "stdin",
                "stdinOnce",
                "terminationMessagePath",
                "terminationMessagePolicy",
                "tty",
            ],
            &["envFrom", "lifecycle", "volumeDevices", "volumeMounts"],
        ),
        "ContainerPort" => (&[], &["hostIP", "hostPort"]),
        "EnvVarSource" => (
            &[],
            &[
                "configMapKeyRef",
                "fileKeyRef",
                "resourceFieldRef",
                "secretKeyRef",
            ],
        ),
        "Probe" => (&["terminationGracePeriodSeconds"], &[]),
        "ContainerStatus" => (
            &[
                "allocatedResources",
                "allocatedResourcesStatus",
                "containerID",
                "image",
                "imageID",
                "resources",
                "stopSignal",
                "user",
                "volumeMounts",
            ],
            &[],
        ),
        "ContainerStateTerminated" => (&["containerID"], &[]),
        "DeploymentSpec" => (
            &[
                "minReadySeconds",
                "progressDeadlineSeconds",
                "revisionHistoryLimit",
            ],
            &[],
        ),
        "DeploymentStatus" => (
            &[
                "collisionCount",
                "observedGeneration",
                "terminatingReplicas",
                "unavailableReplicas",
            ],
            &[],
        ),
        "ServiceSpec" => (
            &[
                "allocateLoadBalancerNodePorts",
                "externalTrafficPolicy",
                "healthCheckNodePort",
                "loadBalancerClass",
                "loadBalancerIP",
                "loadBalancerSourceRanges",
            ],
            &["externalIPs", "sessionAffinity", "sessionAffinityConfig"],
        ),
        "GatewaySpec" => (
            &["defaultScope"],
            &["allowedListeners", "backendTLS", "tls"],
        ),
        "GatewayStatus" => (&["attachedListenerSets"], &[]),
        "Listener" => (&[], &["tls"]),
        "HTTPRouteSpec" | "GRPCRouteSpec" | "TCPRouteSpec" => (&[], &["useDefaultGateways"]),
        "HTTPRouteRule" | "GRPCRouteRule" => (&[], &["sessionPersistence"]),
        "HTTPRouteFilter" => (&[], &["externalAuth"]),
        "ServicePort" => (&["nodePort"], &[]),
        "ServiceEntryStatus" => (&["observedGeneration", "validationMessages"], &[]),
        _ => (&[], &[]),
    }
}
