//! `weft waypoint generate`, `apply` and `delete`: the Gateways that users ask for waypoints with.

use std::time::{Duration, Instant};

use anstream::{eprintln, print, println};
use clap::ValueEnum;
use istio_compat::kind::Kind;
use istio_compat::kinds::gateway::{AllowedRoutes, FromNamespaces, Gateway, RouteNamespaces};
use istio_compat::kinds::metadata::ObjectMeta;
use istio_compat::labels;
use istio_compat::object::{Document, Object, ObjectKey};
use istio_compat::waypoint::{DEFAULT_NAME, deployment, gateway, is_own};

use crate::command::waypoint::show;
use crate::command::{Global, apply};
use crate::exit::{Exit, Result};
use crate::objects::{Input, Objects, display_name};
use crate::state::State;
use crate::yaml;

const GENERATE_EXAMPLES: &str = "\
Examples:
  weft waypoint generate -n shop
  weft waypoint generate -n shop --for all > waypoint.yaml
";

const APPLY_EXAMPLES: &str = "\
Examples:
  weft waypoint apply -n shop
  weft waypoint apply -n shop --enroll-namespace --wait
  weft waypoint apply -n infra --name shared --allow all
";

const DELETE_EXAMPLES: &str = "\
Examples:
  weft waypoint delete waypoint -n shop
  weft waypoint delete --all -n shop
";

const CLASS: &str = "istio-waypoint";
const POLL: Duration = Duration::from_millis(100);

/// What both say of a waypoint.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// Its name
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// The traffic it is for [default: service]
    #[arg(long = "for", value_enum, value_name = "TRAFFIC")]
    traffic: Option<Traffic>,
    /// The namespaces that may use it
    #[arg(long, value_enum, default_value_t, value_name = "NAMESPACES")]
    allow: Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Traffic {
    Service,
    Workload,
    All,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Allow {
    #[default]
    Same,
    All,
}

/// Print the Gateway of a waypoint, to apply or to keep with other files
#[derive(Debug, clap::Args)]
#[command(before_help = GENERATE_EXAMPLES)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    wanted: Wanted,
}

/// Put the Gateway of a waypoint into the folder
#[derive(Debug, clap::Args)]
#[command(before_help = APPLY_EXAMPLES)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Label the namespace, so that its services use the waypoint
    #[arg(long)]
    enroll_namespace: bool,
    /// Replace a label that names another waypoint
    #[arg(long)]
    overwrite: bool,
    /// Return when the waypoint is ready
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    waypoint_timeout: u64,
}

/// Take Gateways of waypoints out of the folder
///
/// Waypoints made on demand go by themselves with the last reason for them.
#[derive(Debug, clap::Args)]
#[command(before_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteArguments {
    /// Their names
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All of the namespace
    #[arg(long)]
    all: bool,
}

// === impl Traffic ===

impl Traffic {
    fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

// === impl Wanted ===

impl Wanted {
    fn gateway(&self, namespace: &str) -> Result<Gateway> {
        if self.name == "none" {
            return Err(Exit::Usage
                .because("none is no name for a waypoint: labels use it for no waypoint"));
        }
        let mut spec = deployment::spec(CLASS);
        if self.allow == Allow::All {
            for listener in &mut spec.listeners {
                listener.allowed_routes = Some(AllowedRoutes {
                    namespaces: Some(RouteNamespaces {
                        from: FromNamespaces::All,
                        selector: None,
                    }),
                    kinds: Vec::new(),
                });
            }
        }
        let traffic = self.traffic.map(|traffic| {
            let label = labels::WAYPOINT_FOR.to_owned();
            (label, traffic.label().to_owned())
        });
        Ok(Gateway {
            metadata: ObjectMeta {
                name: self.name.clone(),
                namespace: namespace.to_owned(),
                labels: traffic.into_iter().collect(),
                ..ObjectMeta::default()
            },
            spec,
            ..Gateway::default()
        })
    }
}

// === impl GenerateArguments ===

impl GenerateArguments {
    pub(super) fn run(self, global: &Global) -> Result {
        let gateway = self.wanted.gateway(global.namespace())?;
        print!("{}", yaml::to_string(&Document::new(&gateway))?);
        Ok(())
    }
}

// === impl ApplyArguments ===

impl ApplyArguments {
    pub(super) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        let namespace = global.namespace();
        let gateway = self.wanted.gateway(namespace)?;
        let mut folder = Objects::open(&state)?;
        let labelled = match self.enroll_namespace {
            true => Some(self.labelled(&folder, namespace)?),
            false => None,
        };
        put(&mut folder, &yaml::to_string(&Document::new(&gateway))?)?;
        if let Some(text) = labelled {
            put(&mut folder, &text)?;
        }
        if self.wait {
            self.wait_until_ready(&state, namespace)?;
        }
        Ok(())
    }

