//! A tunnel of ours asks.

use std::net::SocketAddr;
use std::sync::mpsc::Receiver;

use http::StatusCode;
use mesh::destination::HBONE_PORT;
use mesh::service::{Service, WeightedWaypoint};
use mesh::snapshot::Change;
use ztunnel::proxy::access_log::Direction;

use super::{credentials, hello};
use crate::counterpart::{Behind, Counterpart, Heard, Hello, Setting};
use crate::lab::{APPLICATION, Lab};
use crate::objects::{
    GATEWAY_PORT, HOSTNAME, baggage, behind_gateway, described, tunnel_request, waypoint, web,
};
use crate::{SERVICE, close, echo, has_error, identity_of, is_refused};

/// How our calling end begins. Of the key shares that it sends, Istio's takes the post-quantum one.
pub(crate) fn client_hello() -> Hello {
    let own = [
        (Setting::EnablePush, 0),
        (Setting::MaxHeaderListSize, 16_384),
    ];
    hello("client", "X25519MLKEM768", &own)
}

/// Uses a connection of the client's to the end, and answers where it came from.
fn use_up(lab: &Lab, to: SocketAddr) -> SocketAddr {
    let (mut stream, _) = lab.call("client", to).expect("call");
    echo(&mut stream);
    let source = stream.local_addr().expect("an address");
    close(stream);
    source
}

/// A client, which is of our mesh, and a pod `name` on a node of Istio's.
fn lab_with(name: &str) -> Lab {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.bare_pod_on(name, 2);
    lab.publish([Change::Workload(described(&lab, "client", 1))]);
    lab
}

/// `name` ends tunnels as `account`.
fn run(lab: &Lab, name: &str, account: &str, behind: Behind) -> Receiver<Heard> {
    let (counterpart, hearing) = Counterpart::new(credentials(lab, account), behind);
    counterpart
        .with_baggage(&baggage(name))
        .run(lab, name, HBONE_PORT);
    hearing
}

#[test]
fn a_server_is_asked_for_its_own_address_and_port() {
    let mut lab = lab_with("server");
    let hearing = run(&lab, "server", "server", Behind::Application);
    let service = web(&[""]);
    let mut server = lab.workload("server", 2);
    server.services.insert(service.key(), service.ports.clone());
    lab.publish([Change::Service(service), Change::Workload(server)]);
    let [v4, v6] = [lab.ip("server"), lab.ip6("server")];
    let [v4, v6] = [v4, v6].map(|ip| SocketAddr::new(ip, APPLICATION));
    // A service's port is the endpoint's by then; its name is what metrics are told.
    for (dialled, target, host) in [
        (SERVICE, v4, Some(HOSTNAME)),
        (v4, v4, None),
        (v6, v6, None),
    ] {
        let source = use_up(&lab, dialled);
        let heard = Heard {
            hello: client_hello(),
            head: tunnel_request(&target.to_string(), source, host),
        };
        assert_eq!(Heard::next(&hearing), heard, "{dialled}");
    }
}

#[test]
fn nothing_but_200_is_a_yes() {
    for status in [201, 204, 302, 400, 401, 403, 503] {
        let mut lab = lab_with("server");
        let (counterpart, hearing) =
            Counterpart::new(credentials(&lab, "server"), Behind::Application);
        let answer = StatusCode::from_u16(status).expect("a status");
        counterpart
            .with_answer(answer)
            .run(&lab, "server", HBONE_PORT);
        let server = lab.workload("server", 2);
        lab.publish([Change::Workload(server)]);
        assert!(is_refused(lab.call("client", lab.address("server"))));
        Heard::next(&hearing);
        lab.log_of(1, Direction::Outbound, |record| {
            has_error(record, &status.to_string())
        });
    }
}

#[test]
fn a_gateway_and_who_is_behind_it_are_asked_for_the_service() {
    let mut lab = Lab::of_two_networks();
    lab.pod("client", 1);
    lab.bare_pod("gateway");
    let mut service = web(&["near", "far"]);
    service.subject_alt_names = vec![identity_of("server").to_string().into()];
    lab.publish([Change::Workload(described(&lab, "client", 1))]);
    lab.publish(behind_gateway(&lab, &service));
    lab.publish([Change::Service(service)]);
    let (inner, at_server) = Counterpart::new(credentials(&lab, "server"), Behind::Application);
    let inner = inner.with_baggage(&baggage("server"));
    // Envoy's 200 says nothing.
    let behind = Behind::Tunnel(Box::new(inner));
    let (outer, at_gateway) = Counterpart::new(credentials(&lab, "gateway"), behind);
    outer.run(&lab, "gateway", GATEWAY_PORT);

    let source = use_up(&lab, SERVICE);
    let target = format!("{HOSTNAME}:80");
    let to_gateway = Heard {
        hello: client_hello(),
        head: tunnel_request(&target, source, Some(HOSTNAME)),
    };
    let mut to_server = to_gateway.clone();
    let network = ("x-forwarded-network".to_owned(), "near".to_owned());
    to_server.head.headers.push(network);
    assert_eq!(Heard::next(&at_gateway), to_gateway);
    assert_eq!(Heard::next(&at_server), to_server);

    let record = lab.log_of(1, Direction::Outbound, |_| true);
    assert_eq!(record.error, None);
    assert_eq!(record.destination.identity, Some(identity_of("server")));
    let server = record.destination.workload.expect("described");
    let told = [
        &server.workload_name,
        &server.canonical_name,
        &server.canonical_revision,
        &server.namespace,
        &server.cluster_id,
        &server.locality.region,
        &server.locality.zone,
    ];
    let told = told.map(|text| &**text);
    assert_eq!(
        told,
        [
            "server",
            "server-app",
            "v1",
            "shop",
            "Kubernetes",
            "eu",
            "eu-1"
        ]
    );
}

