//! One object of a file: its kind, its content, and where it was written.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::diagnostic::Origin;
use crate::kind::Kind;
use crate::kinds::authorization_policy::AuthorizationPolicy;
use crate::kinds::config_map::ConfigMap;
use crate::kinds::deployment::Deployment;
use crate::kinds::gateway::{Gateway, GatewayStatus};
use crate::kinds::gateway_class::GatewayClass;
use crate::kinds::grpc_route::GrpcRoute;
use crate::kinds::http_route::HttpRoute;
use crate::kinds::metadata::{Condition, ObjectMeta};
use crate::kinds::namespace::Namespace;
use crate::kinds::node::Node;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::pod::Pod;
use crate::kinds::reference_grant::ReferenceGrant;
use crate::kinds::request_authentication::RequestAuthentication;
use crate::kinds::route::RouteParentStatus;
use crate::kinds::service::Service;
use crate::kinds::service_account::ServiceAccount;
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::tcp_route::TcpRoute;
use crate::kinds::workload_entry::WorkloadEntry;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Object {
    pub origin: Origin,
    pub body: Body,
    /// The line of each rule, or of each mode, where the kind has any and the place is known.
    pub rules: Arc<[u32]>,
    /// The document as it was written, unknown fields included, where it was asked for.
    pub raw: Option<Arc<serde_json::Value>>,
}

/// The content, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    ServiceAccount(Arc<ServiceAccount>),
    ConfigMap(Arc<ConfigMap>),
    Pod(Arc<Pod>),
    Deployment(Arc<Deployment>),
    Service(Arc<Service>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    RequestAuthentication(Arc<RequestAuthentication>),
    Gateway(Arc<Gateway>),
    GatewayClass(Arc<GatewayClass>),
    HttpRoute(Arc<HttpRoute>),
    GrpcRoute(Arc<GrpcRoute>),
    TcpRoute(Arc<TcpRoute>),
    ReferenceGrant(Arc<ReferenceGrant>),
}

/// Kind, namespace and name: what makes two objects the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds outside namespaces.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A type that is the content of a kind.
pub trait Resource: Serialize + serde::de::DeserializeOwned {
    const KIND: Kind;

    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    fn into_body(self) -> Body;
    /// None where the body is of another kind.
    fn of(body: &Body) -> Option<&Arc<Self>>;

    fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(
            Self::KIND,
            metadata.namespace.as_str(),
            metadata.name.as_str(),
        )
    }
}

macro_rules! resources {
    ($($kind:ident,)*) => {
        $(impl Resource for $kind {
            const KIND: Kind = Kind::$kind;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }

            fn into_body(self) -> Body {
                Body::$kind(Arc::new(self))
            }

            fn of(body: &Body) -> Option<&Arc<Self>> {
                match body {
                    Body::$kind(content) => Some(content),
                    _ => None,
                }
            }
        })*

        impl Body {
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(content) => &content.metadata,)*
                }
            }
        }

        impl Serialize for Body {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(content) => Document::new(&**content).serialize(serializer),)*
                }
            }
        }
    };
}

resources! {
    Namespace,
    Node,
    ServiceAccount,
    ConfigMap,
    Pod,
    Deployment,
    Service,
    AuthorizationPolicy,
    PeerAuthentication,
    ServiceEntry,
    WorkloadEntry,
    RequestAuthentication,
    Gateway,
    GatewayClass,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    ReferenceGrant,
}

// === impl Body ===

impl Body {
    /// Whether two say the same, metadata and status aside.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said = |body: &Self| {
            let mut json = serde_json::to_value(body).unwrap_or_default();
            if let Some(object) = json.as_object_mut() {
                object.remove("metadata");
                object.remove("status");
            }
            json
        };
        said(self) == said(other)
    }
}

/// Serializes content with its `apiVersion` and `kind` in front.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a, T: Serialize> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    content: &'a T,
}

// === impl Document ===

