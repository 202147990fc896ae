//! What is decided about each request and connection, in order: who it is from, whether it may,
//! where it goes, and what is answered when it can't.
//!
//! - `canonical`, `headers`: the one form of a request.
//! - `plan`, `cluster`: the mesh as it is now, made ready to be asked; `parties`: what of it a
//!   connection is about.
//! - `admission`: which tunnels are for this waypoint.
//! - `authentication`, `authorization`: tokens and policies.
//! - `exchange`: one request from head to answer; `forward`: its tries; `filters` of its rule.
//! - `request_body`, `mirror`, `response_body`, `messages`: bodies that are watched.
//! - `streams`: what outlives a change of policy.
//! - `record`: what is told of a request.
//! - `connection`: what is not HTTP.

mod canonical;

mod headers;

mod plan;

mod parties;

mod cluster;

mod admission;

mod authentication;

mod authorization;

mod exchange;

mod filters;

mod forward;

mod request_body;

mod mirror;

mod response_body;

mod messages;

mod streams;

mod record;

mod connection;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use mesh::address::{NamespacedHostname, NetworkAddress};
use mesh::policy_target::Gateway;
use mesh::waypoint::Destination;
use mesh::workload::Workload;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::cluster::{Cluster, ClusterKey, Loads};
use self::parties::Parties;
pub use self::parties::Remembered;
use self::plan::{DestinationKey, Plans};
use self::streams::Streams;
use crate::jwt::Verified;
use crate::message::{
    Admission, Arrival, Body, ConnectionRoute, Downstream, Endpoint, Exchange, Interim, Pipeline,
    Protocol, Refusal, Upstream,
};
use crate::names::Names;
use crate::shared::Shared;
use crate::telemetry::Telemetry;

/// One worker's pipeline. Clones share it.
pub struct WorkerPipeline<U>(Rc<Worker<U>>);

/// What one worker decides with.
pub(crate) struct Worker<U> {
    shared: Arc<Shared>,
    upstream: U,
    gateway: Gateway,
    plans: RefCell<Plans>,
    loads: Loads,
    names: Names,
    telemetry: Rc<Telemetry>,
    streams: Streams,
    verified: RefCell<Verified>,
    random: RefCell<SmallRng>,
}

// === impl WorkerPipeline ===

impl<U: Upstream + Clone + 'static> WorkerPipeline<U> {
    /// Must be called on the worker's `LocalSet`.
    pub fn new(shared: Arc<Shared>, upstream: U) -> Self {
        Self::with_names(shared, upstream, Names::default())
    }

    fn with_names(shared: Arc<Shared>, upstream: U, names: Names) -> Self {
        let proxy = &shared.config.proxy;
        let worker = Rc::new(Worker {
            gateway: Gateway {
                namespace: proxy.namespace.clone(),
                name: proxy.gateway.clone(),
                class: proxy.gateway_class.clone(),
            },
            plans: RefCell::new(Plans::new(shared.state.snapshot(), proxy)),
            loads: Loads::default(),
            names,
            telemetry: Rc::new(Telemetry::new(shared.registry.clone())),
            streams: Streams::default(),
            verified: RefCell::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
            upstream,
            shared,
        });
        let mut changes = worker.shared.state.changes();
        let watched = Rc::downgrade(&worker);
        tokio::task::spawn_local(async move {
            while changes.changed().await.is_ok() {
                let Some(worker) = watched.upgrade() else {
                    return;
                };
                worker.streams.check();
            }
        });
        Self(worker)
    }
}

impl<U: Upstream + Clone + 'static> Exchange for WorkerPipeline<U> {
    async fn exchange(
        &self,
        downstream: &Rc<Downstream>,
        request: Request<Body>,
        interim: &Interim,
    ) -> Response<Body> {
        self.0.exchange(downstream, request, interim).await
    }
}

