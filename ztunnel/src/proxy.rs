//! The data path: what happens to the connections of the pods this process serves.
//!
//! Each worker is a thread with its own listeners in every pod's network namespace, its
//! own tunnels and its own copies; a connection lives and dies on one worker.
//!
//! - [`config`]: its settings.
//! - [`pods`]: the pods served here.
//! - [`workers`]: the threads, and how pods come and go.
//! - `outbound`, `inbound`, `plaintext`, `same_node`: one kind of connection each;
//!   `arrival` judges who comes in, `socks5` hears where an application wants to go, `caller` is
//!   an application that waits for its destination.
//! - `proxy_protocol`: what applications behind a tunnel of their own are told.
//! - [`on_demand`]: asking for what is not known yet.
//! - [`ejections`]: endpoints that are left alone for a while.
//! - [`policy`]: who may come in, and who may stay.
//! - [`plans`]: what is decided ahead of connections, while the configuration holds.
//! - `names`: addresses of endpoints that have only a name; `described`: workloads known only by
//!   what they say of themselves.
//! - `telemetry`, [`access_log`]: what is said about connections.
//! - `sockets`: how they are made; `conntrack`: what becomes of them where the kernel has no place left.
//! - [`connections`], `tunnels`: those that are open.

pub mod config;

pub use xds::state;

pub mod on_demand;

pub mod pods;

pub mod workers;

mod worker;

mod caller;

mod outbound;

mod socks5;

mod same_node;

mod arrival;

mod inbound;

pub mod proxy_protocol;

mod plaintext;

pub mod policy;

mod tunnels;

mod telemetry;

pub mod access_log;

pub mod connections;

pub mod ejections;

pub(crate) mod sockets;

pub(crate) mod conntrack;

mod names;

mod described;

pub mod plans;

pub(crate) mod netns;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::future::BoxFuture;
use identity::WorkloadCertificate;
use mesh::balancing::Active;
use mesh::identity::Identity;

use access_log::AccessLog;
use config::Config;
use connections::Connections;
use ejections::Ejections;
use on_demand::OnDemand;
use pods::Pods;
use state::State;
use tunnels::Tunnels;

use crate::metrics::SeriesCache;

pub use pods::{PodSpec, Served, WorkloadInfo};
pub use workers::Workers;

/// Where the proxy gets workloads' certificates.
pub trait Certificates: Send + Sync {
    /// The valid certificate already at hand.
    fn cached(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>>;

    /// A valid certificate, requested where there is none; or why there is none.
    fn certificate(
        &self,
        identity: &Identity,
    ) -> BoxFuture<'static, Result<Arc<WorkloadCertificate>, String>>;
}

/// What all workers share.
pub struct Shared {
    pub config: Config,
    pub state: Arc<State>,
    pub certificates: Arc<dyn Certificates>,
    pub access_log: Arc<dyn AccessLog>,
    pub series: Arc<SeriesCache>,
    /// None where the state holds the whole mesh.
    pub on_demand: Option<Arc<OnDemand>>,
    pub pods: Pods,
    pub connections: Connections,
    pub ejections: Ejections,
    /// Connections to endpoints of services whose load balancing asks for it.
    pub(crate) active: Active,
    pub(crate) tunnels: Arc<Tunnels>,
    /// Whether a successor accepts in our place.
    pub(crate) handed_over: AtomicBool,
}

// === impl Shared ===

impl Shared {
    pub fn new(
        config: Config,
        state: Arc<State>,
        certificates: Arc<dyn Certificates>,
        access_log: Arc<dyn AccessLog>,
        series: Arc<SeriesCache>,
    ) -> Self {
        let ejections = Ejections::new(config.ejection);
        Self {
            config,
            state,
            certificates,
            access_log,
            series,
            on_demand: None,
            pods: Pods::default(),
            connections: Connections::default(),
            ejections,
            active: Active::default(),
            tunnels: Arc::default(),
            handed_over: AtomicBool::new(false),
        }
    }

    /// Who the pods here are, as far as the mesh has told.
    pub fn identities(&self) -> Vec<Identity> {
        let (pods, snapshot) = (self.pods.all(), self.state.snapshot());
        let identities = pods
            .iter()
            .filter_map(|pod| pod.known_identity(&snapshot, &self.config));
        identities.collect()
    }

    /// Has addresses asked for when they are needed.
    pub fn with_on_demand(mut self, on_demand: Option<Arc<OnDemand>>) -> Self {
        self.on_demand = on_demand;
        self
    }
}
