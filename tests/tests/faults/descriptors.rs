//! A node that runs out of file descriptors.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::scale::is_full;
use tests::lab::{Lab, SOON};

use crate::shop::{BACK, Running, mesh_with, still_serves, warm};

/// Renewal begins at half of the certificates' life.
const FEW: &str = "ulimit -n 128; export SECRET_TTL=75s";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec:
  selector: {app: server}
  ports:
    - {name: http, port: 80, targetPort: 8080}
";

#[test]
fn accepting_pauses_and_the_process_itself_goes_on() {
    let lab = mesh_with(FEW);
    let baseline = warm(&lab);
    let mut crowd = Running::start(&lab, "shop/client", &["silent", "server:9000", "300"]);
    assert_eq!(crowd.line(), "open 300");
    lab.eventually(BACK, "accepting pauses", || {
        let pauses = lab.metric("node-1", "weft_accept_pauses_total")?;
        ensure!(pauses > 0.0, "{pauses}");
        Ok(())
    })
    .expect("paused");

    hears_of_a_new_service(&lab);
    if is_full() {
        waits_and_does_not_spin(&lab);
        renews_a_certificate(&lab);
    }
    drop(crowd);
    let free = Instant::now();
    lab.eventually(BACK, "the node serves again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("serves");
    let took = free.elapsed();
    println!("it serves {took:?} after there are descriptors");
    assert!(!is_full() || took <= Duration::from_secs(1), "{took:?}");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// A control plane that comes back is a new connection, and people have questions.
#[track_caller]
fn hears_of_a_new_service(lab: &Lab) {
    lab.signal("control-plane", None, "KILL").expect("killed");
    lab.write("late.yaml", &SERVICE.replace("NAME", "late"))
        .expect("written");
    lab.eventually(SOON, "the node has heard of a new service", || {
        let services = lab.config_dump("node-1")?["services"].to_string();
        ensure!(services.contains("late.shop"), "{services}");
        Ok(())
    })
    .expect("the control plane and the admin port are reached");
}

#[track_caller]
fn waits_and_does_not_spin(lab: &Lab) {
    let cpu = || {
        lab.metric("node-1", "process_cpu_seconds_total")
            .expect("CPU")
    };
    let (before, began) = (cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let (used, took) = (cpu() - before, began.elapsed().as_secs_f64());
    println!("{used:.3} CPU seconds in {took:.1}");
    assert!(used < 0.1 * took, "{used} CPU seconds in {took}");
}

#[track_caller]
fn renews_a_certificate(lab: &Lab) {
    let certificate = || -> Result<Value> {
        let dump = lab.config_dump("node-1")?;
        let all = dump["certificates"].as_array().context("no list")?;
        Ok(all.first().context("none")?["certChain"].clone())
    };
    let before = certificate().expect("it has one");
    lab.eventually(SOON, "another certificate", || {
        let now = certificate()?;
        ensure!(now != before, "{now}");
        Ok(())
    })
    .expect("the authority is reached");
}

#[test]
fn bulk_between_pods_of_a_node_leaves_the_last_descriptors_alone() {
    let lab = mesh_with(FEW);
    let baseline = warm(&lab);
    let neighbour = lab.addresses("shop/neighbour").expect("an address")[0];
    let target = format!("{neighbour}:9000");
    // Each of them takes two descriptors, and two more for each direction that is spliced.
    let mut bulk = Running::start(&lab, "shop/client", &["flood", &target, "12"]);
    bulk.line();
    let open = lab.metric("node-1", "process_open_fds").expect("answers");
    assert!(open < 120.0, "{open} of 128, of which 16 are reserved");
    hears_of_a_new_service(&lab);
    bulk.end();
    lab.exec("shop/neighbour", &["pkill", "-KILL", "-x", "peer"])
        .expect("killed");
    baseline.awaited(&lab, BACK).expect("back at rest");
}