impl<U: Upstream + Clone + 'static> Pipeline for WorkerPipeline<U> {
    fn admit(&self, arrival: &Arrival<'_>) -> Result<Admission, Refusal> {
        self.0.admit(arrival)
    }

    async fn route_connection(
        &self,
        downstream: &Rc<Downstream>,
    ) -> Result<ConnectionRoute, String> {
        self.0.route_connection(downstream).await
    }

    fn rejected(&self, downstream: &Rc<Downstream>, status: StatusCode, reason: &str) {
        self.0.rejected(downstream, status, reason);
    }
}

// === impl Worker ===

impl<U> Worker<U> {
    /// Asks what is made of the snapshot in force.
    fn plans<R>(&self, ask: impl FnOnce(&mut Plans) -> R) -> R {
        let mut plans = self.plans.borrow_mut();
        let current = self.shared.state.load();
        if !Arc::ptr_eq(&plans.snapshot, &current) {
            let snapshot = Arc::clone(&current);
            self.loads
                .retain(|service| snapshot.service(service).is_some());
            *plans = Plans::new(snapshot, &self.shared.config.proxy);
        }
        ask(&mut plans)
    }

    fn parties(&self, downstream: &Downstream) -> Parties {
        self.plans(|plans| {
            if let Some(known) = downstream.remembered.get() {
                return known;
            }
            let identity = downstream.source_identity.as_ref();
            let key = DestinationKey {
                service: downstream.service.clone(),
                workload: downstream.workload.as_ref().map(|one| one.uid.clone()),
                port: downstream.destination.port(),
                client_namespace: identity.map_or_else(|| "".into(), |one| one.namespace.clone()),
            };
            let network = self.shared.config.proxy.network.clone();
            let address = NetworkAddress::new(network, downstream.source.ip());
            let parties = Parties {
                source: plans.snapshot.workload_at(&address).cloned(),
                destination: plans.destination(key, &self.gateway),
            };
            downstream.remembered.set(&plans.life, &parties);
            parties
        })
    }

    fn destination(&self, downstream: &Downstream) -> Option<Rc<Destination>> {
        self.parties(downstream).destination
    }

    /// The client's workload, by its address.
    fn source(&self, downstream: &Downstream) -> Option<Arc<Workload>> {
        self.parties(downstream).source
    }

    fn cluster(&self, service: &NamespacedHostname, port: u16) -> Option<Rc<Cluster>> {
        let key = ClusterKey {
            service: service.clone(),
            port,
        };
        let random = &mut *self.random.borrow_mut();
        self.plans(|plans| plans.cluster(&key, &self.loads, &self.names, random))
    }

    /// The cluster once the names of its endpoints have been asked for.
    async fn resolved(&self, cluster: Rc<Cluster>) -> Rc<Cluster> {
        if cluster.is_current() {
            return cluster;
        }
        let timeout = self.shared.config.limits.connect_timeout;
        let names = cluster.hostnames().iter();
        let asking = names.map(|hostname| self.names.resolve(hostname, timeout));
        futures::future::join_all(asking).await;
        let key = &cluster.key;
        let now = self.cluster(&key.service, key.port);
        now.unwrap_or(cluster)
    }

    /// An endpoint for a request of our own, where the name is a service's.
    fn endpoint_in_mesh(&self, host: &str, port: u16) -> Option<Result<Endpoint, String>> {
        let namespace = &self.shared.config.proxy.namespace;
        let service = self.plans(|plans| {
            let entry = plans.snapshot.service_named(host, namespace)?;
            Some(entry.service.key())
        })?;
        let cluster = self.cluster(&service, port);
        // What has only a name is outside, as names are that are no service's.
        if cluster
            .as_ref()
            .is_some_and(|one| !one.hostnames().is_empty())
        {
            return None;
        }
        let chosen = cluster
            .and_then(|cluster| cluster.choose(&[], &mut *self.random.borrow_mut()))
            .map(|(_, hop)| Endpoint {
                hop,
                protocol: Protocol::Http1,
            });
        Some(chosen.ok_or_else(|| format!("service {service} has no endpoint for port {port}")))
    }
}

#[cfg(test)]
mod tests;
