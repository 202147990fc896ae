//! The mesh of these tests: a client and two versions of a web application, all of them enrolled.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};
use tests::web::Answer;
use tests::web::load::Report;

use crate::why;

pub(crate) const YAML: &str = include_str!("objects/shop.yaml");

/// The shared mesh. Tests add objects under names of their own and change nobody else's.
pub(crate) fn shared() -> &'static Lab {
    static SHOP: OnceLock<Lab> = OnceLock::new();
    SHOP.get_or_init(own)
}

/// A mesh of one's own, to change.
pub(crate) fn own() -> Lab {
    Lab::up(YAML).expect("the mesh starts")
}

/// Asks once from a pod (`namespace/name`).
pub(crate) fn ask(lab: &Lab, from: &str, arguments: &[&str]) -> Result<Answer> {
    let command: Vec<&str> = ["web", "ask"].iter().chain(arguments).copied().collect();
    let output = lab.exec(from, &command)?;
    serde_json::from_str(&output).context(output)
}

/// Asks from the client until the answer is as it should be, and `weft why` tells the same.
pub(crate) fn expect(
    lab: &Lab,
    arguments: &[&str],
    right: impl Fn(&Answer) -> Result<()>,
) -> Answer {
    let mut last = None;
    lab.eventually(SOON, &format!("{arguments:?} is answered rightly"), || {
        let answer = ask(lab, "shop/client", arguments)?;
        right(&answer).with_context(|| format!("{answer:?}"))?;
        why::check(lab, "shop/client", arguments, &answer)?;
        last = Some(answer);
        Ok(())
    })
    .expect("the answer");
    last.expect("an answer")
}

/// Asks from the client until the status is this one.
pub(crate) fn expect_status(lab: &Lab, status: u16, arguments: &[&str]) -> Answer {
    expect(lab, arguments, |answer| {
        ensure!(answer.status == status, "not {status}");
        Ok(())
    })
}

/// Asks from the client until this pod answers with 200.
pub(crate) fn expect_pod(lab: &Lab, pod: &str, arguments: &[&str]) -> Answer {
    expect(lab, arguments, |answer| {
        ensure!(answer.status == 200 && answer.pod() == pod, "not {pod}");
        Ok(())
    })
}

/// A load from the client, to its end.
pub(crate) fn load(lab: &Lab, arguments: &[&str]) -> Result<Report> {
    let command: Vec<&str> = ["web", "load"].iter().chain(arguments).copied().collect();
    let output = lab.exec("shop/client", &command)?;
    serde_json::from_str(&output).context(output)
}

/// A Service of this name over both versions, on 80 and 8080 and, for gRPC, 7070.
pub(crate) fn service(name: &str) -> String {
    versions(name, "{app: echo}")
}

/// A Service over the pods with these labels.
pub(crate) fn versions(name: &str, labels: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {labels}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: http-alt, port: 8080, targetPort: 8080}}
  - {{name: grpc, port: 7070, targetPort: 8080, appProtocol: grpc}}
"
    )
}

/// Writes a Service and objects about it, in one file.
pub(crate) fn apply(lab: &Lab, name: &str, objects: &str) {
    let yaml = format!("{}---\n{objects}", service(name));
    lab.write(&format!("{name}.yaml"), &yaml).expect("written");
}

/// As [`apply`], and waits until the waypoints have been told of the routes: of a service they are
/// told first, and it answers without them.
pub(crate) fn apply_routes(lab: &Lab, name: &str, objects: &str) {
    apply(lab, name, objects);
    lab.eventually(SOON, "the waypoints know the routes", || {
        let label = "gateway.networking.k8s.io/gateway-name";
        let pods = lab.pods()?;
        let waypoints = pods.iter().map(|pod| &pod["metadata"]).filter(|metadata| {
            metadata["namespace"] == "shop" && metadata["labels"][label].is_string()
        });
        let waypoints: Vec<&str> = waypoints.filter_map(|one| one["name"].as_str()).collect();
        ensure!(!waypoints.is_empty(), "there is no waypoint");
        for waypoint in waypoints {
            let page = ["peer", "http", "127.0.0.1:15000", "/config_dump"];
            let dump = lab.exec(&format!("shop/{waypoint}"), &page)?;
            let dump: serde_json::Value = serde_json::from_str(&dump)?;
            for route in routes(objects) {
                let mut known = dump["routes"].as_array().into_iter().flatten();
                let is_it = |one: &serde_json::Value| {
                    one["name"]
                        .as_str()
                        .is_some_and(|key| key.ends_with(&route))
                };
                ensure!(known.any(is_it), "{waypoint} does not know {route}");
            }
        }
        Ok(())
    })
    .expect("known");
}

/// `/NAMESPACE/NAME` of each route of the namespace.
fn routes(objects: &str) -> impl Iterator<Item = String> {
    let lines = objects.lines().zip(objects.lines().skip(1));
    lines.filter_map(|(kind, metadata)| {
        let is_route = kind.starts_with("kind: ") && kind.ends_with("Route");
        let name = metadata.strip_prefix("metadata: {name: ")?;
        let name = name.strip_suffix(", namespace: shop}")?;
        is_route.then(|| format!("/shop/{name}"))
    })
}

/// An HTTPRoute of the same name as its Service.
pub(crate) fn http_route(name: &str, rules: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {name}}}]
  rules:
{rules}"
    )
}
