//! Two networks that nothing routes between, and a gateway that is in both: it ends the tunnel it is
//! called by and passes on what is in it, which it can't read.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hbone::copy::{self, Side};
use hbone::server;
use identity::WorkloadCertificate;
use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress};
use mesh::service::{AppProtocol, Port, Service};
use mesh::snapshot::Change;
use mesh::workload::{TunnelProtocol, Workload};
use tests::lab::scale::scaled;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use ztunnel::proxy::access_log::Direction;

use super::lab::{APPLICATION, Lab, PATIENCE};
use super::waypoint::{self, Asked, Uncounted};
use super::{
    SERVICE, close, cut, deny_account, echo, echo_bulk, has_error, identity_of, is_refused, until,
};

const HOSTNAME: &str = "web.shop.svc.cluster.local";
/// Where the gateway ends tunnels. It is not 15008 everywhere.
const GATEWAY_PORT: u16 = 15018;

/// A gateway that shows the certificate of `account` and passes everything on to 15008 of `to`.
fn start_gateway(lab: &mut Lab, account: &str, to: &str) -> Receiver<Asked> {
    lab.bare_pod("gateway");
    lab.join("gateway");
    let (sender, asked) = channel();
    let gateway = Gateway {
        certificate: lab.authority().of(&identity_of(account)),
        to: SocketAddr::new(lab.ip(to), 15008),
        asked: sender,
    };
    lab.run_proxy("gateway", GATEWAY_PORT, gateway, Gateway::connection);
    asked
}

struct Gateway {
    certificate: Arc<WorkloadCertificate>,
    to: SocketAddr,
    asked: Sender<Asked>,
}

impl Gateway {
    async fn connection(self: Rc<Self>, tcp: TcpStream) {
        let tls = self.certificate.server_config();
        let Ok(mut tunnel) = server::accept(tcp, tls, &Default::default()).await else {
            return;
        };
        let client = tunnel.peer().cloned();
        while let Some(Ok(request)) = tunnel.next().await {
            let authority = request.authority.as_ref().map(ToString::to_string);
            let asked = Asked {
                authority: authority.expect("an authority"),
                client: client.clone(),
            };
            // The test may be over.
            let _ = self.asked.send(asked);
            spawn_local(pass_on(request, self.to));
        }
    }
}

async fn pass_on(request: server::Request, to: SocketAddr) {
    let mut onward = TcpStream::connect(to).await.expect("the far network");
    let mut stream = request.accept(None).expect("the client waits");
    // Either end may break it off.
    let _ = copy::tunnel(&mut onward, &mut stream, Side::Server, PATIENCE, &Uncounted).await;
}

/// Has the far network entered by a service of these proxies, instead of one address.
fn publish_proxies(lab: &mut Lab, names: &[&str]) {
    let mut gateway = Service::new("gateway", "shop", "gateway.shop.svc.cluster.local");
    gateway.ports = vec![Port {
        service_port: GATEWAY_PORT,
        target_port: GATEWAY_PORT,
        app_protocol: AppProtocol::Unknown,
    }];
    let proxy = |name: &&str| {
        let mut proxy = lab.workload(name, 2);
        proxy.service_account = "gateway".into();
        proxy.addresses = [lab.ip(name)].into();
        let ports = gateway.ports.clone();
        proxy.services.insert(gateway.key(), ports);
        Change::Workload(proxy)
    };
    let proxies: Vec<_> = names.iter().map(proxy).collect();
    let mut folded = folded(lab, &web("server"));
    folded.network_gateway = Some(GatewayAddress {
        destination: GatewayDestination::Hostname(gateway.key()),
        hbone_mtls_port: GATEWAY_PORT,
    });
    let others = [Change::Service(gateway), Change::Workload(folded)];
    lab.publish(others.into_iter().chain(proxies));
}

fn gateway_address(lab: &Lab) -> GatewayAddress {
    let address = NetworkAddress::new("far", lab.ip("gateway"));
    GatewayAddress {
        destination: GatewayDestination::Address(address),
        hbone_mtls_port: GATEWAY_PORT,
    }
}

