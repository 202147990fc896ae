//! The client's half of delta xDS, response by response.

use mesh::authorization::{Action, Authorization, Scope};
use mesh::route::{RouteKind, RouteRules};
use mesh::service::Service;
use mesh::workload::Workload;
use prost_types::Any;
use proto::authorization::{AUTHORIZATION_TYPE_URL, Authorization as WireAuthorization};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::l7::{
    AUTHORIZATION_POLICY_TYPE_URL, REQUEST_AUTHENTICATION_TYPE_URL, ROUTE_TYPE_URL,
    Route as WireRoute,
};
use proto::workload::{ADDRESS_TYPE_URL, TunnelProtocol, Workload as WireWorkload};

use super::*;

const WEB: &str = "Kubernetes//Pod/shop/web";
const DB: &str = "Kubernetes//Pod/shop/db";

fn resource(name: &str, version: &str, url: &str, value: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any {
            type_url: url.to_owned(),
            value,
        }),
        ..Default::default()
    }
}

fn workload(uid: &str, version: &str) -> Resource {
    let workload = Workload::new(uid, "web", "shop");
    let bytes = Address::from(&workload).encode_to_vec();
    resource(uid, version, ADDRESS_TYPE_URL, bytes)
}

/// One that no node tunnel can speak to.
fn legacy(uid: &str, version: &str) -> Resource {
    let wire = WireWorkload {
        tunnel_protocol: TunnelProtocol::LegacyIstioMtls.into(),
        ..WireWorkload::from(&Workload::new(uid, "web", "shop"))
    };
    let address = Address {
        r#type: Some(proto::workload::AddressType::Workload(wire)),
    };
    resource(uid, version, ADDRESS_TYPE_URL, address.encode_to_vec())
}

fn policy(action: i32) -> Resource {
    let wire = WireAuthorization {
        name: "allow".to_owned(),
        namespace: "shop".to_owned(),
        scope: 1,
        action,
        ..Default::default()
    };
    resource(
        "shop/allow",
        "1",
        AUTHORIZATION_TYPE_URL,
        wire.encode_to_vec(),
    )
}

fn response(url: &str, resources: Vec<Resource>, removed: &[&str]) -> EncodedResponse {
    let response = DeltaDiscoveryResponse {
        type_url: url.to_owned(),
        nonce: "n1".to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    EncodedResponse::from(&response)
}

fn take(state: &mut State, response: EncodedResponse) -> Received {
    state.receive(response).expect("decodes")
}

fn addresses(state: &mut State, resources: Vec<Resource>, removed: &[&str]) -> Received {
    take(state, response(ADDRESS_TYPE_URL, resources, removed))
}

/// What a new stream would say is held of addresses.
fn held(state: &State) -> Vec<(String, String)> {
    let versions = first_request(state, ADDRESS_TYPE_URL).initial_resource_versions;
    versions.into_iter().collect()
}

fn first_request(state: &State, type_url: &str) -> DeltaDiscoveryRequest {
    let mut requests = state.initial_requests().into_iter();
    let found = requests.find(|request| request.type_url == type_url);
    found.expect("a type that is asked for")
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
    expected.iter().map(own).collect()
}

fn uids(received: &Received) -> Vec<String> {
    let update = received.update.as_ref().expect("a known type");
    update
        .changes
        .iter()
        .map(|change| match change {
            Change::RemoveAddress(name) => format!("-{name}"),
            change => key(change).expect("an address").to_string(),
        })
        .collect()
}

#[test]
fn the_first_requests_ask_for_everything_of_both_types() {
    let requests = State::new(Layer::L4, Subscription::Wildcard).initial_requests();
    let urls: Vec<&str> = requests.iter().map(|r| r.type_url.as_str()).collect();
    assert_eq!(urls, [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL]);
    for request in requests {
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.resource_names_unsubscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty());
    }
}

#[test]
fn what_is_held_is_not_asked_for_again() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let received = addresses(&mut state, vec![workload(WEB, "1"), workload(DB, "7")], &[]);
    assert_eq!(uids(&received), [WEB, DB]);
    assert_eq!(received.acknowledgement.response_nonce, "n1");
    assert_eq!(received.acknowledgement.error_detail, None);
    assert_eq!(held(&state), pairs(&[(DB, "7"), (WEB, "1")]));

    let received = addresses(&mut state, vec![workload(WEB, "2")], &[DB]);
    assert_eq!(uids(&received), [format!("-{DB}"), WEB.to_owned()]);
    assert_eq!(held(&state), pairs(&[(WEB, "2")]));
}

#[test]
fn services_are_known_by_namespace_and_hostname() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let service = Service::new("web", "shop", "web.shop.svc.cluster.local");
    let bytes = Address::from(&service).encode_to_vec();
    let name = "shop/web.shop.svc.cluster.local";
    let sent = resource(name, "1", ADDRESS_TYPE_URL, bytes);
    let received = addresses(&mut state, vec![sent], &[]);
    assert_eq!(uids(&received), [name]);
}

