//! Gateway to the objects that run its waypoint: Deployment, Service, ServiceAccount; and the
//! Gateway itself, where it is made on demand.

use std::collections::BTreeMap;

use crate::kinds::IntOrString;
use crate::kinds::container::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector,
};
use crate::kinds::deployment::{Deployment, DeploymentSpec, PodTemplateSpec};
use crate::kinds::gateway::{Gateway, GatewaySpec, Listener};
use crate::kinds::gateway_class::{GatewayClass, GatewayClassSpec};
use crate::kinds::metadata::{ObjectMeta, OwnerReference};
use crate::kinds::pod::PodSpec;
use crate::kinds::probe::{HttpGetAction, Probe};
use crate::kinds::selector::{LabelSelector, Labels};
use crate::kinds::service::{Service, ServicePort, ServiceSpec};
use crate::kinds::service_account::ServiceAccount;
use crate::labels;
use crate::object::{Body, ObjectKey, Resource};
use crate::view::View;
use crate::waypoint::parameters::Objects;
use crate::waypoint::{HBONE_PORT, WaypointName, gateway, is_managed};

/// The value of label `gateway.istio.io/managed`.
pub const CONTROLLER: &str = "istio.io-mesh-controller";
/// The program in the pod; who runs it knows where it is.
pub const PROGRAM: &str = "waypoint";
/// The container that is the waypoint.
pub const CONTAINER: &str = "istio-proxy";
const CLASS: &str = "weft-waypoint";
const METRICS_PORT: u16 = 15020;
const READY_PORT: u16 = 15021;
pub(super) const MOST_REPLICAS: u32 = 100;

/// Why a waypoint can't be run as its Gateway says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A ConfigMap that shapes it can't be followed: which one, where, and why.
    Parameters(String),
    Replicas(String),
    /// Others run under the account too.
    Account(String),
    /// A Service of the name is somebody else's.
    Service(String),
}

/// What there is to be of waypoints.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub objects: Vec<Body>,
    /// What stays as it is, where it is there: a mistake in what shapes a waypoint doesn't end it.
    pub kept: Vec<ObjectKey>,
}

/// The Gateway that is made for a namespace where something needs a waypoint.
pub fn on_demand_gateway(namespace: &str) -> Gateway {
    let WaypointName { namespace, name } = WaypointName::on_demand(namespace);
    Gateway {
        metadata: ObjectMeta {
            name: name.to_string(),
            namespace: namespace.to_string(),
            labels: Labels::from([
                (labels::WAYPOINT_FOR.to_owned(), "all".to_owned()),
                (labels::ON_DEMAND.to_owned(), "true".to_owned()),
            ]),
            ..ObjectMeta::default()
        },
        spec: spec(CLASS),
        ..Gateway::default()
    }
}

/// The class whose Gateways are waypoints, where nobody else has one of the name.
fn class(name: &str) -> GatewayClass {
    GatewayClass {
        metadata: ObjectMeta {
            name: name.to_owned(),
            labels: Labels::from([(labels::MANAGED.to_owned(), CONTROLLER.to_owned())]),
            ..ObjectMeta::default()
        },
        spec: GatewayClassSpec {
            controller_name: "istio.io/mesh-controller".to_owned(),
            parameters_ref: None,
            description: "Waypoints of the mesh".to_owned(),
        },
        ..GatewayClass::default()
    }
}

/// What every waypoint's Gateway says.
pub fn spec(class: &str) -> GatewaySpec {
    GatewaySpec {
        gateway_class_name: class.to_owned(),
        listeners: vec![Listener {
            name: "mesh".to_owned(),
            port: HBONE_PORT,
            protocol: "HBONE".to_owned(),
            ..Listener::default()
        }],
        ..GatewaySpec::default()
    }
}

/// What keeps the waypoint from being run.
pub fn obstacle(view: &View, gateway: &Gateway) -> Option<Obstacle> {
    made(view, gateway).err()
}

