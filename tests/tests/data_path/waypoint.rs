//! Destinations behind a waypoint: a small one, which sees what it is asked for and by whom, and
//! passes it on as itself.

use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use hbone::client::{self, ConnectRequest};
use hbone::copy::{self, Meter, Side};
use hbone::server;
use http::HeaderMap;
use identity::WorkloadCertificate;
use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname};
use mesh::destination::HBONE_PORT;
use mesh::identity::Identity;
use mesh::service::{AppProtocol, Port, Service, WeightedWaypoint};
use mesh::snapshot::Change;
use mesh::workload::{
    ApplicationProtocol, ApplicationTunnel, TunnelProtocol, Workload, WorkloadStatus,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use ztunnel::proxy::access_log::Direction;

use super::lab::{APPLICATION, Lab, PATIENCE};
use super::{SERVICE, close, echo, has_error, identity_of, is_refused, publish_service};

pub(crate) const HOSTNAME: &str = "waypoint.shop.svc.cluster.local";

/// One CONNECT request to the waypoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) authority: String,
    pub(crate) client: Option<Identity>,
}

pub(crate) struct Uncounted;

impl Meter for Uncounted {
    fn received(&self, _: u64) {}
    fn sent(&self, _: u64) {}
}

pub(crate) fn gateway() -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname::new("shop", HOSTNAME)),
        hbone_mtls_port: HBONE_PORT,
    }
}

fn waypoint_workload(lab: &Lab, node: usize) -> Workload {
    let mut workload = lab.workload("waypoint", node);
    let service = NamespacedHostname::new("shop", HOSTNAME);
    workload.services.insert(service, Vec::new());
    workload
}

/// A waypoint on a node, known to the mesh and not captured, that passes everything on to
/// `server`. It shows the certificate of `account`.
pub(crate) fn start(lab: &mut Lab, node: usize, account: &str, server: &str) -> Receiver<Asked> {
    lab.bare_pod_on("waypoint", node);
    let mut service = Service::new("waypoint", "shop", HOSTNAME);
    service.ports = vec![Port {
        service_port: HBONE_PORT,
        target_port: HBONE_PORT,
        app_protocol: AppProtocol::Unknown,
    }];
    let workload = waypoint_workload(lab, node);
    lab.publish([Change::Service(service), Change::Workload(workload)]);
    let (sender, asked) = channel();
    let proxy = Proxy {
        certificate: lab.authority().of(&identity_of(account)),
        server: lab.address(server),
        expected: [identity_of(server)].into(),
        asked: sender,
    };
    lab.run_proxy("waypoint", HBONE_PORT, proxy, Proxy::connection);
    asked
}

struct Proxy {
    certificate: Arc<WorkloadCertificate>,
    server: SocketAddr,
    expected: Arc<[Identity]>,
    asked: Sender<Asked>,
}

impl Proxy {
    async fn connection(self: Rc<Self>, tcp: TcpStream) {
        let tls = self.certificate.server_config();
        let Ok(mut tunnel) = server::accept(tcp, tls, &Default::default()).await else {
            return;
        };
        let client = tunnel.peer().cloned();
        while let Some(Ok(request)) = tunnel.next().await {
            let authority = request
                .authority
                .as_ref()
                .expect("an authority")
                .to_string();
            let client = client.clone();
            // The test may be over.
            let _ = self.asked.send(Asked { authority, client });
            spawn_local(self.clone().pass_on(request));
        }
    }

    /// Both tunnels meet at a socket pair.
    async fn pass_on(self: Rc<Self>, request: server::Request) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let near = TcpStream::connect(listener.local_addr().expect("bound"));
        let (near, far) = tokio::join!(near, listener.accept());
        let (mut near, mut far) = (near.expect("loopback"), far.expect("loopback").0);
        let address = SocketAddr::new(self.server.ip(), HBONE_PORT);
        let tcp = TcpStream::connect(address)
            .await
            .expect("the server's node");
        let tls = self.certificate.client_config(&self.expected);
        let tunnel = client::handshake(tcp, tls, &Default::default()).await;
        let tunnel = tunnel.expect("a tunnel to the server");
        let onward = ConnectRequest::to(self.server, HeaderMap::new());
        let opened = tunnel.open(onward).await;
        let mut onward = opened.expect("admitted");
        let mut stream = request.accept(None).expect("the client waits");
        let (_, _) = tokio::join!(
            copy::tunnel(&mut near, &mut stream, Side::Server, PATIENCE, &Uncounted),
            copy::tunnel(&mut far, &mut onward, Side::Client, PATIENCE, &Uncounted),
        );
    }
}

