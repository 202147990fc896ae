//! Rules in real namespaces. They need the right to make namespaces, and fail without it.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::{Drift, Seen, Verifier, capture, release, remove};
use crate::netns;
use crate::rules::{Exclusions, Family, Options, Table};

const POD: &str = "10.9.0.2";
const PEER: &str = "10.9.0.1";
/// Only what hangs takes longer, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod and a machine beside it, on one cable.
struct Cable {
    pod: OwnedFd,
    peer: OwnedFd,
}

impl Cable {
    fn new() -> Cable {
        let (pod, peer) = (netns::create().unwrap(), netns::create().unwrap());
        let pod_path = format!("/proc/{}/fd/{}", std::process::id(), raw(&pod));
        sh(&peer, "ip link set lo up");
        sh(
            &peer,
            &format!("ip link add eth0 type veth peer name eth0 netns {pod_path}"),
        );
        for (netns, number) in [(&peer, 1), (&pod, 2)] {
            // Without an address of the kernel's own choice, which would be looked for elsewhere and
            // come when a test has begun.
            sh(
                netns,
                &format!(
                    "ip link set lo up && ip link set eth0 addrgenmode none && ip link set eth0 up \
                     && ip addr add 10.9.0.{number}/24 dev eth0 \
                     && ip -6 addr add fd09::{number}/64 dev eth0 nodad"
                ),
            );
        }
        // The kernel finishes later what it has acknowledged, and drops packets until then.
        for (netns, number) in [(&peer, 1), (&pod, 2)] {
            let is_done = format!(
                "ip link show eth0 | grep -q 'state UP' \
                 && ip -6 route show table local | grep -q 'fd09::{number} '"
            );
            sh(netns, &format!("until {is_done}; do sleep 0.01; done"));
        }
        Cable { pod, peer }
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

fn sh(netns: &OwnedFd, script: &str) -> String {
    let script = script.to_owned();
    let output = netns::run_blocking(netns, || {
        Command::new("sh").args(["-ec", &script]).output().unwrap()
    })
    .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A child that another test is about to start still has what was open here a moment ago.
fn listen(netns: &OwnedFd, address: &str) -> TcpListener {
    let begun = Instant::now();
    loop {
        match netns::run_blocking(netns, || TcpListener::bind(address)).unwrap() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE =>
            {
                thread::yield_now();
            }
            bound => return bound.unwrap(),
        }
    }
}

fn udp(netns: &OwnedFd, address: &str) -> UdpSocket {
    let socket = netns::run_blocking(netns, || UdpSocket::bind(address));
    let socket = socket.unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn connect(netns: &OwnedFd, address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let stream =
        netns::run_blocking(netns, || TcpStream::connect_timeout(&address, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Both directions, so that a stream that lost its peer fails.
fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let ends = [&mut *one, &mut *other];
        ends[from].write_all(b"word").unwrap();
        let mut read = [0; 4];
        ends[to].read_exact(&mut read).unwrap();
        assert_eq!(&read, b"word");
    }
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    match stream.local_addr().unwrap() {
        SocketAddr::V4(_) => {
            let address = getsockopt(stream, sockopt::OriginalDst).unwrap();
            SocketAddr::new(
                IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))),
                u16::from_be(address.sin_port),
            )
        }
        SocketAddr::V6(_) => {
            let address = getsockopt(stream, sockopt::Ip6tOriginalDst).unwrap();
            SocketAddr::new(
                IpAddr::V6(address.sin6_addr.s6_addr.into()),
                u16::from_be(address.sin6_port),
            )
        }
    }
}

#[tokio::test]
async fn outbound_and_inbound_reach_ztunnel_with_the_original_destination() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    for (family, address) in [("0.0.0.0", "10.9.0."), ("[::]", "[fd09::")] {
        let close = if family == "[::]" { "]" } else { "" };
        let outbound = listen(&cable.pod, &format!("{family}:15001"));
        let target = format!("{address}1{close}:80");
        let _client = connect(&cable.pod, &target).unwrap();
        assert_eq!(
            original_destination(&accept(&outbound)),
            target.parse().unwrap()
        );

        let inbound = listen(&cable.pod, &format!("{family}:15006"));
        let target = format!("{address}2{close}:8080");
        let _client = connect(&cable.peer, &target).unwrap();
        assert_eq!(
            original_destination(&accept(&inbound)),
            target.parse().unwrap()
        );
    }
}

