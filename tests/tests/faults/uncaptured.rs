//! A pod that starts while its node's ztunnel is not there.

use std::time::Duration;

use anyhow::ensure;
use tests::lab::Lab;

use crate::shop::{BACK, mesh, warm};

/// It calls from its first moment on.
const EAGER: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: eager, namespace: shop, labels: {app: eager}}
spec:
  nodeName: node-1
  serviceAccountName: client
  terminationGracePeriodSeconds: 0
  containers:
    - name: caller
      command: [sh, -c, \"while :; do peer get TARGET:8080; sleep 0.05; done\"]
    - name: peer
      command: [peer, serve, --name, eager]
";

fn without_ztunnel(lab: &Lab) {
    // Asked before: a mesh without it answers late.
    let pid = lab.piece("ztunnel", Some("node-1")).expect("runs")["pid"].to_string();
    let signal = |signal| lab.exec("switch", &["kill", "-s", signal, &pid]);
    signal("STOP").expect("stopped");
    let server = lab.addresses("shop/server").expect("addresses")[0];
    lab.write("eager.yaml", &EAGER.replace("TARGET", &server.to_string()))
        .expect("written");
    lab.eventually(BACK, "the pod has an address", || {
        ensure!(!lab.addresses("shop/eager")?.is_empty(), "none");
        Ok(())
    })
    .expect("there");
    let addresses = lab.addresses("shop/eager").expect("addresses");
    let unsent = || {
        for address in &addresses {
            let packets = lab.packets_outside_hbone(*address).expect("a capture");
            assert_eq!(packets, Vec::<String>::new());
        }
    };
    std::thread::sleep(Duration::from_secs(2));
    unsent();
    signal("CONT").expect("goes on");
    lab.eventually(BACK, "the pod is in the mesh", || {
        lab.peer("shop/eager", &["get", "server:80"]).map(|_| ())
    })
    .expect("served");
    unsent();
}

/// It calls no more, and goes when its tunnels are closed: what is open when a pod goes is said to be
/// over to nobody, and stays tracked for days.
fn leave(lab: &Lab) {
    lab.exec("shop/eager", &["pkill", "-STOP", "-x", "sh"])
        .expect("stopped");
    lab.eventually(BACK, "its tunnels are closed", || {
        let open = lab.exec("shop/eager", &["ss", "-Htn", "state", "established"])?;
        ensure!(open.trim().is_empty(), "{open}");
        Ok(())
    })
    .expect("closed");
    lab.remove("eager.yaml").expect("removed");
}

#[test]
fn a_pod_sends_nothing_in_clear_while_the_ztunnel_is_away() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    without_ztunnel(&lab);
    leave(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
