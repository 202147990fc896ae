//! The proxy over real sockets in a network namespace of its own, with a nameserver beside it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mesh::address::NetworkAddress;
use mesh::service::Service;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::Workload;
use nix::sys::resource::{Resource, setrlimit};
use runtime::descriptors;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time;

use super::*;
use crate::app::own_process;
use crate::proxy::{Served, WorkloadInfo, netns};

const PORT: u16 = 15053;

struct Scene {
    netns: Arc<OwnedFd>,
    asked: Arc<AtomicUsize>,
    state: Arc<State>,
    _proxy: DnsProxy,
    dir: tempfile::TempDir,
}

impl Scene {
    /// A pod `shop/web`, known to the mesh or not, and a nameserver on 127.0.0.1:53.
    async fn new(known: bool) -> Self {
        Self::with(known, Duration::from_millis(100)).await
    }

    /// The same, where a pod that is not known waits so long.
    async fn with(known: bool, workload_wait: Duration) -> Self {
        let netns = netns::new();
        let asked = Arc::new(AtomicUsize::new(0));
        nameserver(&netns, asked.clone());
        let dir = tempfile::tempdir().expect("temporary directory");
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("writes");
        let state = Arc::new(State::default());
        let mut snapshot = Snapshot::default();
        let mut service = Service::new("api", "shop", "api.shop.svc.cluster.local");
        let vip = "10.96.0.7".parse().expect("address");
        service.addresses.push(NetworkAddress::new("", vip));
        let mut changes = vec![Change::Service(service)];
        if known {
            changes.push(web());
        }
        snapshot.apply(changes);
        state.publish(snapshot);
        let config = Config {
            port: PORT,
            node: LocalNode {
                name: "node-1".into(),
                cluster_id: "Kubernetes".into(),
            },
            cluster_domain: "cluster.local".into(),
            ipv6: true,
            packet_mark: Some(1337),
            port_reuse: true,
            resolv_conf,
            workload_wait,
        };
        let proxy = DnsProxy::start(config, state.clone()).expect("starts");
        let pod = DnsPod {
            spec: PodSpec {
                uid: "web".into(),
                info: WorkloadInfo {
                    name: "web".into(),
                    namespace: "shop".into(),
                    service_account: "default".into(),
                },
                netns: Some(netns.clone()),
                served: Served::Everything,
            },
            search_domains: [].into(),
        };
        proxy.add_pod(pod).await.expect("listens");
        Self {
            netns,
            asked,
            state,
            _proxy: proxy,
            dir,
        }
    }

    fn socket(&self, at: &str) -> UdpSocket {
        let socket = netns::within(Some(&self.netns), || std::net::UdpSocket::bind(at));
        let socket = socket.expect("binds");
        socket.set_nonblocking(true).expect("sets");
        UdpSocket::from_std(socket).expect("registers")
    }

    async fn udp(&self, to: &str, question: &Message) -> Message {
        let to: SocketAddr = format!("{to}:{PORT}").parse().expect("address");
        let socket = self.socket(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        let bytes = question.to_vec().expect("encodes");
        socket.send_to(&bytes, to).await.expect("sends");
        let mut buffer = vec![0; 65_535];
        let received = time::timeout(Duration::from_secs(20), socket.recv(&mut buffer));
        let length = received.await.expect("in time").expect("receives");
        Message::from_vec(&buffer[..length]).expect("decodes")
    }

    /// A question whose answer is known from now on, for a second.
    async fn ask_for_what_fades(&self) -> Message {
        let asked = question("fading.example.", RecordType::A);
        let answer = self.udp("127.0.0.1", &asked).await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        asked
    }

    async fn tcp(&self, question: &Message) -> Message {
        let mut stream = self.connect();
        write(&mut stream, question).await;
        read(&mut stream).await
    }

    fn connect(&self) -> TcpStream {
        let to: SocketAddr = format!("127.0.0.1:{PORT}").parse().expect("address");
        let stream = netns::within(Some(&self.netns), || std::net::TcpStream::connect(to));
        let stream = stream.expect("connects");
        stream.set_nonblocking(true).expect("sets");
        TcpStream::from_std(stream).expect("registers")
    }
}

/// The pod as the mesh tells of it.
fn web() -> Change {
    let mut web = Workload::new("Kubernetes//Pod/shop/web", "web", "shop");
    web.node = "node-1".into();
    Change::Workload(web)
}

async fn write(stream: &mut TcpStream, message: &Message) {
    stream.write_all(&packet(message)).await.expect("writes");
}

/// A message as TCP carries it.
fn packet(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().expect("encodes");
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], &bytes].concat()
}

async fn read(stream: &mut TcpStream) -> Message {
    let length = stream.read_u16().await.expect("reads");
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.expect("reads");
    Message::from_vec(&bytes).expect("decodes")
}

