//! The control plane as a running program: reads the objects, then serves the proxies and
//! the people, until it is asked to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::Listeners;
use runtime::drain;
use runtime::metrics::Metrics;
use runtime::signals::Shutdown;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use xds::server::Peers;

mod api_socket;
mod grpc;
mod listener;

use grpc::Security;

use crate::api::Api;
use crate::ca::{Authenticator, Authority, Policy, Serving, StoreError};
use crate::config::Args;
use crate::controller::Knowledge;
use crate::failure::{Failure, Kind};
use crate::folder::{FolderSource, OpenError};
use crate::index::Index;
use crate::source::Source;
use crate::telemetry;
use crate::waypoints::Waypoints;

/// How long connected proxies may take to go.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that is needed to start, opened, so that what is missing is told before
/// anything is served.
pub struct ControlPlane {
    args: Args,
    source: FolderSource,
    waypoints: Option<Waypoints>,
    knowledge: Knowledge,
    security: Security,
    serving: Serving,
    xds: TcpListener,
    metrics: Listeners,
    api: UnixListener,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Opens files, folders and ports.
    pub async fn open(args: Args) -> Result<Self, Failure> {
        let source = FolderSource::open(&args.folders(), istio_compat::parse::Raw::Drop)
            .map_err(open_failure)?
            .keeping(args.last_good());
        let (source, waypoints) = match &args.waypoints {
            Some(folder) => {
                let waypoints = Waypoints::open(folder.clone())
                    .map_err(|error| Failure::system(folder.display(), &error))?;
                (source.over(folder.clone()), Some(waypoints))
            }
            None => (source, None),
        };
        let book = args.address_book();
        let index = Index::new(args.mesh())
            .with_address_book(&book)
            .map_err(|error| Failure::system(book.display(), &error))?;
        let knowledge = Knowledge::new(index);
        let (security, serving) = open_security(&args)?;
        let xds = TcpListener::bind(args.xds_listen)
            .await
            .map_err(|error| Failure::system(format_args!("xDS on {}", args.xds_listen), &error))?;
        let metrics = Listeners::address(args.metrics_listen).map_err(|error| {
            Failure::system(format_args!("metrics on {}", args.metrics_listen), &error)
        })?;
        let api = api_socket::bind(&args.api_socket).map_err(|error| {
            Failure::system(format_args!("API on {}", args.api_socket.display()), &error)
        })?;
        Ok(Self {
            args,
            source,
            waypoints,
            knowledge,
            security,
            serving,
            xds,
            metrics,
            api,
        })
    }

    /// The address of xDS and the certificate service, for callers that asked for any port.
    pub fn xds_address(&self) -> io::Result<std::net::SocketAddr> {
        self.xds.local_addr()
    }

    /// What is known and served.
    pub fn knowledge(&self) -> Knowledge {
        self.knowledge.clone()
    }

    /// Serves until shutdown is asked for.
    pub async fn run(self, metrics: Option<Metrics>, shutdown: Shutdown) -> Result<(), Failure> {
        let peers = Peers::default();
        let (trigger, watch) = drain::channel();
        let api = Api {
            knowledge: self.knowledge.clone(),
            peers: peers.clone(),
            authority: self.security.authority.clone(),
        };

        let mut tasks = JoinSet::new();
        let (sender, batches) = mpsc::channel(64);
        let mut source = tokio::spawn(self.source.run(sender));
        let knowledge = self.knowledge.clone();
        tasks.spawn(async move { knowledge.follow(batches).await });
        if let Some(waypoints) = self.waypoints {
            tasks.spawn(waypoints.run(self.knowledge.clone()));
        }
        let mut public = api.clone().public_router();
        if let Some(metrics) = &metrics {
            let authority = self.security.authority.clone();
            telemetry::install(metrics, self.knowledge.clone(), peers.clone(), authority);
            public = public.merge(metrics.router());
            tasks.spawn(metrics.clone().upkeep());
        }
        tasks.spawn(self.metrics.serve("metrics", public));
        let router = api.router();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(self.api, router).await {
                tracing::error!("the API ended: {error}");
            }
        });
        let tls = self.serving.server_config();
        tasks.spawn(self.serving.renew());

        // A proxy that asked before everything is read would be told to forget the rest.
        tokio::select! {
            () = self.knowledge.synced() => {}
            reason = shutdown.requested() => {
                tracing::info!(reason, "stopping before the objects were read");
                return Ok(());
            }
            ended = &mut source => return Err(source_failure(ended)),
        }
        let mut grpc = tokio::spawn(grpc::serve(
            self.xds,
            tls,
            self.security,
            &self.knowledge,
            peers,
            watch,
        ));
        tracing::info!("ready");

        let outcome = tokio::select! {
            reason = shutdown.requested() => {
                tracing::info!(reason, "draining");
                Ok(())
            }
            ended = &mut source => Err(source_failure(ended)),
            _ = &mut grpc => Err(Failure::new(Kind::Unavailable, "the xDS server ended")),
        };
        trigger.signal(drain::Mode::Graceful);
        self.knowledge.close();
        if tokio::time::timeout(DRAIN, &mut grpc).await.is_err() {
            tracing::warn!("some proxies were still connected after {DRAIN:?}");
        }
        source.abort();
        api_socket::remove(&self.args.api_socket);
        outcome
    }
}

/// The authority, the way callers are known, and the certificate to serve with.
fn open_security(args: &Args) -> Result<(Security, Serving), Failure> {
    let authority = match &args.cacerts {
        Some(folder) => Authority::load(folder),
        None => Authority::load_or_create(&args.ca_dir),
    };
    let authority = Arc::new(authority.map_err(|error| store_failure(&error))?);
    let serving = Serving::new(authority.clone(), &args.sans)
        .map_err(|error| Failure::new(Kind::BadInput, format!("serving certificate: {error}")))?;
    let trusted = args.trusted_node_accounts.clone();
    let security = Security {
        authority,
        authenticator: Arc::new(Authenticator::new(&args.token_issuer)),
        policy: Policy::new(args.trust_domain.as_str(), trusted),
    };
    Ok((security, serving))
}

fn store_failure(error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Read { error, .. } | StoreError::Write { error, .. } => Kind::of(error),
        StoreError::Incomplete { .. }
        | StoreError::Unusable { .. }
        | StoreError::OutOfTurn { .. }
        | StoreError::NotOurs => Kind::BadInput,
    };
    Failure::new(kind, error.to_string())
}

fn open_failure(error: OpenError) -> Failure {
    match &error {
        OpenError::Unreadable { error: cause, .. } => {
            Failure::new(Kind::of(cause), error.to_string())
        }
        OpenError::Watch(_) => Failure::new(Kind::Unavailable, error.to_string()),
    }
}

fn source_failure(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Failure {
    let message = match ended {
        Ok(Ok(())) => "the folders are no longer watched".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    };
    Failure::new(Kind::Unavailable, message)
}

#[cfg(test)]
mod tests;