fn bind_service(lab: &mut Lab) {
    let key = NamespacedHostname::new("shop", "web.shop.svc.cluster.local");
    let snapshot = lab.state.snapshot();
    let service = &snapshot.service(&key).expect("published").service;
    let bound = Service {
        waypoint: Some(gateway()),
        ..service.as_ref().clone()
    };
    lab.publish([Change::Service(bound)]);
}

#[test]
fn a_service_is_asked_for_at_its_waypoint_as_the_client() {
    // Next to the client, the waypoint is still spoken to over its tunnel.
    for node in [1, 2] {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        lab.pod("server", 2);
        let asked = start(&mut lab, node, "waypoint", "server");
        publish_service(&mut lab, &[("server", 2)], TunnelProtocol::Hbone);
        bind_service(&mut lab);

        let (mut stream, caller) = lab.call("client", SERVICE).expect("call");
        assert_eq!(caller, lab.ip("waypoint"));
        echo(&mut stream);
        close(stream);
        let expected = Asked {
            authority: SERVICE.to_string(),
            client: Some(identity_of("client")),
        };
        assert_eq!(asked.recv_timeout(PATIENCE), Ok(expected));

        let record = lab.log_of(1, Direction::Outbound, |_| true);
        assert_eq!(record.error, None);
        assert_eq!(
            record.service.as_deref(),
            Some("web.shop.svc.cluster.local")
        );
        assert_eq!(record.hbone_address, Some(SERVICE.into()));
        let waypoint = SocketAddr::new(lab.ip("waypoint"), HBONE_PORT);
        assert_eq!(record.destination.address, waypoint);
        assert_eq!(record.destination.identity, Some(identity_of("waypoint")));
        assert!(record.tls_group.is_some());
        assert_eq!(record.bytes_received, 5);
        let record = lab.log_of(2, Direction::Inbound, |_| true);
        assert_eq!(record.source.identity, Some(identity_of("waypoint")));
    }
}

#[test]
fn a_workload_behind_a_waypoint_is_asked_for_by_its_own_address() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let asked = start(&mut lab, 2, "waypoint", "server");
    let mut server = lab.workload("server", 2);
    server.waypoint = Some(gateway());
    lab.publish([Change::Workload(server)]);
    let address = lab.address("server");
    let (mut stream, caller) = lab.call("client", address).expect("call");
    assert_eq!(caller, lab.ip("waypoint"));
    echo(&mut stream);
    let asked = asked.recv_timeout(PATIENCE).expect("asked");
    assert_eq!(asked.authority, address.to_string());
}

#[test]
fn nothing_goes_around_a_waypoint_that_is_not_ready() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let _asked = start(&mut lab, 2, "waypoint", "server");
    publish_service(&mut lab, &[("server", 2)], TunnelProtocol::Hbone);
    bind_service(&mut lab);
    let mut waypoint = waypoint_workload(&lab, 2);
    waypoint.status = WorkloadStatus::Unhealthy;
    lab.publish([Change::Workload(waypoint.clone())]);
    assert!(is_refused(lab.call("client", SERVICE)));
    let record = lab.log_of(1, Direction::Outbound, |_| true);
    let needs = "shop/web.shop.svc.cluster.local needs its waypoint \
                 shop/waypoint.shop.svc.cluster.local:15008, which is not ready";
    assert!(has_error(&record, needs), "{record:?}");

    waypoint.status = WorkloadStatus::Healthy;
    lab.publish([Change::Workload(waypoint)]);
    let (mut stream, _) = lab.call("client", SERVICE).expect("ready now");
    echo(&mut stream);
}

#[test]
fn who_is_not_the_waypoint_is_told_nothing() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let asked = start(&mut lab, 2, "impostor", "server");
    publish_service(&mut lab, &[("server", 2)], TunnelProtocol::Hbone);
    bind_service(&mut lab);
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(record, "shop/sa/impostor")
    });
    assert!(asked.try_recv().is_err());
    // The application is there all along, and was not reached.
    let direct = SocketAddr::new(lab.ip("server"), APPLICATION);
    let (mut stream, caller) = lab.call("client", direct).expect("call");
    assert_eq!(caller, lab.ip("client"));
    echo(&mut stream);
}