#[test]
fn a_bad_resource_is_named_and_the_good_ones_are_applied() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let received = addresses(&mut state, vec![legacy(WEB, "1"), workload(DB, "1")], &[]);
    assert_eq!(uids(&received), [DB]);
    let error = received.acknowledgement.error_detail.expect("a NACK");
    assert!(error.message.starts_with(&format!("{WEB}: ")), "{error:?}");
    assert!(error.message.contains("LEGACY_ISTIO_MTLS"), "{error:?}");
    assert_eq!(held(&state), pairs(&[(DB, "1")]));
}

#[test]
fn a_rejected_update_keeps_what_was_held_and_asks_for_it_again() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    addresses(&mut state, vec![workload(WEB, "1")], &[]);
    let received = addresses(&mut state, vec![legacy(WEB, "2")], &[]);
    assert!(uids(&received).is_empty());
    // Left out, its removal while disconnected would never be told.
    assert_eq!(held(&state), pairs(&[(WEB, "")]));
    addresses(&mut state, vec![workload(WEB, "3")], &[]);
    assert_eq!(held(&state), pairs(&[(WEB, "3")]));
}

#[test]
fn content_that_is_not_what_its_envelope_says_is_rejected() {
    let policy_as_address = Resource {
        name: WEB.to_owned(),
        ..policy(0)
    };
    let empty = Resource {
        resource: None,
        ..workload(WEB, "1")
    };
    let renamed = Resource {
        name: DB.to_owned(),
        ..workload(WEB, "1")
    };
    let garbage = resource(WEB, "1", ADDRESS_TYPE_URL, vec![0xff; 7]);
    for bad in [policy_as_address, empty, renamed, garbage] {
        let mut state = State::new(Layer::L4, Subscription::Wildcard);
        let received = addresses(&mut state, vec![bad.clone()], &[]);
        assert!(uids(&received).is_empty(), "{bad:?}");
        assert!(received.acknowledgement.error_detail.is_some(), "{bad:?}");
        assert!(held(&state).is_empty(), "{bad:?}");
    }
}

#[test]
fn the_last_of_two_by_one_name_counts_and_what_comes_back_stays() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    addresses(
        &mut state,
        vec![workload(WEB, "1"), workload(WEB, "2")],
        &[WEB],
    );
    assert_eq!(held(&state), pairs(&[(WEB, "2")]));
}

#[test]
fn a_policy_not_understood_is_rejected_and_denies() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let received = take(
        &mut state,
        response(AUTHORIZATION_TYPE_URL, vec![policy(5)], &[]),
    );
    let update = received.update.expect("a known type");
    let [Change::Authorization(applied)] = &update.changes[..] else {
        panic!("{update:?}");
    };
    assert_eq!(applied.action, Action::Deny);
    assert_eq!(applied.scope, Scope::Namespace);
    assert_eq!(update.rejections[0].name, "shop/allow");
    assert!(received.acknowledgement.error_detail.is_some());
    let versions = first_request(&state, AUTHORIZATION_TYPE_URL).initial_resource_versions;
    assert_eq!(versions.get("shop/allow").map(String::as_str), Some(""));
}

#[test]
fn a_policy_is_removed_by_its_key() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    take(
        &mut state,
        response(AUTHORIZATION_TYPE_URL, vec![policy(0)], &[]),
    );
    let removed = ["shop/allow", "nameless"];
    let received = take(
        &mut state,
        response(AUTHORIZATION_TYPE_URL, Vec::new(), &removed),
    );
    let update = received.update.expect("a known type");
    assert_eq!(
        update.changes,
        [Change::RemoveAuthorization(PolicyKey::new("shop", "allow"))]
    );
}

#[test]
fn a_policy_keeps_all_it_says() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let received = take(
        &mut state,
        response(AUTHORIZATION_TYPE_URL, vec![policy(0)], &[]),
    );
    let expected = Authorization {
        name: "allow".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        dry_run: false,
        targets: Vec::new(),
        rules: Vec::new(),
    };
    let update = received.update.expect("a known type");
    assert_eq!(update.changes, [Change::Authorization(expected)]);
}

#[test]
fn a_type_nobody_asked_for_is_acknowledged() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    let received = take(
        &mut state,
        response("type.example.com/other", vec![policy(0)], &[]),
    );
    assert!(received.update.is_none());
    assert_eq!(received.acknowledgement.type_url, "type.example.com/other");
    assert_eq!(received.acknowledgement.error_detail, None);
}

#[test]
fn a_waypoint_asks_for_what_it_enforces_and_waits_for_all_of_it() {
    let mut state = State::new(Layer::L7, Subscription::Wildcard);
    let requests = state.initial_requests();
    let urls: Vec<&str> = requests.iter().map(|r| r.type_url.as_str()).collect();
    let expected = [
        AUTHORIZATION_POLICY_TYPE_URL,
        REQUEST_AUTHENTICATION_TYPE_URL,
        ROUTE_TYPE_URL,
        ADDRESS_TYPE_URL,
    ];
    assert_eq!(urls, expected);
    for url in expected {
        let synced = take(&mut state, response(url, Vec::new(), &[])).synced;
        assert_eq!(synced, url == ADDRESS_TYPE_URL);
    }
    let l4 = take(
        &mut state,
        response(AUTHORIZATION_TYPE_URL, vec![policy(0)], &[]),
    );
    assert!(l4.update.is_none());
}