/// Sockets that their destinations closed first linger at ztunnel's end. A client that uses their
/// ports again, towards others, is not made to wait for them.
#[tokio::test]
async fn destinations_of_one_source_port_are_kept_apart() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    for (bind, own, others) in [
        ("0.0.0.0:15001", POD, "10.9.0."),
        ("[::]:15001", "fd09::2", "fd09::1:"),
    ] {
        let ztunnel = listen(&cable.pod, bind);
        let mut seen = HashSet::new();
        for number in 11..43 {
            let source = SocketAddr::new(own.parse().unwrap(), 45_000);
            let target: IpAddr = format!("{others}{number}").parse().unwrap();
            let client = netns::run_blocking(&cable.pod, || {
                let socket = Socket::new(Domain::for_address(source), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&source.into())?;
                socket.connect_timeout(&SocketAddr::new(target, 80).into(), PATIENCE)?;
                Ok::<TcpStream, io::Error>(socket.into())
            });
            let mut client = client.unwrap().unwrap();
            let accepted = accept(&ztunnel);
            assert_eq!(original_destination(&accepted), (target, 80).into());
            // Nobody else's port was taken, nor this connection's changed.
            assert_eq!(accepted.peer_addr().unwrap(), source);
            assert!(seen.insert(accepted.local_addr().unwrap()));
            drop(accepted);
            client.read_to_end(&mut Vec::new()).unwrap();
        }
    }
}

#[tokio::test]
async fn own_address_hbone_and_loopback_are_not_captured() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    let own = listen(&cable.pod, "0.0.0.0:8080");
    let _client = connect(&cable.pod, &format!("{POD}:8080")).unwrap();
    accept(&own);
    let _client = connect(&cable.pod, "127.0.0.1:8080").unwrap();
    accept(&own);
    let hbone = listen(&cable.pod, "0.0.0.0:15008");
    let _client = connect(&cable.peer, &format!("{POD}:15008")).unwrap();
    accept(&hbone);
}

#[tokio::test]
async fn dns_reaches_the_proxy_and_other_udp_does_not() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    for (loopback, any, peer) in [
        ("127.0.0.1", "0.0.0.0", PEER),
        ("[::1]", "[::]", "[fd09::1]"),
    ] {
        let proxy = udp(&cable.pod, &format!("{loopback}:15053"));
        let client = udp(&cable.pod, &format!("{any}:0"));
        let nameserver = format!("{peer}:53");
        client.send_to(b"question", &nameserver).unwrap();
        let (_, from) = proxy.recv_from(&mut [0; 16]).unwrap();
        proxy.send_to(b"answer", from).unwrap();
        let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, nameserver.parse().unwrap());

        let other = udp(&cable.peer, &format!("{any}:5300"));
        client.send_to(b"datagram", format!("{peer}:5300")).unwrap();
        other.recv_from(&mut [0; 16]).unwrap();

        // Not where other connections go.
        let _outbound = listen(&cable.pod, &format!("{any}:15001"));
        let proxy = listen(&cable.pod, &format!("{loopback}:15053"));
        let mut client = connect(&cable.pod, &nameserver).unwrap();
        let mut accepted = accept(&proxy);
        assert_eq!(original_destination(&accepted), nameserver.parse().unwrap());
        talk(&mut client, &mut accepted);
    }
}

#[tokio::test]
async fn established_connections_survive_capture_release_and_recapture() {
    let cable = Cable::new();
    let options = Options::default();
    let server = listen(&cable.peer, "0.0.0.0:80");
    let pod_server = listen(&cable.pod, "0.0.0.0:8080");
    let mut before = connect(&cable.pod, &format!("{PEER}:80")).unwrap();
    let mut before_peer = accept(&server);
    let mut inbound = connect(&cable.peer, &format!("{POD}:8080")).unwrap();
    let mut inbound_peer = accept(&pod_server);
    talk(&mut before, &mut before_peer);

    capture(&cable.pod, &options).await.unwrap();
    talk(&mut before, &mut before_peer);
    // The first packet that connection tracking sees of this one comes from outside.
    talk(&mut inbound, &mut inbound_peer);

    let ztunnel = listen(&cable.pod, "0.0.0.0:15001");
    let mut during = connect(&cable.pod, &format!("{PEER}:80")).unwrap();
    let mut during_peer = accept(&ztunnel);
    talk(&mut during, &mut during_peer);

    release(&cable.pod).await.unwrap();
    talk(&mut before, &mut before_peer);
    talk(&mut during, &mut during_peer);
    let mut after = connect(&cable.pod, &format!("{PEER}:80")).unwrap();
    let mut after_peer = accept(&server);
    talk(&mut after, &mut after_peer);

    capture(&cable.pod, &options).await.unwrap();
    talk(&mut during, &mut during_peer);
    talk(&mut after, &mut after_peer);
    talk(&mut inbound, &mut inbound_peer);
    let _redirected = connect(&cable.pod, &format!("{PEER}:80")).unwrap();
    accept(&ztunnel);
}

