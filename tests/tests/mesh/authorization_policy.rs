//! AuthorizationPolicy on live traffic, and on connections that are open when it changes.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::lab::scale::scaled;
use tests::lab::{Lab, SOON};

use crate::shop::own;

/// A policy, who may then reach what, and who may not.
struct Case {
    policy: &'static str,
    allowed: &'static [(&'static str, &'static str)],
    denied: &'static [(&'static str, &'static str)],
}

const CASES: &[Case] = &[
    // ALLOW by principal, with a selector.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: server}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]}",
        allowed: &[
            ("shop/client", "server:80"),
            ("plain/outsider", "neighbour.shop:80"),
        ],
        denied: &[
            ("shop/neighbour", "server:80"),
            ("plain/outsider", "server.shop:80"),
        ],
    },
    // ALLOW by namespace, for the whole namespace.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {action: ALLOW, rules: [{from: [{source: {namespaces: [shop]}}]}]}",
        allowed: &[
            ("shop/client", "server:80"),
            ("shop/client", "neighbour:80"),
        ],
        denied: &[
            ("plain/outsider", "server.shop:80"),
            ("plain/outsider", "neighbour.shop:80"),
        ],
    },
    // DENY by service account.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [client]}}]}]}",
        allowed: &[
            ("shop/neighbour", "server:80"),
            ("plain/outsider", "server.shop:80"),
        ],
        denied: &[
            ("shop/client", "server:80"),
            ("shop/client", "neighbour:80"),
        ],
    },
    // DENY on one port of a workload.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: server}}, action: DENY, rules: [{to: [{operation: {ports: [\"8080\"]}}]}]}",
        allowed: &[("shop/client", "neighbour:80")],
        denied: &[
            ("shop/client", "server:80"),
            ("plain/outsider", "server.shop:80"),
        ],
    },
    // The root namespace speaks for every namespace.
    Case {
        policy: "metadata: {name: p, namespace: istio-system}\nspec: {action: DENY, rules: [{from: [{source: {notPrincipals: [\"*\"]}}]}]}",
        allowed: &[("shop/client", "server:80")],
        denied: &[
            ("plain/outsider", "server.shop:80"),
            ("plain/outsider", "neighbour.shop:80"),
        ],
    },
    // ALLOW without rules allows nothing.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: neighbour}}}",
        allowed: &[("shop/client", "server:80")],
        denied: &[("shop/client", "neighbour:80")],
    },
    // What only L7 could decide is not allowed at L4.
    Case {
        policy: "metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: server}}, action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        allowed: &[("shop/client", "neighbour:80")],
        denied: &[("shop/client", "server:80")],
    },
];

fn document(policy: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{policy}\n")
}

#[track_caller]
fn check(lab: &Lab, policy: &str, (from, target): (&str, &str), allowed: bool) {
    lab.eventually(
        SOON,
        &format!("{policy}\n{from} to {target}: allowed is {allowed}"),
        || {
            // A waypoint that a policy about requests has made in the meantime answers too, and
            // not for the server.
            let output = lab.peer_output(from, &["get", target])?;
            let server = target.split(['.', ':']).next().unwrap_or_default();
            let answered = output.stdout.starts_with(server.as_bytes());
            ensure!(
                (output.status.success() && answered) == allowed,
                "{output:?}"
            );
            Ok(())
        },
    )
    .expect("the verdict");
}

#[test]
fn verdicts_hold_on_live_traffic() {
    let lab = own();
    for case in CASES {
        lab.write("policy.yaml", &document(case.policy))
            .expect("written");
        for pair in case.denied {
            check(&lab, case.policy, *pair, false);
        }
        for pair in case.allowed {
            check(&lab, case.policy, *pair, true);
        }
        lab.remove("policy.yaml").expect("removed");
        for pair in case.denied {
            check(&lab, "none", *pair, true);
        }
    }
}

#[test]
fn a_refusal_names_its_policy_in_the_log() {
    let lab = own();
    lab.write("policy.yaml", &document(CASES[2].policy))
        .expect("written");
    check(&lab, CASES[2].policy, ("shop/client", "server:80"), false);
    lab.eventually(SOON, "the reason is logged", || {
        let log = lab.run_file("nodes/node-2/ztunnel.log");
        ensure!(log.contains("shop/p"), "{log}");
        Ok(())
    })
    .expect("logged");
}

#[test]
fn a_policy_that_denies_cuts_open_connections() {
    let lab = own();
    for (target, what) in [
        ("server:9000", "across nodes"),
        ("neighbour-echo:9000", "on one node"),
    ] {
        lab.write(
            "echo.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: neighbour-echo, namespace: shop}\nspec:\n  selector: {app: neighbour}\n  ports: [{name: tcp, port: 9000}]\n",
        )
        .expect("written");
        lab.eventually(SOON, "the service resolves", || {
            lab.peer(
                "shop/client",
                &["resolve", target.split(':').next().unwrap_or_default()],
            )
            .map(|_| ())
        })
        .expect("resolves");
        let mut holding = lab
            .exec_spawn("shop/client", &["peer", "hold", target])
            .expect("starts");
        let mut lines = BufReader::new(holding.stdout.take().expect("piped")).lines();
        assert_eq!(
            lines.next().expect("a line").expect("text"),
            "open",
            "{what}"
        );
        let changed = Instant::now();
        lab.write("policy.yaml", &document(CASES[2].policy))
            .expect("written");
        let line = lines.next().expect("a line").expect("text");
        let took = changed.elapsed();
        assert!(line.starts_with("closed"), "{what}: {line}");
        let promised = scaled(SOON, Duration::from_secs(1));
        assert!(took < promised, "{what}: cut after {took:?}");
        let _ = holding.wait();
        lab.remove("policy.yaml").expect("removed");
        check(&lab, "none", ("shop/client", "server:80"), true);
    }
}

#[test]
fn a_dry_run_tells_and_refuses_nobody() {
    let lab = own();
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: {name: try, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}\n\
        spec: {selector: {matchLabels: {app: server}}, action: DENY, \
        rules: [{from: [{source: {serviceAccounts: [client]}}]}]}\n";
    lab.write("try.yaml", policy).expect("written");
    let would = [
        "enforced=\"allow\"",
        "dry_run=\"deny\"",
        "policy=\"shop/try\"",
    ];
    lab.eventually(SOON, "what it would have done is counted", || {
        lab.peer("shop/client", &["get", "server:80"])?;
        let counted = lab.counted("node-2", "weft_policy_dry_run_total", &would)?;
        ensure!(counted > 0.0, "{counted}");
        Ok(())
    })
    .expect("counted");
    lab.peer("shop/neighbour", &["get", "server:80"])
        .expect("others it would let pass");
    let refused = ["enforced=\"deny\""];
    let refused = lab.counted("node-2", "weft_policy_dry_run_total", &refused);
    assert_eq!(refused.expect("metrics"), 0.0);

    lab.eventually(SOON, "the access log says it", || {
        let log = lab.weft(&["logs", "ztunnel/node-2"])?;
        let told = "policy.dry_run=\"denied by policy shop/try\"";
        ensure!(log.contains(told), "{log}");
        Ok(())
    })
    .expect("logged");
    let why = ["why", "client", "server:80", "-n", "shop"];
    let answer = lab.weft(&why).expect("an answer");
    let told = "dry run: would be denied by AuthorizationPolicy shop/try";
    assert!(answer.contains(told), "{answer}");
}
