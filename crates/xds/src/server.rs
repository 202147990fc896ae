//! Keeps any number of nodes in sync with a set of resources.
//!
//! - `resources`: the set, versioned by content.
//! - `subscriber`: what one client has and what to tell it next; pure.
//! - `peers`: who is connected and what they said.

mod resources;

mod subscriber;

mod peers;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;
use proto::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use self::peers::Connected;
pub use self::peers::{Nack, Peer, Peers, TypeStatus};
pub use self::resources::{Resource, ResourceSet};
pub use self::subscriber::Subscriber;
use crate::client::MAX_MESSAGE;
use crate::node::ProxyNode;
use crate::resource_type::{Layer, ResourceType};

/// How long a client may take to say who it is.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// What an authenticated client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub layer: Layer,
    /// A stream does not outlive what its client proved itself by.
    pub until: Option<SystemTime>,
}

/// Decides whether a client may have resources of the mesh, which, and until when.
pub trait Authenticate: Send + Sync + 'static {
    fn authenticate(
        &self,
        metadata: &MetadataMap,
        node: &ProxyNode,
    ) -> impl Future<Output = Result<Admitted, Status>> + Send;
}

impl<F> Authenticate for F
where
    F: Fn(&MetadataMap, &ProxyNode) -> Result<Admitted, Status> + Send + Sync + 'static,
{
    async fn authenticate(
        &self,
        metadata: &MetadataMap,
        node: &ProxyNode,
    ) -> Result<Admitted, Status> {
        self(metadata, node)
    }
}

/// The discovery service over a watched set of resources. Streams end when the set's
/// sender is dropped.
pub struct Server<A> {
    resources: watch::Receiver<ResourceSet>,
    peers: Peers,
    authenticate: A,
}

// === impl Server ===

impl<A: Authenticate> Server<A> {
    pub fn new(resources: watch::Receiver<ResourceSet>, peers: Peers, authenticate: A) -> Self {
        Self {
            resources,
            peers,
            authenticate,
        }
    }

    /// The tonic service, with room for large meshes.
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<A: Authenticate> AggregatedDiscoveryService for Server<A> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only delta xDS is served"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let first = tokio::time::timeout(FIRST_REQUEST, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no request came"))??
            .ok_or_else(|| Status::invalid_argument("no request came"))?;
        let node = first
            .node
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
        let node = ProxyNode::try_from(node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let admitted = self.authenticate.authenticate(&metadata, &node).await;
        let Admitted { layer, until } = admitted.inspect_err(|status| {
            tracing::warn!(
                node = node.id,
                reason = status.message(),
                "refused an xDS client"
            );
        })?;
        // One response of each type in flight: a client is never owed more.
        let (responses, outgoing) = mpsc::channel(layer.types().len());
        let session = Session {
            layer,
            subscriber: Subscriber::new(node.node_name.clone()),
            changed_at: None,
            peer: self.peers.connect(node, SystemTime::now()),
            resources: self.resources.clone(),
            responses,
        };
        let expired = async move {
            match until {
                Some(until) => tokio::time::sleep(left(until)).await,
                None => std::future::pending().await,
            }
        };
        tokio::spawn(session.serve(first, requests, expired));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

fn left(until: SystemTime) -> Duration {
    until.duration_since(SystemTime::now()).unwrap_or_default()
}

/// One client's stream.
struct Session {
    layer: Layer,
    subscriber: Subscriber,
    peer: Connected,
    resources: watch::Receiver<ResourceSet>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    /// When the resources changed that the client has not acknowledged yet.
    changed_at: Option<Instant>,
}

impl Session {
    async fn serve(
        mut self,
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        expired: impl Future<Output = ()>,
    ) {
        let mut expired = pin!(expired);
        tracing::info!(node = self.peer.id(), "xDS client connected");
        let mut request = Some(first);
        let reason = loop {
            if let Some(request) = request.take() {
                if let Some(refused) = self.refused(&request) {
                    let reason = format!("it asked for resources of type {refused}");
                    let status =
                        Status::permission_denied("the caller may not have resources of this type");
                    // A client that is gone needs no answer.
                    let _ = self.responses.send(Err(status)).await;
                    break reason;
                }
                if request.error_detail.is_some() {
                    metrics::counter!("pilot_total_xds_rejects").increment(1);
                }
                self.subscriber.receive(request, SystemTime::now());
            }
            if let Err(reason) = self.push().await {
                break reason;
            }
            tokio::select! {
                message = requests.message() => match message {
                    Ok(Some(message)) => request = Some(message),
                    Ok(None) => break "the client ended the stream".to_owned(),
                    Err(status) => break status.message().to_owned(),
                },
                changed = self.resources.changed() => if changed.is_ok() {
                    self.changed_at.get_or_insert_with(Instant::now);
                } else {
                    let status = Status::unavailable("the control plane is stopping");
                    // A client that is gone needs no farewell.
                    let _ = self.responses.send(Err(status)).await;
                    break "the control plane is stopping".to_owned();
                },
                () = &mut expired => {
                    // As for any stream that has lasted long enough: the client opens another.
                    let status = Status::deadline_exceeded("the token of this stream has expired");
                    let _ = self.responses.send(Err(status)).await;
                    break "its token has expired".to_owned();
                }
                () = self.responses.closed() => break "the client is gone".to_owned(),
            }
        };
        tracing::info!(node = self.peer.id(), reason, "xDS client disconnected");
    }

    /// The type that is asked for and may not be had. Answered with nothing, as unknown types are,
    /// the client would believe that there are no policies.
    fn refused(&self, request: &DeltaDiscoveryRequest) -> Option<ResourceType> {
        ResourceType::from_url(&request.type_url)
            .filter(|asked| !self.layer.types().contains(asked))
    }

    /// Sends what the client lacks, each time from the newest set: a slow client skips
    /// what came between.
    async fn push(&mut self) -> Result<(), String> {
        let resources = self.resources.borrow_and_update().clone();
        while let Some(response) = self.subscriber.next(&resources) {
            if let Some(resource_type) = ResourceType::from_url(&response.type_url) {
                let name = resource_type.short_name();
                metrics::counter!("pilot_xds_pushes", "type" => name).increment(1);
            }
            self.responses
                .send(Ok(response))
                .await
                .map_err(|_| "the client is gone".to_owned())?;
        }
        let status = self.subscriber.status();
        if status.values().all(|one| one.acked == one.sent)
            && let Some(changed_at) = self.changed_at.take()
        {
            metrics::histogram!("pilot_proxy_convergence_time").record(changed_at.elapsed());
        }
        self.peer.update(status);
        Ok(())
    }
}

/// Shares one authenticator between services.
impl<A: Authenticate> Authenticate for Arc<A> {
    async fn authenticate(
        &self,
        metadata: &MetadataMap,
        node: &ProxyNode,
    ) -> Result<Admitted, Status> {
        self.as_ref().authenticate(metadata, node).await
    }
}
