//! A node that runs out of file descriptors.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::{BACK, Running, mesh_with, still_serves, warm};

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
    let lab = mesh_with("ulimit -n 160");
    let baseline = warm(&lab);
    let mut crowd = Running::start(&lab, "shop/client", &["silent", "server:9000", "300"]);
    assert_eq!(crowd.line(), "open 300");
    lab.eventually(BACK, "accepting pauses", || {
        let pauses = lab.metric("node-1", "weft_accept_pauses_total")?;
        ensure!(pauses > 0.0, "{pauses}");
        Ok(())
    })
    .expect("paused");

    // It waits, it does not spin.
    let cpu = || {
        lab.metric("node-1", "process_cpu_seconds_total")
            .expect("CPU")
    };
    let (before, began) = (cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let (used, took) = (cpu() - before, began.elapsed().as_secs_f64());
    assert!(used < 0.3 * took, "{used} CPU seconds in {took}");

    hears_of_a_new_service(&lab);
    drop(crowd);
    lab.eventually(BACK, "the node serves again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("serves");
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

#[test]
fn bulk_between_pods_of_a_node_leaves_the_last_descriptors_alone() {
    let lab = mesh_with("ulimit -n 160");
    let baseline = warm(&lab);
    let neighbour = lab.addresses("shop/neighbour").expect("an address")[0];
    let target = format!("{neighbour}:9000");
    // Each of them takes two descriptors, and two more for each direction that is spliced.
    let mut bulk = Running::start(&lab, "shop/client", &["flood", &target, "20"]);
    bulk.line();
    let open = lab.metric("node-1", "process_open_fds").expect("answers");
    assert!(open < 150.0, "{open} of 160, of which 20 are reserved");
    hears_of_a_new_service(&lab);
    bulk.end();
    lab.exec("shop/neighbour", &["pkill", "-KILL", "-x", "peer"])
        .expect("killed");
    baseline.awaited(&lab, BACK).expect("back at rest");
}
