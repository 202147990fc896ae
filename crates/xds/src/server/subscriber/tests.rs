//! The server's half of delta xDS, request by request.

use std::sync::Arc;
use std::time::Duration;

use mesh::address::{NamespacedHostname, NetworkAddress};
use mesh::authorization::{Action, Authorization, PolicyKey, Scope};
use mesh::service::Service;
use mesh::snapshot::Change;
use mesh::workload::Workload;
use proptest::collection::vec;
use proptest::prelude::*;
use proto::discovery::Status;

use super::*;
use crate::client::{State, Subscription};
use crate::resource_type::Layer;

const SERVICE: &str = "shop/web.shop.svc.cluster.local";

fn uid(name: &str) -> String {
    format!("Kubernetes//Pod/shop/{name}")
}

fn pod(name: &str, node: &str, last_byte: u8) -> Change {
    let mut workload = Workload::new(&uid(name), name, "shop");
    workload.addresses = [[10, 0, 0, last_byte].into()].into_iter().collect();
    workload.node = node.into();
    if name.starts_with("web") {
        let key = NamespacedHostname::parse(SERVICE).expect("literal");
        workload.services.insert(key, Vec::new());
    }
    Change::Workload(workload)
}

fn service() -> Change {
    let mut service = Service::new("web", "shop", "web.shop.svc.cluster.local");
    service.addresses = vec![NetworkAddress::new("", [10, 96, 0, 1].into())];
    Change::Service(service)
}

fn policy() -> Change {
    Change::Authorization(Authorization {
        name: "allow".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        dry_run: false,
        targets: Vec::new(),
        rules: Vec::new(),
    })
}

/// A client and the set it is served from.
struct Scenario {
    set: ResourceSet,
    subscriber: Subscriber,
}

impl Scenario {
    fn new(changes: &[Change]) -> Self {
        let mut set = ResourceSet::default();
        set.apply(changes);
        Self {
            set,
            subscriber: Subscriber::new("node-1".to_owned()),
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) -> &mut Self {
        let request = DeltaDiscoveryRequest {
            type_url: ResourceType::Address.url().to_owned(),
            ..request
        };
        self.subscriber.receive(request, now());
        self
    }

    fn wildcard(&mut self, held: &[(&str, &str)]) -> &mut Self {
        let own = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        self.request(DeltaDiscoveryRequest {
            initial_resource_versions: held.iter().map(own).collect(),
            ..Default::default()
        })
    }

    fn on_demand(&mut self) -> &mut Self {
        self.request(DeltaDiscoveryRequest {
            resource_names_subscribe: vec!["*".to_owned()],
            resource_names_unsubscribe: vec!["*".to_owned()],
            ..Default::default()
        })
    }

    fn subscribe(&mut self, name: &str) -> &mut Self {
        self.request(DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name.to_owned()],
            ..Default::default()
        })
    }

    fn version(&self, name: &str) -> String {
        let resource = self.set.get(ResourceType::Address, name);
        resource.expect("in the set").version.as_ref().to_owned()
    }

    /// The next response: its names, removed ones with a minus. It is acknowledged.
    fn answer(&mut self) -> Vec<String> {
        let response = self.subscriber.next(&self.set).expect("a response");
        let acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.subscriber.receive(acknowledgement, now());
        names(&response)
    }

    fn silence(&mut self) {
        assert_eq!(self.subscriber.next(&self.set), None);
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let sent = response
        .resources
        .iter()
        .map(|resource| resource.name.clone());
    let removed = response
        .removed_resources
        .iter()
        .map(|name| format!("-{name}"));
    sent.chain(removed).collect()
}

#[test]
fn a_wildcard_client_gets_everything_and_then_what_changes() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1), pod("web-0", "node-1", 2)]);
    scenario.wildcard(&[]);
    assert_eq!(scenario.answer(), [uid("db"), uid("web-0")]);
    scenario.silence();

    scenario.set.apply(&[pod("web-0", "node-1", 3)]);
    assert_eq!(scenario.answer(), [uid("web-0")]);
    scenario
        .set
        .apply(&[Change::RemoveAddress(uid("db").into())]);
    assert_eq!(scenario.answer(), [format!("-{}", uid("db"))]);
    scenario.set.apply(&[pod("web-0", "node-1", 3)]);
    scenario.silence();
}

#[test]
fn a_client_that_comes_back_gets_only_what_it_lacks() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1), pod("web-0", "node-1", 2)]);
    let version = scenario.version(&uid("db"));
    scenario.wildcard(&[
        (&uid("db"), &version),
        (&uid("web-0"), "old"),
        ("gone", "1"),
    ]);
    assert_eq!(scenario.answer(), [uid("web-0"), "-gone".to_owned()]);
}

#[test]
fn the_first_request_is_answered_even_with_nothing() {
    let mut scenario = Scenario::new(&[]);
    scenario.wildcard(&[]);
    assert!(scenario.answer().is_empty());
    scenario.silence();
}