    /// The namespace's document with the label.
    fn labelled(&self, folder: &Objects, namespace: &str) -> Result<String> {
        let key = ObjectKey::new(Kind::Namespace, "", namespace);
        let known = folder.get(&key).ok_or_else(|| {
            Exit::BadInput.because(format!("the folder has no Namespace {namespace} to label"))
        })?;
        let metadata = known.metadata();
        if metadata
            .labels
            .get(labels::DATAPLANE_MODE)
            .map(String::as_str)
            != Some("ambient")
        {
            eprintln!(
                "warning: Namespace {namespace} is not in the mesh: it has no label {}: ambient",
                labels::DATAPLANE_MODE
            );
        }
        let name = &self.wanted.name;
        match metadata.labels.get(labels::USE_WAYPOINT) {
            Some(other) if other != name && !self.overwrite => {
                return Err(Exit::BadInput.because(format!(
                    "Namespace {namespace} has {}: {other} already; replace it with --overwrite",
                    labels::USE_WAYPOINT
                )));
            }
            _ => {}
        }
        let mut document = known.to_json(&[]);
        document["metadata"]["labels"][labels::USE_WAYPOINT] = name.as_str().into();
        Ok(yaml::to_string(&document)?)
    }

    fn wait_until_ready(&self, state: &State, namespace: &str) -> Result {
        let limit = Duration::from_secs(self.waypoint_timeout);
        let end = Instant::now() + limit;
        loop {
            let waypoints = show::waypoints(state)?;
            let ready = waypoints
                .iter()
                .any(|one| one.namespace == namespace && one.name == self.wanted.name && one.ready);
            if ready {
                println!("waypoint {namespace}/{} is ready", self.wanted.name);
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Exit::TryAgain.because(format!(
                    "waypoint {namespace}/{} is not ready after {limit:?}: see weft waypoint status",
                    self.wanted.name
                )));
            }
            std::thread::sleep(POLL);
        }
    }
}

fn put(folder: &mut Objects, text: &str) -> Result {
    let input = Input::parse("weft waypoint apply", text.as_bytes(), None).map_err(|mistakes| {
        let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        Exit::BadInput.because(mistakes.join("\n"))
    })?;
    for (object, text) in &input.objects {
        apply::put(folder, object, text)?;
    }
    Ok(())
}

// === impl DeleteArguments ===

impl DeleteArguments {
    pub(super) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        let namespace = global.namespace();
        let mut folder = Objects::open(&state)?;
        let names = match self.all {
            true => waypoints_of(&folder, namespace),
            false => self.names,
        };
        for name in names {
            let key = ObjectKey::new(Kind::Gateway, namespace, name.as_str());
            if folder.get(&key).is_some_and(|object| !is_waypoint(object)) {
                return Err(Exit::BadInput.because(format!("{key} is not a waypoint's")));
            }
            if folder.remove(&key)? {
                println!("{} deleted", display_name(&key));
                continue;
            }
            let cluster = Objects::open(&state)?.with_cluster(&state);
            let reason = match cluster.get(&key) {
                Some(object) if is_own(object.metadata()) => format!(
                    "{key} was made on demand and goes with the last reason for it: \
                     see weft waypoint status; label the namespace {}: off to have none",
                    labels::WAYPOINT
                ),
                _ => format!("{key} is not in the folder"),
            };
            return Err(Exit::Failed.because(reason));
        }
        Ok(())
    }
}

fn waypoints_of(folder: &Objects, namespace: &str) -> Vec<String> {
    let gateways = folder.of_kind(Kind::Gateway);
    let gateways =
        gateways.filter(|object| object.metadata().namespace == namespace && is_waypoint(object));
    gateways
        .map(|object| object.metadata().name.clone())
        .collect()
}

fn is_waypoint(object: &Object) -> bool {
    let gateway = object.get::<Gateway>();
    gateway.is_some_and(|one| gateway::CLASSES.contains(&one.spec.gateway_class_name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            traffic: Some(Traffic::All),
            allow: Allow::All,
        }
    }

    #[test]
    fn what_is_generated_is_read_again_without_warnings() {
        let gateway = wanted("gate").gateway("shop").expect("a gateway");
        let text = yaml::to_string(&Document::new(&gateway)).expect("YAML");
        let input = Input::parse("generated", text.as_bytes(), None).expect("read");
        assert!(input.warnings.is_empty(), "{:?}", input.warnings);
        let read = input.objects.first().expect("one object");
        assert_eq!(
            read.0.get::<Gateway>().map(|one| (**one).clone()),
            Some(gateway)
        );
        assert!(is_waypoint(&read.0));
    }

    #[test]
    fn no_waypoint_is_called_none() {
        let failure = wanted("none").gateway("shop").expect_err("a reserved name");
        assert_eq!(failure.exit, Exit::Usage);
    }
}
