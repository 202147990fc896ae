//! `weft why`: whether a connection or a request gets through, and what decides that.
//!
//! - `known`: the objects as resources; `simulation`: what a mesh would make of a folder.
//! - `party`, `message`: what was typed, and what it means.
//! - `decision`, `waypoint`, `token`, `policy`: the way it takes, and what is decided there.
//! - `answer`, `screen`: what is told.

mod known;

mod simulation;

mod party;

mod message;

mod decision;

mod waypoint;

mod token;

mod policy;

mod answer;

mod screen;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anstream::{print, println};
use istio_compat::object::Object;
use istio_compat::view::Context;

use self::known::Known;
use self::message::Message;
use self::party::{Destination, Source};
use crate::command::{Global, Output};
use crate::control::client::Client;
use crate::control::{Reply, Request};
use crate::exit::{Exit, Result};
use crate::machine::record::Record;
use crate::objects::Objects;
use crate::state::State;

const EXAMPLES: &str = "\
Examples:
  weft why shop/web shop/api:8080
  weft why shop/web api.shop:80 GET /orders/7
  weft why shop/web api.shop POST /orders -H 'x-role: admin' -H 'authorization: Bearer eyJ...'
  weft why shop/web api.shop GET / -f ./objects
  weft why 192.0.2.9 10.244.1.5:8080
  weft why spiffe://cluster.local/ns/shop/sa/web api.shop:80 -o json
";

const EXITS: &str = "\
SRC:  NAMESPACE/NAME, NAME.NAMESPACE or NAME of a pod, Deployment or ServiceAccount;
      spiffe://... an identity; an address
DST:  the same of a service, pod or Deployment; a hostname; an address; with :PORT

Exit codes:
  0   allowed
  1   refused, or it could not be told
  64  wrong usage
  66  there is no such source or destination
  69  the mesh can't be reached";

/// Say whether a connection or a request gets through, and why
///
/// Follows it as the data plane does, with the same evaluator: whether the source is captured,
/// what the destination resolves to, whether a waypoint is in front, which policies and rules
/// match on which attribute, and which route it takes; each with its file and line. Without
/// METHOD and PATH it is about the connection alone.
///
/// It asks the running mesh's objects. With -f, or where no mesh runs, it asks what would
/// become of a folder.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXITS)]
pub(crate) struct Arguments {
    /// Who opens the connection
    #[arg(value_name = "SRC")]
    source: String,
    /// What it is opened to
    #[arg(value_name = "DST[:PORT]")]
    destination: String,
    /// The request's method
    #[arg(requires = "path")]
    method: Option<String>,
    /// The request's path, with its query
    path: Option<String>,
    /// A header of the request; `Host` for another host
    #[arg(
        short = 'H',
        long = "header",
        value_name = "NAME: VALUE",
        requires = "path"
    )]
    headers: Vec<String>,
    /// Of this folder, not of the mesh's
    #[arg(short = 'f', long = "folder", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

// === impl Arguments ===

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode> {
        let message = match (&self.method, &self.path) {
            (Some(method), Some(path)) => Some(Message::read(method, path, &self.headers)?),
            (_, _) => None,
        };
        let known = self.known(global)?;
        let source = Source::find(&known, &self.source, global.namespace())?;
        // A name alone is looked for where the client is, as its search domains do.
        let namespace = global.namespace.as_deref().unwrap_or(&source.namespace);
        let destination = Destination::find(&known, &self.destination, namespace, &source)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0.0, |now| now.as_secs_f64());
        let answer = decision::decide(&known, &source, &destination, message.as_ref(), now);
        match global.output {
            output if output.print_value(&answer)? => {}
            Output::Name => println!("{}", answer.verdict),
            _ => print!("{}", screen::of(&answer)),
        }
        Ok(match answer.allowed {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(Exit::Failed.code()),
        })
    }

    fn known(&self, global: &Global) -> Result<Known> {
        let all = |objects: Objects| objects.all().cloned().collect::<Vec<Object>>();
        if let Some(folder) = &self.folder {
            let objects = Objects::read(std::path::absolute(folder)?)?;
            return Ok(simulation::of(all(objects)));
        }
        let state = global.state()?;
        let objects = Objects::open(&state)?;
        if !Record::runs(&state.machine_json()) {
            return Ok(simulation::of(all(objects)));
        }
        let written: Vec<Object> = all(objects);
        let mut objects = all(Objects::open(&state)?.with_cluster(&state));
        // People look for what they wrote, not for what became of it.
        let origins: HashMap<_, _> = written
            .into_iter()
            .map(|object| (object.key(), (object.origin, object.rules)))
            .collect();
        for object in &mut objects {
            if let Some((origin, rules)) = origins.get(&object.key()) {
                object.origin = origin.clone();
                object.rules = rules.clone();
            }
        }
        Ok(Known::new(objects, context(&state)?))
    }
}

/// What the running mesh was started with.
fn context(state: &State) -> Result<Context> {
    match Client::connect(state)?.call(&Request::Status, &[])? {
        Reply::Status(status) => Ok(Context {
            trust_domain: status.trust_domain.into(),
            trust_domain_aliases: status
                .trust_domain_aliases
                .into_iter()
                .map(Into::into)
                .collect(),
            ..Context::default()
        }),
        other => Err(crate::control::client::unexpected(other)),
    }
}

#[cfg(test)]
mod tests;