#[test]
fn nothing_is_sent_while_an_answer_is_outstanding() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    scenario.wildcard(&[]);
    let first = scenario.subscriber.next(&scenario.set).expect("a response");
    for byte in 2..5 {
        scenario.set.apply(&[pod("db", "node-2", byte)]);
        scenario.silence();
    }
    scenario.set.apply(&[
        Change::RemoveAddress(uid("db").into()),
        pod("web-0", "node-1", 9),
    ]);
    scenario.request(DeltaDiscoveryRequest {
        response_nonce: "of another response".to_owned(),
        ..Default::default()
    });
    scenario.silence();
    scenario.request(DeltaDiscoveryRequest {
        response_nonce: first.nonce,
        ..Default::default()
    });
    assert_eq!(scenario.answer(), [uid("web-0"), format!("-{}", uid("db"))]);
}

#[test]
fn a_rejection_is_remembered_and_the_resource_not_repeated() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    scenario.wildcard(&[]);
    let response = scenario.subscriber.next(&scenario.set).expect("a response");
    scenario.request(DeltaDiscoveryRequest {
        response_nonce: response.nonce,
        error_detail: Some(Status {
            message: "db: no".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    scenario.silence();
    let status = &scenario.subscriber.status()[&ResourceType::Address];
    assert_eq!((status.sent, status.acked, status.resources), (1, 1, 1));
    assert_eq!(status.nacks.len(), 1);
    assert_eq!(status.nacks[0].message, "db: no");
    assert_eq!(status.nacks[0].time, now());
}

#[test]
fn types_are_served_apart() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1), policy()]);
    scenario.wildcard(&[]);
    let policies = DeltaDiscoveryRequest {
        type_url: ResourceType::Authorization.url().to_owned(),
        ..Default::default()
    };
    scenario.subscriber.receive(policies, now());
    assert_eq!(scenario.answer(), ["shop/allow"]);
    assert_eq!(scenario.answer(), [uid("db")]);
    scenario.silence();
}

/// Policies of what is new are known before it, and forgotten after it.
#[test]
fn nothing_is_known_without_its_policies() {
    let mut scenario = Scenario::new(&[]);
    scenario.wildcard(&[]);
    let watch = |nonce: String| DeltaDiscoveryRequest {
        type_url: ResourceType::Authorization.url().to_owned(),
        response_nonce: nonce,
        ..Default::default()
    };
    scenario.subscriber.receive(watch(String::new()), now());
    let nothing: [&str; 0] = [];
    assert_eq!(scenario.answer(), nothing);
    assert_eq!(scenario.answer(), nothing);

    scenario.set.apply(&[pod("db", "node-2", 1), policy()]);
    assert_eq!(scenario.answer(), ["shop/allow"]);
    assert_eq!(scenario.answer(), [uid("db")]);

    scenario.set.apply(&[
        Change::RemoveAuthorization(PolicyKey::new("shop", "allow")),
        Change::RemoveAddress(uid("db").into()),
    ]);
    assert_eq!(scenario.answer(), [format!("-{}", uid("db"))]);
    assert_eq!(scenario.answer(), ["-shop/allow"]);
    scenario.silence();

    // While the client has not answered for policies, what is newer and may be about them waits.
    scenario.set.apply(&[policy()]);
    let first = scenario.subscriber.next(&scenario.set).expect("a response");
    scenario.set.apply(&[pod("web-1", "node-2", 2)]);
    assert_eq!(scenario.answer(), [uid("web-1")]);
    let mut other = policy();
    if let Change::Authorization(policy) = &mut other {
        policy.name = "other".into();
    }
    scenario.set.apply(&[pod("web-2", "node-2", 3), other]);
    scenario.silence();
    scenario.subscriber.receive(watch(first.nonce), now());
    assert_eq!(scenario.answer(), ["shop/other"]);
    assert_eq!(scenario.answer(), [uid("web-2")]);
    scenario.silence();
}

#[test]
fn a_type_that_is_not_served_is_answered_with_nothing() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    let request = DeltaDiscoveryRequest {
        type_url: "type.example.com/other".to_owned(),
        ..Default::default()
    };
    scenario.subscriber.receive(request.clone(), now());
    let response = scenario.subscriber.next(&scenario.set).expect("a response");
    assert_eq!(response.type_url, request.type_url);
    assert!(names(&response).is_empty());
    let acknowledgement = DeltaDiscoveryRequest {
        response_nonce: response.nonce,
        ..request
    };
    scenario.subscriber.receive(acknowledgement, now());
    scenario.silence();
}

