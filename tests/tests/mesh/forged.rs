//! What an attacker in a pod can try at the tunnel's ports, and the answer each time.

use std::net::{IpAddr, SocketAddr};

use tests::lab::SOON;

use crate::shop::shared;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

fn server() -> IpAddr {
    shared().addresses("shop/server").expect("addresses")[0]
}

/// Sends one forged request from a pod outside the mesh; what came back.
fn forge(identity: Option<&str>, authority: &str, extra: &[&str]) -> String {
    let lab = shared();
    let to = SocketAddr::new(server(), 15008).to_string();
    let ca = lab.state().join("ca");
    let mut command = vec!["forge", "request", &to, "--ca", ca.to_str().expect("text")];
    command.extend(["--server", SERVER, "--authority", authority]);
    if let Some(identity) = identity {
        command.extend(["--identity", identity]);
    }
    command.extend(extra);
    lab.exec("plain/outsider", &command)
        .expect("forge runs")
        .trim()
        .to_owned()
}

/// The ztunnel still serves, in the same process.
#[track_caller]
fn still_serves() {
    let reply = shared()
        .peer("shop/client", &["get", "server:80"])
        .expect("an answer");
    assert!(reply.starts_with("server "), "{reply}");
    let status: serde_json::Value =
        serde_json::from_str(&shared().weft(&["status", "-o", "json"]).expect("status"))
            .expect("JSON");
    for piece in status["machine"]["pieces"].as_array().expect("pieces") {
        assert_eq!(piece["restarts"], 0, "{piece}");
    }
}

#[test]
fn the_honest_request_passes() {
    let authority = SocketAddr::new(server(), 8080).to_string();
    assert_eq!(forge(Some(CLIENT), &authority, &[]), "status 200");
    assert_eq!(
        forge(Some(CLIENT), "server.shop.svc.cluster.local:80", &[]),
        "status 200"
    );
}

#[test]
fn another_pods_address_is_400() {
    let client = shared().addresses("shop/client").expect("addresses")[0];
    for authority in [
        SocketAddr::new(client, 8080).to_string(),
        "127.0.0.1:8080".to_owned(),
        "169.254.1.1:53".to_owned(),
        "10.96.0.10:53".to_owned(),
    ] {
        assert_eq!(
            forge(Some(CLIENT), &authority, &[]),
            "status 400",
            "{authority}"
        );
    }
    still_serves();
}

#[test]
fn the_proxys_own_ports_are_503() {
    for port in [15001, 15006, 15008, 15053] {
        let authority = SocketAddr::new(server(), port).to_string();
        assert_eq!(
            forge(Some(CLIENT), &authority, &[]),
            "status 503",
            "{authority}"
        );
    }
    still_serves();
}

#[test]
fn an_unknown_host_or_port_is_503() {
    for authority in [
        "nothing.shop.svc.cluster.local:80",
        "server.shop.svc.cluster.local:81",
    ] {
        assert_eq!(
            forge(Some(CLIENT), authority, &[]),
            "status 503",
            "{authority}"
        );
    }
    let closed = SocketAddr::new(server(), 7).to_string();
    assert_eq!(forge(Some(CLIENT), &closed, &[]), "status 503");
}

#[test]
fn another_method_is_400() {
    let authority = SocketAddr::new(server(), 8080).to_string();
    assert_eq!(
        forge(Some(CLIENT), &authority, &["--method", "GET"]),
        "status 400"
    );
    still_serves();
}

#[test]
fn no_certificate_is_refused_in_the_handshake() {
    let authority = SocketAddr::new(server(), 8080).to_string();
    let answer = forge(None, &authority, &[]);
    assert!(answer.starts_with("refused"), "{answer}");
    still_serves();
}

#[test]
fn another_trust_domain_is_refused_in_the_handshake() {
    let authority = SocketAddr::new(server(), 8080).to_string();
    let answer = forge(
        Some("spiffe://other.domain/ns/shop/sa/client"),
        &authority,
        &[],
    );
    assert!(answer.starts_with("refused"), "{answer}");
    still_serves();
}

#[test]
fn malformed_headers_neither_pass_nor_panic() {
    let authority = SocketAddr::new(server(), 8080).to_string();
    let zeros = format!("traceparent={}", "0".repeat(55));
    let dashes = format!("traceparent={}", "-".repeat(55));
    for header in [
        &zeros,
        &dashes,
        "baggage==,=,,k8s.pod.name",
        "forwarded=for=;host=\";;",
    ] {
        let answer = forge(Some(CLIENT), &authority, &["--header", header]);
        assert_eq!(
            answer, "status 200",
            "{header}: unusable metadata is only metadata"
        );
    }
    still_serves();
}

#[test]
fn an_identity_that_policy_does_not_allow_is_401() {
    let lab = crate::shop::own();
    lab.write(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {rules: [{from: [{source: {serviceAccounts: [client]}}]}]}\n",
    )
    .expect("written");
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let ca = lab.state().join("ca");
    let forge = |identity: &str| {
        let to = SocketAddr::new(server, 15008).to_string();
        let authority = SocketAddr::new(server, 8080).to_string();
        let command = [
            "forge",
            "request",
            &to,
            "--ca",
            ca.to_str().expect("text"),
            "--server",
            SERVER,
            "--authority",
            &authority,
            "--identity",
            identity,
        ];
        lab.exec("plain/outsider", &command)
            .expect("forge runs")
            .trim()
            .to_owned()
    };
    lab.eventually(SOON, "the policy is in force", || {
        let answer = forge("spiffe://cluster.local/ns/shop/sa/other");
        anyhow::ensure!(answer == "status 401", "{answer}");
        Ok(())
    })
    .expect("401");
    assert_eq!(forge(CLIENT), "status 200");
}
