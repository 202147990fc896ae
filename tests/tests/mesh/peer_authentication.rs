//! PeerAuthentication on live traffic: STRICT refuses plaintext, PERMISSIVE takes it, ports differ.

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::own;

#[track_caller]
fn check(lab: &Lab, from: &str, target: &str, allowed: bool) {
    lab.eventually(
        SOON,
        &format!("{from} to {target}: allowed is {allowed}"),
        || {
            let output = lab.peer_output(from, &["get", target])?;
            ensure!(output.status.success() == allowed, "{output:?}");
            Ok(())
        },
    )
    .expect("the verdict");
}

fn peer_authentication(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: pa, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn modes_hold_on_live_traffic() {
    let lab = own();
    let strict = peer_authentication("shop", "{mtls: {mode: STRICT}}");
    check(&lab, "plain/outsider", "server.shop:80", true);

    lab.write("pa.yaml", &strict).expect("written");
    check(&lab, "plain/outsider", "server.shop:80", false);
    check(&lab, "plain/outsider", "neighbour.shop:80", false);
    check(&lab, "shop/client", "server:80", true);
    check(&lab, "shop/client", "neighbour:80", true);

    lab.write(
        "pa.yaml",
        &peer_authentication("shop", "{mtls: {mode: PERMISSIVE}}"),
    )
    .expect("written");
    check(&lab, "plain/outsider", "server.shop:80", true);

    lab.write(
        "pa.yaml",
        &peer_authentication("istio-system", "{mtls: {mode: STRICT}}"),
    )
    .expect("written");
    check(&lab, "plain/outsider", "server.shop:80", false);

    lab.remove("pa.yaml").expect("removed");
    check(&lab, "plain/outsider", "server.shop:80", true);
}

#[test]
fn ports_have_their_own_mode() {
    let lab = own();
    let spec = "{selector: {matchLabels: {app: server}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}";
    lab.write("pa.yaml", &peer_authentication("shop", spec))
        .expect("written");
    lab.eventually(SOON, "the strict port refuses", || {
        let output = lab.peer_output("plain/outsider", &["banner", "server.shop:9001"])?;
        ensure!(!output.status.success(), "{output:?}");
        Ok(())
    })
    .expect("refused");
    check(&lab, "plain/outsider", "server.shop:80", true);
    lab.peer("shop/client", &["banner", "server:9001"])
        .expect("mutual TLS is taken");
}