fn made(view: &View, gateway: &Gateway) -> Result<Objects, Obstacle> {
    let metadata = &gateway.metadata;
    let account = gateway::service_account(metadata);
    if view.is_shared(&metadata.namespace, account) {
        return Err(Obstacle::Account(account.to_owned()));
    }
    let name = gateway::name_of_objects(metadata);
    let contents = view.contents(&metadata.namespace);
    let service = contents.and_then(|contents| contents.services.get(name));
    if service.is_some_and(|service| !is_managed(&service.metadata)) {
        return Err(Obstacle::Service(name.to_owned()));
    }
    let replicas = replicas(metadata).map_err(Obstacle::Replicas)?;
    let [of_class, own] = view.parameters(gateway).map_err(Obstacle::Parameters)?;
    let mut objects = Objects {
        service_account: service_account(gateway),
        service: self::service(gateway),
        deployment: deployment(view, gateway),
    };
    if let Some(parameters) = of_class {
        objects = parameters.over(objects).map_err(Obstacle::Parameters)?;
    }
    // Of the Gateway itself, and so before its class and behind what it names.
    if replicas.is_some() {
        objects.deployment.spec.replicas = replicas;
    }
    if let Some(parameters) = own {
        objects = parameters.over(objects).map_err(Obstacle::Parameters)?;
    }
    Ok(objects)
}

/// All objects of waypoints that there are to be: of the users' Gateways, of those made for the
/// namespaces where something needs one, and their classes.
pub fn wanted<'a>(view: &View, demand: impl IntoIterator<Item = &'a str>) -> Wanted {
    let mut wanted = Wanted::default();
    let explicit = view.waypoints();
    for gateway in explicit.filter(|gateway| !gateway::is_on_demand(gateway)) {
        wanted.add(view, gateway);
    }
    let made = demand.into_iter().filter(|namespace| {
        let waypoint = WaypointName::on_demand(*namespace);
        let known = view.gateway(&waypoint);
        known.is_none_or(|known| gateway::is_on_demand(known))
    });
    for namespace in made {
        let gateway = on_demand_gateway(namespace);
        wanted.add(view, &gateway);
        wanted.objects.push(gateway.into_body());
    }
    let classes = gateway::CLASSES.into_iter().filter(|name| {
        let known = view.gateway_classes.get(*name);
        known.is_none_or(|known| is_managed(&known.metadata))
    });
    wanted
        .objects
        .extend(classes.map(|name| class(name).into_body()));
    wanted
}

fn service_account(gateway: &Gateway) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(gateway, gateway::service_account(&gateway.metadata)),
    }
}

fn service(gateway: &Gateway) -> Service {
    let mut metadata = metadata(gateway, gateway::name_of_objects(&gateway.metadata));
    metadata.annotations.insert(
        labels::TRAFFIC_DISTRIBUTION.to_owned(),
        "PreferClose".to_owned(),
    );
    let port = |name: &str, port, app_protocol: Option<&str>| ServicePort {
        name: name.to_owned(),
        port,
        app_protocol: app_protocol.map(str::to_owned),
        ..ServicePort::default()
    };
    Service {
        metadata,
        spec: ServiceSpec {
            selector: selector(gateway),
            ports: vec![
                port("status-port", READY_PORT, None),
                port("mesh", HBONE_PORT, Some("hbone")),
            ],
            ..ServiceSpec::default()
        },
        ..Service::default()
    }
}

fn deployment(view: &View, gateway: &Gateway) -> Deployment {
    let name = gateway::name_of_objects(&gateway.metadata);
    let own = metadata(gateway, name);
    let template = ObjectMeta {
        labels: pod_labels(gateway, &own.labels),
        annotations: pod_annotations(&own.annotations),
        ..ObjectMeta::default()
    };
    Deployment {
        metadata: own,
        spec: DeploymentSpec {
            selector: LabelSelector {
                match_labels: selector(gateway),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: template,
                spec: PodSpec {
                    service_account_name: gateway::service_account(&gateway.metadata).to_owned(),
                    containers: vec![container(view, gateway)],
                    ..PodSpec::default()
                },
            },
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    }
}

fn container(view: &View, gateway: &Gateway) -> Container {
    let context = view.context();
    let value = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: value.to_owned(),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: String::new(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
        }),
    };
    let port = |name: &str, port| ContainerPort {
        name: name.to_owned(),
        container_port: port,
        ..ContainerPort::default()
    };
    // Asked often: connections are refused until it is ready.
    let probe = |failures| Probe {
        http_get: Some(HttpGetAction {
            port: IntOrString::Int(READY_PORT.into()),
            path: "/healthz/ready".to_owned(),
            host: String::new(),
            scheme: Default::default(),
            http_headers: Vec::new(),
        }),
        period_seconds: 1,
        failure_threshold: failures,
        ..Probe::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        command: vec![PROGRAM.to_owned()],
        env: vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("INSTANCE_IP", "status.podIP"),
            field("NODE_NAME", "spec.nodeName"),
            value("GATEWAY_NAME", &gateway.metadata.name),
            value("GATEWAY_CLASS_NAME", &gateway.spec.gateway_class_name),
            value("CLUSTER_ID", &context.cluster_id),
            value("TRUST_DOMAIN", &context.trust_domain),
        ],
        ports: vec![
            port("mesh", HBONE_PORT),
            port("metrics", METRICS_PORT),
            port("status-port", READY_PORT),
        ],
        readiness_probe: Some(probe(4)),
        ..Container::default()
    }
}

