//! The edges that waypoints add: what asks for one, what is behind one, what runs one.

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::kinds::gateway::Gateway;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::pod::Pod;
use crate::kinds::selector::{Labels, WorkloadSelector, labels_match};
use crate::labels;
use crate::object::{ObjectKey, Resource};
use crate::view::dependents::endpoints;
use crate::view::{Contents, View};
use crate::waypoint::reasons::needs_requests;
use crate::waypoint::{WaypointName, gateway, is_waypoint_pod, parameters};

impl View {
    pub(super) fn of_waypoints(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        self.of_object(key, touched);
        // A route's status says which waypoint its parents have.
        let services = touched
            .iter()
            .filter(|one| matches!(one.kind, Kind::Service | Kind::ServiceEntry));
        let routes = services.flat_map(|service| self.routes.attached_to(service));
        let routes: Vec<ObjectKey> = routes.cloned().collect();
        touched.extend(routes);
    }

    fn of_object(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        let contents = self.contents(&key.namespace);
        let name = &key.name;
        match key.kind {
            Kind::Namespace => {
                if let Some(contents) = self.contents(name) {
                    everything(contents, touched);
                }
            }
            Kind::Service | Kind::ServiceEntry => self.of_service(key, touched),
            Kind::AuthorizationPolicy => {
                let policy = contents.and_then(|one| one.authorization_policies.get(name));
                let Some(policy) = policy else { return };
                let targets = policy.spec.targets().map(|one| (&*one.kind, &*one.name));
                self.of_targets(key, targets, touched);
                if needs_requests(policy).is_some() {
                    self.of_covering(key, policy.spec.selector.as_ref(), touched);
                }
            }
            Kind::RequestAuthentication => {
                let policy = contents.and_then(|one| one.request_authentications.get(name));
                let Some(policy) = policy else { return };
                let targets = policy.spec.targets().map(|one| (&*one.kind, &*one.name));
                self.of_targets(key, targets, touched);
                if policy.spec.targets().next().is_none() {
                    self.of_covering(key, policy.spec.selector.as_ref(), touched);
                }
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
                for service in self.routes.parents(key).chain(self.routes.backends(key)) {
                    self.of_reasons(service, touched);
                }
            }
            Kind::Pod => {
                if let Some(pod) = contents.and_then(|one| one.pods.get(name)) {
                    self.of_pod(pod, touched);
                }
            }
            Kind::WorkloadEntry => {
                let entry = contents.and_then(|one| one.workload_entries.get(name));
                if let Some(entry) = entry {
                    self.of_endpoint(&key.namespace, &entry.labels(), touched);
                }
            }
            Kind::Gateway => {
                let waypoint = WaypointName::new(key.namespace.clone(), name.clone());
                self.behind(&waypoint, touched);
            }
            Kind::GatewayClass => {
                for contents in self.namespaces.values() {
                    for gateway in contents.gateways.values() {
                        if *gateway.spec.gateway_class_name == **name {
                            self.behind(&name_of(&gateway.metadata), touched);
                        }
                    }
                }
            }
            Kind::Node
            | Kind::ServiceAccount
            | Kind::ConfigMap
            | Kind::Deployment
            | Kind::PeerAuthentication
            | Kind::ReferenceGrant => {}
        }
    }

    /// The Gateways whose waypoints a ConfigMap shapes: their status says whether it is understood.
    pub(super) fn shaped_by(&self, config_map: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        let shaped = |gateway: &Gateway| {
            let named =
                parameters::named_by(gateway).is_some_and(|named| *named == *config_map.name);
            named && *gateway.metadata.namespace == *config_map.namespace
                || self.is_default_for(config_map, &gateway.spec.gateway_class_name)
        };
        let all = self.namespaces.values();
        let gateways = all.flat_map(|contents| contents.gateways.values());
        let shaped = gateways.filter(|gateway| shaped(gateway));
        touched.extend(shaped.map(|gateway| gateway.key()));
    }

    /// A service's label says whom the workloads admit that its routes send requests to.
    fn of_service(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        for route in self.routes.attached_to(key) {
            touched.insert(route.clone());
            for backend in self.routes.backends(route) {
                self.members(backend, touched);
            }
        }
        // Whom its policies guard is asked of the services that lead to the same pods.
        let mut guarding = self.policies_targeting(key);
        if guarding.next().is_some() {
            self.of_sharing(key, touched);
        }
        // A waypoint is programmed once its Service has an address.
        if let Some(contents) = self.contents(&key.namespace) {
            touched.extend(contents.gateways.values().map(|one| one.key()));
        }
    }

    /// What changes with the reasons of a service: its waypoint, that of its workloads, and the
    /// status of the policies that name it.
    fn of_reasons(&self, service: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        touched.insert(service.clone());
        self.members(service, touched);
        self.targeting(service, touched);
    }

    fn of_sharing(&self, service: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        for other in self.sharing(service) {
            self.of_reasons(&other, touched);
        }
    }

