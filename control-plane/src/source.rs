//! Where objects come from: a source is a stream of changes of objects, whatever keeps
//! them. The folder is one; the index behind it does not know which.

use std::future::Future;
use std::sync::Arc;

use istio_compat::diagnostic::Diagnostic;
use istio_compat::object::{Object, ObjectKey};
use serde::Serialize;
use tokio::sync::mpsc;

/// Anything that knows the objects of a mesh and tells when they change.
pub trait Source: Send + 'static {
    /// Sends every object there is in a first batch with `synced` set, then one batch
    /// per change, until the receiver is gone.
    fn run(self, batches: mpsc::Sender<Batch>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Changes that take effect together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub events: Vec<Event>,
    /// The source has told all it knew at its start.
    pub synced: bool,
    /// Replaces the previous report.
    pub report: Option<Arc<Report>>,
}

/// One object came into force, or left it.
#[derive(Clone, Debug)]
pub enum Event {
    Applied(Object),
    Deleted(ObjectKey),
}

/// What a source has to say about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub places: Vec<Place>,
    pub diagnostics: Vec<Diagnostic>,
}

/// A folder, or later a cluster, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub name: Arc<str>,
    /// None while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// Why what is in force may not be what the place says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub message: String,
    /// RFC 3339.
    pub since: String,
}