/// What ztunnel opens to an application in the pod, from the address of a peer.
fn borrowing(cable: &Cable) -> io::Result<TcpStream> {
    netns::run_blocking(&cable.pod, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_mark(crate::rules::ZTUNNEL_MARK)?;
        socket.set_ip_transparent_v4(true)?;
        socket.bind(&SocketAddr::new(PEER.parse().unwrap(), 0).into())?;
        socket.connect_timeout(
            &SocketAddr::new(POD.parse().unwrap(), 8080).into(),
            PATIENCE,
        )?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<TcpStream, io::Error>(socket.into())
    })
    .unwrap()
}

/// The same with the application: its listener, ztunnel's end, and its own.
fn borrowed(cable: &Cable) -> (TcpListener, TcpStream, TcpStream) {
    let application = listen(&cable.pod, "0.0.0.0:8080");
    let stream = borrowing(cable).unwrap();
    let accepted = accept(&application);
    (application, stream, accepted)
}

#[tokio::test]
async fn a_borrowed_client_address_survives_release() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    let (_application, mut stream, mut accepted) = borrowed(&cable);
    assert_eq!(
        accepted.peer_addr().unwrap().ip(),
        PEER.parse::<IpAddr>().unwrap()
    );
    // Its own answers find their way without their connection's help.
    assert_eq!(
        getsockopt(&accepted, sockopt::Mark).unwrap(),
        crate::rules::CONNECTION_MARK
    );
    talk(&mut stream, &mut accepted);
    release(&cable.pod).await.unwrap();
    talk(&mut stream, &mut accepted);
}

/// A packet whose mark is changed has its route looked up again.
#[tokio::test]
async fn what_ztunnel_and_the_application_send_each_other_keeps_its_mark() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    let seen = "table inet seen {
            counter kept { }
            counter changed { }
            chain input {
                type filter hook input priority 0; policy accept;
                tcp flags & syn == syn accept
                tcp dport 8080 meta mark & 0xfff == 0x539 counter name kept accept
                tcp sport 8080 meta mark & 0xfff == 0x111 counter name kept accept
                tcp dport 8080 counter name changed
                tcp sport 8080 counter name changed
            }
        }";
    sh(&cable.pod, &format!("nft -f - <<'END'\n{seen}\nEND"));
    let (_application, mut stream, mut accepted) = borrowed(&cable);
    talk(&mut stream, &mut accepted);
    let counted = |name: &str| {
        let counter = sh(&cable.pod, &format!("nft list counter inet seen {name}"));
        !counter.contains("packets 0 ")
    };
    assert!(counted("kept"));
    assert!(!counted("changed"));
}

#[tokio::test]
async fn a_borrowed_client_address_needs_no_mark_on_the_socket() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    // As where the agent may not write it.
    sh(&cable.pod, "echo 0 > /proc/sys/net/ipv4/tcp_fwmark_accept");
    let (_application, mut stream, mut accepted) = borrowed(&cable);
    assert_eq!(getsockopt(&accepted, sockopt::Mark).unwrap(), 0);
    talk(&mut stream, &mut accepted);
}

/// A SYN cookie keeps nothing of the SYN: the socket takes over the mark of the packet after it.
#[tokio::test]
async fn a_borrowed_client_address_needs_no_mark_of_its_own_either() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    sh(&cable.pod, "echo 2 > /proc/sys/net/ipv4/tcp_syncookies");
    let (_application, mut stream, mut accepted) = borrowed(&cable);
    assert_eq!(
        getsockopt(&accepted, sockopt::Mark).unwrap(),
        crate::rules::ZTUNNEL_MARK
    );
    talk(&mut stream, &mut accepted);
}