/// Answers every A question with 192.0.2.1, and TXT questions with more than UDP carries. Names that
/// begin with "silent" get no answer, with "fading" only the first time, and with "forged" one in
/// another spelling before the right one.
fn nameserver(netns: &OwnedFd, asked: Arc<AtomicUsize>) {
    let bound = netns::within(Some(netns), || {
        let udp = std::net::UdpSocket::bind("127.0.0.1:53")?;
        udp.set_nonblocking(true)?;
        let tcp = std::net::TcpListener::bind("127.0.0.1:53")?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    });
    let (udp, tcp) = bound.expect("binds");
    let udp = UdpSocket::from_std(udp).expect("registers");
    let tcp = TcpListener::from_std(tcp).expect("registers");
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.expect("receives");
            let before = asked.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).expect("decodes");
            let mut answer = upstream_answer(&question);
            let name = question.queries[0].name().to_ascii().to_ascii_lowercase();
            if name.starts_with("silent") || name.starts_with("fading") && before > 0 {
                continue;
            }
            if name.starts_with("fading") {
                answer.answers[0].ttl = 1;
            }
            let bytes = answer::udp_bytes(Some(&question), &answer).expect("encodes");
            if name.starts_with("forged") {
                let forged = forged(&question);
                udp.send_to(&forged, client).await.expect("sends");
            }
            udp.send_to(&bytes, client).await.expect("sends");
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.expect("accepts");
            let question = read(&mut stream).await;
            write(&mut stream, &upstream_answer(&question)).await;
        }
    });
}

/// One at 127.0.0.2 that answers all questions with 192.0.2.2.
fn second_nameserver(netns: &OwnedFd) {
    let bound = netns::within(Some(netns), || {
        let udp = std::net::UdpSocket::bind("127.0.0.2:53")?;
        udp.set_nonblocking(true)?;
        Ok(udp)
    });
    let udp = UdpSocket::from_std(bound.expect("binds")).expect("registers");
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.expect("receives");
            let question = Message::from_vec(&buffer[..length]).expect("decodes");
            let mut answer = answer::respond(&question, ResponseCode::NoError);
            let address = RData::A(A::new(192, 0, 2, 2));
            let name = question.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 60, address));
            let bytes = answer::udp_bytes(Some(&question), &answer).expect("encodes");
            udp.send_to(&bytes, client).await.expect("sends");
        }
    });
}

fn upstream_answer(question: &Message) -> Message {
    let mut answer = answer::respond(question, ResponseCode::NoError);
    let query = &question.queries[0];
    let record = |data| Record::from_rdata(query.name().clone(), 60, data);
    match query.query_type() {
        RecordType::TXT => {
            for _ in 0..20 {
                let text = TXT::new(vec!["x".repeat(200)]);
                answer.add_answer(record(RData::TXT(text)));
            }
        }
        _ => {
            answer.add_answer(record(RData::A(A::new(192, 0, 2, 1))));
        }
    }
    answer
}

/// What somebody sends who has guessed the id and the port, but not the spelling.
fn forged(question: &Message) -> Vec<u8> {
    let mut forged = answer::respond(question, ResponseCode::NoError);
    let name = question.queries[0].name().to_ascii().to_ascii_lowercase();
    let name = Name::from_str(&name).expect("name");
    forged.queries[0].set_name(name.clone());
    let data = RData::A(A::new(203, 0, 113, 9));
    forged.add_answer(Record::from_rdata(name, 60, data));
    forged.to_vec().expect("encodes")
}

fn question(name: &str, record_type: RecordType) -> Message {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let name = Name::from_str(name).expect("name");
    question.add_query(Query::query(name, record_type));
    question
}

fn addresses(answer: &Message) -> Vec<String> {
    let addresses = answer.answers.iter().filter_map(|r| r.data.ip_addr());
    addresses.map(|address| address.to_string()).collect()
}

