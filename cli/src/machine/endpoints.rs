//! Which pods answer for which service, as the network needs to know it. No I/O.
use istio_compat::kinds::IntOrString;
use istio_compat::kinds::container;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::selector::labels_match;
use istio_compat::kinds::service::{InternalTrafficPolicy, Service, ServicePort, ServiceType};

use super::network::service::{self, Endpoint, Kind, Port, Protocol};

/// A service with those of its pods that traffic may be led to now.
pub(crate) fn resolve(service: &Service, pods: &[&Pod]) -> service::Service {
    let spec = &service.spec;
    let kind = match spec.type_ {
        ServiceType::ExternalName => Kind::ExternalName(spec.external_name.clone()),
        _ if service.is_headless() => Kind::Headless,
        ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => {
            Kind::ClusterIp(service.cluster_ips())
        }
    };
    service::Service {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        kind,
        ports: spec.ports.iter().filter_map(port).collect(),
        endpoints: pods
            .iter()
            .filter(|pod| answers(service, pod))
            .filter_map(|pod| endpoint(service, pod))
            .collect(),
        internal_traffic_policy: match spec.internal_traffic_policy {
            InternalTrafficPolicy::Cluster => service::InternalTrafficPolicy::Cluster,
            InternalTrafficPolicy::Local => service::InternalTrafficPolicy::Local,
        },
    }
}

fn answers(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty()
        && pod.metadata.namespace == service.metadata.namespace
        && labels_match(selector, &pod.metadata.labels)
        && !pod.is_finished()
        && (pod.is_ready() || service.spec.publish_not_ready_addresses)
}

fn endpoint(service: &Service, pod: &Pod) -> Option<Endpoint> {
    let ips = pod.ips();
    if ips.is_empty() {
        return None;
    }
    let spec = &pod.spec;
    let named = !spec.hostname.is_empty() && spec.subdomain == service.metadata.name;
    let targets = service.spec.ports.iter().filter_map(|port| {
        let protocol = protocol(port.protocol)?;
        Some(((protocol, port.port), target(port, pod)?))
    });
    Some(Endpoint {
        ips,
        node: spec.node_name.strip_prefix("node-")?.parse().ok()?,
        hostname: named.then(|| spec.hostname.clone()),
        targets: targets.collect(),
    })
}

fn port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        number: port.port,
        protocol: protocol(port.protocol)?,
    })
}

/// The pod's port behind a service's, unless it is named and the pod has none of that name.
pub(crate) fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => pod
            .lasting_containers()
            .flat_map(|container| &container.ports)
            .find(|candidate| candidate.name == *name && candidate.protocol == port.protocol)
            .map(|candidate| candidate.container_port),
    }
}

fn protocol(protocol: container::Protocol) -> Option<Protocol> {
    match protocol {
        container::Protocol::Tcp => Some(Protocol::Tcp),
        container::Protocol::Udp => Some(Protocol::Udp),
        container::Protocol::Sctp => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-2", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": "10.244.2.2", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn only_ready_pods_answer_unless_the_service_says_otherwise() {
        let pods = [&pod("a", true), &pod("b", false)];
        let plain = service(json!({"selector": {"app": "web"}}));
        assert_eq!(resolve(&plain, &pods).endpoints.len(), 1);
        let published =
            service(json!({"selector": {"app": "web"}, "publishNotReadyAddresses": true}));
        assert_eq!(resolve(&published, &pods).endpoints.len(), 2);
        let unselected = service(json!({}));
        assert!(resolve(&unselected, &pods).endpoints.is_empty());
    }

    #[test]
    fn a_named_target_port_is_the_pods_own() {
        let named = service(json!({"selector": {"app": "web"}, "ports": [
            {"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": "none"}, {"port": 82},
        ]}));
        let endpoint = resolve(&named, &[&pod("a", true)]).endpoints.remove(0);
        assert_eq!(endpoint.node, 2);
        let targets: Vec<_> = endpoint.targets.into_iter().collect();
        assert_eq!(
            targets,
            [((Protocol::Tcp, 80), 8080), ((Protocol::Tcp, 82), 82)]
        );
    }
}
