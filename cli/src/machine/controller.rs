//! What a cluster's controllers, scheduler and kubelets decide: from the folder's objects to
//! running pods, and from running pods to what the control plane reads.
//!
//! One task owns it; every change of the folder or of a pod leads to [`Controller::reconcile`],
//! which is idempotent and looks at everything.
mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::service::Service;
use istio_compat::labels::REDIRECTION;
use tokio::sync::{mpsc, watch};

use super::allocation::Allocations;
use super::desired::{Desired, Name};
use super::file;
use super::node::Node;
use super::pod::{Event, Life, Wish};
use super::pod_status::{self, Stage};
use super::replicas;
use super::sandbox::Report;
use super::schedule::{self, Candidate};
use super::store::Store;
use super::waypoint::Outfitter;
use crate::control;
use crate::state::State;
use entry::{Entry, Origin};

const DEFAULT_GRACE: u32 = 30;

pub(crate) struct Controller {
    state: State,
    nodes: Vec<Rc<Node>>,
    pub(crate) desired: Desired,
    pods: BTreeMap<Name, Entry>,
    allocations: Allocations,
    store: Store,
    waypoints: Rc<Outfitter>,
    started: String,
    events: mpsc::UnboundedSender<(String, Event)>,
    problems: BTreeSet<String>,
    /// No pod is started any more.
    ending: Option<Duration>,
}

// === impl Controller ===

