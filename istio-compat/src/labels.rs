//! Labels and annotations that the mesh reads and writes.

pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// A second waypoint, for a share of connections.
pub const USE_WAYPOINT_CANARY: &str = "istio.io/use-waypoint-canary";
pub const USE_WAYPOINT_CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Annotation beside it: its percentage.
pub const USE_WAYPOINT_CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
pub const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
pub const TUNNEL: &str = "networking.istio.io/tunnel";
pub const NETWORK: &str = "topology.istio.io/network";
pub const AUTOALLOCATE_IP: &str = "networking.istio.io/enable-autoallocate-ip";

pub const REGION: &str = "topology.kubernetes.io/region";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const SUBZONE: &str = "topology.istio.io/subzone";

pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
pub const APP_NAME: &str = "app.kubernetes.io/name";
pub const APP_VERSION: &str = "app.kubernetes.io/version";
pub const APP: &str = "app";
pub const VERSION: &str = "version";
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotation: `enabled` once the node's proxy has acknowledged the pod.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Annotation on a pod: it takes its own plaintext.
pub const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation on a pod: `false` leaves its DNS alone.
pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// Annotation on a pod: what enters through these interfaces counts as outbound.
pub const REROUTE_VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation: written by sidecar injection.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Annotation: evaluate and log only.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Annotation.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// Annotation: how to choose among endpoints that are equally close, in the words of
/// DestinationRule's `loadBalancer.simple`.
pub const LOAD_BALANCER: &str = "weft.dev/load-balancer";
/// Annotation.
pub const AUTO_REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";

/// On a Gateway or its class: which traffic its waypoint is for.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// On a namespace: `off` makes no waypoint there but for labels.
pub const WAYPOINT: &str = "weft.dev/waypoint";
/// On a Gateway that was made because something needed a waypoint.
pub const ON_DEMAND: &str = "weft.dev/on-demand";
/// On what is made for a Gateway, with its controller's name.
pub const MANAGED: &str = "gateway.istio.io/managed";
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// On a ConfigMap of the root namespace: the class of Gateways whose waypoints it shapes.
pub const DEFAULTS_FOR_CLASS: &str = "gateway.istio.io/defaults-for-class";
pub const SIDECAR_INJECT: &str = "sidecar.istio.io/inject";

/// Annotation on a Gateway: the service account of its pods.
pub const GATEWAY_SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// Annotation on a Gateway: the name of what is made for it.
pub const GATEWAY_NAME_OVERRIDE: &str = "gateway.istio.io/name-override";
/// Annotation on a Gateway: how many pods its waypoint has.
pub const REPLICAS: &str = "weft.dev/replicas";
