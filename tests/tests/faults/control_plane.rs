//! A control plane that is there, takes connections, and answers nothing.

use anyhow::ensure;
use tests::lab::SOON;
use tests::peer::client::LoadReport;

use crate::shop::{BACK, mesh, still_serves, warm};

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec:
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

#[test]
fn a_control_plane_that_stands_still_stops_nobody_and_is_named() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    lab.signal("control-plane", None, "STOP").expect("stopped");
    lab.write("late.yaml", SERVICE).expect("written");
    // Names and service addresses of what is new come from elsewhere, and sooner. What answers then
    // answers in plaintext, which the lab's capture would see too.
    let early = lab.peer_output("shop/client", &["get", "late:80"]);
    let early = early.expect("it runs");
    assert!(!early.status.success(), "{early:?}");
    let load = ["load", "server:80", "--seconds", "2", "--connections", "2"];
    let report = lab.peer("shop/client", &load).expect("a report");
    let report: LoadReport = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");

    let status = lab.weft(&["status"]).expect("answers");
    let row = status
        .lines()
        .find(|line| line.starts_with("control-plane"));
    assert!(
        row.is_some_and(|row| row.contains("does not answer")),
        "{status}"
    );
    assert!(
        status.contains("the control plane does not answer"),
        "{status}"
    );
    let ztunnels = status.lines().filter(|line| line.starts_with("ztunnel"));
    assert!(
        ztunnels.clone().count() == 2 && ztunnels.clone().all(|row| row.contains("running")),
        "{status}"
    );

    lab.signal("control-plane", None, "CONT").expect("goes on");
    lab.eventually(SOON, "what was written is known", || {
        let reply = lab.peer("shop/client", &["get", "late:80"])?;
        ensure!(reply.starts_with("server "), "{reply}");
        Ok(())
    })
    .expect("known");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
