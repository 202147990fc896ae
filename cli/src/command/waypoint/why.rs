//! `weft waypoint why`: each reason for a service's waypoint, with file and line.

use std::path::PathBuf;

use anstream::print;
use istio_compat::kind::Kind;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::labels;
use istio_compat::object::{Object, ObjectKey};
use istio_compat::view::{Context, View};
use istio_compat::waypoint::binding::{Binding, Cause};
use serde_json::json;

use crate::command::Global;
use crate::command::waypoint::show::Reason;
use crate::exit::{Exit, Result};
use crate::machine::replicas;
use crate::objects::Objects;
use crate::table::Table;

const EXAMPLES: &str = "\
Examples:
  weft waypoint why reviews -n shop
  weft waypoint why shop/reviews -o json
  weft waypoint why shop/reviews -f ./objects
";

/// Say why a service has a waypoint, or that it needs none
///
/// Names every route and policy that needs one, with its file and line. Exits with 0 whether
/// or not there is a reason, and with 66 where there is no such service.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A Service or ServiceEntry: NAME or NAMESPACE/NAME
    service: String,
    /// Of this folder, not of the mesh's
    #[arg(short = 'f', long = "folder", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// What is known of one service.
struct Answer {
    service: ObjectKey,
    binding: Option<Binding>,
    reasons: Vec<Reason>,
    /// `weft.dev/waypoint: off`
    off: bool,
    ambient: bool,
    label: Option<Reason>,
}

// === impl Arguments ===

impl Arguments {
    pub(super) fn run(self, global: &Global) -> Result {
        let objects = match &self.folder {
            Some(folder) => Objects::read(std::path::absolute(folder)?)?,
            None => {
                let state = global.state()?;
                Objects::open(&state)?.with_cluster(&state)
            }
        };
        let (namespace, name) = self
            .service
            .split_once('/')
            .unwrap_or((global.namespace(), &self.service));
        let answer = Answer::of(&objects, namespace, name)?;
        if !global.output.print_value(&answer.value())? {
            print!("{}", answer.screen());
        }
        Ok(())
    }
}

/// The objects, and for each Deployment that has no pod here one as it would make it: a
/// folder that no mesh runs says all the same what its policies select.
fn view(objects: &Objects) -> View {
    let mut view = View::new(Context::default());
    for object in objects.all() {
        view.apply(&object.key(), Some(object));
        if let Some(deployment) = object.get::<Deployment>() {
            let name = format!("{}-pod", deployment.metadata.name);
            let pod = Object::new(object.origin.clone(), replicas::pod(deployment, &name));
            view.apply(&pod.key(), Some(&pod));
        }
    }
    view
}

// === impl Answer ===

impl Answer {
    fn of(objects: &Objects, namespace: &str, name: &str) -> Result<Self> {
        let service = [Kind::Service, Kind::ServiceEntry]
            .into_iter()
            .find_map(|kind| objects.get(&ObjectKey::new(kind, namespace, name)))
            .ok_or_else(|| {
                Exit::NotFound.because(format!(
                    "there is no Service or ServiceEntry {namespace}/{name}"
                ))
            })?;
        let key = service.key();
        let view = view(objects);
        let reason = |key: &ObjectKey, reason: String, line: &dyn Fn(&Object) -> u32| {
            let object = objects.get(key);
            Reason {
                object: key.to_string(),
                reason,
                file: object.map(|object| object.origin.file.to_string()),
                line: object.map(line),
            }
        };
        let binding = view.binding_of_service(key.kind, service.metadata());
        let label = binding.as_ref().and_then(|binding| match &binding.cause {
            Cause::Label(source) => {
                let said = "says istio.io/use-waypoint".to_owned();
                Some(reason(source, said, &|object| object.origin.line))
            }
            Cause::Demand(_) => None,
        });
        let said = |label: &str| {
            let namespace = view.namespace(namespace)?;
            namespace.metadata.labels.get(label).cloned()
        };
        Ok(Self {
            reasons: view
                .reasons(&key)
                .iter()
                .map(|one| reason(&one.object, one.sentence(), &|object| one.line(object)))
                .collect(),
            off: said(labels::WAYPOINT).as_deref() == Some("off"),
            ambient: said(labels::DATAPLANE_MODE).as_deref() == Some("ambient"),
            service: key,
            binding,
            label,
        })
    }

    fn value(&self) -> serde_json::Value {
        let binding = self.binding.as_ref();
        json!({
            "apiVersion": "weft.dev/v1",
            "kind": "WaypointReasons",
            "service": self.service,
            "waypoint": binding.map(|binding| &binding.waypoint),
            "label": self.label,
            "refused": binding.and_then(|one| one.refusal).map(|one| one.sentence()),
            "reasons": self.reasons,
        })
    }

    fn screen(&self) -> String {
        let service = &self.service;
        let mut out = match (&self.binding, &self.label) {
            (Some(binding), Some(label)) => format!(
                "{service} is bound to waypoint {}: {} {}, {}\n",
                binding.waypoint,
                label.object,
                label.reason,
                label.place()
            ),
            (Some(binding), None) => format!(
                "{service} is bound to waypoint {}, made on demand:\n",
                binding.waypoint
            ),
            (None, _) if self.reasons.is_empty() => {
                format!("{service} has no waypoint, and nothing needs one.\n")
            }
            (None, _) => format!("{service} has no waypoint although something needs one:\n"),
        };
        if let Some(refusal) = self.binding.as_ref().and_then(|one| one.refusal) {
            out += &format!(
                "The waypoint {}: connections are refused.\n",
                refusal.sentence()
            );
        }
        let mut table = Table::new(&["OBJECT", "REASON", "WHERE"]);
        for reason in &self.reasons {
            table.row([reason.object.clone(), reason.reason.clone(), reason.place()]);
        }
        if !table.is_empty() {
            out += &table.to_string();
        }
        if self.binding.is_none() && !self.reasons.is_empty() {
            let namespace = &service.namespace;
            out += &match (self.off, self.ambient) {
                (true, _) => {
                    format!("Namespace {namespace} says {}: off.\n", labels::WAYPOINT)
                }
                (false, false) => format!(
                    "Namespace {namespace} is not in the mesh ({}: ambient).\n",
                    labels::DATAPLANE_MODE
                ),
                (false, true) => format!("{} says none.\n", labels::USE_WAYPOINT),
            };
        }
        out
    }
}