/// Nor has what the kernel says in the name of a socket that is gone.
#[tokio::test]
async fn what_refuses_a_borrowed_client_address_is_heard() {
    let cable = Cable::new();
    capture(&cable.pod, &Options::default()).await.unwrap();
    let (application, mut stream, mut accepted) = borrowed(&cable);
    talk(&mut stream, &mut accepted);
    // With something unread it ends in a reset, whatever comes later too.
    stream.write_all(b"unread").unwrap();
    accepted.peek(&mut [0]).unwrap();
    drop((accepted, application));
    let ended = stream.read(&mut [0]).unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "{ended}");
    let refused = borrowing(&cable).unwrap_err();
    assert_eq!(
        refused.kind(),
        io::ErrorKind::ConnectionRefused,
        "{refused}"
    );
}

#[tokio::test]
async fn drift_is_seen_and_repaired() {
    let cable = Cable::new();
    let options = Options::default();
    let (mut verifier, mut seen) = (Verifier::default(), Seen::default());
    capture(&cable.pod, &options).await.unwrap();
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(
        verifier
            .verify(&cable.pod, &options, &mut seen)
            .await
            .unwrap(),
        []
    );
    assert_ne!(seen, Seen::default());
    assert_eq!(
        verifier
            .verify(&cable.pod, &options, &mut seen)
            .await
            .unwrap(),
        []
    );
    sh(
        &cable.pod,
        "nft flush table inet istio-ambient-nat; nft delete table inet istio-ambient-raw; ip rule del pref 32764; \
         ip -6 route del local fd16:9254:7127:1501::/64 table local",
    );
    assert_eq!(
        verifier
            .verify(&cable.pod, &options, &mut seen)
            .await
            .unwrap(),
        [
            Drift::TableChanged(Table::Nat),
            Drift::TableMissing(Table::Raw),
            Drift::RoutingRuleMissing(Family::Ipv4),
            Drift::CaptureRouteMissing(Family::Ipv6),
        ]
    );
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(
        verifier
            .verify(&cable.pod, &options, &mut seen)
            .await
            .unwrap(),
        []
    );
}

fn switch_ipv6_of_loopback(cable: &Cable, disabled: u8) {
    sh(
        &cable.pod,
        &format!("echo {disabled} > /proc/sys/net/ipv6/conf/lo/disable_ipv6"),
    );
}

/// What ztunnel itself opens in the pod, to the peer.
fn connect_marked(cable: &Cable, address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    netns::run_blocking(&cable.pod, || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_mark(crate::rules::ZTUNNEL_MARK)?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok::<TcpStream, io::Error>(socket.into())
    })
    .unwrap()
    .unwrap()
}

/// Neither lets the pod's connections and questions out over IPv6 nor others' in, but ztunnel's.
fn assert_ipv6_is_refused(cable: &Cable) {
    for port in [80, 53] {
        let outside = listen(&cable.peer, &format!("[::]:{port}"));
        let out = SocketAddr::from((Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1), port));
        let moment = Duration::from_secs(1);
        let connected = || TcpStream::connect_timeout(&out, moment).map(drop);
        netns::run_blocking(&cable.pod, connected)
            .unwrap()
            .expect_err("refused");
        // It would stand before ztunnel's.
        let ztunnel = connect_marked(cable, &out.to_string());
        assert_eq!(
            accept(&outside).peer_addr().unwrap(),
            ztunnel.local_addr().unwrap()
        );
    }

    let nameserver = udp(&cable.peer, "[::]:53");
    let client = udp(&cable.pod, "[::]:0");
    let unsent = client.send_to(b"question", "[fd09::1]:53").unwrap_err();
    assert_eq!(unsent.kind(), io::ErrorKind::PermissionDenied);
    let ztunnel = udp(&cable.pod, "[::]:0");
    setsockopt(&ztunnel, sockopt::Mark, &crate::rules::ZTUNNEL_MARK).unwrap();
    ztunnel.send_to(b"upstream", "[fd09::1]:53").unwrap();
    let mut question = [0; 16];
    let (length, from) = nameserver.recv_from(&mut question).unwrap();
    assert_eq!(&question[..length], b"upstream");
    nameserver.send_to(b"answer", from).unwrap();
    ztunnel.recv_from(&mut [0; 16]).unwrap();

    let _application = listen(&cable.pod, "[::]:8080");
    let refused = connect(&cable.peer, "[fd09::2]:8080").expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let hbone = listen(&cable.pod, "[::]:15008");
    let _client = connect(&cable.peer, "[fd09::2]:15008").unwrap();
    accept(&hbone);
}

