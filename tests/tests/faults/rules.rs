//! An application with the right to change its network namespace flushes the redirect rules.

use std::time::Duration;

use anyhow::ensure;
use tests::lab::SOON;

use crate::shop::{BACK, YAML, scaled, still_serves, unwatched, warm};

const STRICT: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

#[test]
fn flushed_rules_come_back_and_let_nobody_in_meanwhile() {
    // No capture: the flushed pod speaks in clear, and is not listened to.
    let lab = unwatched(&format!("{YAML}---\n{STRICT}"));
    let baseline = warm(&lab);
    let rules = || lab.exec("shop/client", &["nft", "-s", "list", "ruleset"]);
    let before = rules().expect("rules");
    lab.exec("shop/client", &["nft", "flush", "ruleset"])
        .expect("flushed");
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let target = std::net::SocketAddr::new(server, 8080).to_string();
    let output = lab
        .peer_output("shop/client", &["get", &target])
        .expect("runs");
    let repaired = rules().expect("rules") == before;
    assert!(!output.status.success() || repaired, "in clear: {output:?}");
    lab.eventually(
        scaled(SOON, Duration::from_secs(10)),
        "the rules are back",
        || {
            ensure!(rules()? == before, "{}", rules()?);
            lab.peer("shop/client", &["get", &target]).map(|_| ())
        },
    )
    .expect("repaired");
    still_serves(&lab);
    lab.eventually(SOON, "the repair is told", || {
        let log = lab.run_file("machine.log") + &lab.up_log();
        let said = log.contains("the pod's redirect rules were changed");
        let status = lab.weft(&["status", "-o", "json"])?;
        ensure!(said || status.contains("is missing"), "{status}\n{log}");
        Ok(())
    })
    .expect("told");
    baseline.awaited(&lab, BACK).expect("back at rest");
}