#[test]
fn a_route_not_understood_is_rejected_and_refuses() {
    let mut state = State::new(Layer::L7, Subscription::Wildcard);
    let key = RouteKey::new(RouteKind::Http, "shop", "web");
    let name = key.to_string();
    let wire = |kind: &str| WireRoute {
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        ..Default::default()
    };
    let sent = resource(
        &name,
        "1",
        ROUTE_TYPE_URL,
        wire("HTTPRoute").encode_to_vec(),
    );
    let received = take(&mut state, response(ROUTE_TYPE_URL, vec![sent], &[]));
    let update = received.update.expect("a known type");
    let [Change::Route(route)] = &update.changes[..] else {
        panic!("{update:?}");
    };
    assert_eq!(route.key, key);
    assert!(matches!(&route.rules, RouteRules::Http(rules) if rules.len() == 1));
    let error = received.acknowledgement.error_detail.expect("a NACK");
    assert_eq!(error.message, "HTTPRoute/shop/web: rules is missing");
    let held = first_request(&state, ROUTE_TYPE_URL).initial_resource_versions;
    assert_eq!(held.get(&name).map(String::as_str), Some(""));

    // Nothing to refuse: what was held stays.
    let sent = resource(
        &name,
        "2",
        ROUTE_TYPE_URL,
        wire("GRPCRoute").encode_to_vec(),
    );
    let received = take(&mut state, response(ROUTE_TYPE_URL, vec![sent], &[]));
    assert_eq!(received.update.expect("a known type").changes, []);
    assert!(received.acknowledgement.error_detail.is_some());

    let removed = take(&mut state, response(ROUTE_TYPE_URL, Vec::new(), &[&name]));
    let changes = removed.update.expect("a known type").changes;
    assert_eq!(changes, [Change::RemoveRoute(key)]);
}

#[test]
fn whole_policies_that_are_not_understood_are_rejected_and_refuse() {
    let mut state = State::new(Layer::L7, Subscription::Wildcard);
    let bad = |url| resource("shop/web", "1", url, vec![0xff; 7]);
    let url = AUTHORIZATION_POLICY_TYPE_URL;
    let received = take(&mut state, response(url, vec![bad(url)], &[]));
    let update = received.update.expect("a known type");
    let [Change::AuthorizationPolicy(policy)] = &update.changes[..] else {
        panic!("{update:?}");
    };
    assert_eq!(policy.action, Action::Deny);
    assert_eq!(update.rejections[0].name, "shop/web");

    let url = REQUEST_AUTHENTICATION_TYPE_URL;
    let received = take(&mut state, response(url, vec![bad(url)], &[]));
    let update = received.update.expect("a known type");
    let [Change::RequestAuthentication(policy)] = &update.changes[..] else {
        panic!("{update:?}");
    };
    assert!(policy.unparsable.is_some());
    let key = PolicyKey::new("shop", "web");
    let removed = take(&mut state, response(url, Vec::new(), &["shop/web"]));
    let changes = removed.update.expect("a known type").changes;
    assert_eq!(changes, [Change::RemoveRequestAuthentication(key)]);
}

#[test]
fn sync_is_told_once_when_both_types_have_come() {
    let mut state = State::new(Layer::L4, Subscription::Wildcard);
    assert!(!addresses(&mut state, Vec::new(), &[]).synced);
    assert!(!addresses(&mut state, vec![workload(WEB, "1")], &[]).synced);
    let policies = response(AUTHORIZATION_TYPE_URL, Vec::new(), &[]);
    assert!(take(&mut state, policies.clone()).synced);
    assert!(!take(&mut state, policies).synced);
}

fn subscribe() -> Demand {
    Demand::Subscribe("/10.0.0.1".to_owned())
}

#[test]
fn on_demand_names_what_it_wants_and_asks_again_for_what_is_pending() {
    let mut state = State::new(Layer::L4, Subscription::OnDemand);
    let first = first_request(&state, ADDRESS_TYPE_URL);
    assert_eq!(first.resource_names_subscribe, ["*"]);
    assert_eq!(first.resource_names_unsubscribe, ["*"]);

    let request = state.demand(subscribe()).expect("new");
    assert_eq!(request.resource_names_subscribe, ["/10.0.0.1"]);
    assert_eq!(state.demand(subscribe()), None);
    addresses(&mut state, vec![workload(WEB, "1")], &[]);
    assert_eq!(held(&state), pairs(&[("/10.0.0.1", ""), (WEB, "1")]));

    let unsubscribe = || Demand::Unsubscribe("/10.0.0.1".to_owned());
    let request = state.demand(unsubscribe()).expect("was subscribed");
    assert_eq!(request.resource_names_unsubscribe, ["/10.0.0.1"]);
    assert_eq!(state.demand(unsubscribe()), None);
    assert_eq!(held(&state), pairs(&[(WEB, "1")]));

    let mut wildcard = State::new(Layer::L4, Subscription::Wildcard);
    assert_eq!(wildcard.demand(subscribe()), None);
}
