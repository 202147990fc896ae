//! What is asked for, how often, and what happens while nobody answers.

use mesh::address::NamespacedHostname;
use mesh::service::Service;
use mesh::snapshot::Change;

use super::*;

struct Scene {
    on_demand: Arc<OnDemand>,
    state: Arc<State>,
    asked: Arc<Mutex<Vec<String>>>,
    client: Workload,
}

fn address(text: &str) -> NetworkAddress {
    NetworkAddress::new("", text.parse().expect("address"))
}

impl Scene {
    fn new() -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let asking = asked.clone();
        let demand = move |demand| {
            let name = match demand {
                Demand::Subscribe(name) => name,
                Demand::Unsubscribe(name) => format!("no more {name}"),
            };
            asking.lock().expect("names").push(name);
        };
        Self {
            on_demand: Arc::new(OnDemand::new(demand)),
            state: Arc::default(),
            asked,
            client: Workload::new("Kubernetes//Pod/shop/client", "client", "shop"),
        }
    }

    fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut snapshot = Snapshot::clone(&self.state.load());
        snapshot.apply(changes);
        self.state.publish(snapshot);
    }

    async fn fetch(&self, text: &str) -> Result<(), NotKnown> {
        self.on_demand
            .fetch(&self.state, &self.client, &address(text))
            .await
    }

    /// Waits for a question to be asked and answers it.
    async fn answer(&self, nth: usize, expected: &str, answer: impl FnOnce()) {
        while self.asked.lock().expect("names").len() <= nth {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.asked.lock().expect("names")[nth], expected);
        answer();
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("names").len()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_asked_for_once_with_its_waypoint() {
    let scene = Scene::new();
    let mut service = Service::new("web", "shop", "web.shop");
    service.addresses = vec![address("10.96.0.1")];
    service.waypoint = Some(GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname::new("shop", "way.shop")),
        hbone_mtls_port: 15008,
    });
    let waypoint = Service::new("way", "shop", "way.shop");
    let answers = async {
        let publish = |service: &Service| scene.publish([Change::Service(service.clone())]);
        scene.answer(0, "/10.96.0.1", || publish(&service)).await;
        scene
            .answer(1, "shop/way.shop", || publish(&waypoint))
            .await;
    };
    let (known, ()) = tokio::join!(scene.fetch("10.96.0.1"), answers);
    assert_eq!(known, Ok(()));
    assert_eq!(scene.fetch("10.96.0.1").await, Ok(()));
    assert_eq!(scene.asked(), 2);
    // The subscription goes on: that it is gone is known without asking again.
    scene.publish([Change::RemoveAddress("shop/web.shop".into())]);
    assert_eq!(scene.fetch("10.96.0.1").await, Ok(()));
    assert_eq!(scene.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_gateway_of_another_network_is_asked_for_too() {
    let scene = Scene::new();
    let mut service = Service::new("web", "shop", "web.shop");
    service.addresses = vec![address("10.96.0.1")];
    let mut far = Workload::new("far/SplitHorizonWorkload/gateway/web", "web", "shop");
    far.network = "far".into();
    far.services.insert(service.key(), Vec::new());
    let gateway = NetworkAddress::new("far", "192.0.2.9".parse().expect("address"));
    far.network_gateway = Some(GatewayAddress {
        destination: GatewayDestination::Address(gateway.clone()),
        hbone_mtls_port: 15008,
    });
    let mut proxy = Workload::new("NetworkGateway/far/192.0.2.9/15008", "gateway", "shop");
    proxy.network = gateway.network;
    proxy.addresses = [gateway.address].into_iter().collect();
    let answers = async {
        let behind = [Change::Service(service), Change::Workload(far)];
        scene
            .answer(0, "/10.96.0.1", || scene.publish(behind))
            .await;
        let proxy = [Change::Workload(proxy)];
        scene
            .answer(1, "far/192.0.2.9", || scene.publish(proxy))
            .await;
    };
    let (known, ()) = tokio::join!(scene.fetch("10.96.0.1"), answers);
    assert_eq!(known, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_nobodys_is_known_to_be() {
    let scene = Scene::new();
    let answers = scene.answer(0, "/192.0.2.1", || scene.on_demand.absent("/192.0.2.1"));
    let (known, ()) = tokio::join!(scene.fetch("192.0.2.1"), answers);
    assert_eq!(known, Ok(()));
    assert_eq!(scene.fetch("192.0.2.1").await, Ok(()));
    assert_eq!(scene.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nothing_is_assumed() {
    let scene = Scene::new();
    let expected = Err(NotKnown::Unanswered("/192.0.2.1".into()));
    assert_eq!(scene.fetch("192.0.2.1").await, expected);
    assert_eq!(scene.fetch("192.0.2.1").await, expected);
    assert_eq!(scene.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_asked_than_can_be_remembered() {
    let scene = Scene::new();
    let on_demand = &scene.on_demand;
    for number in 0..NAMES {
        on_demand.names().ask(&number.to_string(), Instant::now());
    }
    let full = Err(NotKnown::TooMany("/192.0.2.1".into()));
    assert_eq!(scene.fetch("192.0.2.1").await, full);
    assert_eq!(scene.asked(), 0);

    // What nobody has makes room, the oldest first; what is there is kept and needs none.
    on_demand.names().answer("0", Answer::Present);
    on_demand.absent("1");
    on_demand.absent("2");
    let answers = scene.answer(0, "/192.0.2.1", || on_demand.absent("/192.0.2.1"));
    let (known, ()) = tokio::join!(scene.fetch("192.0.2.1"), answers);
    assert_eq!(known, Ok(()));
    let answers = scene.answer(2, "/192.0.2.2", || on_demand.absent("/192.0.2.2"));
    let (known, ()) = tokio::join!(scene.fetch("192.0.2.2"), answers);
    assert_eq!(known, Ok(()));
    assert_eq!(scene.asked.lock().expect("names")[1], "no more 1");
    assert!(on_demand.names().is_answered("0"));

    // And so does what has not been answered in time.
    on_demand.absent("2");
    let late = scene.fetch("192.0.2.3");
    let late = tokio::join!(late, time::sleep(PATIENCE + PATIENCE / 2)).0;
    assert_eq!(late, Err(NotKnown::Unanswered("/192.0.2.3".into())));
    let answers = scene.answer(6, "/192.0.2.4", || on_demand.absent("/192.0.2.4"));
    let (known, ()) = tokio::join!(scene.fetch("192.0.2.4"), answers);
    assert_eq!(known, Ok(()));
    let asked = scene.asked.lock().expect("names").clone();
    assert_eq!(
        asked[3..],
        ["no more 2", "/192.0.2.3", "no more 3", "/192.0.2.4"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_waypoint_is_asked_for_is_asked_for_too() {
    let scene = Scene::new();
    let waypoint = Workload::new("Kubernetes//Pod/shop/waypoint", "waypoint", "shop");
    let mut web = Service::new("web", "shop", "web.shop.svc.cluster.local");
    web.addresses = vec![address("10.96.0.7")];
    let asked = "10.96.0.7".parse().expect("an address");
    let fetch = scene.on_demand.fetch_behind(&scene.state, &waypoint, asked);
    let answers = scene.answer(0, "/10.96.0.7", || {
        scene.publish([Change::Service(web.clone())]);
    });
    assert_eq!(tokio::join!(fetch, answers).0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_a_peer_names_is_asked_for_where_the_workload_backs_it() {
    let scene = Scene::new();
    let web = Service::new("web", "shop", "web.shop.svc.cluster.local");
    let mut server = Workload::new("Kubernetes//Pod/shop/server", "server", "shop");
    server.services.insert(web.key(), Vec::new());
    let fetch = |hostname: &'static str| {
        scene
            .on_demand
            .fetch_backed(&scene.state, &server, hostname)
    };
    assert_eq!(fetch("elsewhere.shop.svc.cluster.local").await, Ok(()));
    assert_eq!(scene.asked(), 0);
    let answers = scene.answer(0, "shop/web.shop.svc.cluster.local", || {
        scene.publish([Change::Service(web.clone())]);
    });
    let (fetched, ()) = tokio::join!(fetch("WEB.shop.svc.cluster.local"), answers);
    assert_eq!(fetched, Ok(()));
    assert_eq!(fetch("web.shop.svc.cluster.local").await, Ok(()));
    assert_eq!(scene.asked(), 1);
}
