//! How long 10,000 pods take from files to resources, how much memory they take, and how
//! long one changed pod takes. `cargo bench -p control-plane`; prints, asserts nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use control_plane::folder;
use control_plane::index::Index;
use control_plane::source::Event;
use istio_compat::object::Object;
use istio_compat::parse::{Raw, parse};
use istio_compat::view::Context;
use xds::server::ResourceSet;

const NAMESPACES: usize = 50;
const SERVICES: usize = 20;
const PODS: usize = 10_000;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write_mesh(folder.path())?;
    println!("before: {} MiB", resident_mebibytes());

    let started = Instant::now();
    let batch = folder::load(folder.path(), Raw::Drop)?;
    let objects = batch.events.len();
    println!(
        "read {objects} objects: {:?}, {} MiB",
        started.elapsed(),
        resident_mebibytes()
    );

    let indexing = Instant::now();
    let mut index = Index::new(Context::default());
    let changes = index.apply(batch.events, SystemTime::now());
    println!(
        "indexed: {:?}, {} MiB",
        indexing.elapsed(),
        resident_mebibytes()
    );

    let encoding = Instant::now();
    let mut resources = ResourceSet::default();
    resources.apply(&changes);
    let count = changes.len();
    drop(changes);
    println!(
        "encoded {count} resources: {:?}, {} MiB",
        encoding.elapsed(),
        resident_mebibytes()
    );
    println!("all: {:?}", started.elapsed());

    let mut slowest = Duration::ZERO;
    let changing = Instant::now();
    for number in 0..1000 {
        let one = Instant::now();
        let changes = index.apply(
            [Event::Applied(object(&pod(number, "False"))?)],
            SystemTime::now(),
        );
        resources.apply(&changes);
        slowest = slowest.max(one.elapsed());
    }
    println!(
        "one pod changed: {:?} on average, {slowest:?} at most",
        changing.elapsed() / 1000
    );

    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";
    let started = Instant::now();
    let changes = index.apply([Event::Applied(object(strict)?)], SystemTime::now());
    println!(
        "STRICT for all, {} resources: {:?}",
        changes.len(),
        started.elapsed()
    );
    Ok(())
}

/// Namespaces with services, a policy each, and pods spread over them; a file per pod, as
/// the machine writes them.
fn write_mesh(folder: &Path) -> anyhow::Result<()> {
    for namespace in 0..NAMESPACES {
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ns-{namespace}\n  \
             labels: {{istio.io/dataplane-mode: ambient}}\n"
        );
        for service in 0..SERVICES {
            text.push_str(&format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: app-{service}, namespace: ns-{namespace}}}\n\
                 spec:\n  clusterIP: 10.96.{namespace}.{service}\n  selector: {{app: app-{service}}}\n  \
                 ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
            ));
            text.push_str(&format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: app-{service}, namespace: ns-{namespace}}}\nspec:\n  \
                 selector: {{matchLabels: {{app: app-{service}}}}}\n  \
                 rules: [{{from: [{{source: {{namespaces: [ns-{namespace}]}}}}]}}]\n"
            ));
        }
        fs::write(folder.join(format!("ns-{namespace}.yaml")), text)?;
    }
    for number in 0..PODS {
        fs::write(
            folder.join(format!("Pod.{number}.json")),
            pod(number, "True"),
        )?;
    }
    Ok(())
}

fn pod(number: usize, ready: &str) -> String {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % SERVICES);
    let (node, high, low) = (number % 100, number / 250, number % 250 + 1);
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-{number}"),
            "namespace": format!("ns-{namespace}"),
            "uid": format!("00000000-0000-0000-0000-{number:012}"),
            "labels": {"app": format!("app-{app}"), "version": "v1", "pod-template-hash": "5d4f8c7b9"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": format!("node-{node}"),
            "serviceAccountName": format!("app-{app}"),
            "containers": [{
                "name": "app",
                "command": ["serve", "--port", "8080"],
                "ports": [{"name": "http", "containerPort": 8080}],
            }],
        },
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": format!("10.{high}.0.{low}")}, {"ip": format!("fd00::{high:x}:{low:x}")}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
    .to_string()
}

fn object(text: &str) -> anyhow::Result<Object> {
    let parsed = parse("pod.json", text.as_bytes(), Raw::Drop)
        .map_err(|rejected| anyhow::anyhow!("{:?}", rejected.errors))?;
    parsed
        .objects
        .into_iter()
        .next()
        .ok_or_else(|| anyhow::anyhow!("no object"))
}

fn resident_mebibytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0) / 1024
}
