//! The whole network in real namespaces. Needs the right to make them, and fails without it.
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use super::service::{Endpoint, InternalTrafficPolicy, Kind, Port, Protocol};
use super::*;

/// Only what hangs takes longer, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

struct Pod {
    netns: OwnedFd,
    interface: PodInterface,
    node: usize,
}

impl Pod {
    async fn new(network: &Network, node: usize) -> Pod {
        let netns = netns::create().unwrap();
        let interface = network.attach_pod(node, &netns).await.unwrap();
        Pod {
            netns,
            interface,
            node,
        }
    }

    /// IPv4 and IPv6, with a port.
    fn at(&self, port: u16) -> [SocketAddr; 2] {
        let ips = &self.interface.ips;
        [SocketAddr::new(ips[0], port), SocketAddr::new(ips[1], port)]
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.run(move || TcpListener::bind(("::", port))).unwrap()
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.run(move || TcpStream::connect_timeout(&address, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        netns::run_blocking(&self.netns, job).unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            ips: self.interface.ips.clone(),
            node: self.node,
            hostname: None,
            targets: BTreeMap::from([((Protocol::Tcp, 80), 8080), ((Protocol::Udp, 80), 8080)]),
        }
    }
}

async fn network() -> (Network, Vec<Pod>) {
    let network = Network::new(2).await.unwrap();
    let mut pods = Vec::new();
    for node in [1, 1, 2, 2] {
        pods.push(Pod::new(&network, node).await);
    }
    (network, pods)
}

fn web(endpoints: Vec<Endpoint>) -> Service {
    let port = |protocol| Port {
        name: None,
        number: 80,
        protocol,
    };
    Service {
        name: "web".into(),
        namespace: "shop".into(),
        kind: Kind::ClusterIp(vip(80).iter().map(SocketAddr::ip).collect()),
        ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        endpoints,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
    }
}

fn vip(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::new("10.96.1.1".parse().unwrap(), port),
        SocketAddr::new("fd00:96::101".parse().unwrap(), port),
    ]
}

