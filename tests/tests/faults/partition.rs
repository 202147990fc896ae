//! A node that reaches one endpoint of a service and not the other, while the control plane
//! reaches both.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::lab::wire::Wire;
use tests::lab::{Lab, SOON};
use tests::peer::client::LoadReport;
use tests::wire::Faults;

use crate::shop::{BACK, forget_tracked, mesh, scaled, still_serves, warm};

const PAIR: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, labels: {pair: \"yes\"}}
spec:
  nodeName: node-2
  serviceAccountName: server
  containers:
    - {name: peer, command: [peer, serve, --name, other]}
---
apiVersion: v1
kind: Service
metadata: {name: pair, namespace: shop}
spec:
  selector: {pair: \"yes\"}
  ports:
    - {name: http, port: 80, targetPort: 8080}
";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Loses what node-1 sends to a pod.
fn cut(lab: &Lab, pod: &str) {
    let rules: String = lab
        .addresses(pod)
        .expect("addresses")
        .into_iter()
        .map(|address| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            format!("add rule inet partition lost {family} daddr {address} drop\n")
        })
        .collect();
    let ruleset = format!(
        "add table inet partition\n\
         add chain inet partition lost {{ type filter hook forward priority 0; }}\n{rules}"
    );
    lab.exec(
        "node/node-1",
        &["sh", "-ec", &format!("nft -f - <<'EOF'\n{ruleset}\nEOF")],
    )
    .expect("cut");
}

fn heal(lab: &Lab) {
    lab.exec(
        "node/node-1",
        &["nft", "delete", "table", "inet", "partition"],
    )
    .expect("healed");
}

fn both_answer(lab: &Lab) {
    let mut missing = vec!["server ", "other "];
    lab.eventually(SOON, "both endpoints answer", || {
        let reply = lab.peer("shop/client", &["get", "pair:80"])?;
        missing.retain(|name| !reply.starts_with(name));
        ensure!(missing.is_empty(), "{missing:?}");
        Ok(())
    })
    .expect("both");
}

/// With both endpoints of the pair. Nobody waits for as long as the time to connect but for the last
/// that is left.
fn pair() -> Lab {
    let lab = mesh(&format!("CONNECT_TIMEOUT={}s", CONNECT_TIMEOUT.as_secs()));
    lab.write("pair.yaml", PAIR).expect("written");
    lab.eventually(BACK, "the pair is ready", || {
        lab.pod("shop/other")?;
        lab.ready()
    })
    .expect("ready");
    both_answer(&lab);
    lab
}

#[test]
fn the_endpoint_that_is_reached_is_used() {
    let lab = pair();
    let baseline = warm(&lab);
    // A tunnel to each is open when the cut happens.
    both_answer(&lab);
    cut(&lab, "shop/other");
    let seconds = scaled("4", "60");
    let load = [
        "load",
        "pair:80",
        "--seconds",
        seconds,
        "--connections",
        "4",
    ];
    let report = lab.peer("shop/client", &load).expect("a report");
    let report: LoadReport = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");
    // A second for the tunnel that is open, where the machine is not busy.
    let promised = scaled(CONNECT_TIMEOUT * 3 / 4, Duration::from_secs(2));
    let slowest = Duration::from_millis(report.slowest_millis);
    assert!(slowest < promised, "{report:?}");

    cut(&lab, "shop/server");
    let output = lab
        .peer_output("shop/client", &["get", "pair:80"])
        .expect("runs");
    assert!(!output.status.success(), "{output:?}");
    lab.eventually(SOON, "the reason is logged", || {
        let log = lab.run_file("nodes/node-1/ztunnel.log");
        let failed: Vec<_> = log.lines().filter(|line| line.contains("error=")).collect();
        let said = |text: &str| failed.iter().any(|line| line.contains(text));
        ensure!(said("no sign of the peer within 1s"), "{failed:#?}");
        ensure!(said("timed out") || said("no answer"), "{failed:#?}");
        assert!(!said("denied"), "{failed:#?}");
        Ok(())
    })
    .expect("logged");

    heal(&lab);
    both_answer(&lab);
    still_serves(&lab);
    forget_tracked(&lab);
    lab.exec("shop/other", &["conntrack", "-F"])
        .expect("forgotten");
    // Nor has the end of tunnels that were given up come through.
    for node in ["node/node-1", "node/node-2"] {
        lab.exec(node, &["conntrack", "-D", "-p", "tcp", "--dport", "15008"])
            .expect("forgotten");
    }
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// Neither gives a sign within a second, and one of them never will.
#[test]
fn an_endpoint_that_is_slow_is_not_lost_to_one_that_is_not_reached() {
    let lab = pair();
    cut(&lab, "shop/other");
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    // A tunnel takes two round trips.
    let delay = Duration::from_millis(350);
    let slow = Faults {
        delay,
        ..Faults::default()
    };
    wire.set(&slow).expect("set");
    // Whichever is tried first.
    for _ in 0..scaled(3, 20) {
        let tunnels = ["ss", "-Htn", "state", "established", "dport = :15008"];
        lab.eventually(BACK, "no tunnel is left", || {
            let open = lab.exec("shop/client", &tunnels)?;
            ensure!(open.trim().is_empty(), "{open}");
            Ok(())
        })
        .expect("none");
        let begun = Instant::now();
        let reply = lab.peer("shop/client", &["get", "pair:80"]);
        assert!(reply.expect("an answer").starts_with("server "));
        let took = begun.elapsed();
        assert!(took > delay * 8, "{took:?}");
        assert!(took < CONNECT_TIMEOUT * 3 / 4, "{took:?}");
    }
}
