//! From the text of one file to its objects: all of them, or the reasons why none.

mod documents;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Origin, Severity};
use crate::kind::{self, Kind, Unread};
use crate::kinds::authorization_policy::AuthorizationPolicy;
use crate::kinds::config_map::ConfigMap;
use crate::kinds::deployment::Deployment;
use crate::kinds::gateway::Gateway;
use crate::kinds::gateway_class::GatewayClass;
use crate::kinds::grpc_route::GrpcRoute;
use crate::kinds::http_route::HttpRoute;
use crate::kinds::namespace::Namespace;
use crate::kinds::node::Node as ClusterNode;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::pod::Pod;
use crate::kinds::reference_grant::ReferenceGrant;
use crate::kinds::request_authentication::RequestAuthentication;
use crate::kinds::service::Service;
use crate::kinds::service_account::ServiceAccount;
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::tcp_route::TcpRoute;
use crate::kinds::workload_entry::WorkloadEntry;
use crate::node::{Node, Position, Value};
use crate::object::{Object, ObjectKey, Resource};
use crate::parse::documents::Positions;
use crate::reader::{self, RemarkKind};
use crate::validate::{Problems, Validate};

/// The largest file that is read.
pub const MAX_FILE_SIZE: usize = 16 * 1024 * 1024;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing of a file is used. There is at least one error.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

/// Whether objects remember the document they were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    Keep,
    Drop,
}

/// Reads a file of YAML (any number of documents) or JSON. A mistake anywhere rejects the
/// file as a whole, so that its last good version can stay in force.
pub fn parse(file: &str, content: &[u8], raw: Raw) -> Result<Parsed, Rejected> {
    let documents = match documents::read(content, Positions::WhereCheap) {
        Ok(documents) => documents,
        Err(error) => return Err(unreadable(file, error)),
    };
    let parsed = parse_documents(file, &documents.nodes, raw);
    let needs_places = |parsed: &Parsed| {
        let mut kinds = parsed.objects.iter().map(Object::kind);
        !parsed.warnings.is_empty()
            || kinds.any(|kind| kind.rules().is_some() || kind == Kind::PeerAuthentication)
    };
    if documents.placed || parsed.as_ref().is_ok_and(|parsed| !needs_places(parsed)) {
        return parsed;
    }
    match documents::read(content, Positions::Always) {
        Ok(placed) => parse_documents(file, &placed.nodes, raw),
        Err(_) => parsed,
    }
}

/// The one document of a text; none where it is blank.
pub(crate) fn document(text: &str) -> Result<Option<Node>, (Position, String)> {
    let read = documents::read(text.as_bytes(), Positions::Always);
    let documents = read.map_err(|error| (error.position, error.message))?;
    let mut nodes = documents.nodes.into_iter().filter(|node| !node.is_null());
    match (nodes.next(), nodes.next()) {
        (_, Some(second)) => Err((second.position, "is a second document: keep one".to_owned())),
        (first, None) => Ok(first),
    }
}

fn unreadable(file: &str, error: documents::DocumentError) -> Rejected {
    Rejected {
        errors: vec![Diagnostic {
            severity: Severity::Error,
            file: file.into(),
            line: error.position.line,
            column: error.position.column,
            object: String::new(),
            field: String::new(),
            message: error.message,
        }],
        warnings: Vec::new(),
    }
}

fn parse_documents(file: &str, documents: &[Node], raw: Raw) -> Result<Parsed, Rejected> {
    let mut reading = Reading {
        file: file.into(),
        raw,
        objects: Vec::new(),
        diagnostics: Vec::new(),
    };
    for document in documents {
        reading.document(document);
    }
    reading.diagnostics.extend(duplicates(&reading.objects));
    let (errors, warnings): (Vec<_>, Vec<_>) = reading
        .diagnostics
        .into_iter()
        .partition(|diagnostic| diagnostic.severity == Severity::Error);
    if errors.is_empty() {
        Ok(Parsed {
            objects: reading.objects,
            warnings,
        })
    } else {
        Err(Rejected { errors, warnings })
    }
}

struct Reading {
    file: Arc<str>,
    raw: Raw,
    objects: Vec<Object>,
    diagnostics: Vec<Diagnostic>,
}

// === impl Reading ===

