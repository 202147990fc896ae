//! Every way to name a destination, over IPv4 and IPv6, from inside and outside the mesh.

use crate::shop::shared;

/// The reply of `GET` is the server's name and the address it saw the client at.
#[track_caller]
fn check_get(from: &str, target: &str, server: &str) {
    let lab = shared();
    let reply = lab.peer(from, &["get", target]).expect("an answer");
    let client = lab.addresses(from).expect("addresses");
    let (name, seen) = reply.trim().split_once(' ').expect("NAME ADDRESS");
    assert_eq!(name, server, "{from} to {target}");
    assert!(
        client.contains(&seen.parse().expect("an address")),
        "{from} to {target}: the server saw {seen}, the client has {client:?}"
    );
}

#[test]
fn a_service_by_short_name() {
    check_get("shop/client", "server:80", "server");
}

#[test]
fn a_service_by_name_and_namespace() {
    check_get("shop/client", "server.shop:80", "server");
}

#[test]
fn a_service_by_fqdn_with_and_without_final_dot() {
    check_get("shop/client", "server.shop.svc.cluster.local:80", "server");
    check_get("shop/client", "server.shop.svc.cluster.local.:80", "server");
}

#[test]
fn a_service_by_each_of_its_virtual_addresses() {
    let service: serde_json::Value = serde_json::from_str(
        &shared()
            .weft(&["get", "service", "server", "-n", "shop", "-o", "json"])
            .expect("the service"),
    )
    .expect("JSON");
    let addresses = service["spec"]["clusterIPs"].as_array().expect("addresses");
    assert_eq!(addresses.len(), 2, "dual stack: {service}");
    for address in addresses {
        let address: std::net::IpAddr = address.as_str().expect("text").parse().expect("address");
        let target = std::net::SocketAddr::new(address, 80).to_string();
        check_get("shop/client", &target, "server");
    }
}

#[test]
fn a_pod_by_each_of_its_addresses() {
    let addresses = shared().addresses("shop/server").expect("addresses");
    assert_eq!(addresses.len(), 2, "dual stack");
    for address in addresses {
        let target = std::net::SocketAddr::new(address, 8080).to_string();
        check_get("shop/client", &target, "server");
    }
}

#[test]
fn a_headless_service() {
    check_get("shop/client", "headless:8080", "server");
}

#[test]
fn a_pod_of_the_same_node() {
    check_get("shop/client", "neighbour:80", "neighbour");
}

#[test]
fn a_pod_outside_the_mesh_from_inside() {
    check_get("shop/client", "outsider.plain:80", "outsider");
    check_get("shop/server", "outsider.plain:80", "outsider");
}

#[test]
fn a_pod_inside_the_mesh_from_outside() {
    check_get("plain/outsider", "server.shop:80", "server");
    check_get("plain/outsider", "neighbour.shop:80", "neighbour");
    check_get("plain/outsider", "headless.shop:8080", "server");
}

#[test]
fn a_pod_calling_itself() {
    // Not by its own short name: that is the pod's host name, which its hosts file answers.
    for target in ["localhost:8080", "server.shop:80", "headless:8080"] {
        let reply = shared()
            .peer("shop/server", &["get", target])
            .expect("an answer");
        assert!(reply.starts_with("server "), "{target}: {reply}");
    }
    let own = shared().addresses("shop/server").expect("addresses");
    for address in own {
        let target = std::net::SocketAddr::new(address, 8080).to_string();
        let reply = shared()
            .peer("shop/server", &["get", &target])
            .expect("an answer");
        assert!(reply.starts_with("server "), "{target}: {reply}");
    }
}

#[test]
fn udp_passes_untouched() {
    for from in ["shop/client", "plain/outsider"] {
        let server = shared().addresses("shop/server").expect("addresses")[0];
        let direct = std::net::SocketAddr::new(server, 9004).to_string();
        shared().peer(from, &["udp", &direct]).expect("by address");
        shared()
            .peer(from, &["udp", "server.shop:9004"])
            .expect("by service");
    }
}

#[test]
fn icmp_passes_untouched() {
    for address in shared().addresses("shop/server").expect("addresses") {
        shared()
            .exec(
                "shop/client",
                &["ping", "-c", "1", "-W", "2", &address.to_string()],
            )
            .expect("an echo reply");
    }
}

#[test]
fn a_server_that_speaks_first() {
    for from in ["shop/client", "shop/neighbour", "plain/outsider"] {
        let reply = shared()
            .peer(from, &["banner", "server.shop:9001"])
            .expect("a banner");
        assert_eq!(reply, "220 server\n", "from {from}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_said_not_to() {
    for from in ["shop/client", "plain/outsider"] {
        let output = shared()
            .peer_output(from, &["resolve", "nothing.shop"])
            .expect("runs");
        assert!(!output.status.success(), "{output:?}");
    }
}

#[test]
fn a_port_that_the_service_does_not_have_is_refused() {
    let output = shared()
        .peer_output("shop/client", &["get", "server:81"])
        .expect("runs");
    assert!(!output.status.success(), "{output:?}");
}
