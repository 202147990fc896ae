//! The closed list of kinds, and the named list of those known and not honoured yet.

use std::fmt;

use serde::{Serialize, Serializer};

/// A kind that Weft reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    ConfigMap,
    Pod,
    Deployment,
    Service,
    AuthorizationPolicy,
    PeerAuthentication,
    ServiceEntry,
    WorkloadEntry,
    RequestAuthentication,
    Gateway,
    GatewayClass,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    ReferenceGrant,
}

/// What the outside calls a kind.
struct Names {
    kind: &'static str,
    /// The first is the one written.
    api_versions: &'static [&'static str],
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 18] = [
        Self::Namespace,
        Self::Node,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Pod,
        Self::Deployment,
        Self::Service,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::RequestAuthentication,
        Self::Gateway,
        Self::GatewayClass,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
    ];

    fn names(self) -> Names {
        const CORE: &[&str] = &["v1"];
        const NETWORKING: &[&str] = &[
            "networking.istio.io/v1",
            "networking.istio.io/v1beta1",
            "networking.istio.io/v1alpha3",
        ];
        const GATEWAY: &[&str] = &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ];
        const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
        let (kind, api_versions, plural, short, namespaced): (_, _, _, &[_], _) = match self {
            Self::Namespace => ("Namespace", CORE, "namespaces", &["ns"], false),
            Self::Node => ("Node", CORE, "nodes", &["no"], false),
            Self::ServiceAccount => ("ServiceAccount", CORE, "serviceaccounts", &["sa"], true),
            Self::ConfigMap => ("ConfigMap", CORE, "configmaps", &["cm"], true),
            Self::Pod => ("Pod", CORE, "pods", &["po"], true),
            Self::Deployment => (
                "Deployment",
                &["apps/v1"] as &[_],
                "deployments",
                &["deploy"],
                true,
            ),
            Self::Service => ("Service", CORE, "services", &["svc"], true),
            Self::AuthorizationPolicy => (
                "AuthorizationPolicy",
                SECURITY,
                "authorizationpolicies",
                &["ap"],
                true,
            ),
            Self::PeerAuthentication => (
                "PeerAuthentication",
                SECURITY,
                "peerauthentications",
                &["pa"],
                true,
            ),
            Self::ServiceEntry => ("ServiceEntry", NETWORKING, "serviceentries", &["se"], true),
            Self::WorkloadEntry => (
                "WorkloadEntry",
                NETWORKING,
                "workloadentries",
                &["we"],
                true,
            ),
            Self::RequestAuthentication => (
                "RequestAuthentication",
                SECURITY,
                "requestauthentications",
                &["ra"],
                true,
            ),
            Self::Gateway => ("Gateway", GATEWAY, "gateways", &["gtw"], true),
            Self::GatewayClass => ("GatewayClass", GATEWAY, "gatewayclasses", &["gc"], false),
            Self::HttpRoute => ("HTTPRoute", GATEWAY, "httproutes", &[], true),
            Self::GrpcRoute => (
                "GRPCRoute",
                &[
                    "gateway.networking.k8s.io/v1",
                    "gateway.networking.k8s.io/v1alpha2",
                ],
                "grpcroutes",
                &[],
                true,
            ),
            Self::TcpRoute => (
                "TCPRoute",
                &[
                    "gateway.networking.k8s.io/v1alpha2",
                    "gateway.networking.k8s.io/v1",
                ],
                "tcproutes",
                &[],
                true,
            ),
            Self::ReferenceGrant => (
                "ReferenceGrant",
                &[
                    "gateway.networking.k8s.io/v1beta1",
                    "gateway.networking.k8s.io/v1",
                    "gateway.networking.k8s.io/v1alpha2",
                ],
                "referencegrants",
                &["refgrant"],
                true,
            ),
        };
        Names {
            kind,
            api_versions,
            plural,
            short,
            namespaced,
        }
    }

    pub fn name(self) -> &'static str {
        self.names().kind
    }

    /// The version that is written, such as `security.istio.io/v1`.
    pub fn api_version(self) -> &'static str {
        self.names().api_versions[0]
    }

    /// Every version that is read.
    pub fn api_versions(self) -> &'static [&'static str] {
        self.names().api_versions
    }

    /// Lower-case plural, `pods`.
    pub fn plural(self) -> &'static str {
        self.names().plural
    }

    /// Where its rules are, that decide one by one.
    pub(crate) fn rules(self) -> Option<&'static str> {
        match self {
            Self::AuthorizationPolicy | Self::HttpRoute | Self::GrpcRoute | Self::TcpRoute => {
                Some("rules")
            }
            Self::RequestAuthentication => Some("jwtRules"),
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::ConfigMap
            | Self::Pod
            | Self::Deployment
            | Self::Service
            | Self::PeerAuthentication
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::Gateway
            | Self::GatewayClass
            | Self::ReferenceGrant => None,
        }
    }

    pub fn is_namespaced(self) -> bool {
        self.names().namespaced
    }

    /// The kind a document names, by exact kind.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == kind)
    }

    /// The kind a person names: `Pod`, `pod`, `pods` or `po`, in any letter case.
    pub fn named(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let names = kind.names();
            names.kind.eq_ignore_ascii_case(&text)
                || names.plural == text
                || names.short.contains(&text.as_str())
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why an object of a known kind is left out.
pub(crate) enum Unread {
    /// The mesh would act on it and cannot yet.
    NotHonouredYet,
    /// Nothing in the mesh reads it.
    NotTheMeshs,
}

/// API groups whose kinds are all known here, so that another kind in them is a mistake.
const KNOWN_GROUPS: &[&str] = &[
    "",
    "apps",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "gateway.networking.k8s.io",
    "gateway.networking.x-k8s.io",
];

const NOT_HONOURED_YET: &[(&str, &[&str])] = &[
    ("", &["Endpoints"]),
    ("apps", &["DaemonSet", "ReplicaSet", "StatefulSet"]),
    ("batch", &["CronJob", "Job"]),
    ("discovery.k8s.io", &["EndpointSlice"]),
    ("networking.k8s.io", &["Ingress", "NetworkPolicy"]),
    (
        "networking.istio.io",
        &[
            "DestinationRule",
            "EnvoyFilter",
            "Gateway",
            "ProxyConfig",
            "Sidecar",
            "VirtualService",
            "WorkloadGroup",
        ],
    ),
    ("telemetry.istio.io", &["Telemetry"]),
    ("extensions.istio.io", &["TrafficExtension", "WasmPlugin"]),
    (
        "gateway.networking.k8s.io",
        &["BackendTLSPolicy", "ListenerSet", "TLSRoute", "UDPRoute"],
    ),
    (
        "gateway.networking.x-k8s.io",
        &["XBackendTrafficPolicy", "XListenerSet", "XMesh"],
    ),
];

const NOT_THE_MESHS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "Event",
            "LimitRange",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
        ],
    ),
    ("apps", &["ControllerRevision"]),
    (
        "rbac.authorization.k8s.io",
        &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"],
    ),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("policy", &["PodDisruptionBudget"]),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
];

/// The group of an `apiVersion`; empty for the core group.
pub(crate) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

pub(crate) fn unread(api_version: &str, kind: &str) -> Option<Unread> {
    let group = group(api_version);
    let listed = |table: &[(&str, &[&str])]| {
        table
            .iter()
            .any(|(known, kinds)| *known == group && kinds.contains(&kind))
    };
    if listed(NOT_HONOURED_YET) {
        Some(Unread::NotHonouredYet)
    } else if listed(NOT_THE_MESHS) {
        Some(Unread::NotTheMeshs)
    } else {
        None
    }
}

/// Whether every kind of the group is listed here.
pub(crate) fn is_known_group(api_version: &str) -> bool {
    KNOWN_GROUPS.contains(&group(api_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_name_kinds_in_many_ways() {
        for name in ["AuthorizationPolicy", "authorizationpolicies", "AP"] {
            assert_eq!(Kind::named(name), Some(Kind::AuthorizationPolicy));
        }
        assert_eq!(Kind::named("route"), None);
    }

    #[test]
    fn every_kind_is_found_by_its_own_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.name()), Some(kind));
            assert_eq!(Kind::named(kind.plural()), Some(kind));
        }
    }
}
