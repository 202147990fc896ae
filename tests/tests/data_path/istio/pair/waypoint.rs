//! Services and workloads behind waypoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;

use mesh::address::{GatewayAddress, GatewayDestination, NetworkAddress};
use mesh::destination::HBONE_PORT;
use mesh::service::{Service, WeightedWaypoint};
use mesh::snapshot::Change;
use mesh::workload::{ApplicationProtocol, ApplicationTunnel, Workload, WorkloadStatus};

use super::{Pair, pods, web_of_server};
use crate::counterpart::{Behind, Counterpart, Credentials, Heard};
use crate::golden::source::client_hello;
use crate::lab::{Lab, PATIENCE};
use crate::objects::{HOSTNAME, described, only, tunnel_request, waypoint};
use crate::waypoint::sandwich;
use crate::{SERVICE, close, echo, identity_of, is_refused};

/// Runs a waypoint in a pod of its own, which passes on to `server`.
fn run(lab: &mut Lab, pod: &str, account: &str) -> Receiver<Heard> {
    lab.bare_pod_on(pod, 2);
    let credentials = Credentials::issue(lab.authority().signer(), &identity_of(account));
    let behind = Behind::Waypoint(lab.address("server"));
    let (counterpart, hearing) = Counterpart::new(credentials, behind);
    counterpart.run(lab, pod, HBONE_PORT);
    hearing
}

fn client(lab: &Lab) -> Change {
    Change::Workload(described(lab, "client", 1))
}

#[test]
fn a_waypoint_is_asked_for_what_the_application_dialled_and_asks_in_turn() {
    check_waypoint(|lab| waypoint(lab, "waypoint", 2).0.destination);
    check_waypoint(|lab| {
        let address = NetworkAddress::new("", lab.ip("waypoint"));
        GatewayDestination::Address(address)
    });
}

/// The client, and the server and its service bound to a waypoint.
fn web_behind(
    lab: &Lab,
    waypoint: GatewayAddress,
    its_service: Service,
    its_workload: Workload,
) -> Vec<Change> {
    let (mut service, mut server) = web_of_server(lab, &[""]);
    service.waypoint = Some(waypoint.clone());
    server.waypoint = Some(waypoint);
    vec![
        client(lab),
        Change::Service(its_service),
        Change::Workload(its_workload),
        Change::Service(service),
        Change::Workload(server),
    ]
}

fn check_waypoint(bound_to: impl Fn(&Lab) -> GatewayDestination) {
    let mut lab = pods();
    let hearing = run(&mut lab, "waypoint", "waypoint");
    let (mut address, its_service, its_workload) = waypoint(&lab, "waypoint", 2);
    address.destination = bound_to(&lab);
    let mut known = web_behind(&lab, address, its_service, its_workload);
    // Who goes past it is not let in.
    known.push(only("waypoint"));
    let pair = Pair::start(lab, [&["client"], &["server"]], &known);
    let lab = &pair.lab;
    for (dialled, host) in [(SERVICE, Some(HOSTNAME)), (lab.address("server"), None)] {
        let (mut stream, caller) = lab.call("client", dialled).expect("call");
        assert_eq!(caller, lab.ip("waypoint"));
        let source = stream.local_addr().expect("bound");
        echo(&mut stream);
        close(stream);
        let heard = Heard::next(&hearing);
        assert_eq!(
            heard.head,
            tunnel_request(&dialled.to_string(), source, host)
        );
        assert_eq!(heard.hello.settings, client_hello().settings);
        assert_eq!(heard.hello.identity, Some(identity_of("client")));
    }
    let principal = identity_of("waypoint").to_string();
    let labels = [
        ("reporter", "destination"),
        ("source_principal", principal.as_str()),
        ("destination_workload", "server"),
    ];
    pair.counted(2, &labels);
}

#[test]
fn the_bypass_of_a_waypoint_is_what_policy_allows() {
    let mut lab = pods();
    let _hearing = run(&mut lab, "waypoint", "waypoint");
    let (address, its_service, its_workload) = waypoint(&lab, "waypoint", 2);
    let (_, server) = web_of_server(&lab, &[""]);
    let mut bound = server.clone();
    bound.waypoint = Some(address);
    let waypoints = [Change::Service(its_service), Change::Workload(its_workload)];
    let unaware = [client(&lab), Change::Workload(server)];
    let mut aware = vec![Change::Workload(bound.clone()), only("waypoint")];
    aware.extend(waypoints.clone());
    let pods: [&[&str]; 2] = [&["client"], &["server"]];
    let pair = Pair::in_networks(lab, ["", ""], pods, [&unaware, &aware]);
    // The client's node has not heard of the waypoint: no server asks who passed it, but a policy does.
    let target = pair.lab.address("server");
    assert!(is_refused(pair.lab.call("client", target)));
    pair.tell(1, &waypoints);
    pair.tell(1, &[Change::Workload(bound)]);
    pair.nodes[0].until("the way is the waypoint's", || {
        pair.lab.call("client", target).is_ok()
    });
}