    fn of_targets<'a>(
        &self,
        policy: &ObjectKey,
        targets: impl Iterator<Item = (&'a str, &'a str)>,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        for (kind, name) in targets {
            for known in [Kind::Service, Kind::ServiceEntry] {
                if known.name() == kind {
                    let service = ObjectKey::new(known, policy.namespace.clone(), name);
                    self.of_reasons(&service, touched);
                    self.of_sharing(&service, touched);
                }
            }
        }
    }

    /// What a policy about requests may cover.
    fn of_covering(
        &self,
        policy: &ObjectKey,
        selector: Option<&WorkloadSelector>,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let everything = Labels::new();
        let labels = selector.map_or(&everything, |selector| &selector.match_labels);
        for contents in self.scope(&policy.namespace) {
            services(contents, touched);
            endpoints(contents, labels, touched);
        }
    }

    fn of_pod(&self, pod: &Pod, touched: &mut BTreeSet<ObjectKey>) {
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.as_str();
        if is_waypoint_pod(metadata) {
            let name = metadata.label(labels::GATEWAY_NAME).unwrap_or_default();
            self.behind(&WaypointName::new(namespace, name), touched);
            return;
        }
        self.of_endpoint(namespace, &metadata.labels, touched);
        let Some(contents) = self.contents(namespace) else {
            return;
        };
        // Under the account of a waypoint: nobody is admitted by it any more.
        let account = pod.service_account();
        for gateway in contents.gateways.values() {
            if gateway::service_account(&gateway.metadata) == account {
                self.behind(&name_of(&gateway.metadata), touched);
            }
        }
        let left = contents.waypoint_pods.iter();
        let mut left = left.filter_map(|name| contents.pods.get(name));
        if left.any(|pod| pod.service_account() == account) {
            everything(contents, touched);
        }
    }

    /// A policy about requests that selects the workload covers the services it backs.
    fn of_endpoint(&self, namespace: &str, labels: &Labels, touched: &mut BTreeSet<ObjectKey>) {
        touched.extend(self.guarded_with(namespace, labels));
        let selects = |selector: Option<&WorkloadSelector>| {
            selector.is_some_and(|selector| labels_match(&selector.match_labels, labels))
        };
        let root = &*self.context.root_namespace;
        let covered = BTreeSet::from([namespace, root])
            .into_iter()
            .filter_map(|namespace| self.contents(namespace))
            .any(|contents| {
                let mut policies = contents.authorization_policies.values();
                let mut authentications = contents.request_authentications.values();
                policies
                    .any(|one| selects(one.spec.selector.as_ref()) && needs_requests(one).is_some())
                    || authentications.any(|one| selects(one.spec.selector.as_ref()))
            });
        let Some(contents) = self.contents(namespace).filter(|_| covered) else {
            return;
        };
        services(contents, touched);
    }

    /// All that a waypoint may stand in front of: in its own namespace, and where a label
    /// names its namespace.
    fn behind(&self, waypoint: &WaypointName, touched: &mut BTreeSet<ObjectKey>) {
        let namespace = &*waypoint.namespace;
        touched.insert(ObjectKey::new(
            Kind::Gateway,
            namespace,
            waypoint.name.clone(),
        ));
        for (name, contents) in &self.namespaces {
            if **name == *namespace || names(contents, namespace) {
                everything(contents, touched);
            }
        }
    }
}

/// Whether something here names a waypoint of that namespace.
fn names(contents: &Contents, namespace: &str) -> bool {
    let named = |metadata: &ObjectMeta| {
        let keys = [
            labels::USE_WAYPOINT_NAMESPACE,
            labels::USE_WAYPOINT_CANARY_NAMESPACE,
        ];
        keys.into_iter()
            .any(|key| metadata.label(key) == Some(namespace))
    };
    contents
        .namespace
        .as_ref()
        .is_some_and(|one| named(&one.metadata))
        || contents.services.values().any(|one| named(&one.metadata))
        || (contents.service_entries.values()).any(|one| named(&one.metadata))
        || contents.pods.values().any(|one| named(&one.metadata))
        || (contents.workload_entries.values()).any(|one| named(&one.metadata))
}

/// The services of a namespace, and what tells their state.
fn services(contents: &Contents, touched: &mut BTreeSet<ObjectKey>) {
    touched.extend(contents.services.values().map(|one| one.key()));
    touched.extend(contents.service_entries.values().map(|one| one.key()));
    touched.extend((contents.authorization_policies.values()).map(|one| one.key()));
    touched.extend((contents.request_authentications.values()).map(|one| one.key()));
}

fn everything(contents: &Contents, touched: &mut BTreeSet<ObjectKey>) {
    endpoints(contents, &Labels::new(), touched);
    services(contents, touched);
    touched.extend(contents.gateways.values().map(|one| one.key()));
    touched.extend(contents.http_routes.values().map(|one| one.key()));
    touched.extend(contents.grpc_routes.values().map(|one| one.key()));
    touched.extend(contents.tcp_routes.values().map(|one| one.key()));
}

fn name_of(metadata: &ObjectMeta) -> WaypointName {
    WaypointName::new(metadata.namespace.as_str(), metadata.name.as_str())
}
