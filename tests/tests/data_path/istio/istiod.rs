//! Istio's control plane as a node tunnel sees it: delta xDS and the CA over TLS, with nothing in its
//! messages that Istio's don't have. What it is asked is remembered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures::{Stream, StreamExt};
use http::HeaderMap;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use identity::WorkloadCertificate;
use identity::authority::{Signer, Subject};
use identity::key::{PrivateKey, PublicKey};
use identity::serving::ServingCertificate;
use mesh::identity::Identity;
use mesh::snapshot::Change;
use prost::Message;
use prost_types::value::Kind;
use proto::authorization::{AUTHORIZATION_TYPE_URL, Authorization};
use proto::citadel::{
    IMPERSONATED_IDENTITY, IstioCertificateRequest, IstioCertificateResponse,
    IstioCertificateService, IstioCertificateServiceServer,
};
use proto::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use proto::workload::{ADDRESS_TYPE_URL, Address};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::lab::{Authority, Lab, PATIENCE};

/// The only name on its certificate.
pub(super) const NAME: &str = "istiod.istio-system.svc";
const DAY: Duration = Duration::from_secs(86_400);

/// A running one.
#[derive(Clone)]
pub(super) struct Istiod(Arc<Inner>);

struct Inner {
    authority: Arc<Authority>,
    asked: Mutex<Asked>,
    /// Something was asked.
    news: Condvar,
}

#[derive(Default)]
struct Asked {
    streams: Vec<Connected>,
    certificates: Vec<(HeaderMap, IstioCertificateRequest)>,
    resources: BTreeMap<(String, String), Resource>,
    nonce: usize,
}

/// One delta stream.
struct Connected {
    headers: HeaderMap,
    requests: Vec<DeltaDiscoveryRequest>,
    responses: Option<UnboundedSender<Result<DeltaDiscoveryResponse, Status>>>,
}

/// A resource as istiod names and versions it.
pub(super) fn resource(type_url: &str, name: &str, message: &impl Message) -> Resource {
    let value = message.encode_to_vec();
    Resource {
        name: name.to_owned(),
        version: format!("{:x}", value.len()),
        resource: Some(prost_types::Any {
            type_url: type_url.to_owned(),
            value,
        }),
        ..Default::default()
    }
}

/// What istiod makes of these.
pub(super) fn resources(changes: &[Change]) -> Vec<Resource> {
    let of = |change: &Change| match change {
        Change::Workload(workload) => {
            let address = Address::from(workload);
            resource(ADDRESS_TYPE_URL, &workload.uid.to_string(), &address)
        }
        Change::Service(service) => {
            let name = service.key().to_string();
            resource(ADDRESS_TYPE_URL, &name, &Address::from(service))
        }
        Change::Authorization(policy) => {
            let name = format!("{}/{}", policy.namespace, policy.name);
            resource(AUTHORIZATION_TYPE_URL, &name, &Authorization::from(policy))
        }
        other => panic!("{other:?} is no resource"),
    };
    changes.iter().map(of).collect()
}

// === impl Istiod ===

impl Istiod {
    /// Serves in a pod's namespace, for as long as the test runs. All of a lab sign with one root.
    pub(super) fn start(lab: &Lab, pod: &str, port: u16) -> Self {
        let istiod = Self(Arc::new(Inner {
            authority: lab.authority().clone(),
            asked: Mutex::default(),
            news: Condvar::new(),
        }));
        let key = PrivateKey::generate().expect("key");
        let subject = Subject::Server {
            names: vec![NAME.to_owned()],
            addresses: Vec::new(),
        };
        let signer = istiod.signer();
        let issued = signer.issue(key.public(), &subject, DAY / 2, SystemTime::now());
        let issued = issued.expect("certificate");
        let serving = ServingCertificate::new(key, &issued.chain).expect("certificate");
        let tls = TlsAcceptor::from(serving.server_config().expect("TLS"));
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = lab.within(pod, || std::net::TcpListener::bind(address));
        let listener = listener.expect("a free port");
        listener.set_nonblocking(true).expect("socket");
        let services =
            tonic::service::Routes::new(AggregatedDiscoveryServiceServer::new(istiod.clone()))
                .add_service(IstioCertificateServiceServer::new(istiod.clone()));
        lab.spawn_within(pod, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("socket");
                while let Ok((tcp, _)) = listener.accept().await {
                    let (tls, services) = (tls.clone(), services.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = tls.accept(tcp).await else {
                            return;
                        };
                        let service = TowerToHyperService::new(services);
                        let served = http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service);
                        // It ends with its client.
                        let _ = served.await;
                    });
                }
            });
        });
        istiod
    }

    /// PEM of the root that the mesh trusts.
    pub(super) fn root(&self) -> &str {
        self.signer().roots()
    }

    fn signer(&self) -> &Signer {
        self.0.authority.signer()
    }

    /// A certificate for somebody who is not on the node.
    pub(super) fn workload_certificate(&self, identity: &Identity) -> WorkloadCertificate {
        let now = SystemTime::now();
        let issued = self.signer().workload_certificate(identity, DAY / 2, now);
        issued.expect("certificate")
    }

    /// Has a resource from now on, and tells who is connected.
    pub(super) fn set(&self, resources: Vec<Resource>) {
        let mut asked = self.0.asked.lock().expect("no panic");
        for resource in &resources {
            let url = &resource.resource.as_ref().expect("content").type_url;
            let key = (url.clone(), resource.name.clone());
            asked.resources.insert(key, resource.clone());
        }
        asked.send(resources, Vec::new());
    }

    /// Tells of resources that it does not keep.
    pub(super) fn send(&self, resources: Vec<Resource>) {
        let mut asked = self.0.asked.lock().expect("no panic");
        asked.send(resources, Vec::new());
    }

    pub(super) fn remove(&self, type_url: &str, name: &str) {
        let mut asked = self.0.asked.lock().expect("no panic");
        asked
            .resources
            .remove(&(type_url.to_owned(), name.to_owned()));
        asked.send(Vec::new(), vec![(type_url.to_owned(), name.to_owned())]);
    }

    /// Ends the streams, as a restart does.
    pub(super) fn disconnect(&self) {
        let mut asked = self.0.asked.lock().expect("no panic");
        for stream in &mut asked.streams {
            stream.responses = None;
        }
    }

    /// Waits for a request on stream `stream` that `is_it`.
    pub(super) fn request(
        &self,
        stream: usize,
        is_it: impl Fn(&DeltaDiscoveryRequest) -> bool,
    ) -> (HeaderMap, DeltaDiscoveryRequest) {
        self.wait("the request", |asked| {
            let stream = asked.streams.get(stream)?;
            let found = stream.requests.iter().find(|request| is_it(request))?;
            Some((stream.headers.clone(), found.clone()))
        })
    }

    /// Waits for the request of a certificate for `identity`.
    pub(super) fn certificate(&self, identity: &str) -> (HeaderMap, IstioCertificateRequest) {
        self.wait("the signing request", |asked| {
            let mut all = asked.certificates.iter();
            all.find(|(_, request)| impersonated(request).as_deref() == Some(identity))
                .cloned()
        })
    }

    fn wait<T>(&self, what: &str, find: impl Fn(&Asked) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut asked = self.0.asked.lock().expect("no panic");
        loop {
            if let Some(found) = find(&asked) {
                return found;
            }
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else {
                let streams = asked.streams.iter().map(|stream| &stream.requests);
                panic!("{what}: not in time; {:#?}", streams.collect::<Vec<_>>());
            };
            (asked, _) = self.0.news.wait_timeout(asked, left).expect("no panic");
        }
    }
}