#[test]
fn nobody_but_a_ready_waypoint_is_spoken_to() {
    for (account, status) in [
        ("impostor", WorkloadStatus::Healthy),
        ("waypoint", WorkloadStatus::Unhealthy),
    ] {
        let mut lab = pods();
        let hearing = run(&mut lab, "waypoint", account);
        let (address, its_service, mut its_workload) = waypoint(&lab, "waypoint", 2);
        its_workload.status = status;
        let known = web_behind(&lab, address, its_service, its_workload);
        let pair = Pair::start(lab, [&["client"], &["server"]], &known);
        for target in [SERVICE, pair.lab.address("server")] {
            assert!(is_refused(pair.lab.call("client", target)), "{account}");
        }
        assert!(hearing.try_recv().is_err(), "{account}");
    }
}

#[test]
fn weights_decide_between_waypoints() {
    let mut lab = pods();
    let names = ["stable", "canary", "plain"];
    let hearing = names.map(|name| run(&mut lab, name, name));
    let waypoints = names.map(|name| waypoint(&lab, name, 2));
    let (web, server) = web_of_server(&lab, &[""]);
    let mut known = vec![client(&lab), Change::Workload(server)];
    for (_, service, workload) in &waypoints {
        known.push(Change::Service(service.clone()));
        known.push(Change::Workload(workload.clone()));
    }
    let [stable, canary, plain] = waypoints.map(|(address, ..)| address);
    // Calls enough for both to be drawn, but for one time in eight million.
    let cases = [
        ([1, 1], 24, [true, true, false]),
        ([0, 1], 4, [false, true, false]),
        ([0, 0], 4, [false, false, true]),
    ];
    let weighted = |number: u8, weights: [u32; 2]| {
        let ip = IpAddr::from([10, 96, 0, 81 + number]);
        let mut service = Service {
            addresses: vec![NetworkAddress::new("", ip)],
            ports: web.ports.clone(),
            waypoint: Some(plain.clone()),
            ..Service::new("web", "shop", &format!("web-{number}.{HOSTNAME}"))
        };
        let weighted = [&stable, &canary].into_iter().zip(weights);
        service.weighted_waypoints = weighted
            .map(|(destination, weight)| WeightedWaypoint {
                destination: destination.clone(),
                weight,
            })
            .collect();
        service
    };
    let services: Vec<_> = (0..)
        .zip(cases)
        .map(|(number, (weights, ..))| weighted(number, weights))
        .collect();
    known.extend(services.iter().cloned().map(Change::Service));
    let pair = Pair::start(lab, [&["client"], &["server"]], &known);
    for (service, (weights, calls, asks)) in services.iter().zip(cases) {
        let dialled = SocketAddr::new(service.addresses[0].address, SERVICE.port());
        let mut expected = Vec::new();
        for _ in 0..calls {
            let (mut stream, _) = pair.lab.call("client", dialled).expect("call");
            echo(&mut stream);
            let source = stream.local_addr().expect("bound");
            close(stream);
            let host = Some(&*service.hostname);
            expected.push(tunnel_request(&dialled.to_string(), source, host));
        }
        let heard = hearing
            .each_ref()
            .map(|hearing| hearing.try_iter().map(|heard| heard.head).collect());
        assert_eq!(
            heard.each_ref().map(|heads: &Vec<_>| !heads.is_empty()),
            asks,
            "{weights:?}"
        );
        let heard = heard.concat();
        assert_eq!(heard.len(), expected.len());
        assert!(
            expected.iter().all(|head| heard.contains(head)),
            "{heard:?}"
        );
    }
}

/// The waypoint speaks no HBONE: its node's tunnel does, and tells it by header who asks for what. It is
/// asked by a node and passes on to that node.
#[test]
fn what_comes_from_a_waypoint_behind_its_own_tunnel_goes_past_it() {
    let mut lab = Lab::new();
    for (pod, node) in [("client", 1), ("server", 1), ("waypoint", 2)] {
        lab.bare_pod_on(pod, node);
    }
    let (address, its_service, mut its_workload) = waypoint(&lab, "waypoint", 2);
    its_workload.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(15088),
    });
    let mut server = described(&lab, "server", 1);
    server.waypoint = Some(address);
    let known = [
        client(&lab),
        Change::Service(its_service),
        Change::Workload(its_workload),
        Change::Workload(server),
    ];
    let pair = Pair::start(lab, [&["client", "server"], &["waypoint"]], &known);
    let target = pair.lab.address("server");
    let told = sandwich(&pair.lab, target);
    let (mut stream, caller) = pair.lab.call("client", target).expect("call");
    assert_eq!(caller, pair.lab.ip("waypoint"));
    echo(&mut stream);
    close(stream);
    let (asked, identity) = told.recv_timeout(PATIENCE).expect("told");
    assert_eq!(asked, target);
    assert_eq!(identity, identity_of("client").to_string().into_bytes());
}
