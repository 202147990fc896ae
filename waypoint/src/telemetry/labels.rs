//! What a series is about: Istio's labels, in Istio's order. What is missing is `unknown`.

use std::fmt::Write;
use std::sync::Arc;

use mesh::grpc::GrpcCode;
use mesh::identity::Identity;
use mesh::local_reply::response_flag::ResponseFlags;
use mesh::service::Service;
use mesh::workload::Workload;
use runtime::metrics::escape;

const UNKNOWN: &str = "unknown";

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers<'a> {
    pub(crate) source: Option<&'a Arc<Workload>>,
    /// From the tunnel's certificate.
    pub(crate) source_identity: Option<&'a Identity>,
    /// What was addressed.
    pub(crate) service: Option<&'a Arc<Service>>,
    /// What was chosen; none where nothing was.
    pub(crate) destination: Option<&'a Arc<Workload>>,
}

/// What of a request is told in labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestLabels {
    pub(crate) protocol: RequestProtocol,
    /// 0 where none was sent.
    pub(crate) response_code: u16,
    pub(crate) grpc_status: Option<GrpcCode>,
    pub(crate) response_flags: ResponseFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestProtocol {
    Http,
    Grpc,
}

// === impl Peers ===

impl Peers<'_> {
    /// Labels of a request's series.
    pub(super) fn request(&self, request: &RequestLabels) -> String {
        let mut out = self.rendered(request.protocol.name());
        let _ = write!(out, ",response_code=\"{}\"", request.response_code);
        // Istio's one label that is empty where it has no meaning.
        let status = request.grpc_status.map_or("", GrpcCode::as_str);
        let _ = write!(out, ",grpc_response_status=\"{status}\"");
        self.finish(out, request.response_flags)
    }

    /// Labels of gRPC messages, which are counted before it is known what the answer comes to.
    pub(super) fn messages(&self) -> String {
        self.secured(self.rendered(RequestProtocol::Grpc.name()))
    }

    /// Labels of a connection's series.
    pub(super) fn tcp(&self, response_flags: ResponseFlags) -> String {
        self.finish(self.rendered("tcp"), response_flags)
    }

    fn rendered(&self, protocol: &str) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("reporter=\"waypoint\"");
        let mut label = |name: &str, value: Option<&str>| {
            let value = value.filter(|value| !value.is_empty()).unwrap_or(UNKNOWN);
            let _ = write!(out, ",{name}=\"{}\"", escape(value));
        };
        let (source, destination) = (self.source, self.destination);
        let of_source = |text: fn(&Workload) -> &str| source.map(|workload| text(workload));
        let of_destination =
            |text: fn(&Workload) -> &str| destination.map(|workload| text(workload));
        let source_principal = self.source_identity.map(ToString::to_string);
        let destination_principal = destination.map(|workload| workload.identity().to_string());

        label("source_workload", of_source(workload_name));
        let certified = self.source_identity.map(|identity| &*identity.namespace);
        let namespace = certified.or(of_source(|workload| &workload.namespace));
        label("source_workload_namespace", namespace);
        label(
            "source_canonical_service",
            of_source(|workload| &workload.canonical_name),
        );
        label(
            "source_canonical_revision",
            of_source(|workload| &workload.canonical_revision),
        );
        label("source_principal", source_principal.as_deref());
        label("source_app", of_source(|workload| &workload.canonical_name));
        label(
            "source_version",
            of_source(|workload| &workload.canonical_revision),
        );
        label("source_cluster", of_source(|workload| &workload.cluster_id));
        label("destination_workload", of_destination(workload_name));
        label(
            "destination_workload_namespace",
            of_destination(|workload| &workload.namespace),
        );
        label("destination_principal", destination_principal.as_deref());
        label(
            "destination_app",
            of_destination(|workload| &workload.canonical_name),
        );
        label(
            "destination_version",
            of_destination(|workload| &workload.canonical_revision),
        );
        let service = self.service;
        label(
            "destination_service",
            service.map(|service| &*service.hostname),
        );
        label(
            "destination_canonical_service",
            of_destination(|workload| &workload.canonical_name),
        );
        label(
            "destination_canonical_revision",
            of_destination(|workload| &workload.canonical_revision),
        );
        label(
            "destination_service_name",
            service.map(|service| &*service.name),
        );
        label(
            "destination_service_namespace",
            service.map(|service| &*service.namespace),
        );
        label(
            "destination_cluster",
            of_destination(|workload| &workload.cluster_id),
        );
        label("request_protocol", Some(protocol));
        out
    }

    fn finish(&self, mut out: String, response_flags: ResponseFlags) -> String {
        let _ = write!(out, ",response_flags=\"{response_flags}\"");
        self.secured(out)
    }

    fn secured(&self, mut out: String) -> String {
        let security = match self.source_identity {
            Some(_) => "mutual_tls",
            None => "none",
        };
        let _ = write!(out, ",connection_security_policy=\"{security}\"");
        out
    }
}

/// The owner's name; a bare pod is its own.
fn workload_name(workload: &Workload) -> &str {
    if workload.workload_name.is_empty() {
        workload.name()
    } else {
        &workload.workload_name
    }
}

// === impl RequestProtocol ===

impl RequestProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}