#[tokio::test]
async fn the_meshs_names_are_answered_without_asking_anyone() {
    let scene = Scene::new(true).await;
    let asked = question("api.shop.svc.cluster.local.", RecordType::A);
    for answer in [
        scene.udp("127.0.0.1", &asked).await,
        scene.udp("[::1]", &asked).await,
        scene.tcp(&asked).await,
    ] {
        assert_eq!(answer.metadata.id, asked.metadata.id);
        assert_eq!(addresses(&answer), ["10.96.0.7"]);
    }
    assert_eq!(scene.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn other_names_are_asked_for_once_and_then_kept() {
    let scene = Scene::new(true).await;
    let asked = question("example.com.", RecordType::A);
    for _ in 0..3 {
        let answer = scene.udp("127.0.0.1", &asked).await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        assert_eq!(answer.metadata.id, asked.metadata.id);
    }
    assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_too_large_for_udp_are_fetched_over_tcp() {
    let scene = Scene::new(true).await;
    let asked = question("example.com.", RecordType::TXT);
    let cut = scene.udp("127.0.0.1", &asked).await;
    assert!(cut.metadata.truncation);
    let whole = scene.tcp(&asked).await;
    assert_eq!(whole.answers.len(), 20);
    assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_pod_the_mesh_does_not_know_is_told_to_try_again() {
    let scene = Scene::new(false).await;
    let asked = question("example.com.", RecordType::A);
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(scene.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_a_pod_asks_before_the_mesh_knows_it_is_answered_when_it_does() {
    let scene = Scene::with(false, Duration::from_secs(20)).await;
    let of_mesh = question("api.shop.", RecordType::A);
    let other = question("example.com.", RecordType::A);
    let [mut connection, mut later] = [scene.connect(), scene.connect()];
    write(&mut connection, &of_mesh).await;
    write(&mut later, &other).await;
    let known = async {
        // Until then it is not passed on either.
        let early = time::timeout(Duration::from_millis(50), later.peek(&mut [0])).await;
        assert!(early.is_err(), "answered for nobody");
        assert_eq!(scene.asked.load(Ordering::SeqCst), 0);
        let mut snapshot = (*scene.state.snapshot()).clone();
        snapshot.apply([web()]);
        scene.state.publish(snapshot);
    };
    let (answer, ()) = tokio::join!(scene.udp("127.0.0.1", &of_mesh), known);
    assert_eq!(addresses(&answer), ["10.96.0.7"]);
    assert_eq!(addresses(&read(&mut connection).await), ["10.96.0.7"]);
    assert_eq!(addresses(&read(&mut later).await), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_silent_nameserver_means_servfail_and_holds_nobody_up() {
    let scene = Scene::new(true).await;
    let silent = question("silent.example.", RecordType::A);
    let other = question("example.com.", RecordType::A);
    let slow = scene.udp("127.0.0.1", &silent);
    let quick = async {
        let answer = scene.udp("127.0.0.1", &other).await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        time::Instant::now()
    };
    let started = time::Instant::now();
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(slow.metadata.response_code, ResponseCode::ServFail);
    assert!(quick - started < Duration::from_secs(2));
}

#[tokio::test]
async fn questions_that_wait_in_vain_hold_up_no_name_of_the_mesh() {
    let scene = Scene::new(true).await;
    let flood = scene.socket("0.0.0.0:0");
    let to: SocketAddr = format!("127.0.0.1:{PORT}").parse().expect("address");
    let mesh = question("api.shop.svc.cluster.local.", RecordType::A);
    let mut failed = 0;
    for wave in 0..40 {
        for number in 0..50 {
            let name = format!("silent-{wave}-{number}.example.");
            let bytes = question(&name, RecordType::A).to_vec().expect("encodes");
            flood.send_to(&bytes, to).await.expect("sends");
        }
        let answer = scene.udp("127.0.0.1", &mesh).await;
        assert_eq!(addresses(&answer), ["10.96.0.7"], "in wave {wave}");
        // Asked after them on the same socket: what finds no place has been told so.
        let mut buffer = vec![0; 4096];
        while let Ok(length) = flood.try_recv(&mut buffer) {
            let told = Message::from_vec(&buffer[..length]).expect("decodes");
            assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
            failed += 1;
        }
    }
    let answer = scene.tcp(&mesh).await;
    assert_eq!(addresses(&answer), ["10.96.0.7"]);
    assert!(failed >= 2000 - 512, "{failed} were told");
}

#[tokio::test]
async fn what_was_right_a_while_ago_is_better_than_nothing() {
    let scene = Scene::new(true).await;
    let asked = scene.ask_for_what_fades().await;
    // Its TTL must be over; a question that nobody answers takes longer than that.
    let silent = question("silent.example.", RecordType::A);
    let answer = scene.udp("127.0.0.1", &silent).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    assert_eq!(answer.answers[0].ttl, 30);
    // Once the first time, and everything twice in vain, this one also after its answer.
    let all = 1 + 2 + 2;
    while scene.asked.load(Ordering::SeqCst) < all {
        time::sleep(Duration::from_millis(10)).await;
    }
    // Who has just not answered is not asked again.
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    assert_eq!(scene.asked.load(Ordering::SeqCst), all);
}

#[tokio::test]
async fn what_another_nameserver_says_replaces_what_was_right_a_while_ago() {
    let scene = Scene::new(true).await;
    second_nameserver(&scene.netns);
    let both = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n";
    std::fs::write(scene.dir.path().join("resolv.conf"), both).expect("writes");
    let asked = scene.ask_for_what_fades().await;
    // Its TTL is over by the time the second nameserver is asked for another name.
    let silent = question("silent.example.", RecordType::A);
    let answer = scene.udp("127.0.0.1", &silent).await;
    assert_eq!(addresses(&answer), ["192.0.2.2"]);
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let replaced = async {
        while addresses(&scene.udp("127.0.0.1", &asked).await) != ["192.0.2.2"] {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(Duration::from_secs(60), replaced)
        .await
        .expect("the second one's answer");
}

#[tokio::test]
async fn an_answer_in_another_spelling_is_not_believed() {
    let scene = Scene::new(true).await;
    let asked = question("Forged-in-some-LETTERS.example.", RecordType::A);
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let owner = &answer.answers[0].name;
    assert!(owner.eq_case(asked.queries[0].name()), "{owner}");
}

#[tokio::test]
async fn connections_that_wait_in_vain_hold_up_no_other() {
    let scene = Scene::new(true).await;
    let mesh = question("api.shop.svc.cluster.local.", RecordType::A);
    let mut waiting = Vec::new();
    for number in 0..100 {
        let mut stream = scene.connect();
        let silent = question(&format!("silent-{number}.example."), RecordType::A);
        write(&mut stream, &silent).await;
        // Asked after it, and so accepted and read after it.
        let answer = scene.udp("127.0.0.1", &mesh).await;
        assert_eq!(addresses(&answer), ["10.96.0.7"]);
        waiting.push(stream);
    }
    let answer = scene.tcp(&mesh).await;
    assert_eq!(addresses(&answer), ["10.96.0.7"]);
    // One that has waited is not thrown out for it.
    let mut first = waiting.remove(0);
    let answer = read(&mut first).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    write(&mut first, &mesh).await;
    assert_eq!(addresses(&read(&mut first).await), ["10.96.0.7"]);
}

#[tokio::test]
async fn the_last_descriptors_are_for_no_connection() {
    if own_process::part().is_none() {
        let test = "dns::tests::the_last_descriptors_are_for_no_connection";
        own_process::goes_on(test, "descriptors");
        return;
    }
    let scene = Scene::new(true).await;
    setrlimit(Resource::RLIMIT_NOFILE, 128, 128).expect("limits itself");
    descriptors::raise_limit();
    let open = || descriptors::unreserved(File::open("/dev/null").expect("opens"));
    let held: Vec<_> = std::iter::from_fn(|| open().ok()).collect();

    let asked = question("api.shop.svc.cluster.local.", RecordType::A);
    let mut refused = scene.connect();
    let mut answer = Vec::new();
    // It may be closed before it is asked, or with the question unread.
    let _ = refused.write_all(&packet(&asked)).await;
    let _ = refused.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "answered");
    let answer = scene.udp("127.0.0.1", &asked).await;
    assert_eq!(addresses(&answer), ["10.96.0.7"]);

    drop(held);
    assert_eq!(addresses(&scene.tcp(&asked).await), ["10.96.0.7"]);
}

#[tokio::test]
async fn a_question_that_panics_is_the_only_one_that_is_not_answered() {
    if own_process::part().is_none() {
        let test = "dns::tests::a_question_that_panics_is_the_only_one_that_is_not_answered";
        let said = own_process::goes_on(test, "dns question");
        return assert!(said.contains(own_process::PANIC), "{said}");
    }
    let scene = Scene::new(true).await;
    own_process::panic_at("DNS questions are turned away");
    let flood = scene.socket("0.0.0.0:0");
    let to: SocketAddr = format!("127.0.0.1:{PORT}").parse().expect("address");
    let mesh = question("api.shop.svc.cluster.local.", RecordType::A);
    for number in 0..=512 {
        let name = format!("silent-{number}.example.");
        let bytes = question(&name, RecordType::A).to_vec().expect("encodes");
        flood.send_to(&bytes, to).await.expect("sends");
        // Asked after it on the same socket, which holds few.
        let answer = scene.udp("127.0.0.1", &mesh).await;
        assert_eq!(addresses(&answer), ["10.96.0.7"]);
    }
}

#[tokio::test]
async fn a_process_ends_with_a_pods_server() {
    if own_process::part().is_none() {
        let test = "dns::tests::a_process_ends_with_a_pods_server";
        return own_process::ends(test, "dns over tcp");
    }
    let scene = Scene::new(true).await;
    own_process::panic_at("DNS questions are turned away");
    // The last of them finds no place.
    let _many: Vec<_> = (0..=64).map(|_| scene.connect()).collect();
    // It would go on for ever; whoever looks at its exit code is not to wait for that.
    time::sleep(Duration::from_secs(60)).await;
}