#[test]
fn weights_choose_among_waypoints_and_none_has_no_traffic() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let asked = start(&mut lab, 2, "waypoint", "server");
    publish_service(&mut lab, &[("server", 2)], TunnelProtocol::Hbone);
    let key = NamespacedHostname::new("shop", "web.shop.svc.cluster.local");
    let snapshot = lab.state.snapshot();
    let service = &snapshot.service(&key).expect("published").service;
    let nowhere = GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname::new("shop", "canary")),
        hbone_mtls_port: HBONE_PORT,
    };
    let weighted = |weights: [u32; 2]| {
        let destinations = [gateway(), nowhere.clone()].into_iter().zip(weights);
        let weighted = destinations.map(|(destination, weight)| WeightedWaypoint {
            destination,
            weight,
        });
        Change::Service(Service {
            weighted_waypoints: weighted.collect(),
            ..service.as_ref().clone()
        })
    };
    lab.publish([weighted([1, 0])]);
    for _ in 0..4 {
        let (mut stream, caller) = lab.call("client", SERVICE).expect("call");
        assert_eq!(caller, lab.ip("waypoint"));
        echo(&mut stream);
        let asked = asked.recv_timeout(PATIENCE).expect("asked");
        assert_eq!(asked.authority, SERVICE.to_string());
    }
    lab.publish([weighted([0, 1])]);
    assert!(is_refused(lab.call("client", SERVICE)));
}

/// A waypoint that speaks no HBONE: its node's tunnel ends it and tells it by PROXY header who asks
/// for what. Its own connections are captured as any pod's.
pub(crate) fn sandwich(lab: &Lab, server: SocketAddr) -> Receiver<(SocketAddr, Vec<u8>)> {
    let own = ("127.0.0.1", 15088);
    let listener = lab.within("waypoint", || std::net::TcpListener::bind(own));
    let listener = listener.expect("a free port");
    let (sender, told) = channel();
    lab.spawn_within("waypoint", move || {
        let (mut near, _) = listener.accept().expect("accept");
        let mut head = [0; 16];
        near.read_exact(&mut head).expect("header");
        let mut rest = vec![0; u16::from_be_bytes([head[14], head[15]]).into()];
        near.read_exact(&mut rest).expect("header");
        let ip = Ipv4Addr::new(rest[4], rest[5], rest[6], rest[7]);
        let asked = SocketAddr::from((ip, u16::from_be_bytes([rest[10], rest[11]])));
        // The test may be over.
        let _ = sender.send((asked, rest[15..].to_vec()));
        let mut far = std::net::TcpStream::connect(server).expect("the server");
        let mut back = (
            far.try_clone().expect("clone"),
            near.try_clone().expect("clone"),
        );
        let answers = std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
        let _ = std::io::copy(&mut near, &mut far);
        let _ = far.shutdown(Shutdown::Write);
        let _ = answers.join();
    });
    told
}

#[test]
fn a_waypoint_behind_its_own_tunnel_is_told_who_asks_and_passes_itself() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    lab.bare_pod_on("waypoint", 2);
    let mut service = Service::new("waypoint", "shop", HOSTNAME);
    service.ports = vec![Port {
        service_port: HBONE_PORT,
        target_port: HBONE_PORT,
        app_protocol: AppProtocol::Unknown,
    }];
    let mut waypoint = waypoint_workload(&lab, 2);
    waypoint.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(15088),
    });
    // The server's own binding would catch the waypoint's connections too, were they not its own.
    let mut server = lab.workload("server", 2);
    server.waypoint = Some(gateway());
    lab.publish([
        Change::Service(service),
        Change::Workload(waypoint),
        Change::Workload(server),
    ]);
    lab.capture("waypoint", 2);
    let target = lab.address("server");
    let told = sandwich(&lab, target);
    let (mut stream, caller) = lab.call("client", target).expect("call");
    assert_eq!(caller, lab.ip("waypoint"));
    echo(&mut stream);
    let (asked, identity) = told.recv_timeout(PATIENCE).expect("told");
    assert_eq!(asked, target);
    assert_eq!(identity, identity_of("client").to_string().into_bytes());
    close(stream);
    let server = lab.log_of(2, Direction::Inbound, |record| {
        record.destination.address == target
    });
    assert_eq!(server.source.identity, Some(identity_of("waypoint")));
}
