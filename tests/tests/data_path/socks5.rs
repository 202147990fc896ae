//! Applications that name their destination to the SOCKS listener of their pod.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mesh::destination::HBONE_PORT;
use mesh::workload::TunnelProtocol;
use ztunnel::proxy::access_log::Direction;
use ztunnel::proxy::config::SOCKS5_PORT;

use super::lab::{APPLICATION, Lab, PATIENCE};
use super::{allow_again, close, deny_account, echo, has_error, identity_of, publish_service};

fn lab() -> Lab {
    let mut lab = Lab::with(["", ""], |config| config.socks5 = true);
    lab.pod("client", 1);
    lab.pod("near", 1);
    lab.pod("server", 2);
    lab
}

fn to_address(target: SocketAddr) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    match target.ip() {
        IpAddr::V4(address) => {
            request.push(1);
            request.extend(address.octets());
        }
        IpAddr::V6(address) => {
            request.push(4);
            request.extend(address.octets());
        }
    }
    request.extend(target.port().to_be_bytes());
    request
}

fn to_name(name: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).expect("short")];
    request.extend(name.bytes());
    request.extend(port.to_be_bytes());
    request
}

/// What the listener replies, and what it leaves of the connection.
fn ask(lab: &Lab, request: &[u8]) -> (u8, TcpStream) {
    let proxy = SocketAddr::from(([127, 0, 0, 1], SOCKS5_PORT));
    let mut stream = lab
        .within("client", || TcpStream::connect_timeout(&proxy, PATIENCE))
        .expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket");
    stream.write_all(&[5, 1, 0]).expect("write");
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).expect("a method");
    assert_eq!(chosen, [5, 0]);
    stream.write_all(request).expect("write");
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!((reply[0], reply[3]), (5, 1));
    (reply[1], stream)
}

/// Who the application says is calling.
fn caller(stream: &mut TcpStream) -> IpAddr {
    let mut length = [0];
    stream.read_exact(&mut length).expect("greeting");
    let mut text = vec![0; length[0].into()];
    stream.read_exact(&mut text).expect("greeting");
    String::from_utf8(text)
        .expect("ascii")
        .parse()
        .expect("an address")
}

#[test]
fn an_address_or_a_name_is_reached_as_the_pod_itself_would() {
    let mut lab = lab();
    publish_service(&mut lab, &[("server", 2)], TunnelProtocol::Hbone);
    let near = SocketAddr::new(lab.ip("near"), APPLICATION);
    let far6 = SocketAddr::new(lab.ip6("server"), APPLICATION);
    for (request, source) in [
        (to_address(lab.address("server")), lab.ip("client")),
        (to_address(far6), lab.ip6("client")),
        (to_address(near), lab.ip("client")),
        (to_name("web.shop.svc.cluster.local", 80), lab.ip("client")),
        (to_name("web", 80), lab.ip("client")),
    ] {
        let (reply, mut stream) = ask(&lab, &request);
        assert_eq!(reply, 0, "{request:?}");
        assert_eq!(caller(&mut stream), source, "{request:?}");
        echo(&mut stream);
        close(stream);
    }
    let record = lab.log_of(2, Direction::Inbound, |record| record.service.is_some());
    assert_eq!(record.source.identity, Some(identity_of("client")));
    assert_eq!(record.source.address.ip(), lab.ip("client"));
}

#[test]
fn success_is_not_told_before_it_is_one() {
    let mut lab = lab();
    let server = lab.ip("server");
    lab.bare_pod("plain");
    let at = |address, port| to_address(SocketAddr::new(address, port));
    for (request, reply) in [
        // Refused by a host outside the mesh.
        (at(lab.ip("plain"), 1), 5),
        // Nobody is there: the kernel, or the wait, says so.
        (at(IpAddr::from([10, 44, 200, 200]), 80), 4),
        // The tunnel of the other node answers that nobody listens.
        (at(server, 1), 4),
        (to_name("nothing.invalid", 80), 4),
        // The tunnel itself.
        (at(IpAddr::from([127, 0, 0, 1]), SOCKS5_PORT), 2),
        (at(lab.ip("client"), HBONE_PORT), 2),
    ] {
        let (got, mut stream) = ask(&lab, &request);
        assert_eq!(got, reply, "{request:?}");
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
    lab.publish([deny_account("client")]);
    let (reply, _) = ask(&lab, &to_address(lab.address("server")));
    assert_eq!(reply, 2);
    lab.log_of(1, Direction::Outbound, |record| has_error(record, "401"));
    lab.publish([allow_again("no-entry")]);
    let (reply, _) = ask(&lab, &to_address(lab.address("server")));
    assert_eq!(reply, 0);
}

#[test]
fn only_the_pod_itself_has_the_listener_and_only_where_it_is_asked_for() {
    let lab = lab();
    let target = SocketAddr::new(lab.ip("client"), SOCKS5_PORT);
    let patience = Duration::from_secs(2);
    let outside = lab.within("server", || {
        let mut stream = TcpStream::connect_timeout(&target, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&[5, 1, 0])?;
        stream.read_exact(&mut [0; 2])
    });
    assert!(outside.is_err());
    drop(lab);

    let mut lab = Lab::new();
    lab.pod("client", 1);
    let own = SocketAddr::from(([127, 0, 0, 1], SOCKS5_PORT));
    let refused = lab.within("client", || TcpStream::connect_timeout(&own, patience));
    let refused = refused.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