impl Reading {
    fn report(
        &mut self,
        severity: Severity,
        position: Position,
        object: &str,
        field: &str,
        message: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            file: self.file.clone(),
            line: position.line,
            column: position.column,
            object: object.to_owned(),
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn document(&mut self, node: &Node) {
        let position = node.position;
        if node.is_null() {
            return;
        }
        if !matches!(node.value, Value::Mapping(_)) {
            let message = format!(
                "a document must be an object with apiVersion, kind and metadata, not {}",
                node.describe()
            );
            return self.report(Severity::Error, position, "", "", message);
        }
        let mut header = |field: &str| match node.get(field).and_then(Node::as_str) {
            Some(text) if !text.is_empty() => Some(text),
            _ => {
                let message = format!("the document has no {field}: add it");
                self.report(Severity::Error, node.locate(field), "", "", message);
                None
            }
        };
        let (Some(api_version), Some(kind)) = (header("apiVersion"), header("kind")) else {
            return;
        };
        if let Some(Value::Sequence(items)) = node.get("items").map(|items| &items.value)
            && kind.ends_with("List")
        {
            return items.iter().for_each(|item| self.document(item));
        }
        match Kind::of(kind) {
            Some(known) if known.api_versions().contains(&api_version) => self.object(known, node),
            known => self.unread(known, api_version, kind, node),
        }
    }

    /// Says by name why an object is not read.
    fn unread(&mut self, known: Option<Kind>, api_version: &str, kind: &str, node: &Node) {
        let metadata = |field| {
            node.get("metadata")
                .and_then(|metadata| metadata.get(field))
                .and_then(Node::as_str)
                .unwrap_or_default()
        };
        let object = match (metadata("namespace"), metadata("name")) {
            ("", name) => format!("{kind} {name}"),
            (namespace, name) => format!("{kind} {namespace}/{name}"),
        };
        let (severity, field, message) = match kind::unread(api_version, kind) {
            Some(Unread::NotHonouredYet) => (
                Severity::Warning,
                "kind",
                format!("{kind} ({api_version}) is not honoured yet: the object has no effect"),
            ),
            Some(Unread::NotTheMeshs) => (
                Severity::Warning,
                "kind",
                format!("{kind} ({api_version}) is not used by the mesh: the object has no effect"),
            ),
            None => match known
                .filter(|known| kind::group(known.api_version()) == kind::group(api_version))
            {
                Some(known) => (
                    Severity::Error,
                    "apiVersion",
                    format!(
                        "{api_version} is not a version of {kind}: use {}",
                        known.api_versions().join(" or ")
                    ),
                ),
                None if kind::is_known_group(api_version) => (
                    Severity::Error,
                    "kind",
                    format!(
                        "there is no kind {kind} in {api_version}{}",
                        suggestion(kind)
                    ),
                ),
                None => (
                    Severity::Warning,
                    "kind",
                    format!("{kind} ({api_version}) is not known: the object has no effect"),
                ),
            },
        };
        self.report(severity, node.locate(field), &object, field, message);
    }

    fn object(&mut self, kind: Kind, node: &Node) {
        match kind {
            Kind::Namespace => self.typed::<Namespace>(node),
            Kind::Node => self.typed::<ClusterNode>(node),
            Kind::ServiceAccount => self.typed::<ServiceAccount>(node),
            Kind::ConfigMap => self.typed::<ConfigMap>(node),
            Kind::Pod => self.typed::<Pod>(node),
            Kind::Deployment => self.typed::<Deployment>(node),
            Kind::Service => self.typed::<Service>(node),
            Kind::AuthorizationPolicy => self.typed::<AuthorizationPolicy>(node),
            Kind::PeerAuthentication => self.typed::<PeerAuthentication>(node),
            Kind::ServiceEntry => self.typed::<ServiceEntry>(node),
            Kind::WorkloadEntry => self.typed::<WorkloadEntry>(node),
            Kind::RequestAuthentication => self.typed::<RequestAuthentication>(node),
            Kind::Gateway => self.typed::<Gateway>(node),
            Kind::GatewayClass => self.typed::<GatewayClass>(node),
            Kind::HttpRoute => self.typed::<HttpRoute>(node),
            Kind::GrpcRoute => self.typed::<GrpcRoute>(node),
            Kind::TcpRoute => self.typed::<TcpRoute>(node),
            Kind::ReferenceGrant => self.typed::<ReferenceGrant>(node),
        }
    }

    fn typed<T: Resource + Validate>(&mut self, node: &Node) {
        let kind = T::KIND.name();
        let (mut content, remarks) = match reader::read::<T>(node) {
            Ok(read) => read,
            Err(error) => {
                let (position, field) = error.place.unwrap_or_default();
                return self.report(Severity::Error, position, kind, &field, error.message);
            }
        };
        let metadata = content.metadata_mut();
        if !T::KIND.is_namespaced() {
            metadata.namespace.clear();
        } else if metadata.namespace.is_empty() {
            metadata.namespace = "default".to_owned();
        }
        let object = content.key().to_string();
        for remark in remarks {
            let (severity, message) = remark_on::<T>(&remark);
            self.report(severity, remark.position, &object, &remark.field, message);
        }
        let mut problems = Problems::new(node);
        crate::validate::metadata(content.metadata(), &mut problems);
        content.validate(&mut problems);
        for problem in problems.into_inner() {
            self.report(
                problem.severity,
                problem.position,
                &object,
                &problem.field,
                problem.message,
            );
        }
        self.objects.push(Object {
            origin: Origin::new(self.file.clone(), node.position.line.max(1)),
            body: content.into_body(),
            rules: rule_lines(T::KIND, node),
            raw: match self.raw {
                Raw::Keep => Some(Arc::new(node.to_json())),
                Raw::Drop => None,
            },
        });
    }
}

fn rule_lines(kind: Kind, node: &Node) -> Arc<[u32]> {
    if kind == Kind::PeerAuthentication {
        return mode_lines(node);
    }
    let rules = kind.rules().and_then(|field| node.get("spec")?.get(field));
    match rules.map(|rules| &rules.value) {
        Some(Value::Sequence(rules)) => {
            let lines = rules.iter().map(|rule| rule.position.line);
            lines.take_while(|line| *line > 0).collect()
        }
        _ => Arc::default(),
    }
}

/// In the order of [`Object::mode_line`].
fn mode_lines(node: &Node) -> Arc<[u32]> {
    let by_port = node.get("spec").and_then(|spec| spec.get("portLevelMtls"));
    let ports: BTreeMap<u16, u32> = match by_port.map(|by_port| &by_port.value) {
        Some(Value::Mapping(entries)) => entries
            .iter()
            .filter_map(|entry| {
                let path = format!("spec.portLevelMtls.{}.mode", entry.key);
                Some((entry.key.parse().ok()?, node.locate(&path).line))
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    let whole = node.locate("spec.mtls.mode").line;
    let lines = std::iter::once(whole).chain(ports.into_values());
    lines.take_while(|line| *line > 0).collect()
}

/// An unknown field is warned of, but in a security policy it is an error: a rule that
/// lost a condition to a spelling mistake would let in more than its author meant.
fn remark_on<T: Resource>(remark: &reader::Remark) -> (Severity, String) {
    let severity = match T::KIND {
        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication
            if remark.field.starts_with("spec") =>
        {
            Severity::Error
        }
        _ => Severity::Warning,
    };
    let mut message = match &remark.kind {
        RemarkKind::NotHonoured => return (severity, "is not honoured: it has no effect".into()),
        RemarkKind::Unknown { suggestion: None } => "is not a known field".to_owned(),
        RemarkKind::Unknown {
            suggestion: Some(field),
        } => format!("is not a known field (did you mean {field}?)"),
    };
    if severity == Severity::Warning {
        message.push_str(": it has no effect");
    }
    (severity, message)
}

/// The word that was meant where it is at most two letters away.
pub fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    reader::spelling::closest(word, known)
}

fn suggestion(kind: &str) -> String {
    closest(kind, &Kind::ALL.map(Kind::name))
        .map_or(String::new(), |name| format!(" (did you mean {name}?)"))
}

/// One error for each object that was already there, naming both places. Objects of one
/// file are checked when it is read; callers check those of several.
pub fn duplicates<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<Diagnostic> {
    let mut seen: std::collections::HashMap<ObjectKey, &Origin> = Default::default();
    let mut errors = Vec::new();
    for object in objects {
        let key = object.key();
        match seen.get(&key) {
            Some(first) => errors.push(Diagnostic {
                severity: Severity::Error,
                file: object.origin.file.clone(),
                line: object.origin.line,
                column: 1,
                object: key.to_string(),
                field: String::new(),
                message: format!("is already defined at {first}: keep one of them"),
            }),
            None => {
                seen.insert(key, &object.origin);
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests;
