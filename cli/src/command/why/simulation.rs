//! What a mesh would make of a folder that none runs on: addresses, the pods of Deployments,
//! and the waypoints that something needs. No I/O.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use istio_compat::diagnostic::Origin;
use istio_compat::enablement::is_ambient;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::metadata::Condition;
use istio_compat::kinds::namespace::Namespace;
use istio_compat::kinds::pod::{Pod, PodIp, PodPhase};
use istio_compat::kinds::service::Service;
use istio_compat::labels;
use istio_compat::object::{Body, Object};
use istio_compat::view::Context;

use super::known::Known;
use crate::machine::allocation::Allocations;
use crate::machine::replicas;

/// Waypoints may need waypoints' namespaces only; more than a few rounds are a mistake.
const ROUNDS: usize = 3;

/// The mesh that would come of the objects, with everything in it running and ready.
pub(super) fn of(objects: impl IntoIterator<Item = Object>) -> Known {
    let mut objects: Vec<Object> = objects.into_iter().collect();
    let pods = pods_of_deployments(&objects);
    objects.extend(pods);
    let mut simulation = Simulation::default();
    let mut known = Known::new(simulation.complete(objects), Context::default());
    known.simulated = true;
    for _ in 0..ROUNDS {
        let missing: Vec<Object> = known
            .index
            .wanted_waypoints()
            .objects
            .into_iter()
            .map(made)
            .filter(|object| known.index.object(&object.key()).is_none())
            .collect();
        if missing.is_empty() {
            break;
        }
        let pods = pods_of_deployments(&missing);
        let all = missing.into_iter().chain(pods).collect();
        let completed = simulation.complete(all);
        known.apply(completed);
    }
    known
}

/// Nobody wrote it: line 0.
fn made(body: Body) -> Object {
    Object {
        origin: Origin::new("", 0),
        body,
        rules: Arc::default(),
        raw: None,
    }
}

/// The pods of each Deployment that has none here.
fn pods_of_deployments(objects: &[Object]) -> Vec<Object> {
    let pods: Vec<&Arc<Pod>> = objects.iter().filter_map(Object::get::<Pod>).collect();
    let has_pod = |deployment: &Deployment| {
        let prefix = format!("{}-", deployment.metadata.name);
        pods.iter().any(|pod| {
            let mut owners = pod.metadata.owner_references.iter();
            pod.metadata.namespace == deployment.metadata.namespace
                && owners.any(|owner| owner.kind == "ReplicaSet" && owner.name.starts_with(&prefix))
        })
    };
    objects
        .iter()
        .filter_map(|object| Some((object, object.get::<Deployment>()?)))
        .filter(|(_, deployment)| !has_pod(deployment))
        .flat_map(|(object, deployment)| {
            let names = replicas::plan(deployment, &[]).create.into_iter();
            names.map(|name| {
                let pod = replicas::pod(deployment, &name);
                Object::new(object.origin.clone(), pod)
            })
        })
        .collect()
}

/// Remembers what it gave.
#[derive(Default)]
struct Simulation {
    allocations: Allocations,
    services: Vec<Arc<Service>>,
    namespaces: Vec<Arc<Namespace>>,
    taken: BTreeSet<IpAddr>,
    next: u16,
}

// === impl Simulation ===

impl Simulation {
    fn complete(&mut self, objects: Vec<Object>) -> Vec<Object> {
        for object in &objects {
            if let Some(service) = object.get::<Service>() {
                self.services.push(service.clone());
            }
            if let Some(namespace) = object.get::<Namespace>() {
                self.namespaces.push(namespace.clone());
            }
            if let Some(pod) = object.get::<Pod>() {
                self.taken.extend(pod.ips());
            }
        }
        // What can't be honoured gets no address, as in a mesh that runs.
        self.allocations
            .assign(self.services.iter().map(AsRef::as_ref));
        objects
            .into_iter()
            .map(|object| match &object.body {
                Body::Service(service) => {
                    let service = self.service(service);
                    Object::new(object.origin, service)
                }
                Body::Pod(pod) => {
                    let pod = self.pod(pod);
                    Object::new(object.origin, pod)
                }
                _ => object,
            })
            .collect()
    }

    fn service(&self, service: &Service) -> Service {
        let mut service = service.clone();
        let given: Vec<String> = self
            .allocations
            .of(&service)
            .iter()
            .map(ToString::to_string)
            .collect();
        if let Some(first) = given.first() {
            service.spec.cluster_ip.clone_from(first);
            service.spec.cluster_ips = given;
        }
        service
    }

    /// A pod that says where it runs is believed.
    fn pod(&mut self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if !pod.ips().is_empty() || pod.is_finished() {
            return pod;
        }
        let Some(address) = self.address() else {
            return pod;
        };
        pod.status.phase = Some(PodPhase::Running);
        pod.status.pod_ip = Some(address);
        pod.status.pod_ips = vec![PodIp { ip: address }];
        pod.status.conditions = vec![Condition::new("Ready", true, "", "")];
        let name = &pod.metadata.namespace;
        let mut namespaces = self.namespaces.iter();
        let namespace = namespaces.find(|one| one.metadata.name == *name);
        if is_ambient(&pod, namespace.map(AsRef::as_ref)).is_captured() {
            pod.metadata
                .annotations
                .insert(labels::REDIRECTION.to_owned(), "enabled".to_owned());
        }
        pod
    }

    /// Of the network that pods of a mesh on one machine have; none when it is used up.
    fn address(&mut self) -> Option<IpAddr> {
        (0..=u16::MAX).find_map(|_| {
            let [high, low] = self.next.to_be_bytes();
            self.next = self.next.wrapping_add(1);
            let address = IpAddr::from(Ipv4Addr::new(10, 244, high, low));
            ((2..255).contains(&low) && self.taken.insert(address)).then_some(address)
        })
    }
}
