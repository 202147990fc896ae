//! Which objects are translated with the help of another: the edges along which a change
//! spreads. Too many cost time; one too few would leave something stale.

mod waypoint;

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::kinds::authorization_policy::{AuthorizationPolicy, PolicyTargetReference};
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::request_authentication::RequestAuthentication;
use crate::kinds::selector::{Labels, labels_match};
use crate::object::{ObjectKey, Resource};
use crate::view::{Contents, View};

impl View {
    /// The objects that depend on this one as it is now, itself included.
    pub(super) fn dependents(&self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::from([key.clone()]);
        match key.kind {
            Kind::Namespace => {
                self.of_root(&mut touched);
                if let Some(contents) = self.contents(&key.name) {
                    endpoints(contents, &Labels::new(), &mut touched);
                    touched.extend(contents.services.values().map(|one| one.key()));
                    touched.extend(contents.service_entries.values().map(|one| one.key()));
                    let policies = contents.authorization_policies.values();
                    touched.extend(policies.map(|one| one.key()));
                    let policies = contents.request_authentications.values();
                    touched.extend(policies.map(|one| one.key()));
                }
            }
            Kind::Node => {
                let pods = self.namespaces.values().flat_map(|one| one.pods.values());
                touched.extend(
                    pods.filter(|pod| *pod.spec.node_name == *key.name)
                        .map(|pod| pod.key()),
                );
            }
            Kind::Service | Kind::ServiceEntry => {
                self.members(key, &mut touched);
                self.rivals(key, &mut touched);
                self.targeting(key, &mut touched);
                self.routed(key, &mut touched);
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
                // Of several routes on one port, all but one kind give way.
                for parent in self.routes.parents(key) {
                    touched.extend(self.routes.attached_to(parent).cloned());
                }
            }
            Kind::Gateway | Kind::GatewayClass => {
                self.targeting(key, &mut touched);
                self.of_root(&mut touched);
            }
            Kind::RequestAuthentication => {
                if let Some(contents) = self.contents(&key.namespace)
                    && let Some(policy) = contents.request_authentications.get(&key.name)
                {
                    self.of_request_authentication(policy, &mut touched);
                }
            }
            Kind::AuthorizationPolicy => {
                if let Some(contents) = self.contents(&key.namespace)
                    && let Some(policy) = contents.authorization_policies.get(&key.name)
                {
                    self.of_authorization_policy(policy, &mut touched);
                }
            }
            Kind::PeerAuthentication => {
                // The first of all carries the policy that STRICT workloads share.
                touched.extend(self.peer_authentications().next().map(|one| one.key()));
                if let Some(contents) = self.contents(&key.namespace)
                    && let Some(policy) = contents.peer_authentications.get(&key.name)
                {
                    self.of_peer_authentication(policy, &mut touched);
                }
            }
            Kind::ConfigMap => self.shaped_by(key, &mut touched),
            Kind::Pod
            | Kind::WorkloadEntry
            | Kind::ServiceAccount
            | Kind::Deployment
            | Kind::ReferenceGrant => {}
        }
        self.of_waypoints(key, &mut touched);
        touched
    }

    /// The status of the root namespace's policies says whether waypoints stand in front of all
    /// that they cover.
    fn of_root(&self, touched: &mut BTreeSet<ObjectKey>) {
        if let Some(contents) = self.contents(&self.context.root_namespace) {
            touched.extend((contents.authorization_policies.values()).map(|one| one.key()));
        }
    }

    fn of_authorization_policy(
        &self,
        policy: &AuthorizationPolicy,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let namespace = &policy.metadata.namespace;
        if let Some(selector) = &policy.spec.selector {
            self.selected(namespace, &selector.match_labels, touched);
        }
        self.targeted(namespace, policy.spec.targets(), touched);
    }

    fn of_request_authentication(
        &self,
        policy: &RequestAuthentication,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let namespace = &policy.metadata.namespace;
        if let Some(selector) = &policy.spec.selector {
            self.selected(namespace, &selector.match_labels, touched);
        }
        self.targeted(namespace, policy.spec.targets(), touched);
    }

