//! Keeps a node in sync with a control plane over one delta stream, for as long as it runs.
//!
//! - `state`: what is held and what to say next; pure.
//! - `backoff`: how long to wait before the next stream; pure.

mod state;

mod backoff;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use proto::discovery::{DeltaDiscoveryRequest, Node, delta_stream};
use runtime::causes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes};
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::{Code, Status};

use self::backoff::Backoff;
pub use self::state::{Received, Rejection, State, Subscription, Update};
use crate::resource_type::Layer;

/// A full set of a large mesh is one message.
pub const MAX_MESSAGE: usize = 200 * 1024 * 1024;
/// HTTP/2 keepalive of the channel that [`Client::run`] is given.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Reads the bearer token anew for each stream; none where the channel itself authenticates.
pub type TokenSource = Arc<dyn Fn() -> io::Result<Option<String>> + Send + Sync>;

/// What a client says of itself.
#[derive(Clone)]
pub struct Config {
    pub node: Node,
    pub token: TokenSource,
    /// Extra request metadata: `clusterid` and every `XDS_HEADER_*`.
    pub headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    pub layer: Layer,
    pub addresses: Subscription,
}

/// What the caller is told, in order. The response it came from is acknowledged afterwards.
#[derive(Debug)]
pub enum Event {
    /// A stream is open.
    Connected,
    /// A response's worth of changes; those of its resources that were rejected are not among them.
    Update(Update),
    /// Every type has been received once. Told once.
    Synced,
    /// The stream ended; another is tried after a while. What was received stays valid.
    Disconnected { reason: String },
}

/// Asks a running on-demand client for more resources, or for fewer.
#[derive(Clone, Debug)]
pub struct Demander(mpsc::UnboundedSender<Demand>);

/// `network/ip`, `namespace/hostname` or a workload's uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    Subscribe(String),
    Unsubscribe(String),
}

/// See the module's description.
pub struct Client {
    config: Config,
    state: State,
    demander: Demander,
    demands: mpsc::UnboundedReceiver<Demand>,
}

/// How a stream ended.
struct Ended {
    status: Option<Status>,
    /// Whether it brought anything: a server that only ever refuses is left in peace longer.
    productive: bool,
}

// === impl Demander ===

impl Demander {
    pub fn demand(&self, demand: Demand) {
        // A client that is gone needs nothing.
        let _ = self.0.send(demand);
    }
}

// === impl Client ===

impl Client {
    pub fn new(config: Config) -> Self {
        let (demander, demands) = mpsc::unbounded_channel();
        Self {
            state: State::new(config.layer, config.addresses),
            config,
            demander: Demander(demander),
            demands,
        }
    }

    pub fn demander(&self) -> Demander {
        self.demander.clone()
    }

    /// Streams forever. `connect` is asked for a channel before every stream, so that it may
    /// return the same one again or one with newer trust roots.
    pub async fn run<C, F, T>(
        mut self,
        mut connect: C,
        mut on_event: impl FnMut(Event),
    ) -> Infallible
    where
        C: FnMut() -> F,
        F: Future<Output = Result<T, BoxError>>,
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    {
        let mut backoff = Backoff::default();
        loop {
            let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connect()).await {
                Ok(connected) => connected,
                Err(_) => Err("connecting took longer than 5 s".into()),
            };
            let reason = match connected {
                Ok(channel) => {
                    let ended = self.stream(channel, &mut on_event).await;
                    if ended.is_expected() {
                        backoff.reset();
                    }
                    terminated(ended.metric_reason());
                    ended.to_string()
                }
                Err(error) => {
                    terminated("ConnectionError");
                    error.to_string()
                }
            };
            let wait = backoff.wait(&mut rand::rng());
            tracing::info!(reason, ?wait, "xDS stream ended, reconnecting");
            on_event(Event::Disconnected { reason });
            tokio::time::sleep(wait).await;
        }
    }

    async fn stream<T>(&mut self, channel: T, on_event: &mut impl FnMut(Event)) -> Ended
    where
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    {
        let mut productive = false;
        let exchange = self.exchange(channel, on_event, &mut productive);
        let status = exchange.await.err();
        Ended { status, productive }
    }

    /// Opens a stream and serves it until it ends.
    async fn exchange<T>(
        &mut self,
        channel: T,
        on_event: &mut impl FnMut(Event),
        productive: &mut bool,
    ) -> Result<(), Status>
    where
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let send = |request: DeltaDiscoveryRequest| {
            requests
                .send(request)
                .map_err(|_| Status::cancelled("the request stream was closed"))
        };
        for mut request in self.state.initial_requests() {
            request.node = Some(self.config.node.clone());
            send(request)?;
        }
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        self.authenticate(&mut request)?;
        let mut responses = delta_stream(channel, MAX_MESSAGE, request)
            .await?
            .into_inner();
        on_event(Event::Connected);
        loop {
            tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    *productive = true;
                    let url = response.type_url.clone();
                    let bytes = u64::try_from(response.encoded_len()).unwrap_or(u64::MAX);
                    metrics::counter!("istio_xds_message_total", "url" => url.clone()).increment(1);
                    metrics::counter!("istio_xds_message_bytes_total", "url" => url).increment(bytes);
                    let received = self.state.receive(response);
                    let received = received.map_err(|error| Status::internal(error.to_string()))?;
                    if let Some(update) = received.update {
                        log_rejections(&update);
                        on_event(Event::Update(update));
                    }
                    if received.synced {
                        on_event(Event::Synced);
                    }
                    send(received.acknowledgement)?;
                }
                Some(demand) = self.demands.recv() => {
                    if let Some(request) = self.state.demand(demand) {
                        send(request)?;
                    }
                }
            }
        }
    }

    fn authenticate<R>(&self, request: &mut tonic::Request<R>) -> Result<(), Status> {
        let metadata = request.metadata_mut();
        for (key, value) in &self.config.headers {
            metadata.insert(key.clone(), value.clone());
        }
        let token = (self.config.token)()
            .map_err(|error| Status::unauthenticated(format!("reading the token: {error}")))?;
        if let Some(token) = token {
            let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| Status::unauthenticated("the token is not a header value"))?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        Ok(())
    }
}

fn log_rejections(update: &Update) {
    for rejection in &update.rejections {
        tracing::warn!(
            resource = rejection.name,
            reason = rejection.reason,
            "rejected a resource of type {}",
            update.resource_type
        );
    }
}

fn terminated(reason: &'static str) {
    metrics::counter!("istio_xds_connection_terminations_total", "reason" => reason).increment(1);
}

// === impl Ended ===

impl Ended {
    /// Whether streams end like this in a healthy mesh: servers bound a stream's age, and restart.
    fn is_expected(&self) -> bool {
        let Some(status) = &self.status else {
            return self.productive;
        };
        self.productive
            && matches!(
                status.code(),
                Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable
            )
    }

    fn metric_reason(&self) -> &'static str {
        match (&self.status, self.productive) {
            (None, _) => "Complete",
            (Some(_), true) if self.is_expected() => "Reconnect",
            (Some(status), false) if status.code() == Code::Unavailable => "ConnectionError",
            (Some(_), _) => "Error",
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(status) = &self.status else {
            return f.write_str("the control plane ended the stream");
        };
        let told = causes::told(status.message(), status);
        write!(f, "{:?}: {told}", status.code())
    }
}
