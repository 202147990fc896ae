//! What a load must not notice: changes of configuration, waypoints that come, go and are
//! replaced, endpoints that die or hang.

use std::io::Read;
use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};
use tests::web::load::Report;

use crate::shop::{self, apply, ask, expect_status, http_route};

/// A load from the client that runs while something else happens.
struct Load(Child);

// === impl Load ===

impl Load {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let command: Vec<&str> = ["web", "load"].iter().chain(arguments).copied().collect();
        Self(
            lab.exec_spawn("shop/client", &command)
                .expect("the load starts"),
        )
    }

    fn end(mut self) -> Result<Report> {
        let mut output = String::new();
        let stdout = self.0.stdout.as_mut().context("its output")?;
        stdout.read_to_string(&mut output)?;
        ensure!(self.0.wait()?.success(), "the load failed: {output}");
        serde_json::from_str(&output).context(output)
    }
}

/// Between two changes: ten of them a second.
const CHANGE: Duration = Duration::from_millis(100);

#[test]
fn routes_and_policies_changed_ten_times_a_second_lose_no_request() {
    let lab = shop::own();
    let objects = |version: u32| {
        let backend = if version.is_multiple_of(2) {
            "echo-v1"
        } else {
            "echo-v2"
        };
        let route = http_route(
            "changing",
            &format!("  - backendRefs: [{{name: {backend}, port: 80}}]\n"),
        );
        format!(
            "\
{route}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: changing, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: changing}}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: [/denied-{version}]}}}}]}}]
"
        )
    };
    apply(&lab, "changing", &objects(0));
    expect_status(&lab, 200, &["http://changing.shop/"]);
    let load = Load::start(&lab, &["http://changing.shop/", "--seconds", "8"]);
    for version in 1..70 {
        apply(&lab, "changing", &objects(version));
        thread::sleep(CHANGE);
    }
    let report = load.end().expect("the report");
    assert_eq!(report.failed(), 0, "{report:?}");
    assert!(
        report.by_pod.len() == 2,
        "both backends had their turn: {report:?}"
    );
    expect_status(&lab, 403, &["http://changing.shop/denied-69"]);
}

#[test]
fn the_last_reason_gone_drains_without_a_failed_request() {
    let lab = shop::own();
    let route = http_route("leaving", "  - backendRefs: [{name: echo-v1, port: 80}]\n");
    apply(&lab, "leaving", &route);
    expect_status(&lab, 200, &["http://leaving.shop/"]);
    let seconds = ["--seconds", "20", "--pause", "5"];
    let load = Load::start(&lab, &[&["http://leaving.shop/"][..], &seconds].concat());
    thread::sleep(Duration::from_secs(1));
    lab.write("leaving.yaml", &shop::service("leaving"))
        .expect("written");
    lab.eventually(SOON, "the waypoint is gone", || {
        let pods = lab.pods()?;
        let names = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str());
        ensure!(!names.into_iter().any(|name| name.starts_with("waypoint")));
        Ok(())
    })
    .expect("removed");
    let report = load.end().expect("the report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// A connection to a dead endpoint is tried elsewhere; one whose server dies mid-request is not,
/// unless the route says so.
#[test]
fn an_endpoint_killed_costs_no_more_than_the_retries_configured() {
    let lab = shop::own();
    let rules = "  - retry: {attempts: 2, codes: [503]}
    backendRefs: [{name: killed, port: 80}]
";
    apply(&lab, "killed", &http_route("killed", rules));
    expect_status(&lab, 200, &["http://killed.shop/"]);
    let load = Load::start(&lab, &["http://killed.shop/", "--seconds", "6"]);
    thread::sleep(Duration::from_secs(1));
    lab.exec("shop/echo-v2", &["sh", "-c", "kill -9 $(pgrep -o web)"])
        .ok();
    let report = load.end().expect("the report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// How long it hangs, in milliseconds.
const HANG: f64 = 60_000.0;

#[test]
fn a_backend_that_hangs_does_not_harm_the_others() {
    let lab = shop::own();
    let rules = "  - matches: [{path: {type: PathPrefix, value: /hang}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - backendRefs: [{name: echo-v2, port: 80}]
";
    apply(&lab, "hanging", &http_route("hanging", rules));
    expect_status(&lab, 200, &["http://hanging.shop/"]);
    let hung = format!("http://hanging.shop/hang?delay={HANG}");
    let hung = [&*hung, "--connections", "200"];
    let stuck = Load::start(
        &lab,
        &[&hung[..], &["--seconds", "1", "--count", "1"]].concat(),
    );
    thread::sleep(Duration::from_secs(1));
    let report = shop::load(&lab, &["http://hanging.shop/", "--seconds", "3"]).expect("a load");
    assert_eq!(report.failed(), 0, "{report:?}");
    // Not one of them has waited for those.
    assert!(report.slowest < HANG, "{report:?}");
    drop(stuck);
}

#[test]
fn a_waypoint_scaled_and_replaced_under_load_loses_no_request() {
    let lab = shop::own();
    let gateway = |replicas: u32| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: own
  namespace: shop
  annotations: {{weft.dev/replicas: \"{replicas}\"}}
spec:
  gatewayClassName: weft-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
"
        )
    };
    let service = shop::service("scaled").replace(
        "metadata: {name: scaled, namespace: shop}",
        "metadata: {name: scaled, namespace: shop, labels: {istio.io/use-waypoint: own}}",
    );
    lab.write("scaled.yaml", &service).expect("written");
    lab.write("gateway.yaml", &gateway(1)).expect("written");
    expect_status(&lab, 200, &["http://scaled.shop/"]);
    let ready = |wanted: usize| {
        lab.eventually(SOON, &format!("{wanted} waypoints are ready"), || {
            let pods = lab.pods()?;
            let own = pods.iter().filter(|pod| {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                name.starts_with("own-")
            });
            ensure!(own.count() == wanted);
            lab.ready()
        })
        .expect("scaled");
    };
    let load = Load::start(&lab, &["http://scaled.shop/", "--seconds", "15"]);
    for replicas in [2, 1, 3, 1] {
        lab.write("gateway.yaml", &gateway(replicas))
            .expect("written");
        ready(replicas as usize);
    }
    let report = load.end().expect("the report");
    assert_eq!(report.failed(), 0, "{report:?}");
    ask(&lab, "shop/client", &["http://scaled.shop/"]).expect("still there");
}