fn impersonated(request: &IstioCertificateRequest) -> Option<String> {
    let fields = &request.metadata.as_ref()?.fields;
    match fields.get(IMPERSONATED_IDENTITY)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

// === impl Asked ===

impl Asked {
    /// One response for each type, on the newest stream.
    fn send(&mut self, resources: Vec<Resource>, removed: Vec<(String, String)>) {
        let mut responses: BTreeMap<String, DeltaDiscoveryResponse> = BTreeMap::new();
        for resource in resources {
            let url = resource
                .resource
                .as_ref()
                .expect("content")
                .type_url
                .clone();
            responses.entry(url).or_default().resources.push(resource);
        }
        for (url, name) in removed {
            let response = responses.entry(url).or_default();
            response.removed_resources.push(name);
        }
        let stream = self.streams.last_mut();
        let Some(sender) = stream.and_then(|stream| stream.responses.as_ref()) else {
            return;
        };
        for (type_url, mut response) in responses {
            self.nonce += 1;
            response.type_url = type_url;
            response.nonce = format!("nonce-{}", self.nonce);
            // Who has gone hears nothing.
            let _ = sender.send(Ok(response));
        }
    }

    /// Answers the first request of a type: all there is, and what the client has in vain.
    fn subscribe(&mut self, stream: usize, request: &DeltaDiscoveryRequest) {
        self.nonce += 1;
        let of_type = |(url, _): &&(String, String)| *url == request.type_url;
        let known = self.resources.keys().filter(of_type).map(|(_, name)| name);
        let known: Vec<&String> = known.collect();
        let removed = request.initial_resource_versions.keys();
        let removed = removed.filter(|name| !known.contains(name)).cloned();
        let all = self.resources.iter();
        let response = DeltaDiscoveryResponse {
            type_url: request.type_url.clone(),
            nonce: format!("nonce-{}", self.nonce),
            removed_resources: removed.collect(),
            resources: all
                .filter(|(key, _)| of_type(key))
                .map(|(_, resource)| resource.clone())
                .collect(),
            ..Default::default()
        };
        if let Some(sender) = &self.streams[stream].responses {
            let _ = sender.send(Ok(response));
        }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Istiod {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let (sender, responses) = mpsc::unbounded_channel();
        let stream = {
            let mut asked = self.0.asked.lock().expect("no panic");
            asked.streams.push(Connected {
                headers: metadata.into_headers(),
                requests: Vec::new(),
                responses: Some(sender),
            });
            asked.streams.len() - 1
        };
        let istiod = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let mut asked = istiod.0.asked.lock().expect("no panic");
                let before = &asked.streams[stream].requests;
                let is_first = !before.iter().any(|one| one.type_url == request.type_url);
                if is_first {
                    asked.subscribe(stream, &request);
                }
                asked.streams[stream].requests.push(request);
                drop(asked);
                istiod.0.news.notify_all();
            }
        });
        let responses = UnboundedReceiverStream::new(responses);
        Ok(Response::new(Box::pin(responses)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Istiod {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let csr = boring::x509::X509Req::from_pem(request.csr.as_bytes());
        let csr = csr.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let key = PublicKey::new(&csr.public_key().expect("a key")).expect("P-256");
        let identity = impersonated(&request).and_then(|text| text.parse().ok());
        let subject = Subject::Workload(identity.ok_or_else(|| Status::unauthenticated("no"))?);
        let lifetime = Duration::from_secs(request.validity_duration.unsigned_abs());
        let issued = self
            .signer()
            .issue(&key, &subject, lifetime, SystemTime::now());
        let mut asked = self.0.asked.lock().expect("no panic");
        asked.certificates.push((metadata.into_headers(), request));
        drop(asked);
        self.0.news.notify_all();
        let cert_chain = issued.expect("signed").chain;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