#[tokio::test]
async fn without_ipv6_on_loopback_ipv4_is_captured_and_ipv6_refused() {
    let cable = Cable::new();
    switch_ipv6_of_loopback(&cable, 1);
    let options = Options::default();
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(
        Verifier::default()
            .verify(&cable.pod, &options, &mut Seen::default())
            .await
            .unwrap(),
        []
    );
    let redirects = sh(&cable.pod, "nft list table inet istio-ambient-nat");
    assert!(!redirects.contains("ip6"), "{redirects}");
    // The other interface has it, though: nothing may get past ztunnel there.
    assert_ipv6_is_refused(&cable);
    let ztunnel = listen(&cable.pod, "0.0.0.0:15001");
    let _client = connect(&cable.pod, &format!("{PEER}:80")).unwrap();
    accept(&ztunnel);

    // What is not captured otherwise passes.
    let options = Options {
        dns_capture: false,
        exclude: Exclusions {
            inbound_ports: vec![8080],
            outbound_ports: vec![80],
            outbound_ranges: Vec::new(),
        },
        ..Options::default()
    };
    capture(&cable.pod, &options).await.unwrap();
    let _outside = listen(&cable.peer, "[::]:80");
    let _client = connect(&cable.pod, "[fd09::1]:80").unwrap();
    let application = listen(&cable.pod, "[::]:8080");
    let _client = connect(&cable.peer, "[fd09::2]:8080").unwrap();
    accept(&application);
    let nameserver = udp(&cable.peer, "[::]:53");
    let client = udp(&cable.pod, "[::]:0");
    client.send_to(b"question", "[fd09::1]:53").unwrap();
    nameserver.recv_from(&mut [0; 16]).unwrap();

    // What a virtual machine sends is the pod's own, whatever the pod takes itself.
    let options = Options {
        bypass_inbound: true,
        virtual_interfaces: vec!["eth0".try_into().unwrap()],
        ..Options::default()
    };
    capture(&cable.pod, &options).await.unwrap();
    let refused = connect(&cable.peer, "[fd09::2]:8080").expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn ipv6_that_loopback_loses_later_is_refused_until_it_is_back() {
    let cable = Cable::new();
    let options = Options::default();
    let (mut verifier, mut seen) = (Verifier::default(), Seen::default());
    let mut look = async || {
        verifier
            .verify(&cable.pod, &options, &mut seen)
            .await
            .unwrap()
    };
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(look().await, []);
    switch_ipv6_of_loopback(&cable, 1);
    assert_eq!(look().await, [Drift::LoopbackWithoutIpv6]);
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(look().await, []);
    assert_ipv6_is_refused(&cable);

    switch_ipv6_of_loopback(&cable, 0);
    assert_eq!(
        look().await,
        [
            Drift::LoopbackWithIpv6,
            Drift::RouteMissing(Family::Ipv6),
            Drift::CaptureRouteMissing(Family::Ipv6),
        ]
    );
    capture(&cable.pod, &options).await.unwrap();
    assert_eq!(look().await, []);
    let ztunnel = listen(&cable.pod, "[::]:15001");
    let _client = connect(&cable.pod, "[fd09::1]:80").unwrap();
    accept(&ztunnel);
}

#[tokio::test]
async fn remove_leaves_nothing() {
    let cable = Cable::new();
    let state = "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep -e default -e fd16: || true; \
                 cat /proc/sys/net/ipv4/tcp_fwmark_accept /proc/sys/net/ipv4/tcp_early_demux";
    let before = sh(&cable.pod, state);
    capture(&cable.pod, &Options::default()).await.unwrap();
    assert_ne!(sh(&cable.pod, state), before);
    remove(&cable.pod).await.unwrap();
    assert_eq!(sh(&cable.pod, state), before);
    remove(&cable.pod).await.unwrap();
}
