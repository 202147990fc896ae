//! The objects of the benchmark: one server behind services that differ in what their waypoint
//! has to do.

/// What a waypoint has to do for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing but HTTP.
    Plain,
    /// Find the last of 100 routes.
    Routes,
    /// Evaluate 100 policies of which none matches.
    Policies,
}

/// Routes, and policies, of a service that has them.
pub(super) const COUNT: usize = 100;
/// Rules that one HTTPRoute may have (Gateway API).
const RULES: usize = 16;

pub(super) const NAMESPACE: &str = "bench";

// === impl Work ===

impl Work {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Routes, Self::Policies];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Routes => "routes",
            Self::Policies => "policies",
        }
    }

    /// What a client asks for.
    pub(super) fn path(self) -> String {
        match self {
            Self::Plain | Self::Policies => "/bench".to_owned(),
            Self::Routes => format!("/route-{}/bench", COUNT - 1),
        }
    }
}

/// Everything but Envoy.
pub(super) fn ours() -> String {
    let mut yaml = format!(
        "\
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{istio.io/dataplane-mode: ambient}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {NAMESPACE}}}
spec:
  nodeName: node-1
  containers: [{{name: bench, command: [sleep, infinity]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: weft, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
---
{}",
        service("direct", "none", "server")
    );
    for name in ["server", "server-policies", "server-envoy"] {
        yaml += &server(name);
    }
    for work in Work::ALL {
        // A service's policies hold for its pods, whichever service of theirs was addressed.
        let server = match work {
            Work::Plain | Work::Routes => "server",
            Work::Policies => "server-policies",
        };
        yaml += &service(&format!("weft-{}", work.name()), "weft", server);
    }
    yaml + &routes() + &policies()
}

fn server(name: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}
spec:
  nodeName: node-2
  containers: [{{name: bench, command: [bench, serve-http]}}]
---
"
    )
}

/// The pods behind a service: what one waypoint guards is refused to those who come by another,
/// so each proxy has a server of its own.
fn service(name: &str, waypoint: &str, server: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{istio.io/use-waypoint: {waypoint}}}}}
spec:
  selector: {{app: {server}}}
  ports: [{{name: http, port: 8080}}, {{name: http2, port: 8081, appProtocol: kubernetes.io/h2c}}]
---
"
    )
}

fn routes() -> String {
    let rule = |number: usize| {
        format!(
            "  - matches: [{{path: {{type: PathPrefix, value: /route-{number}}}}}]
    backendRefs: [{{name: weft-routes, port: 8080}}]
"
        )
    };
    // One HTTPRoute for each port: a backend is a service and its port.
    let mut yaml = String::new();
    for port in [8080, 8081] {
        for first in (0..COUNT).step_by(RULES) {
            let rules: String = (first..COUNT.min(first + RULES)).map(rule).collect();
            let rules = rules.replace("port: 8080", &format!("port: {port}"));
            yaml += &format!(
                "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: routes-{port}-{first}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: weft-routes, port: {port}}}]
  rules:
{rules}---
"
            );
        }
    }
    yaml
}

fn policies() -> String {
    let policy = |number: usize| {
        format!(
            "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny-{number}, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: weft-policies}}]
  action: DENY
  rules: [{{to: [{{operation: {{methods: [GET, POST], paths: [/denied-{number}/*]}}}}]}}]
---
"
        )
    };
    (0..COUNT).map(policy).collect()
}

/// Envoy as the waypoint of services of its own, one process for each kind of work.
pub(super) fn envoys(binary: &str, configuration: impl Fn(Work) -> String) -> String {
    let one = |work: Work| {
        let name = format!("envoy-{}", work.name());
        let configuration = configuration(work);
        format!(
            "\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{app: {name}, istio.io/dataplane-mode: none, networking.istio.io/tunnel: http}}
spec:
  serviceAccountName: envoy
  nodeName: node-2
  containers:
  - name: envoy
    command: [{binary}, -c, {configuration}, --concurrency, \"2\", --log-level, warn, --disable-hot-restart]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-proxy, namespace: {NAMESPACE}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: hbone, port: 15008, appProtocol: hbone}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}-proxy, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: istio-waypoint
  addresses: [{{type: Hostname, value: {name}-proxy}}]
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
---
{}",
            service(&name, &format!("{name}-proxy"), "server-envoy")
        )
    };
    let account = format!(
        "\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: envoy, namespace: {NAMESPACE}}}
---
"
    );
    account + &Work::ALL.map(one).concat()
}
