//! A node's ztunnel is a workload itself: who scrapes it from a pod of the mesh is known to it, and needs
//! leave.

use anyhow::{Context, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::own;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const ZTUNNEL: &str = "spiffe://cluster.local/ns/weft-system/sa/ztunnel";

/// The client runs on the first.
const NODES: [(&str, &str); 2] = [
    ("node-1", "172.30.0.1:15020"),
    ("node-2", "172.30.0.2:15020"),
];

const DENIAL: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-scraping, namespace: weft-system}
spec:
  selector: {matchLabels: {app: ztunnel}}
  action: DENY
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]
";

fn scrape(lab: &Lab, address: &str) -> anyhow::Result<String> {
    lab.exec("shop/client", &["peer", "http", address, "/metrics"])
}

/// How many scrapes a node's ztunnel has logged, in all of its processes.
fn logged(lab: &Lab, node: &str) -> usize {
    let log = lab.run_file(&format!("nodes/{node}/ztunnel.log"));
    let is_scrape = |line: &&str| {
        line.contains("connection complete")
            && line.contains("direction=\"inbound\"")
            && line.contains(&format!("src.identity=\"{CLIENT}\""))
            && line.contains(&format!("dst.identity=\"{ZTUNNEL}\""))
    };
    log.lines().filter(is_scrape).count()
}

#[test]
fn a_pod_of_the_mesh_scrapes_ztunnels_over_mutual_tls() {
    let lab = own();
    for round in 1..=2 {
        for (node, address) in NODES {
            lab.eventually(SOON, "a page", || {
                let page = scrape(&lab, address)?;
                ensure!(
                    page.contains("workload_manager_active_proxy_count"),
                    "{page}"
                );
                Ok(())
            })
            .expect("scraped");
            lab.eventually(SOON, "both identities are logged", || {
                let logged = logged(&lab, node);
                ensure!(logged >= round, "{node}: {logged}");
                Ok(())
            })
            .expect("logged");
            let dump = lab.config_dump(node).expect("a dump");
            assert_eq!(dump["workloadState"]["ztunnel"]["state"], "Up", "{node}");
        }
        // The next ones are workloads as well.
        if round == 1 {
            lab.weft(&["ztunnel", "upgrade"]).expect("upgraded");
        }
    }

    lab.write("policy.yaml", DENIAL).expect("written");
    for (node, address) in NODES {
        lab.eventually(SOON, "it is denied", || {
            ensure!(scrape(&lab, address).is_err(), "{address} still answers");
            Ok(())
        })
        .expect("denied");
        lab.logged(&format!("nodes/{node}/ztunnel.log"), "no-scraping")
            .with_context(|| node)
            .expect("logged");
    }
    // Who has no identity is not in the mesh: that port is open to them as it was.
    for (_, address) in NODES {
        let page = ["peer", "http", address, "/metrics"];
        lab.exec("plain/outsider", &page).expect("in plaintext");
    }
}
