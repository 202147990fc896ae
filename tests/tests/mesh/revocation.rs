//! A certificate is taken back: what was opened with it is cut, and nothing more is opened, while the
//! mesh runs and nobody else notices.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};

use anyhow::{Context, Result, ensure};
use tests::lab::scale::is_full;
use tests::lab::{Lab, SOON};

use crate::shop::own;

/// A connection that echoes until it breaks or is told to stop.
struct Held {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Held {
    fn open(lab: &Lab, client: &str, server: &str) -> Self {
        let address = lab.addresses(server).expect("addresses")[0];
        let target = format!("{address}:9000");
        let spawned = lab.exec_spawn(client, &["peer", "hold", &target]);
        let mut child = spawned.expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut held = Self { child, lines };
        assert_eq!(held.line(), "open\n", "{client} to {server}");
        held
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("reads");
        line
    }

    /// Nobody has told it to come to its end.
    fn ends(mut self, lab: &Lab) {
        let ended = lab.eventually(SOON, "it is cut", || {
            self.child.try_wait()?.context("it is open").map(drop)
        });
        ended.expect("cut");
        let line = self.line();
        assert!(line.starts_with("closed after"), "{line}");
    }

    fn stops(mut self) {
        let mut stdin = self.child.stdin.take().expect("piped");
        writeln!(stdin, "stop").expect("writes");
        let line = self.line();
        assert!(line.starts_with("stopped after"), "{line}");
        self.child.wait().expect("ended");
    }
}

fn get(lab: &Lab, client: &str, server: &str) -> Result<String> {
    let address = lab.addresses(server)?[0];
    lab.peer(client, &["get", &format!("{address}:8080")])
}

#[test]
fn a_revoked_pod_is_cut_off_at_both_ends_of_its_connections() {
    let lab = own();
    // Of the revoked pod as a client, over a tunnel and within its node; and as a server.
    let opened_by_it = ["shop/server", "shop/neighbour"];
    let opened_by_it = opened_by_it.map(|server| Held::open(&lab, "shop/client", server));
    let opened_to_it = Held::open(&lab, "shop/remote", "shop/client");
    let of_others = Held::open(&lab, "shop/remote", "shop/neighbour");

    let began = std::time::Instant::now();
    let said = lab.weft(&["trust", "revoke", "shop/client"]);
    let said = said.expect("revoked");
    assert!(
        said.contains(" of spiffe://cluster.local/ns/shop/sa/client"),
        "{said}"
    );
    for held in opened_by_it {
        held.ends(&lab);
    }
    opened_to_it.ends(&lab);
    let took = began.elapsed();
    if is_full() {
        println!("cut {took:?} after the command began");
        assert!(took.as_secs() < 5, "{took:?}");
    }
    for (client, server) in [
        ("shop/client", "shop/server"),
        ("shop/client", "shop/neighbour"),
        ("shop/remote", "shop/client"),
    ] {
        get(&lab, client, server).expect_err("revoked");
    }
    for node in ["node-1", "node-2"] {
        lab.eventually(SOON, "it is told", || {
            let metric = "istio_crl_policy_rejections_total";
            let counted = lab.counted(node, metric, &[])?;
            ensure!(counted > 0.0, "{node}: {counted}");
            Ok(())
        })
        .expect("told");
    }
    get(&lab, "shop/remote", "shop/neighbour").expect("others go on");
    of_others.stops();

    let refused = lab.weft(&["trust", "revoke", "shop/nobody"]);
    let refused = refused.expect_err("there is none").to_string();
    assert!(refused.contains("no proxy has a certificate"), "{refused}");
}