    /// The services that policies target want a waypoint, of which the status of all policies
    /// with these targets tells.
    fn targeted<'a>(
        &self,
        namespace: &str,
        targets: impl Iterator<Item = &'a PolicyTargetReference>,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        for target in targets {
            for kind in [Kind::Service, Kind::ServiceEntry] {
                if target.kind == kind.name() {
                    let key = ObjectKey::new(kind, namespace, target.name.as_str());
                    self.targeting(&key, touched);
                    touched.insert(key);
                }
            }
        }
    }

    fn of_peer_authentication(
        &self,
        policy: &PeerAuthentication,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let namespace = &policy.metadata.namespace;
        let everything = Labels::new();
        let selector = policy.spec.selector.as_ref();
        let labels = selector.map_or(&everything, |selector| &selector.match_labels);
        self.selected(namespace, labels, touched);
        if labels.is_empty() {
            // A parent's mode is merged into the policies by port below it.
            for contents in self.scope(namespace) {
                touched.extend(contents.peer_authentications.values().map(|one| one.key()));
            }
        }
    }

    /// The workloads that a policy of `namespace` selects.
    fn selected(&self, namespace: &str, labels: &Labels, touched: &mut BTreeSet<ObjectKey>) {
        for contents in self.scope(namespace) {
            endpoints(contents, labels, touched);
            // Inline endpoints, and the implicit ones that have no labels, are translated
            // with their entry.
            let entries = contents.service_entries.values();
            touched.extend(
                entries
                    .filter(|entry| {
                        let mut endpoints = entry.spec.endpoints.iter();
                        labels.is_empty()
                            || endpoints.any(|endpoint| labels_match(labels, &endpoint.labels))
                    })
                    .map(|entry| entry.key()),
            );
        }
    }

    /// Where policies of `namespace` apply: to it, or for the root to every namespace.
    fn scope(&self, namespace: &str) -> Vec<&Contents> {
        if *namespace == *self.context.root_namespace {
            self.namespaces.values().collect()
        } else {
            self.contents(namespace).into_iter().collect()
        }
    }

    /// The pods and WorkloadEntries behind a Service or ServiceEntry.
    fn members(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        let Some(contents) = self.contents(&key.namespace) else {
            return;
        };
        if let Some(labels) = contents.selector(key) {
            endpoints(contents, labels, touched);
        }
    }

    /// Others that claim the same hostnames, and what is behind them: ownership may move.
    fn rivals(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        for hostname in self.hostnames(key) {
            let rivals = self.claims.get(&hostname).into_iter().flatten();
            for rival in rivals.filter(|rival| *rival != key) {
                touched.insert(rival.clone());
                self.members(rival, touched);
                self.targeting(rival, touched);
                self.routed(rival, touched);
            }
        }
    }

    /// The routes that are attached to an object, or send requests to it.
    fn routed(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        touched.extend(self.routes.attached_to(key).cloned());
        touched.extend(self.routes.sending_to(key).cloned());
        for hostname in self.hostnames(key) {
            touched.extend(self.routes.sending_to_hostname(&hostname).cloned());
        }
    }

    /// Policies that target the object: their status says whether it is there.
    fn targeting(&self, key: &ObjectKey, touched: &mut BTreeSet<ObjectKey>) {
        let namespace = match key.kind {
            Kind::GatewayClass => &self.context.root_namespace,
            _ => &key.namespace,
        };
        let Some(contents) = self.contents(namespace) else {
            return;
        };
        let is_key =
            |one: &PolicyTargetReference| one.kind == key.kind.name() && *one.name == *key.name;
        let policies = contents.authorization_policies.values();
        touched.extend(
            policies
                .filter(|policy| policy.spec.targets().any(is_key))
                .map(|policy| policy.key()),
        );
        let policies = contents.request_authentications.values();
        touched.extend(
            policies
                .filter(|policy| policy.spec.targets().any(is_key))
                .map(|policy| policy.key()),
        );
    }
}

/// Pods and WorkloadEntries of one namespace that carry the labels.
fn endpoints(contents: &Contents, labels: &Labels, touched: &mut BTreeSet<ObjectKey>) {
    let pods = contents.pods.values();
    touched.extend(
        pods.filter(|pod| labels_match(labels, &pod.metadata.labels))
            .map(|pod| pod.key()),
    );
    let entries = contents.workload_entries.values();
    touched.extend(
        entries
            .filter(|entry| labels_match(labels, &entry.labels()))
            .map(|entry| entry.key()),
    );
}