/// What stands for all of a service's endpoints in the far network, as istiod folds them.
fn folded(lab: &Lab, service: &Service) -> Workload {
    let uid = format!("far/SplitHorizonWorkload/gateway/{}", service.key());
    let mut workload = Workload::new(&uid, &service.name, "shop");
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload.network = "far".into();
    workload.network_gateway = Some(gateway_address(lab));
    workload
        .services
        .insert(service.key(), service.ports.clone());
    workload
}

/// `web`, which `server` in the far network backs and `account` answers for.
fn web(account: &str) -> Service {
    let mut service = Service::new("web", "shop", HOSTNAME);
    service.addresses = ["near", "far"]
        .map(|network| NetworkAddress::new(network, SERVICE.ip()))
        .into();
    service.ports = vec![Port {
        service_port: SERVICE.port(),
        target_port: APPLICATION,
        app_protocol: AppProtocol::Unknown,
    }];
    service.subject_alt_names = vec![identity_of(account).to_string().into()];
    service
}

fn publish(lab: &mut Lab, service: Service) {
    let mut server = lab.workload("server", 2);
    server.services.insert(service.key(), service.ports.clone());
    let mut gateway = Workload::new("NetworkGateway/far/gateway/15018", "gateway", "shop");
    gateway.service_account = "gateway".into();
    gateway.tunnel_protocol = TunnelProtocol::Hbone;
    gateway.network = "far".into();
    gateway.addresses = [lab.ip("gateway")].into();
    let folded = folded(lab, &service);
    lab.publish([
        Change::Service(service),
        Change::Workload(server),
        Change::Workload(folded),
        Change::Workload(gateway),
    ]);
}

fn two_networks(gateway: &str, answers: &str) -> (Lab, Receiver<Asked>) {
    let mut lab = Lab::of_two_networks();
    let asked = people(&mut lab, gateway, answers);
    (lab, asked)
}

fn people(lab: &mut Lab, gateway: &str, answers: &str) -> Receiver<Asked> {
    lab.pod("client", 1);
    lab.pod("server", 2);
    let asked = start_gateway(lab, gateway, "server");
    publish(lab, web(answers));
    asked
}

#[test]
fn a_service_of_another_network_is_reached_through_its_gateway() {
    let (lab, asked) = two_networks("gateway", "server");
    let (mut stream, caller) = lab.call("client", SERVICE).expect("call");
    // An address of the client's network would mean nothing there.
    assert_eq!(caller, lab.far_ip("gateway"));
    echo(&mut stream);
    close(stream);
    let expected = Asked {
        authority: format!("{HOSTNAME}:80"),
        client: Some(identity_of("client")),
    };
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(expected));

    let outbound = lab.log_of(1, Direction::Outbound, |_| true);
    let inbound = lab.log_of(2, Direction::Inbound, |_| true);
    let gateway = SocketAddr::new(lab.ip("gateway"), GATEWAY_PORT);
    assert_eq!(outbound.destination.address, gateway);
    assert_eq!(inbound.source.address.ip(), lab.far_ip("gateway"));
    for record in [outbound, inbound] {
        assert_eq!(record.error, None);
        assert_eq!(record.source.identity, Some(identity_of("client")));
        assert_eq!(record.destination.identity, Some(identity_of("server")));
        assert_eq!(record.service.as_deref(), Some(HOSTNAME));
        let asked = record.hbone_address.expect("asked for").to_string();
        assert_eq!(asked, format!("{HOSTNAME}:80"));
        assert_eq!(record.bytes_received, 5);
        assert!(record.tls_group.is_some());
        // Each knows the other only by what it says of itself.
        let source = record.source.workload.expect("described");
        let destination = record.destination.workload.expect("described");
        assert_eq!(&*source.workload_name, "client");
        assert_eq!(&*destination.canonical_name, "server");
    }
}

#[test]
fn what_is_large_passes_a_gateway_unchanged_and_half_closed() {
    const SIZE: usize = 16 << 20;
    let (lab, _asked) = two_networks("gateway", "server");
    let (stream, _) = lab.call("client", SERVICE).expect("call");
    echo_bulk(stream, SIZE);
}

/// Each connection has a tunnel of its own, and all come from the gateway's address.
#[test]
fn hundreds_of_connections_pass_one_gateway_at_a_time() {
    const CROWD: usize = 200;
    let (lab, _asked) = two_networks("gateway", "server");
    let call = |_| lab.call("client", SERVICE).expect("call").0;
    let mut crowd: Vec<_> = (0..CROWD).map(call).collect();
    assert_eq!(lab.open_connections(2), CROWD);
    crowd.iter_mut().for_each(echo);
}

