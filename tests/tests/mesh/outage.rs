//! The control plane away: what is known goes on, and its return costs nothing.

use anyhow::ensure;
use tests::lab::scale::{is_full, scaled};
use tests::lab::{Lab, SOON};
use tests::peer::client::LoadReport;

use crate::shop::own;

/// A Service without endpoints.
fn write_service(lab: &Lab, name: &str) {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{port: 80}}]}}\n"
    );
    lab.write(&format!("{name}.yaml"), &service)
        .expect("written");
}

/// Waits until both nodes know what there is now: what is written last comes last.
fn settle(lab: &Lab) {
    write_service(lab, "last");
    lab.eventually(SOON, "both nodes know all", || {
        for node in ["node-1", "node-2"] {
            let services = lab.config_dump(node)?["services"].to_string();
            ensure!(services.contains("last.shop"), "{node}: {services}");
        }
        Ok(())
    })
    .expect("known");
}

#[test]
fn a_stopped_control_plane_fails_no_request_and_resends_nothing() {
    let lab = own();
    lab.peer("shop/client", &["get", "server:80"])
        .expect("warm");
    lab.peer("shop/client", &["get", "neighbour:80"])
        .expect("warm");
    settle(&lab);
    lab.exec("control-plane", &["pkill", "-STOP", "-x", "control-plane"])
        .expect("stopped");

    let loads: Vec<_> = ["server:80", "neighbour:80"]
        .into_iter()
        .map(|target| {
            lab.exec_spawn(
                "shop/client",
                &[
                    "peer",
                    "load",
                    target,
                    "--seconds",
                    // How long the control plane is stopped, under load.
                    scaled("8", "600"),
                    "--connections",
                    "2",
                ],
            )
            .expect("starts")
        })
        .collect();
    for load in loads {
        let output = load.wait_with_output().expect("ends");
        let report: LoadReport = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.succeeded > 100, "{report:?}");
        if is_full() {
            println!("{report:?}");
        }
    }

    // A connection that says nothing is given up after 40 s.
    if is_full() {
        let dump = lab.config_dump("node-1").expect("a dump");
        assert!(dump["staleSince"].is_string(), "{}", dump["staleSince"]);
        let screen = lab.weft(&["status"]).expect("status");
        assert!(screen.contains("stale since"), "{screen}");
    }

    // Killed now, so that it comes back as a new process with clients that know everything.
    let before = ["node-1", "node-2"].map(|node| received(&lab, node).expect("metrics"));
    lab.exec("control-plane", &["pkill", "-KILL", "-x", "control-plane"])
        .expect("killed");
    lab.eventually(SOON, "both ztunnels are in sync again", || {
        let status: serde_json::Value =
            serde_json::from_str(&lab.weft(&["status", "-o", "json"])?)?;
        let proxies = status["controlPlane"]["Ok"]["proxies"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ensure!(proxies.len() == 2, "{proxies:?}");
        for proxy in proxies {
            for (url, state) in proxy["types"].as_object().into_iter().flatten() {
                ensure!(
                    state["acked"] == state["sent"] && state["sent"] != 0,
                    "{url}: {proxy}"
                );
            }
        }
        Ok(())
    })
    .expect("resynchronised");
    for (node, before) in ["node-1", "node-2"].into_iter().zip(before) {
        let resent = received(&lab, node).expect("metrics") - before;
        assert!(
            resent < 300.0,
            "{resent} bytes were sent to {node}, which knew everything"
        );
    }

    // And it works: a change made now arrives.
    lab.write(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {action: DENY, rules: [{}]}\n",
    )
    .expect("written");
    lab.eventually(SOON, "the policy is in force", || {
        let output = lab.peer_output("shop/client", &["get", "server:80"])?;
        ensure!(!output.status.success(), "{output:?}");
        Ok(())
    })
    .expect("denied");
}

/// Bytes of xDS resources that a node's ztunnel was ever sent.
fn received(lab: &Lab, node: &str) -> anyhow::Result<f64> {
    let metrics = lab.metrics(node)?;
    Ok(metrics
        .lines()
        .filter(|line| line.starts_with("istio_xds_message_bytes_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

#[test]
fn only_what_changed_is_sent() {
    let lab = own();
    settle(&lab);
    let before = received(&lab, "node-1").expect("metrics");
    write_service(&lab, "extra");
    lab.eventually(SOON, "the service is there", || {
        lab.peer("shop/client", &["resolve", "extra"]).map(|_| ())
    })
    .expect("there");
    let sent = received(&lab, "node-1").expect("metrics") - before;
    assert!(
        sent > 0.0 && sent < 600.0,
        "{sent} bytes for one small service"
    );
}