#[test]
fn an_on_demand_client_gets_its_own_nodes_pods_and_what_it_names() {
    let mut scenario = Scenario::new(&[
        service(),
        pod("db", "node-2", 1),
        pod("own", "node-1", 2),
        pod("web-0", "node-2", 3),
    ]);
    scenario.on_demand();
    assert_eq!(scenario.answer(), [uid("own")]);
    scenario.subscribe("/10.0.0.1");
    assert_eq!(scenario.answer(), [uid("db")]);
    scenario.subscribe("/10.96.0.1");
    assert_eq!(scenario.answer(), [uid("web-0"), SERVICE.to_owned()]);

    scenario
        .set
        .apply(&[pod("web-1", "node-3", 4), pod("other", "node-3", 5)]);
    assert_eq!(scenario.answer(), [uid("web-1")]);
    scenario
        .set
        .apply(&[Change::RemoveAddress(uid("web-0").into())]);
    assert_eq!(scenario.answer(), [format!("-{}", uid("web-0"))]);
}

#[test]
fn aliases_are_told_to_those_who_ask_by_them() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    scenario.on_demand();
    scenario.answer();
    scenario.subscribe("/10.0.0.1");
    let response = scenario.subscriber.next(&scenario.set).expect("a response");
    assert_eq!(response.resources[0].aliases, ["/10.0.0.1"]);
}

#[test]
fn a_name_without_answer_comes_back_removed_and_later_appears() {
    let mut scenario = Scenario::new(&[]);
    scenario.on_demand();
    scenario.answer();
    scenario.subscribe("/10.0.0.1");
    assert_eq!(scenario.answer(), ["-/10.0.0.1"]);
    scenario.silence();
    scenario.set.apply(&[pod("db", "node-2", 1)]);
    assert_eq!(scenario.answer(), [uid("db")]);
}

#[test]
fn unsubscribing_ends_it_without_a_word() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    scenario.on_demand();
    scenario.answer();
    scenario.subscribe(&uid("db"));
    assert_eq!(scenario.answer(), [uid("db")]);
    scenario.request(DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec![uid("db")],
        ..Default::default()
    });
    scenario.silence();
    scenario.set.apply(&[pod("db", "node-2", 2)]);
    scenario.silence();
}

#[test]
fn an_on_demand_client_that_comes_back_keeps_what_it_has() {
    let mut scenario = Scenario::new(&[pod("db", "node-2", 1)]);
    let version = scenario.version(&uid("db"));
    let had = [
        (uid("db"), version),
        ("/10.0.0.9".to_owned(), String::new()),
    ];
    scenario.request(DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["*".to_owned()],
        resource_names_unsubscribe: vec!["*".to_owned()],
        initial_resource_versions: had.into(),
        ..Default::default()
    });
    assert_eq!(scenario.answer(), ["-/10.0.0.9"]);
}

#[derive(Clone, Debug)]
enum Step {
    Change(Box<Change>),
    /// The client takes one response in and answers it.
    Deliver,
    /// The stream breaks, with what was on its way.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, any::<u8>()).prop_map(|(n, byte)| {
            Step::Change(Box::new(pod(&format!("pod-{n}"), "node-2", byte)))
        }),
        2 => (0..4u8).prop_map(|n| {
            Step::Change(Box::new(Change::RemoveAddress(uid(&format!("pod-{n}")).into())))
        }),
        4 => Just(Step::Deliver),
        1 => Just(Step::Reconnect),
    ]
}

/// Both halves and the client's idea of the set.
struct Pair {
    scenario: Scenario,
    client: State,
    held: BTreeMap<Arc<str>, Workload>,
}

impl Pair {
    fn connect(&mut self) {
        self.scenario.subscriber = Subscriber::new("node-1".to_owned());
        for request in self.client.initial_requests() {
            self.scenario.subscriber.receive(request, now());
        }
    }

    fn deliver(&mut self) -> bool {
        let scenario = &mut self.scenario;
        let Some(response) = scenario.subscriber.next(&scenario.set) else {
            return false;
        };
        let received = self.client.receive((&response).into());
        let received = received.expect("decodes");
        scenario.subscriber.receive(received.acknowledgement, now());
        for change in received.update.expect("a known type").changes {
            match change {
                Change::Workload(workload) => {
                    self.held.insert(workload.uid.0.clone(), workload);
                }
                Change::RemoveAddress(name) => {
                    self.held.remove(&name);
                }
                other => panic!("{other:?}"),
            }
        }
        true
    }
}

proptest! {
    #[test]
    fn both_halves_agree_in_the_end(steps in vec(step(), 0..40)) {
        let mut pair = Pair {
            scenario: Scenario::new(&[]),
            client: State::new(Layer::L4, Subscription::Wildcard),
            held: BTreeMap::new(),
        };
        pair.connect();
        let mut expected = BTreeMap::new();
        for step in steps {
            match step {
                Step::Change(change) => {
                    pair.scenario.set.apply([change.as_ref()]);
                    match *change {
                        Change::Workload(workload) => {
                            expected.insert(workload.uid.0.clone(), workload);
                        }
                        Change::RemoveAddress(name) => {
                            expected.remove(&name);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Step::Deliver => {
                    pair.deliver();
                }
                Step::Reconnect => pair.connect(),
            }
        }
        while pair.deliver() {}
        prop_assert_eq!(pair.held, expected);
    }
}
