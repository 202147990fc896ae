//! A client outside the mesh and the tunnel of the pod that it calls, which speaks to the application in
//! the client's name: their connections differ in nothing but the client's port.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::echo;
use super::lab::{APPLICATION, Lab, PATIENCE, greeting};

/// Of another application of the server's.
const OTHER: u16 = APPLICATION + 1;
/// None of these is one that a kernel chooses.
const PORTS: [u16; 3] = [20_001, 20_002, 20_003];
/// Of a SYN that is answered at once.
const CONNECTED: Duration = Duration::from_secs(2);

/// A pod of the mesh, and a client outside of it.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.bare_pod("client");
    lab.pod("server", 1);
    lab
}

/// Connects from a port of the client's.
fn from_port(lab: &Lab, port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let source: IpAddr = match to {
        SocketAddr::V4(_) => lab.ip("client"),
        SocketAddr::V6(_) => lab.ip6("client"),
    };
    let socket = lab.within("client", || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, port).into())?;
        socket.connect_timeout(&to.into(), CONNECTED)?;
        std::io::Result::Ok(socket)
    })?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The same, served by the application.
fn served(lab: &Lab, port: u16, to: SocketAddr) -> TcpStream {
    let mut stream = from_port(lab, port, to).expect("connects");
    greeting(&mut stream).expect("served");
    echo(&mut stream);
    stream
}

/// Has the kernel choose no other port than this in the server's namespace, and so the tunnel.
fn choose(lab: &Lab, port: u16) {
    let range = format!("sysctl -qw net.ipv4.ip_local_port_range='{port} {port}'");
    lab.run("server", &range);
}

fn addresses(lab: &Lab) -> [SocketAddr; 2] {
    [lab.ip("server"), lab.ip6("server")].map(|ip| SocketAddr::new(ip, APPLICATION))
}

#[test]
fn the_tunnel_may_use_a_port_that_the_client_uses_too() {
    let lab = lab();
    for to in addresses(&lab) {
        let [before, other, after] = PORTS;
        choose(&lab, other);
        let mut first = served(&lab, before, to);
        // The tunnel has the application's connection from the port of the second.
        choose(&lab, after);
        let mut second = served(&lab, other, to);
        // And from a port that a third has before.
        choose(&lab, before);
        let mut third = served(&lab, after, to);
        for stream in [&mut first, &mut second, &mut third] {
            echo(stream);
        }
    }
}

#[test]
fn istio_38982_one_port_of_the_client_may_be_used_for_two_of_the_server() {
    let lab = lab();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, OTHER));
    let listener = lab.within("server", || TcpListener::bind(any));
    let listener = listener.expect("another application");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            stream.write_all(b"\x09127.0.0.1").expect("greeting");
        }
    });
    for to in addresses(&lab) {
        let mut first = served(&lab, PORTS[0], to);
        let other = SocketAddr::new(to.ip(), OTHER);
        let mut second = from_port(&lab, PORTS[0], other).expect("connects");
        greeting(&mut second).expect("served");
        echo(&mut first);
    }
}