fn selector(gateway: &Gateway) -> Labels {
    Labels::from([(
        labels::GATEWAY_NAME.to_owned(),
        gateway.metadata.name.clone(),
    )])
}

/// Labels and annotations of `spec.infrastructure`; without it, those of the Gateway itself.
fn metadata(gateway: &Gateway, name: &str) -> ObjectMeta {
    let given = &gateway.metadata;
    let (given_labels, given_annotations) = match &gateway.spec.infrastructure {
        Some(infrastructure) => (&infrastructure.labels, &infrastructure.annotations),
        None => (&given.labels, &given.annotations),
    };
    let copied = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        map.iter()
            .filter(|(key, _)| {
                !key.starts_with("gateway.networking.k8s.io/")
                    && !key.starts_with("kubectl.kubernetes.io/")
                    && ![labels::ON_DEMAND, labels::REPLICAS, labels::DATAPLANE_MODE]
                        .contains(&key.as_str())
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let mut own = copied(given_labels);
    own.extend([
        (labels::GATEWAY_NAME.to_owned(), given.name.clone()),
        (
            labels::GATEWAY_CLASS_NAME.to_owned(),
            gateway.spec.gateway_class_name.clone(),
        ),
        (labels::MANAGED.to_owned(), CONTROLLER.to_owned()),
    ]);
    ObjectMeta {
        name: name.to_owned(),
        namespace: given.namespace.clone(),
        labels: own,
        annotations: copied(given_annotations),
        owner_references: vec![OwnerReference {
            api_version: Gateway::KIND.api_version().to_owned(),
            kind: Gateway::KIND.name().to_owned(),
            name: given.name.clone(),
            uid: given.uid.clone(),
            controller: true,
        }],
        ..ObjectMeta::default()
    }
}

/// What makes the pod a waypoint to others: it speaks HBONE itself, and nothing captures it.
fn pod_labels(gateway: &Gateway, own: &Labels) -> Labels {
    let mut all = own.clone();
    let name = gateway.metadata.name.as_str();
    for (key, value) in [
        (labels::DATAPLANE_MODE, "none"),
        (labels::SIDECAR_INJECT, "false"),
        (labels::TUNNEL, "http"),
        (labels::CANONICAL_NAME, name),
        (labels::CANONICAL_REVISION, "latest"),
    ] {
        all.insert(key.to_owned(), value.to_owned());
    }
    all
}

fn pod_annotations(own: &Labels) -> Labels {
    let mut all = own.clone();
    for (key, value) in [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", METRICS_PORT.to_string()),
        ("prometheus.io/path", "/stats/prometheus".to_owned()),
    ] {
        all.insert(key.to_owned(), value);
    }
    all
}

fn replicas(metadata: &ObjectMeta) -> Result<Option<u32>, String> {
    let Some(text) = metadata.annotation(labels::REPLICAS) else {
        return Ok(None);
    };
    let number = text.parse().ok();
    match number.filter(|number| *number <= MOST_REPLICAS) {
        Some(number) => Ok(Some(number)),
        None => Err(text.to_owned()),
    }
}

// === impl Wanted ===

impl Wanted {
    /// The objects that run a Gateway's waypoint; none where something keeps it from running.
    fn add(&mut self, view: &View, gateway: &Gateway) {
        if !gateway::is_waypoint(view, gateway) || gateway::unfit(gateway).is_some() {
            return;
        }
        match made(view, gateway) {
            Ok(objects) => self.objects.extend([
                objects.service_account.into_body(),
                objects.service.into_body(),
                objects.deployment.into_body(),
            ]),
            Err(Obstacle::Parameters(_) | Obstacle::Replicas(_)) => self.kept.extend([
                service_account(gateway).key(),
                service(gateway).key(),
                deployment(view, gateway).key(),
            ]),
            // Others would be admitted under the waypoint's identity, or answer at its address.
            Err(Obstacle::Account(_) | Obstacle::Service(_)) => {}
        }
    }
}
