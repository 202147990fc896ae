//! Routes: which requests go to which backends, and what is done to them on the way.
//!
//! The model is Gateway API's, wide enough for what VirtualService adds. A route names its
//! parents, so that one change is one resource.

pub mod matching;
pub mod select;

pub mod backend;
pub mod filter;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::address::NamespacedHostname;

/// Kind, namespace and name of the object a route was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    pub kind: RouteKind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// In order of precedence on one port of a service (GEP-1294): the first kind present there
/// decides, others are not consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    Grpc,
    Http,
    VirtualService,
    Tls,
    Tcp,
}

/// One route object, attached to services.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub key: RouteKey,
    pub parents: Vec<RouteParent>,
    /// Seconds since the Unix epoch at which the object was made: older ones win ties.
    pub created: i64,
    pub rules: RouteRules,
}

/// A service that a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    pub service: NamespacedHostname,
    /// Only this port of the service, where set.
    pub port: Option<u16>,
    /// Only clients of this namespace, where set: a consumer route, which wins over the
    /// producer's for its clients (GEP-1294).
    pub clients: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RouteRules {
    /// HTTPRoute, GRPCRoute and the `http` of a VirtualService.
    Http(Vec<HttpRule>),
    /// TCPRoute: connections, not requests.
    Tcp(Vec<TcpRule>),
}

/// Requests that one of the matches holds for (all, where there is none) are handled so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRule {
    pub name: Option<Arc<str>>,
    pub matches: Vec<HttpMatch>,
    pub filters: Vec<Filter>,
    /// Empty: the rule answers by a filter, or with 500.
    pub backends: Vec<Backend>,
    pub timeouts: Timeouts,
    /// None: the mesh's default.
    pub retry: Option<Retry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpRule {
    pub name: Option<Arc<str>>,
    pub backends: Vec<Backend>,
}

/// All of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// None: any path.
    pub path: Option<PathMatch>,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query_params: Vec<QueryParamMatch>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// By whole segments: `/a` covers `/a` and `/a/b`, not `/ab`.
    PathPrefix(Arc<str>),
    /// By characters, as VirtualService has it.
    StringPrefix(Arc<str>),
    /// The whole path.
    RegularExpression(Pattern),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueryParamMatch {
    pub name: Arc<str>,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    /// The whole value.
    RegularExpression(Pattern),
    Present,
}

/// A regular expression, anchored at both ends; bounded in size when it is made.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    compiled: regex::bytes::Regex,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    RequestHeaderModifier(HeaderModifier),
    ResponseHeaderModifier(HeaderModifier),
    RequestRedirect(RequestRedirect),
    UrlRewrite(UrlRewrite),
    RequestMirror(RequestMirror),
    Cors(Cors),
}

/// `set` replaces, `add` appends, `remove` deletes; in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRedirect {
    pub scheme: Option<Arc<str>>,
    pub hostname: Option<Arc<str>>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    pub status: StatusCode,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlRewrite {
    pub hostname: Option<Arc<str>>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    ReplaceFullPath(Arc<str>),
    /// In place of what the rule's `PathPrefix` matched.
    ReplacePrefixMatch(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestMirror {
    pub backend: BackendRef,
    /// Of all requests, this many in `denominator` are mirrored.
    pub numerator: u32,
    pub denominator: u32,
}

/// Cross-origin resource sharing (WHATWG Fetch §3.2), as HTTPRoute's filter words it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, an origin, or an origin with a wildcard host `https://*.example.com`.
    pub allow_origins: Vec<Arc<str>>,
    pub allow_credentials: bool,
    /// `*` or names.
    pub allow_methods: Vec<Arc<str>>,
    pub allow_headers: Vec<Arc<str>>,
    pub expose_headers: Vec<Arc<str>>,
    pub max_age: Option<Duration>,
}

/// Where a share of a rule's requests goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub backend: BackendRef,
    /// Share of the sum of the rule's weights.
    pub weight: u32,
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendRef {
    Service {
        service: NamespacedHostname,
        port: u16,
        /// Of a DestinationRule; none is all endpoints.
        subset: Option<Arc<str>>,
    },
    /// What is referred to is not there, or may not be: its share is answered with 500.
    Invalid(Arc<str>),
}

/// None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole exchange, retries included.
    pub request: Option<Duration>,
    /// One try, up to the head of its response.
    pub backend_request: Option<Duration>,
}

/// When and how often a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries besides the first; 0 turns retries off.
    pub attempts: u32,
    pub on: Vec<RetryOn>,
    /// Lower bound of the first pause, where set; the mesh's default is 25 ms.
    pub backoff: Option<Duration>,
}

/// A condition of Envoy's `retry_on`, under its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryOn {
    ServerError,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    RefusedStream,
    Retriable4xx,
    Status(u16),
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

/// Why a regular expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regular expression {pattern:?}: {reason}")]
pub struct PatternError {
    pub pattern: String,
    pub reason: String,
}

// === impl RouteKind ===

impl RouteKind {
    /// The object's kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::VirtualService => "VirtualService",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Grpc,
            Self::Http,
            Self::VirtualService,
            Self::Tls,
            Self::Tcp,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

// === impl RouteKey ===

impl RouteKey {
    pub fn new(kind: RouteKind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Reads `kind/namespace/name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let (namespace, name) = rest.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty())
            .then_some(())
            .and_then(|()| Some(Self::new(RouteKind::named(kind)?, namespace, name)))
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.name(), self.namespace, self.name)
    }
}

// === impl Pattern ===

impl Pattern {
    /// Bytes of a pattern's text.
    pub const MAX_LENGTH: usize = 1024;
    /// Bytes of a compiled pattern.
    const MAX_SIZE: usize = 1 << 20;

    /// # Errors
    ///
    /// The text is no regular expression, or too large a one.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let error = |reason: String| PatternError {
            pattern: text.chars().take(80).collect(),
            reason,
        };
        if text.len() > Self::MAX_LENGTH {
            return Err(error(format!("longer than {} bytes", Self::MAX_LENGTH)));
        }
        let compile = |text: &str| {
            let mut builder = regex::bytes::RegexBuilder::new(text);
            builder.size_limit(Self::MAX_SIZE).build()
        };
        // By itself first: `a)|(b` is nothing alone and would break out of the anchors.
        let compiled = compile(text)
            .and_then(|_| compile(&format!("^(?:{text})$")))
            .map_err(|cause| error(cause.to_string()))?;
        Ok(Self {
            text: text.into(),
            compiled,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
