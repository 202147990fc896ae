//! The gRPC port: xDS for node proxies and waypoints, and the certificate service, over TLS, for callers
//! with a token.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use runtime::drain;
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Status};
use xds::node::{ProxyNode, WAYPOINT, ZTUNNEL};
use xds::resource_type::Layer;
use xds::server::{Admitted, Peers};

use crate::ca::{self, Account, Authenticator, Authority, Caller, Pods, Policy};
use crate::controller::Knowledge;
use crate::serve::listener;

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A node proxy needs one stream for xDS and one per certificate it asks for.
const MAX_STREAMS: u32 = 256;
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Who may connect, and who signs.
#[derive(Clone)]
pub(super) struct Security {
    pub(super) authority: Arc<Authority>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) policy: Policy,
}

/// Serves until the drain has begun and the last stream has ended.
pub(super) fn serve(
    tcp: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    security: Security,
    knowledge: &Knowledge,
    peers: Peers,
    drain: drain::Watch,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + use<> {
    let pods: Arc<dyn Pods> = Arc::new(knowledge.clone());
    let authenticator = security.authenticator.clone();
    let doorkeeper = Doorkeeper {
        authenticator: security.authenticator.clone(),
        trusted: security.policy.trusted_node_accounts.clone(),
        pods: pods.clone(),
    };
    let discovery = xds::server::Server::new(
        knowledge.resources(),
        peers,
        move |metadata: &MetadataMap, node: &ProxyNode| doorkeeper.admit(metadata, node),
    );
    // A full resynchronisation names every resource, so that requests can be large: nobody
    // without a token gets to send one.
    let discovery =
        InterceptedService::new(discovery.into_service(), move |request: Request<()>| {
            match authenticator.authenticate(request.metadata()) {
                Ok(_) => Ok(request),
                Err(error) => Err(unauthenticated(&error)),
            }
        });
    let certificates = ca::service(
        security.authority,
        security.authenticator,
        pods,
        security.policy,
    );
    let connections = listener::accept(tcp, tls, drain.clone());
    Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(discovery)
        .add_service(certificates)
        .serve_with_incoming_shutdown(connections, async move {
            let mut drain = drain;
            drain.signaled().await;
        })
}

/// Decides who gets which of the mesh's resources: node proxies and pods with a tunnel of their
/// own what L4 needs, waypoints what L7 needs; each as the pod it runs in.
struct Doorkeeper {
    authenticator: Arc<Authenticator>,
    trusted: Vec<Account>,
    pods: Arc<dyn Pods>,
}

// === impl Doorkeeper ===

impl Doorkeeper {
    fn admit(&self, metadata: &MetadataMap, node: &ProxyNode) -> Result<Admitted, Status> {
        let refused = |reason: String| {
            tracing::warn!(node = node.id, reason, "refused an xDS client");
            Status::permission_denied("the caller may not have these resources")
        };
        let caller = self
            .authenticator
            .authenticate(metadata)
            .map_err(|error| unauthenticated(&error))?;
        let pod = ca::running_pod(&caller, &*self.pods);
        let layer = match node.proxy_type.as_str() {
            ZTUNNEL if self.is_trusted(&caller) => Some(Layer::L4),
            ZTUNNEL => pod
                .as_ref()
                .is_ok_and(|pod| pod.native_tunnel)
                .then_some(Layer::L4),
            WAYPOINT => pod
                .as_ref()
                .is_ok_and(|pod| pod.waypoint)
                .then_some(Layer::L7),
            _ => None,
        };
        let Some(layer) = layer else {
            let account = format!("{}/{}", caller.namespace, caller.service_account);
            return Err(refused(format!(
                "{account} is not trusted as the account of a {}",
                node.proxy_type
            )));
        };
        if node.namespace != caller.namespace {
            let (said, is) = (&node.namespace, &caller.namespace);
            return Err(refused(format!("it says it is in {said}, its token {is}")));
        }
        let pod = pod.map_err(|refusal| refused(refusal.to_string()))?;
        match pod.node {
            Some(on) if !node.node_name.is_empty() && on != node.node_name => {
                let said = &node.node_name;
                Err(refused(format!(
                    "it says it is on {said}, its pod is on {on}"
                )))
            }
            _ => Ok(Admitted {
                layer,
                until: Some(caller.expires),
            }),
        }
    }

    fn is_trusted(&self, caller: &Caller) -> bool {
        self.trusted.iter().any(|account| {
            account.namespace == caller.namespace && account.name == caller.service_account
        })
    }
}

fn unauthenticated(error: &ca::TokenError) -> Status {
    tracing::warn!(reason = %error, "refused an unauthenticated xDS client");
    Status::unauthenticated("a valid token is needed")
}
