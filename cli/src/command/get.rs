//! `weft get`: shows objects, as kubectl does.

mod columns;

use anstream::{print, println};
use istio_compat::kind::Kind;
use istio_compat::kinds::gateway::GatewayStatus;
use istio_compat::kinds::route::RouteParentStatus;
use istio_compat::object::{Object, set_gateway, set_generation, set_parents};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command::get::columns::Row;
use crate::command::{Global, Output, block_on};
use crate::exit::{Exit, Result};
use crate::http;
use crate::machine::record::Record;
use crate::objects::{Objects, display_name};
use crate::state::State;

const EXAMPLES: &str = "\
Examples:
  weft get pods -A
  weft get services -n shop -o wide
  weft get pods,services -l app=web
  weft get authorizationpolicy allow-web -n shop -o yaml
";

/// Show objects: the folder's, and what the running mesh made of them
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The kind (several with commas, or all), and names of it; or KIND/NAME
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those with these labels, as key=value,…
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        let objects = Objects::open(&state)?.with_cluster(&state);
        let (kinds, names) = kinds_and_names(&self.what)?;
        let selector = selector(self.selector.as_deref())?;
        let mut chosen: Vec<&Object> = Vec::new();
        for kind in &kinds {
            chosen.extend(objects.of_kind(*kind).filter(|object| {
                let metadata = object.metadata();
                let here = self.all_namespaces
                    || !kind.is_namespaced()
                    || metadata.namespace == global.namespace();
                here && (names.is_empty() || names.contains(&metadata.name))
                    && selector
                        .iter()
                        .all(|(key, value)| metadata.labels.get(key) == Some(value))
            }));
        }
        if let Some(name) = names
            .iter()
            .find(|name| !chosen.iter().any(|object| object.metadata().name == **name))
        {
            let place = if self.all_namespaces {
                String::new()
            } else {
                format!(" in namespace {}", global.namespace())
            };
            return Err(
                Exit::NotFound.because(format!("{} {name:?} not found{place}", self.what[0]))
            );
        }
        if !Record::runs(&state.machine_json()) {
            anstream::eprintln!(
                "No mesh is running at {}: this is what {} says.",
                state.root().display(),
                objects.folder().display()
            );
        }
        self.show(global, &state, &kinds, &chosen, !names.is_empty())
    }

    fn show(
        &self,
        global: &Global,
        state: &State,
        kinds: &[Kind],
        chosen: &[&Object],
        named: bool,
    ) -> Result {
        match global.output {
            Output::Name => {
                for object in chosen {
                    println!("{}", display_name(&object.key()));
                }
            }
            Output::Json | Output::Yaml => {
                let told = Told::of_running_mesh(state);
                let items = chosen.iter().map(|object| told.json(object));
                let mut items: Vec<Value> = items.collect();
                let value = match (named, items.len()) {
                    (true, 1) => items.remove(0),
                    _ => json!({"apiVersion": "v1", "kind": "List", "items": items}),
                };
                global.output.print_value(&value)?;
            }
            Output::Table | Output::Wide => {
                if chosen.is_empty() {
                    let place = if self.all_namespaces {
                        String::new()
                    } else {
                        format!(" in namespace {}", global.namespace())
                    };
                    anstream::eprintln!("No objects found{place}.");
                }
                let told = Told::of_running_mesh(state);
                let mut gap = "";
                for kind in kinds {
                    let rows: Vec<_> = chosen
                        .iter()
                        .filter(|object| object.kind() == *kind)
                        .map(|object| told.row(object))
                        .collect();
                    if !rows.is_empty() {
                        let wide = global.output == Output::Wide;
                        print!(
                            "{gap}{}",
                            columns::table(*kind, &rows, self.all_namespaces, wide)
                        );
                        gap = "\n";
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a command line names: `pods`, `pods,services`, `all`, `pod web`, `pod/web`.
pub(crate) fn kinds_and_names(what: &[String]) -> Result<(Vec<Kind>, Vec<String>)> {
    let (first, rest) = what
        .split_first()
        .ok_or_else(|| Exit::Usage.because("name a kind: pods, services, …"))?;
    let (kinds, mut names) = match first.split_once('/') {
        Some((kind, name)) => (kind, vec![name.to_owned()]),
        None => (first.as_str(), Vec::new()),
    };
    names.extend(rest.iter().cloned());
    if kinds == "all" {
        return Ok((Kind::ALL.to_vec(), names));
    }
    let kinds = kinds
        .split(',')
        .map(|kind| {
            Kind::named(kind).ok_or_else(|| {
                let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
                let meant = istio_compat::parse::closest(kind, &known)
                    .map_or(String::new(), |name| format!(" (did you mean {name}?)"));
                Exit::Usage.because(format!(
                    "there is no kind {kind:?}{meant}; there are {}",
                    known.join(", ")
                ))
            })
        })
        .collect::<Result<_>>()?;
    Ok((kinds, names))
}

fn selector(text: Option<&str>) -> Result<Vec<(String, String)>> {
    text.into_iter()
        .flat_map(|text| text.split(','))
        .map(|pair| {
            pair.split_once('=')
                .map(|(key, value)| {
                    (
                        key.trim().to_owned(),
                        value.trim_start_matches('=').to_owned(),
                    )
                })
                .ok_or_else(|| {
                    Exit::Usage.because(format!("{pair:?} in the selector is not key=value"))
                })
        })
        .collect()
}

/// What the control plane says of objects, where one runs.
struct Told {
    status: Value,
}

// === impl Told ===

impl Told {
    fn of_running_mesh(state: &State) -> Self {
        let status = if state.api_socket().exists() {
            block_on(http::get_from_control_plane(state, "/api/v1/status"))
                .ok()
                .and_then(|body| serde_json::from_slice(&body).ok())
                .unwrap_or_default()
        } else {
            Value::Null
        };
        Self { status }
    }

    /// The object with what became of it.
    fn json(&self, object: &Object) -> Value {
        let mut json = object.to_json(&self.of::<Vec<_>>(object, "conditions"));
        set_parents(
            &mut json,
            &self.of::<Vec<RouteParentStatus>>(object, "parents"),
        );
        set_gateway(&mut json, &self.of::<GatewayStatus>(object, "gateway"));
        if let Some(generation) = self.of(object, "generation") {
            set_generation(&mut json, generation);
        }
        json
    }

    fn row<'a>(&self, object: &'a Object) -> Row<'a> {
        Row {
            object,
            json: self.json(object),
            conditions: self.of(object, "conditions"),
            // What has a mistake is a row of its own.
            is_in_force: self.rows(object).any(|row| row["errors"].is_null()),
        }
    }

    fn rows(&self, object: &Object) -> impl Iterator<Item = &Value> {
        let (kind, metadata) = (object.kind().name(), object.metadata());
        let rows = self.status["objects"].as_array().into_iter().flatten();
        rows.filter(move |row| {
            row["kind"] == kind
                && row["name"] == *metadata.name
                && row["namespace"].as_str().unwrap_or_default() == metadata.namespace
        })
    }

    fn of<T: DeserializeOwned + Default>(&self, object: &Object, field: &str) -> T {
        let row = self.rows(object).next();
        row.and_then(|row| serde_json::from_value(row[field].clone()).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use istio_compat::parse::Raw;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_became_of_an_object_is_shown_with_it() {
        let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: none, namespace: shop, generation: 9}\nspec: {}\n";
        let parsed = istio_compat::parse::parse("a.yaml", text.as_bytes(), Raw::Keep);
        let object = parsed.expect("well formed").objects.remove(0);
        let condition = json!({
            "type": "ZtunnelAccepted", "status": "True", "observedGeneration": 2,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let told = Told {
            status: json!({"objects": [{
                "kind": "AuthorizationPolicy", "namespace": "shop", "name": "none",
                "generation": 2, "conditions": [condition],
            }]}),
        };
        let shown = told.json(&object);
        assert_eq!(shown["metadata"]["generation"], 2);
        assert_eq!(shown["status"]["conditions"], json!([condition]));
    }

    #[test]
    fn kinds_and_names_are_read_as_kubectl_reads_them() {
        for (text, kinds, names) in [
            ("pods", vec![Kind::Pod], vec![]),
            ("po,svc", vec![Kind::Pod, Kind::Service], vec![]),
            ("pod web db", vec![Kind::Pod], vec!["web", "db"]),
            ("pod/web", vec![Kind::Pod], vec!["web"]),
        ] {
            let (read_kinds, read_names) = kinds_and_names(&words(text)).expect(text);
            assert_eq!(
                (read_kinds, read_names),
                (kinds, names.iter().map(|n| (*n).to_owned()).collect()),
                "{text}"
            );
        }
        let failure = kinds_and_names(&words("gizmos")).expect_err("unknown");
        assert_eq!(failure.exit, Exit::Usage);
    }
}