#[test]
fn the_far_nodes_policy_is_about_the_client_behind_the_gateway() {
    let (mut lab, _asked) = two_networks("gateway", "server");
    let mut open = lab.call("client", SERVICE).expect("call").0;
    lab.publish([deny_account("client")]);
    cut(&mut open);
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| has_error(record, "401"));
}

/// The gateway's is that of the tunnel to it, the server's that of the tunnel within.
#[test]
fn a_revoked_certificate_of_either_tunnel_cuts_what_is_open_and_opens_nothing_more() {
    let promised = scaled(PATIENCE, Duration::from_secs(3));
    for revoked in ["gateway", "server"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut lab = Lab::of_two_networks();
        lab.keep_revocation_lists(folder.path().join("crl.pem"));
        let asked = people(&mut lab, "gateway", "server");
        let mut open = lab.call("client", SERVICE).expect("call").0;
        echo(&mut open);
        assert!(asked.recv_timeout(PATIENCE).is_ok());

        lab.revoke(&[revoked]);
        assert!(cut(&mut open) < promised, "{revoked}");
        until("the far node lets go of it", || {
            lab.open_connections(2) == 0
        });
        assert!(is_refused(lab.call("client", SERVICE)), "{revoked}");
        for received in [5, 0] {
            lab.log_of(1, Direction::Outbound, |record| {
                record.bytes_received == received && has_error(record, "revoked")
            });
        }
        // Whoever is not to be trusted learns nothing of who is called.
        assert!(revoked != "gateway" || asked.try_recv().is_err());
        assert_eq!(lab.open_connections(2), 0);
    }
}

#[test]
fn who_is_not_the_gateway_is_told_nothing() {
    let (lab, asked) = two_networks("impostor", "server");
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(record, "shop/sa/impostor")
    });
    assert!(asked.try_recv().is_err());
}

#[test]
fn only_whom_the_service_vouches_for_answers_behind_the_gateway() {
    let (lab, asked) = two_networks("gateway", "somebody-else");
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(record, "shop/sa/server")
    });
    assert!(asked.recv_timeout(PATIENCE).is_ok());
}

#[test]
fn a_gateways_proxy_that_is_down_is_passed_over_and_left_alone() {
    let mut lab = Lab::with(["near", "far"], |config| config.ejection.base = PATIENCE);
    lab.pod("client", 1);
    lab.pod("server", 2);
    let _asked = start_gateway(&mut lab, "gateway", "server");
    lab.bare_pod("down");
    publish(&mut lab, web("server"));
    publish_proxies(&mut lab, &["gateway", "down"]);
    for _ in 0..16 {
        let (mut stream, _) = lab.call("client", SERVICE).expect("the other proxy");
        echo(&mut stream);
    }
    assert_eq!(lab.ejected(1), ["Kubernetes//Pod/shop/down"]);
}

#[test]
fn a_waypoint_in_another_network_is_asked_for_the_service() {
    let mut lab = Lab::of_two_networks();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let at_waypoint = waypoint::start(&mut lab, 2, "waypoint", "server");
    let at_gateway = start_gateway(&mut lab, "gateway", "waypoint");
    let mut service = web("server");
    service.waypoint = Some(waypoint::gateway());
    publish(&mut lab, service);
    let key = NamespacedHostname::new("shop", waypoint::HOSTNAME);
    let known = lab.state.snapshot();
    let known = &known.service(&key).expect("published").service;
    let vouching = Service {
        subject_alt_names: vec![identity_of("waypoint").to_string().into()],
        ..known.as_ref().clone()
    };
    let folded = folded(&lab, &vouching);
    lab.publish([Change::Service(vouching), Change::Workload(folded)]);

    let (mut stream, caller) = lab.call("client", SERVICE).expect("call");
    assert_eq!(caller, lab.ip("waypoint"));
    echo(&mut stream);
    let expected = Asked {
        authority: format!("{HOSTNAME}:80"),
        client: Some(identity_of("client")),
    };
    assert_eq!(at_gateway.recv_timeout(PATIENCE).as_ref(), Ok(&expected));
    assert_eq!(at_waypoint.recv_timeout(PATIENCE), Ok(expected));
}