/// A word there and back.
fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut word).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pod_reaches_every_pod_under_its_own_address() {
    let (_network, pods) = network().await;
    for server in &pods {
        let listener = server.listen(8080);
        for client in &pods {
            for (index, address) in server.at(8080).into_iter().enumerate() {
                let mut stream = client.connect(address).unwrap();
                let (mut accepted, from) = listener.accept().unwrap();
                assert_eq!(from.ip().to_canonical(), client.interface.ips[index]);
                talk(&mut stream, &mut accepted);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_new_pods_first_connection_is_lost() {
    let (network, pods) = network().await;
    let listener = pods[0].listen(8080);
    for _ in 0..20 {
        let pod = Pod::new(&network, 1).await;
        let mut stream = pod.connect(pods[0].at(8080)[0]).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        talk(&mut stream, &mut accepted);
        assert_eq!(pod.run(sent_again), 0);
    }
}

/// Segments of TCP that the calling thread's network namespace has sent more than once.
fn sent_again() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("Tcp:"));
    let [names, values] = [lines.next().unwrap(), lines.next().unwrap()];
    let mut counters = names.split(' ').zip(values.split(' '));
    let (_, value) = counters.find(|(name, _)| *name == "RetransSegs").unwrap();
    value.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_leads_to_its_endpoints_and_back_to_the_caller_itself() {
    let (network, pods) = network().await;
    let server = &pods[2];
    network
        .set_services(&[web(vec![server.endpoint()])])
        .await
        .unwrap();
    let listener = server.listen(8080);
    let udp = server.udp("[::]:8080");
    let mut streams = Vec::new();
    // The third is the endpoint itself.
    for client in &pods {
        for (index, address) in vip(80).into_iter().enumerate() {
            let mut stream = client.connect(address).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            talk(&mut stream, &mut accepted);
            streams.push((stream, accepted));

            let socket = client.udp(["0.0.0.0:0", "[::]:0"][index]);
            socket.send_to(b"ping", address).unwrap();
            let (_, from) = udp.recv_from(&mut [0; 8]).unwrap();
            udp.send_to(b"pong", from).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, address);
        }
    }
    // Another list of services leaves connections alone.
    network
        .set_services(&[web(vec![pods[0].endpoint()])])
        .await
        .unwrap();
    for (stream, accepted) in &mut streams {
        talk(stream, accepted);
    }
    let listener = pods[0].listen(8080);
    let _moved = pods[3].connect(vip(80)[0]).unwrap();
    listener.accept().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_spreads_over_its_endpoints() {
    let (network, pods) = network().await;
    network
        .set_services(&[web(vec![pods[0].endpoint(), pods[2].endpoint()])])
        .await
        .unwrap();
    let listeners = [pods[0].listen(8080), pods[2].listen(8080)];
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
    }
    let streams: Vec<_> = (0..40)
        .map(|_| pods[1].connect(vip(80)[0]).unwrap())
        .collect();
    let accepted = listeners.map(|listener| listener.incoming().map_while(Result::ok).count());
    assert_eq!(accepted.iter().sum::<usize>(), streams.len());
    assert!(accepted.iter().all(|count| *count > 4), "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_serves_is_refused_at_once() {
    let (network, pods) = network().await;
    network.set_services(&[web(Vec::new())]).await.unwrap();
    for address in vip(80).into_iter().chain(vip(81)).chain([
        "10.96.7.7:80".parse().unwrap(),
        "240.240.0.1:80".parse().unwrap(),
    ]) {
        let error = pods[0].connect(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    // An address no pod has, and one outside of everything.
    for address in [
        "10.244.1.200:80",
        "10.244.2.200:80",
        "192.0.2.1:80",
        "[2001:db8::1]:80",
    ] {
        let error = pods[0].connect(address.parse().unwrap()).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{address}");
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    question.to_vec().unwrap()
}

fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let answer = Message::from_vec(answer).unwrap();
    let records = answer.answers.iter();
    records.filter_map(|record| record.data.ip_addr()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_answered_on_every_node_over_udp_and_tcp() {
    let (network, pods) = network().await;
    network.set_services(&[web(Vec::new())]).await.unwrap();
    let question = question("web.shop.svc.cluster.local.", RecordType::A);
    for client in [&pods[0], &pods[3]] {
        for (server, local) in [
            ("10.96.0.10:53", "0.0.0.0:0"),
            ("[fd00:96::a]:53", "[::]:0"),
        ] {
            let socket = client.udp(local);
            socket.send_to(&question, server).unwrap();
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, server.parse().unwrap());
            assert_eq!(addresses(&buffer[..length]), [vip(80)[0].ip()]);

            let mut stream = client.connect(server.parse().unwrap()).unwrap();
            let length = u16::try_from(question.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            stream.write_all(&question).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(addresses(&answer), [vip(80)[0].ip()]);
        }
    }
}

/// The kernel has cables carry packets when it gets its lock of all interfaces: late, where others
/// come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_first_question_is_answered_while_interfaces_come_and_go() {
    let (network, _pods) = network().await;
    network.set_services(&[web(Vec::new())]).await.unwrap();
    let others: Vec<_> = (0..4)
        .map(|_| tokio::spawn(async { while Network::new(2).await.is_ok() {} }))
        .collect();
    let question = question("web.shop.svc.cluster.local.", RecordType::A);
    for _ in 0..40 {
        let pod = Pod::new(&network, 1).await;
        for (server, local) in [
            ("10.96.0.10:53", "0.0.0.0:0"),
            ("[fd00:96::a]:53", "[::]:0"),
        ] {
            let socket = pod.udp(local);
            socket.send_to(&question, server).unwrap();
            let answered = socket.recv_from(&mut [0; 512]);
            answered.unwrap_or_else(|error| panic!("{server} does not answer: {error}"));
        }
        network.detach(pod.interface).await;
    }
    for other in others {
        other.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_cut_over_udp_so_that_the_client_turns_to_tcp() {
    let (network, pods) = network().await;
    let mut headless = web(Vec::new());
    headless.kind = Kind::Headless;
    headless.endpoints = (1..=100)
        .map(|host| Endpoint {
            ips: vec![IpAddr::from([10, 244, 9, host])],
            ..Endpoint::default()
        })
        .collect();
    network.set_services(&[headless]).await.unwrap();
    let socket = pods[0].udp("0.0.0.0:0");
    let question = question("web.shop.svc.cluster.local.", RecordType::A);
    socket.send_to(&question, "10.96.0.10:53").unwrap();
    let mut buffer = [0; 512];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    assert!(
        Message::from_vec(&buffer[..length])
            .unwrap()
            .metadata
            .truncation
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_pods_connection_to_a_service_goes_to_ztunnel_until_it_is_released() {
    let (network, pods) = network().await;
    let (client, server) = (&pods[0], &pods[2]);
    network
        .set_services(&[web(vec![server.endpoint()])])
        .await
        .unwrap();
    let listener = server.listen(8080);
    let mut before = client.connect(vip(80)[0]).unwrap();
    let (mut before_server, _) = listener.accept().unwrap();

    let options = cni::rules::Options::default();
    cni::apply::capture(&client.netns, &options).await.unwrap();
    let ztunnel = client.listen(15001);
    for address in vip(80) {
        let _captured = client.connect(address).unwrap();
        let (accepted, _) = ztunnel.accept().unwrap();
        assert_eq!(original_destination(&accepted), address);
    }
    talk(&mut before, &mut before_server);

    cni::apply::release(&client.netns).await.unwrap();
    talk(&mut before, &mut before_server);
    let mut after = client.connect(vip(80)[1]).unwrap();
    let (mut after_server, _) = listener.accept().unwrap();
    talk(&mut after, &mut after_server);
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = socket2::SockRef::from(stream);
    // A dual-stack listener knows IPv4 under its IPv6 name.
    let original = if stream.peer_addr().unwrap().ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.unwrap().as_socket().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_pod_is_unreachable_and_its_address_rests() {
    let (network, mut pods) = network().await;
    let gone = pods.remove(0);
    let address = gone.at(8080)[0];
    network.detach(gone.interface).await;
    let error = pods[0].connect(address).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    let next = Pod::new(&network, 1).await;
    assert_ne!(next.interface.ips[0], address.ip());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_it_leaves_nothing() {
    let (network, pods) = network().await;
    let switch = network.switch().try_clone_to_owned().unwrap();
    drop((network, pods));
    // The kernel takes namespaces down in the background; their end of every cable goes along.
    let started = Instant::now();
    loop {
        let links = netns::run(&switch, || {
            std::fs::read_to_string("/proc/thread-self/net/dev")
        });
        let links = links.await.unwrap().unwrap();
        if !links.contains("node-") && !links.contains("control-plane") {
            break;
        }
        assert!(started.elapsed() < PATIENCE * 2, "{links}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
