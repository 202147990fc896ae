//! How long it takes from a file in the folder to its being in force: a route where a waypoint
//! is there already, and one that needs it made first.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::web::watch;

/// For something to be in force at all.
const WITHIN: Duration = Duration::from_secs(30);
/// From applying a route to its being in force, where its waypoint is still to be made.
const BAR_WITHOUT: Duration = Duration::from_secs(2);
/// And where it is there.
const BAR_WITH: Duration = Duration::from_millis(100);

const OBJECTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, command: [web, serve]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// A route whose answers say which version of it sent them.
fn route(version: usize) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: way, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web}}]
  rules:
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-version, value: v{version}}}]}}}}]
    backendRefs: [{{name: web, port: 80}}]
"
    )
}

/// A client in a pod that asks all the time, and what it tells.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

// === impl Watch ===

impl Watch {
    fn start(lab: &Lab) -> Result<Self> {
        let command = ["web", "watch", "http://web.shop/", "--name", "x-version"];
        let mut child = lab.exec_spawn("shop/client", &command)?;
        let out = child.stdout.take().context("piped")?;
        Ok(Self {
            child,
            lines: BufReader::new(out),
        })
    }

    /// When the answers were first so.
    fn until(&mut self, wanted: &str) -> Result<Duration> {
        loop {
            let mut line = String::new();
            ensure!(self.lines.read_line(&mut line)? > 0, "the client ended");
            let (at, seen) = line.trim().split_once(' ').context("a time and a value")?;
            if seen == wanted {
                return Ok(Duration::from_nanos(at.parse()?));
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures, and prints medians and the slowest.
pub fn run(rounds: usize) -> Result<()> {
    let lab = Lab::up_with(OBJECTS, &["--nodes", "2"])?;
    let mut watch = Watch::start(&lab)?;
    watch.until("-")?;
    let mut without = Vec::new();
    for round in 0..rounds {
        without.push(apply(
            &lab,
            &mut watch,
            &format!("v{round}"),
            &route(round),
        )?);
        lab.remove("route.yaml")?;
        watch.until("-")?;
        gone(&lab)?;
    }
    apply(&lab, &mut watch, "v0", &route(0))?;
    let mut with = Vec::new();
    for round in 1..=10 * rounds {
        with.push(apply(
            &lab,
            &mut watch,
            &format!("v{round}"),
            &route(round),
        )?);
    }
    print("HTTPRoute, no waypoint yet", BAR_WITHOUT, &mut without);
    print("HTTPRoute, a waypoint is there", BAR_WITH, &mut with);
    Ok(())
}

/// From the rename into the folder to the first answer of the new route.
fn apply(lab: &Lab, watch: &mut Watch, wanted: &str, yaml: &str) -> Result<Duration> {
    let began = watch::now();
    lab.write("route.yaml", yaml)?;
    Ok(watch.until(wanted)?.saturating_sub(began))
}

fn gone(lab: &Lab) -> Result<()> {
    lab.eventually(WITHIN, "the waypoint is gone", || {
        let pods = lab.pods()?;
        let label = "gateway.networking.k8s.io/gateway-name";
        let is_waypoint = |pod: &serde_json::Value| !pod["metadata"]["labels"][label].is_null();
        ensure!(!pods.iter().any(is_waypoint), "still there");
        Ok(())
    })
}

/// All of them have to be below the bar.
fn print(what: &str, bar: Duration, times: &mut [Duration]) {
    times.sort();
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let slowest = times.last();
    let verdict = match slowest.is_some_and(|slowest| *slowest < bar) {
        true => "reached",
        false => "NOT REACHED",
    };
    println!(
        "{what:<32} median {:>7.1} ms, slowest {:>7.1} ms, of {}; under {bar:?}: {verdict}",
        millis(times.get(times.len() / 2)),
        millis(slowest),
        times.len()
    );
}