impl<'a, T: Resource> Document<'a, T> {
    pub fn new(content: &'a T) -> Self {
        Self {
            api_version: T::KIND.api_version(),
            kind: T::KIND.name(),
            content,
        }
    }
}

// === impl ObjectKey ===

impl ObjectKey {
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

// === impl Object ===

impl Object {
    pub fn new<T: Resource>(origin: Origin, content: T) -> Self {
        Self {
            origin,
            body: content.into_body(),
            rules: Arc::default(),
            raw: None,
        }
    }

    /// Where a rule was written, by its index; else where the object was.
    pub fn rule_line(&self, index: usize) -> u32 {
        self.rules.get(index).copied().unwrap_or(self.origin.line)
    }

    /// Where a PeerAuthentication says the mode of a port, or of all of them.
    pub fn mode_line(&self, port: Option<u16>) -> u32 {
        let policy = self.get::<PeerAuthentication>();
        let index = policy.and_then(|policy| match port {
            None => Some(0),
            Some(port) => {
                let mut ports = policy.spec.port_level_mtls.keys();
                ports
                    .position(|known| *known == port)
                    .map(|index| index + 1)
            }
        });
        index.map_or(self.origin.line, |index| self.rule_line(index))
    }

    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    pub fn metadata(&self) -> &ObjectMeta {
        self.body.metadata()
    }

    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(
            self.kind(),
            metadata.namespace.as_str(),
            metadata.name.as_str(),
        )
    }

    /// The content, where it is of this kind.
    pub fn get<T: Resource>(&self) -> Option<&Arc<T>> {
        T::of(&self.body)
    }

    /// The whole object as JSON: as it was written where that was kept, with the status
    /// conditions given here.
    pub fn to_json(&self, conditions: &[Condition]) -> serde_json::Value {
        let mut json = match &self.raw {
            Some(raw) => (**raw).clone(),
            None => serde_json::to_value(&self.body).unwrap_or_default(),
        };
        let metadata = self.metadata();
        if !metadata.namespace.is_empty()
            && let Some(written) = json.get_mut("metadata").and_then(|m| m.as_object_mut())
        {
            written.insert("namespace".into(), metadata.namespace.as_str().into());
        }
        // A route has conditions for each parent, and none of its own.
        let routes = matches!(
            self.kind(),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute
        );
        if !conditions.is_empty() && !routes {
            set_status(&mut json, "conditions", &conditions);
        }
        json
    }
}

/// Puts into the JSON of an object how often what it says has changed; what a file says of that
/// is nobody's count.
pub fn set_generation(object: &mut serde_json::Value, generation: i64) {
    if let Some(metadata) = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.as_object_mut())
    {
        metadata.insert("generation".into(), generation.into());
    }
}

/// Puts into the JSON of a route what its parents make of it.
pub fn set_parents(route: &mut serde_json::Value, parents: &[RouteParentStatus]) {
    if !parents.is_empty() {
        set_status(route, "parents", &parents);
    }
}

/// Puts into the JSON of a Gateway where its waypoint is, and what became of its listeners.
pub fn set_gateway(gateway: &mut serde_json::Value, status: &GatewayStatus) {
    if !status.addresses.is_empty() {
        set_status(gateway, "addresses", &status.addresses);
    }
    if !status.listeners.is_empty() {
        set_status(gateway, "listeners", &status.listeners);
    }
}

fn set_status(object: &mut serde_json::Value, field: &str, content: &impl Serialize) {
    if let Some(object) = object.as_object_mut() {
        let status = object
            .entry("status")
            .or_insert_with(|| serde_json::json!({}));
        if let Some(status) = status.as_object_mut() {
            let content = serde_json::to_value(content).unwrap_or_default();
            status.insert(field.into(), content);
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.raw {
            Some(_) => self.to_json(&[]).serialize(serializer),
            None => self.body.serialize(serializer),
        }
    }
}
