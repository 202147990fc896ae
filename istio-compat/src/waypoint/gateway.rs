//! What a Gateway says of its waypoint: whether it is one, what traffic it is for, whose, and
//! under which identity it runs.

use std::sync::Arc;

use mesh::identity::Identity;

use crate::kinds::gateway::{FromNamespaces, Gateway, Listener};
use crate::kinds::gateway_class::GatewayClass;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::pod::Pod;
use crate::labels;
use crate::view::View;
use crate::waypoint::{HBONE_PORT, WaypointName};

/// The classes whose Gateways are waypoints, where no GatewayClass says otherwise.
pub const CLASSES: [&str; 2] = ["istio-waypoint", "weft-waypoint"];
/// Controllers that are this mesh.
const CONTROLLERS: [&str; 2] = ["istio.io/mesh-controller", "weft.dev/mesh-controller"];

/// Which destinations a waypoint may stand in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// What is dialled by a service's name or address.
    Service,
    /// What is dialled by a workload's own address.
    Workload,
}

/// Whether a Gateway of this class is a waypoint of this mesh. A class that another controller
/// owns is not.
pub fn is_waypoint(view: &View, gateway: &Gateway) -> bool {
    let class = gateway.spec.gateway_class_name.as_str();
    match view.gateway_classes.get(class) {
        Some(class) => is_ours(class),
        None => CLASSES.contains(&class),
    }
}

/// Whether the class names this mesh as its controller.
pub fn is_ours(class: &GatewayClass) -> bool {
    CONTROLLERS.contains(&class.spec.controller_name.as_str())
}

/// Whether the Gateway was made because something needed a waypoint.
pub fn is_on_demand(gateway: &Gateway) -> bool {
    gateway.metadata.label(labels::ON_DEMAND).is_some()
}

/// The Gateway's `istio.io/waypoint-for`, else its class's, else `service`.
pub fn traffic_type<'a>(view: &'a View, gateway: &'a Gateway) -> &'a str {
    let class = view.gateway_classes.get(&*gateway.spec.gateway_class_name);
    gateway
        .metadata
        .label(labels::WAYPOINT_FOR)
        .or_else(|| class?.metadata.label(labels::WAYPOINT_FOR))
        .unwrap_or("service")
}

/// Whether the waypoint is for such traffic.
pub fn is_for(view: &View, gateway: &Gateway, traffic: Traffic) -> bool {
    match (traffic_type(view, gateway), traffic) {
        ("all", _) | ("service", Traffic::Service) | ("workload", Traffic::Workload) => true,
        (_, Traffic::Service | Traffic::Workload) => false,
    }
}

/// Whether `allowedRoutes` of the waypoint's listener admit what is in a namespace.
pub fn admits(view: &View, gateway: &Gateway, namespace: &str) -> bool {
    let allowed = listener(gateway).and_then(|listener| listener.allowed_routes.as_ref());
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let from = namespaces.map(|namespaces| namespaces.from);
    match from.unwrap_or_default() {
        FromNamespaces::All => true,
        FromNamespaces::Same => namespace == gateway.metadata.namespace,
        FromNamespaces::None => false,
        FromNamespaces::Selector => {
            let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
            let metadata = view.namespace(namespace).map(|one| &one.metadata);
            let (Some(selector), Some(metadata)) = (selector, metadata) else {
                return false;
            };
            let mut labels = metadata.labels.clone();
            labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
            selector.matches(&labels)
        }
    }
}

/// The listener of HBONE.
pub fn listener(gateway: &Gateway) -> Option<&Listener> {
    gateway.spec.listeners.iter().find(|one| is_hbone(one))
}

fn is_hbone(listener: &Listener) -> bool {
    listener.port == HBONE_PORT && listener.protocol.eq_ignore_ascii_case("HBONE")
}

/// What of a Gateway keeps it from being a waypoint of the mesh's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit<'a> {
    Listener(&'a Listener, UnfitListener),
    /// It asks for an address; that of its Service is given, and no other.
    Address(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfitListener {
    Protocol,
    Port,
    /// Another one has the port.
    Conflict(Conflict),
}

/// What two listeners of one port differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    Protocol,
    /// Which tells no listeners of HBONE apart.
    Hostname,
}

/// The first thing that is wrong with it.
pub fn unfit(gateway: &Gateway) -> Option<Unfit<'_>> {
    let mut listeners = gateway.spec.listeners.iter();
    let listener = listeners.find_map(|listener| {
        let why = unfit_listener(gateway, listener)?;
        Some(Unfit::Listener(listener, why))
    });
    listener.or_else(|| {
        let mut addresses = gateway.spec.addresses.iter().map(|one| one.value.as_str());
        let fixed = addresses.find(|value| !value.is_empty());
        fixed.map(Unfit::Address)
    })
}

