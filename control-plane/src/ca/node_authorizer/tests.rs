//! The table of who gets which identity.

use super::*;
use crate::ca::PodReference;
use crate::ca::tests::TestPods;

const TRUST_DOMAIN: &str = "cluster.local";

fn ztunnel(node: &str) -> Caller {
    Caller {
        namespace: "weft-system".to_owned(),
        service_account: "ztunnel".to_owned(),
        pod: Some(PodReference {
            name: format!("ztunnel-{node}"),
            uid: format!("uid-ztunnel-{node}"),
        }),
        node: Some(node.to_owned()),
        expires: std::time::SystemTime::UNIX_EPOCH,
    }
}

fn workload(namespace: &str, pod: &str, account: &str) -> Caller {
    Caller {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod: Some(PodReference {
            name: pod.to_owned(),
            uid: format!("uid-{pod}"),
        }),
        node: None,
        expires: std::time::SystemTime::UNIX_EPOCH,
    }
}

/// Two nodes, their tunnels, and pods in every state.
fn pods() -> TestPods {
    TestPods::default()
        .with("weft-system", "ztunnel-node-1", "ztunnel", "node-1", false)
        .with("weft-system", "ztunnel-node-2", "ztunnel", "node-2", false)
        .with("shop", "web-1", "web", "node-1", false)
        .with("shop", "api-1", "api", "node-2", false)
        .with("shop", "job-1", "job", "node-1", true)
}

/// The same, of whom none is in the mesh.
struct Unenrolled(TestPods);

impl Pods for Unenrolled {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodRecord> {
        self.0.pod(namespace, name)
    }

    fn runs_on(&self, _: &str, _: &str, _: &str) -> bool {
        false
    }
}

fn check(caller: &Caller, impersonated: Option<&str>) -> Result<String, String> {
    check_among(caller, impersonated, &pods())
}

fn check_among(
    caller: &Caller,
    impersonated: Option<&str>,
    pods: &dyn Pods,
) -> Result<String, String> {
    let trusted = ["weft-system/ztunnel".parse().expect("an account")];
    authorize(caller, impersonated, TRUST_DOMAIN, &trusted, pods)
        .map(|identity| identity.to_string())
        .map_err(|refusal| refusal.to_string())
}

fn granted(caller: &Caller, impersonated: Option<&str>, identity: &str) {
    assert_eq!(check(caller, impersonated), Ok(identity.to_owned()));
}

fn refused(caller: &Caller, impersonated: Option<&str>, reason: &str) {
    let answer = check(caller, impersonated);
    assert!(
        answer.as_ref().is_err_and(|error| error.contains(reason)),
        "{answer:?}, expected {reason:?}"
    );
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[test]
fn a_trusted_tunnel_gets_the_identities_of_its_own_nodes_pods_only() {
    granted(&ztunnel("node-1"), Some(WEB), WEB);
    refused(
        &ztunnel("node-2"),
        Some(WEB),
        "no running pod of spiffe://cluster.local/ns/shop/sa/web is enrolled on node-2",
    );
    refused(
        &ztunnel("node-1"),
        Some("spiffe://cluster.local/ns/shop/sa/api"),
        "enrolled on node-1",
    );
    refused(
        &ztunnel("node-1"),
        Some("spiffe://cluster.local/ns/other/sa/web"),
        "enrolled on node-1",
    );
}

#[test]
fn a_finished_pod_counts_for_nothing() {
    refused(
        &ztunnel("node-1"),
        Some("spiffe://cluster.local/ns/shop/sa/job"),
        "enrolled on node-1",
    );
    refused(&workload("shop", "job-1", "job"), None, "not running");
}

#[test]
fn the_requested_identity_must_be_one_of_our_trust_domain() {
    for wanted in [
        "spiffe://elsewhere/ns/shop/sa/web",
        "spiffe://cluster.local.evil/ns/shop/sa/web",
    ] {
        refused(&ztunnel("node-1"), Some(wanted), "not of this trust domain");
    }
    for wanted in [
        "",
        "shop/web",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/sa/web,URI:spiffe://cluster.local/ns/shop/sa/api/x",
    ] {
        refused(&ztunnel("node-1"), Some(wanted), "no workload identity");
    }
}

#[test]
fn nobody_else_may_impersonate() {
    refused(
        &workload("shop", "web-1", "web"),
        Some(WEB),
        "shop/web is not trusted",
    );
    let mut other_namespace = ztunnel("node-1");
    other_namespace.namespace = "shop".to_owned();
    refused(&other_namespace, Some(WEB), "shop/ztunnel is not trusted");
}

#[test]
fn a_tunnels_token_must_be_of_a_pod_that_is_there() {
    let mut unbound = ztunnel("node-1");
    unbound.pod = None;
    refused(&unbound, Some(WEB), "not bound to a pod");
    refused(&ztunnel("node-3"), Some(WEB), "does not exist");
    let mut replaced = ztunnel("node-1");
    replaced.pod = Some(PodReference {
        name: "ztunnel-node-1".to_owned(),
        uid: "uid-of-an-earlier-one".to_owned(),
    });
    refused(&replaced, Some(WEB), "does not exist");
    let mut moved = ztunnel("node-1");
    moved.node = Some("node-2".to_owned());
    refused(&moved, Some(WEB), "not running on the token's node");
}

#[test]
fn a_pod_gets_its_own_identity_without_asking_for_another() {
    granted(&workload("shop", "web-1", "web"), None, WEB);
    granted(
        &ztunnel("node-1"),
        None,
        "spiffe://cluster.local/ns/weft-system/sa/ztunnel",
    );
    refused(&workload("shop", "web-1", "api"), None, "does not exist");
    refused(&workload("shop", "gone", "web"), None, "does not exist");
    let mut unbound = workload("shop", "web-1", "web");
    unbound.pod = None;
    refused(&unbound, None, "not bound to a pod");
}

#[test]
fn a_tunnel_gets_its_own_identity_by_name_too() {
    let own = "spiffe://cluster.local/ns/weft-system/sa/ztunnel";
    let unenrolled = Unenrolled(pods());
    let asked = |wanted| check_among(&ztunnel("node-1"), Some(wanted), &unenrolled);
    assert_eq!(asked(own), Ok(own.to_owned()));
    for other in [
        WEB,
        "spiffe://cluster.local/ns/weft-system/sa/default",
        "spiffe://cluster.local/ns/shop/sa/ztunnel",
    ] {
        let refusal = asked(other).expect_err("somebody else's");
        assert!(refusal.contains("enrolled on node-1"), "{refusal}");
    }
    refused(
        &ztunnel("node-1"),
        Some("spiffe://corp/ns/weft-system/sa/ztunnel"),
        "not of this trust domain",
    );
    refused(&ztunnel("node-3"), Some(own), "does not exist");
}

#[test]
fn accounts_are_written_namespace_slash_name() {
    let account: Account = "weft-system/ztunnel".parse().expect("an account");
    assert_eq!(account.to_string(), "weft-system/ztunnel");
    for text in ["", "ztunnel", "/ztunnel", "weft-system/", "a/b/c"] {
        text.parse::<Account>().expect_err(text);
    }
}
