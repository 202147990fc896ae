//! `weft delete`: takes objects out of the folder.

use std::path::PathBuf;

use anstream::println;
use istio_compat::labels;
use istio_compat::object::ObjectKey;

use crate::command::{Global, apply, get};
use crate::exit::{Exit, Result};
use crate::objects::{Objects, display_name};

const EXAMPLES: &str = "\
Examples:
  weft delete -f policy.yaml
  weft delete pod web -n shop
  weft delete authorizationpolicy/allow-web -n shop
";

/// Delete objects of the folder
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The kind, and names of that kind; or KIND/NAME
    #[arg(value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// The objects in this file or folder
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE",
        conflicts_with = "what",
        required_unless_present = "what"
    )]
    files: Vec<PathBuf>,
    /// What is not there is no mistake
    #[arg(long)]
    ignore_not_found: bool,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        let keys = self.keys(global)?;
        let mut folder = Objects::open(&state)?;
        let mut missing = Vec::new();
        for key in keys {
            if folder.remove(&key)? {
                println!("{} deleted", display_name(&key));
            } else if !self.ignore_not_found {
                missing.push(key);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let cluster = folder.with_cluster(&state);
        let exit = match missing.iter().any(|key| cluster.get(key).is_some()) {
            true => Exit::Failed,
            false => Exit::NotFound,
        };
        let reasons: Vec<_> = missing
            .iter()
            .map(|key| match cluster.get(key) {
                Some(object) if object.metadata().labels.contains_key(labels::ON_DEMAND) => {
                    format!(
                        "{key} is the mesh's own: it goes with the last reason for it; \
                     see weft waypoint status"
                    )
                }
                Some(object) => match object.metadata().owner_references.first() {
                    Some(owner) => format!(
                        "{key} belongs to {} {}: delete that",
                        owner.kind, owner.name
                    ),
                    None => format!("{key} is the mesh's own"),
                },
                None => format!("{key} is not in the folder"),
            })
            .collect();
        Err(exit.because(reasons.join("\n")))
    }

    fn keys(&self, global: &Global) -> Result<Vec<ObjectKey>> {
        if !self.files.is_empty() {
            return Ok(apply::read(&self.files, global.namespace.as_deref())?
                .iter()
                .map(|(object, _)| object.key())
                .collect());
        }
        let (kinds, names) = get::kinds_and_names(&self.what)?;
        if names.is_empty() {
            return Err(Exit::Usage.because("name what to delete: weft delete KIND NAME"));
        }
        Ok(kinds
            .into_iter()
            .flat_map(|kind| {
                let namespace = if kind.is_namespaced() {
                    global.namespace()
                } else {
                    ""
                };
                names
                    .iter()
                    .map(move |name| ObjectKey::new(kind, namespace, name.as_str()))
            })
            .collect())
    }
}