pub fn unfit_listener(gateway: &Gateway, listener: &Listener) -> Option<UnfitListener> {
    if !listener.protocol.eq_ignore_ascii_case("HBONE") {
        return Some(UnfitListener::Protocol);
    }
    if listener.port != HBONE_PORT {
        return Some(UnfitListener::Port);
    }
    conflict(gateway, listener).map(UnfitListener::Conflict)
}

/// With another listener of the Gateway.
pub fn conflict(gateway: &Gateway, listener: &Listener) -> Option<Conflict> {
    let mut others = gateway.spec.listeners.iter();
    let other = others.find(|one| one.port == listener.port && one.name != listener.name)?;
    Some(
        match other.protocol.eq_ignore_ascii_case(&listener.protocol) {
            true => Conflict::Hostname,
            false => Conflict::Protocol,
        },
    )
}

/// What is made for the Gateway is called so.
pub fn name_of_objects(metadata: &ObjectMeta) -> &str {
    metadata
        .annotation(labels::GATEWAY_NAME_OVERRIDE)
        .unwrap_or(&metadata.name)
}

/// The account its pods run under.
pub fn service_account(metadata: &ObjectMeta) -> &str {
    metadata
        .annotation(labels::GATEWAY_SERVICE_ACCOUNT)
        .unwrap_or_else(|| name_of_objects(metadata))
}

impl View {
    pub fn gateway(&self, waypoint: &WaypointName) -> Option<&Arc<Gateway>> {
        self.contents(&waypoint.namespace)?
            .gateways
            .get(&waypoint.name)
    }

    /// Every Gateway that is a waypoint.
    pub fn waypoints(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        let gateways = self
            .namespaces
            .values()
            .flat_map(|one| one.gateways.values());
        gateways.filter(|gateway| is_waypoint(self, gateway))
    }

    /// The pods that run a waypoint.
    pub fn waypoint_pods(&self, waypoint: &WaypointName) -> impl Iterator<Item = &Arc<Pod>> {
        let contents = self.contents(&waypoint.namespace).into_iter();
        contents.flat_map(|contents| {
            let names = contents.waypoint_pods.iter();
            names
                .filter_map(|name| contents.pods.get(name))
                .filter(|pod| pod.metadata.label(labels::GATEWAY_NAME) == Some(&*waypoint.name))
        })
    }

    /// Under which identity a waypoint runs, whether or not its Gateway is there yet.
    pub(crate) fn waypoint_identity(&self, waypoint: &WaypointName) -> Identity {
        let account = match self.gateway(waypoint) {
            Some(gateway) => service_account(&gateway.metadata),
            None => &*waypoint.name,
        };
        Identity::new(
            self.context.trust_domain.clone(),
            waypoint.namespace.clone(),
            account,
        )
    }

    /// Whether a pod that is no waypoint runs under the account too. Nobody is admitted by an
    /// identity that others have.
    pub fn is_shared(&self, namespace: &str, account: &str) -> bool {
        let contents = self.contents(namespace);
        account == "default" || contents.is_some_and(|one| one.accounts.contains_key(account))
    }

    /// The waypoints of a namespace: their Gateways, and pods that outlive theirs.
    pub(crate) fn waypoints_of(&self, namespace: &str) -> Vec<Identity> {
        let Some(contents) = self.contents(namespace) else {
            return Vec::new();
        };
        let gateways = contents.gateways.values();
        let gateways = gateways
            .filter(|gateway| is_waypoint(self, gateway))
            .map(|gateway| service_account(&gateway.metadata));
        let pods = contents.waypoint_pods.iter();
        let pods = pods
            .filter_map(|name| contents.pods.get(name))
            .filter(|pod| !pod.is_finished())
            .map(|pod| pod.service_account());
        let trust_domain = &self.context.trust_domain;
        gateways
            .chain(pods)
            .map(|account| Identity::new(trust_domain.clone(), namespace, account))
            .collect()
    }
}