impl Controller {
    pub(crate) fn new(
        state: State,
        nodes: Vec<Rc<Node>>,
        waypoints: Rc<Outfitter>,
        events: mpsc::UnboundedSender<(String, Event)>,
    ) -> Self {
        let allocations = std::fs::read(state.allocations()).ok();
        let allocations = allocations
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            store: Store::new(state.cluster()),
            waypoints,
            state,
            nodes,
            desired: Desired::default(),
            pods: BTreeMap::new(),
            allocations,
            started: super::now(),
            events,
            problems: BTreeSet::new(),
            ending: None,
        }
    }

    /// Brings everything closer to what is desired. Whatever fails is a problem in the status,
    /// and tried again with the next call.
    pub(crate) fn reconcile(&mut self) {
        self.problems.clear();
        self.reconcile_nodes();
        self.reconcile_services();
        if self.ending.is_none() {
            self.reconcile_deployments();
            self.reconcile_bare_pods();
            self.schedule();
            self.reconcile_capture();
        }
        self.write_pods();
        self.write_deployments();
    }

    /// Ends every pod, giving none more than `most`.
    pub(crate) fn end(&mut self, most: Duration) {
        self.ending = Some(most);
        let names: Vec<_> = self.pods.keys().cloned().collect();
        for name in names {
            self.delete(&name);
        }
    }

    pub(crate) fn node(&self, name: &str) -> Option<Rc<Node>> {
        self.nodes.iter().find(|node| node.name == name).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Takes in what became of a pod.
    pub(crate) fn note(&mut self, uid: &str, event: Event) {
        let Some((name, entry)) = self
            .pods
            .iter_mut()
            .find(|(_, entry)| entry.pod.metadata.uid == uid)
        else {
            return;
        };
        match event {
            Event::Stage(stage) => entry.stage = stage,
            Event::Attached(addresses) => entry.addressed(&addresses),
            Event::Started(pid) => entry.sandbox = Some(pid),
            Event::Report(report) => entry.report = *report,
            Event::Captured => {
                if entry.captured_since.is_none() {
                    entry.captured_since = Some(super::now());
                }
                entry.capture_pending = None;
                entry
                    .pod
                    .metadata
                    .annotations
                    .insert(REDIRECTION.to_owned(), "enabled".to_owned());
            }
            Event::CapturePending(reason) => {
                entry.stage = match entry.sandbox {
                    None => Stage::Waiting {
                        reason: "CapturePending",
                        message: reason.clone(),
                    },
                    Some(_) => Stage::Running,
                };
                entry.capture_pending = Some(reason);
            }
            Event::Releasing(done) => {
                entry.pod.metadata.annotations.remove(REDIRECTION);
                entry.captured_since = None;
                entry.capture_pending = None;
                // Written before the pod is released: peers must stop to expect HBONE first.
                self.write_pods();
                let _ = done.send(());
            }
            Event::Gone => {
                let name = name.clone();
                if let Some(entry) = self.pods.remove(&name) {
                    self.store.remove(&entry.pod);
                    let _ = std::fs::remove_dir_all(self.state.pod_folder(&name.0, &name.1));
                }
            }
        }
    }

    /// A running pod's first process, and the container whose settings to use.
    pub(crate) fn running(&self, namespace: &str, name: &str) -> Result<(i32, &Pod), String> {
        let key = (namespace.to_owned(), name.to_owned());
        let entry = self
            .pods
            .get(&key)
            .ok_or_else(|| format!("there is no pod {namespace}/{name}"))?;
        match entry.sandbox {
            Some(pid) if !entry.report.finished && entry.report.failure.is_none() => {
                Ok((pid, &entry.pod))
            }
            _ => Err(format!(
                "pod {namespace}/{name} doesn't run{}",
                pod_status::summary(&entry.pod)
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default()
            )),
        }
    }

    pub(crate) fn status(&self) -> (Vec<control::Node>, Vec<control::Pod>, Vec<String>) {
        let nodes = self.nodes.iter().map(|node| control::Node {
            name: node.name.clone(),
            addresses: node.addresses(),
            labels: node.labels(self.desired.nodes.get(&node.name).map(|node| &**node)),
            ztunnel_connected: node.agent.ztunnel_connected(),
        });
        let of_nodes = self.nodes.iter().flat_map(|node| node.problems());
        (
            nodes.collect(),
            self.pods.values().map(Entry::status).collect(),
            self.problems.iter().cloned().chain(of_nodes).collect(),
        )
    }

    /// Services with their addresses, and every pod as it is now.
    pub(crate) fn view(&self) -> (Vec<Service>, Vec<&Pod>) {
        let services = self
            .desired
            .services
            .values()
            .map(|service| self.addressed_service(service))
            .collect();
        (
            services,
            self.pods.values().map(|entry| &entry.pod).collect(),
        )
    }

    fn reconcile_nodes(&mut self) {
        for node in self.nodes.clone() {
            let given = self.desired.nodes.get(&node.name).cloned();
            let object = node.object(given.as_deref(), &self.started);
            let pod = node.ztunnel_pod(&self.started);
            let results = [self.store.put(&object), self.store.put(&pod)];
            self.note_failures(results);
        }
    }

    fn reconcile_services(&mut self) {
        let before = self.allocations.clone();
        let conflicts = self
            .allocations
            .assign(self.desired.services.values().map(|service| &**service));
        self.problems.extend(conflicts);
        if self.allocations != before {
            let written = serde_json::to_vec_pretty(&self.allocations)
                .map_err(anyhow::Error::from)
                .and_then(|text| Ok(file::write(&self.state.allocations(), &text)?));
            self.note_failures([written]);
        }
        let services: Vec<_> = self
            .desired
            .services
            .values()
            .map(|service| self.addressed_service(service))
            .collect();
        let results: Vec<_> = services
            .iter()
            .map(|service| self.store.put(service))
            .collect();
        self.store.retain(&services);
        self.note_failures(results);
    }

    fn addressed_service(&self, service: &Service) -> Service {
        let mut service = service.clone();
        if !service.is_headless() {
            let addresses: Vec<_> = self
                .allocations
                .of(&service)
                .iter()
                .map(ToString::to_string)
                .collect();
            service.spec.cluster_ip = addresses.first().cloned().unwrap_or_default();
            service.spec.cluster_ips = addresses;
        }
        service
    }

    fn reconcile_deployments(&mut self) {
        for (name, deployment) in self.desired.deployments.clone() {
            let existing: Vec<_> = self
                .pods
                .values()
                .filter(|entry| entry.is_of(&name))
                .map(Entry::existing)
                .collect();
            let plan = replicas::plan(&deployment, &existing);
            for pod in plan.delete {
                self.delete(&(name.0.clone(), pod));
            }
            for pod in plan.create {
                self.create(
                    replicas::pod(&deployment, &pod),
                    Origin::Deployment(name.clone()),
                );
            }
        }
        let orphaned = self.pods.iter().filter(|(_, entry)| match &entry.origin {
            Origin::Deployment(name) => !self.desired.deployments.contains_key(name),
            Origin::Folder(_) => false,
        });
        for name in orphaned.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete(&name);
        }
    }

    fn reconcile_bare_pods(&mut self) {
        for (name, wanted) in self.desired.pods.clone() {
            match self.pods.get_mut(&name) {
                None => self.create((*wanted).clone(), Origin::Folder(wanted)),
                Some(entry) => match &entry.origin {
                    Origin::Folder(made) if made.spec == wanted.spec => entry.relabel(wanted),
                    // Its successor is made when it is gone: they share the name.
                    Origin::Folder(_) => self.delete(&name),
                    Origin::Deployment(_) => {
                        self.problems.insert(format!(
                            "Pod {}/{}: a Deployment's pod has this name",
                            name.0, name.1
                        ));
                    }
                },
            }
        }
        let unwanted = self
            .pods
            .iter()
            .filter(|(name, entry)| match &entry.origin {
                Origin::Folder(_) => !self.desired.pods.contains_key(*name),
                Origin::Deployment(_) => false,
            });
        for name in unwanted.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete(&name);
        }
    }

    fn create(&mut self, mut pod: Pod, origin: Origin) {
        pod.metadata.uid = uuid::Uuid::new_v4().to_string();
        pod.metadata.creation_timestamp = Some(super::now());
        pod.metadata.annotations.remove(REDIRECTION);
        pod.status = Default::default();
        let name = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let waypoint = match &origin {
            Origin::Deployment(deployment) => self.desired.is_waypoint(deployment),
            Origin::Folder(_) => false,
        };
        if waypoint {
            self.waypoints.dress(&mut pod);
        }
        let entry = Entry {
            pod,
            waypoint,
            origin,
            stage: Stage::Preparing,
            report: Report::default(),
            wish: None,
            sandbox: None,
            captured_since: None,
            capture_pending: None,
        };
        self.pods.insert(name, entry);
    }

    fn delete(&mut self, name: &Name) {
        let Some(entry) = self.pods.get_mut(name) else {
            return;
        };
        let Some(wish) = &entry.wish else {
            if let Some(entry) = self.pods.remove(name) {
                self.store.remove(&entry.pod);
            }
            return;
        };
        let asked = entry
            .pod
            .spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE);
        let asked = Duration::from_secs(asked.into());
        let grace = self.ending.map_or(asked, |most| asked.min(most));
        if entry.pod.metadata.deletion_timestamp.is_none() {
            entry.pod.metadata.deletion_timestamp = Some(super::now());
        }
        wish.send_if_modified(|wish| {
            let first = wish.end.is_none();
            wish.end = wish.end.or(Some(grace));
            first
        });
    }

    fn schedule(&mut self) {
        let labels: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.labels(self.desired.nodes.get(&node.name).map(|node| &**node)))
            .collect();
        let waiting = self
            .pods
            .iter()
            .filter(|(_, entry)| entry.wish.is_none())
            .map(|(name, _)| name.clone());
        for name in waiting.collect::<Vec<_>>() {
            let candidates: Vec<_> = self
                .nodes
                .iter()
                .zip(&labels)
                .map(|(node, labels)| self.candidate(&name, &node.name, labels))
                .collect();
            let Some(entry) = self.pods.get(&name) else {
                continue;
            };
            let chosen = if entry.pod.spec.host_network {
                Err("hostNetwork is not offered on one machine".to_owned())
            } else {
                schedule::choose(&entry.pod.spec, &candidates)
            };
            let Some(entry) = self.pods.get_mut(&name) else {
                continue;
            };
            match chosen {
                Err(why) => entry.stage = Stage::Unschedulable(why),
                Ok(node) => {
                    entry.pod.spec.node_name = node;
                    self.start(&name);
                }
            }
        }
    }

    fn candidate<'a>(
        &self,
        pod: &Name,
        node: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> Candidate<'a> {
        let there = || {
            self.pods
                .iter()
                .filter(|(_, entry)| entry.wish.is_some() && entry.pod.spec.node_name == node)
        };
        let owner = |entry: &Entry| match &entry.origin {
            Origin::Deployment(owner) => Some(owner.clone()),
            Origin::Folder(_) => None,
        };
        let ours = self.pods.get(pod).and_then(owner);
        Candidate {
            name: node,
            labels,
            siblings: there()
                .filter(|(_, entry)| ours.is_some() && owner(entry) == ours)
                .count(),
            pods: there().count(),
        }
    }

    fn start(&mut self, name: &Name) {
        let Some(entry) = self.pods.get_mut(name) else {
            return;
        };
        let Some(node) = self
            .nodes
            .iter()
            .find(|node| node.name == entry.pod.spec.node_name)
        else {
            return;
        };
        let (wish, wishes) = watch::channel(Wish {
            capture: self.desired.capture(&entry.pod),
            end: None,
        });
        entry.wish = Some(wish);
        entry.stage = Stage::Preparing;
        let life = Life {
            pod: entry.pod.clone(),
            node: node.clone(),
            interface: None,
            waypoint: entry.waypoint.then(|| self.waypoints.clone()),
            state: self.state.clone(),
            wish: wishes,
            events: self.events.clone(),
        };
        tokio::task::spawn_local(life.run());
    }

    fn reconcile_capture(&mut self) {
        for entry in self.pods.values() {
            let capture = self.desired.capture(&entry.pod);
            if let Some(wish) = &entry.wish {
                wish.send_if_modified(|wish| {
                    let changed = wish.capture != capture;
                    wish.capture = capture;
                    changed
                });
            }
        }
    }

    fn write_pods(&mut self) {
        let now = super::now();
        let mut results = Vec::new();
        for entry in self.pods.values_mut() {
            let Entry {
                pod, stage, report, ..
            } = entry;
            let described = pod.clone();
            pod_status::update(&mut pod.status, &described, stage, report, &now);
            results.push(self.store.put(pod));
        }
        self.note_failures(results);
    }

    fn write_deployments(&mut self) {
        let mut written = Vec::new();
        for (name, deployment) in &self.desired.deployments {
            let pods = self.pods.values().filter(|entry| entry.is_of(name));
            let existing: Vec<_> = pods.map(Entry::existing).collect();
            let mut deployment = Deployment::clone(deployment);
            deployment.status = replicas::status(&deployment, &existing);
            written.push(deployment);
        }
        self.store.retain(&written);
        let results: Vec<_> = written
            .iter()
            .map(|object| self.store.put(object))
            .collect();
        self.note_failures(results);
    }

    fn note_failures(&mut self, results: impl IntoIterator<Item = anyhow::Result<()>>) {
        self.problems.extend(
            results
                .into_iter()
                .filter_map(|result| Some(format!("{:#}", result.err()?))),
        );
    }
}