/// Has the mesh know a waypoint in the pod `name`, and binds `server` to it.
fn bind_server(lab: &mut Lab, name: &str, node: usize, change: impl FnOnce(&mut Service)) {
    let (address, mut service, workload) = waypoint(lab, name, node);
    change(&mut service);
    let mut server = lab.workload("server", 2);
    server.waypoint = Some(address);
    lab.publish([
        Change::Service(service),
        Change::Workload(workload),
        Change::Workload(server),
    ]);
}

#[test]
fn a_waypoint_is_asked_for_what_the_application_dialled() {
    let mut lab = lab_with("waypoint");
    lab.bare_pod_on("server", 2);
    let hearing = run(&lab, "waypoint", "waypoint", Behind::Application);
    bind_server(&mut lab, "waypoint", 2, |_| {});
    let mut service = web(&[""]);
    service.waypoint = Some(waypoint(&lab, "waypoint", 2).0);
    lab.publish([Change::Service(service)]);
    let direct = lab.address("server");
    for (dialled, host) in [(SERVICE, Some(HOSTNAME)), (direct, None)] {
        let source = use_up(&lab, dialled);
        let heard = Heard {
            hello: client_hello(),
            head: tunnel_request(&dialled.to_string(), source, host),
        };
        assert_eq!(Heard::next(&hearing), heard, "{dialled}");
    }
}

#[test]
fn only_who_is_the_waypoint_is_asked() {
    for (account, vouched_for, is_let_in) in [
        ("waypoint", None, true),
        ("impostor", None, false),
        // A waypoint's service may name further accounts.
        ("other", Some("other"), true),
    ] {
        let mut lab = lab_with("waypoint");
        lab.bare_pod_on("server", 2);
        let hearing = run(&lab, "waypoint", account, Behind::Application);
        bind_server(&mut lab, "waypoint", 2, |service| {
            let name = vouched_for.map(|account| identity_of(account).to_string().into());
            service.subject_alt_names = name.into_iter().collect();
        });
        let called = lab.call("client", lab.address("server"));
        assert_eq!(called.is_ok(), is_let_in, "{account}");
        match is_let_in {
            true => drop(Heard::next(&hearing)),
            false => assert!(hearing.try_recv().is_err()),
        }
    }
}

#[test]
fn weights_decide_between_waypoints_and_without_any_the_plain_one_is_asked() {
    const CALLS: usize = 64;
    let mut lab = lab_with("stable");
    lab.bare_pod_on("canary", 2);
    lab.bare_pod_on("plain", 2);
    let names = ["stable", "canary", "plain"];
    let hearing = names.map(|name| run(&lab, name, name, Behind::Application));
    let [stable, canary, plain] = names.map(|name| {
        let (address, service, workload) = waypoint(&lab, name, 2);
        lab.publish([Change::Service(service), Change::Workload(workload)]);
        address
    });
    let heard = || {
        let heard = hearing
            .each_ref()
            .map(|hearing| hearing.try_iter().collect());
        heard.map(|all: Vec<Heard>| all.into_iter().map(|heard| heard.head).collect::<Vec<_>>())
    };
    let mut service = web(&[""]);
    service.waypoint = Some(plain);
    for (weights, asks) in [
        ([1, 1], [true, true, false]),
        ([0, 1], [false, true, false]),
        ([0, 0], [false, false, true]),
    ] {
        let weighted = [&stable, &canary].into_iter().zip(weights);
        service.weighted_waypoints = weighted
            .map(|(destination, weight)| WeightedWaypoint {
                destination: destination.clone(),
                weight,
            })
            .collect();
        lab.publish([Change::Service(service.clone())]);
        let expected: Vec<_> = (0..CALLS)
            .map(|_| tunnel_request(&SERVICE.to_string(), use_up(&lab, SERVICE), Some(HOSTNAME)))
            .collect();
        let heard = heard();
        assert_eq!(
            heard.each_ref().map(|heads| !heads.is_empty()),
            asks,
            "{weights:?}"
        );
        let all: Vec<_> = heard.into_iter().flatten().collect();
        assert_eq!(all.len(), CALLS);
        assert!(expected.iter().all(|head| all.contains(head)), "{all:?}");
    }
}

#[test]
fn what_comes_from_the_waypoint_goes_past_it() {
    let mut lab = lab_with("server");
    let hearing = run(&lab, "server", "server", Behind::Application);
    lab.pod("waypoint", 1);
    bind_server(&mut lab, "waypoint", 1, |_| {});
    let target = lab.address("server");
    lab.call("waypoint", target).expect("past itself");
    let heard = Heard::next(&hearing);
    assert_eq!(heard.hello.identity, Some(identity_of("waypoint")));
    assert_eq!(heard.head.target, target.to_string());
    // Anybody else is with the waypoint, which has an application that answers.
    use_up(&lab, target);
    assert!(hearing.try_recv().is_err());
}
