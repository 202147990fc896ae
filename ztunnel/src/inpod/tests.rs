//! The client against an agent at the other end of a real socket, with real descriptors.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    listen, sendmsg, socket,
};
use prost::Message;
use proto::zds::workload_request::Payload as Ask;
use proto::zds::{
    AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest,
};

use super::*;

#[derive(Clone, Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<bool>>,
    pending: Arc<Mutex<Vec<Arc<str>>>>,
    taking_over: Arc<Mutex<bool>>,
}

impl Proxies for Recorder {
    async fn add(&self, pod: &Pod) -> Result<(), NotServed> {
        assert!(pod.spec.netns.is_some());
        self.calls.lock().expect("lock").push(format!(
            "add {} {} {:?}",
            pod.spec.uid, pod.spec.info.name, pod.search_domains
        ));
        match *self.failing.lock().expect("lock") {
            true => Err(NotServed {
                reason: "port in use".to_owned(),
                holds_up: true,
            }),
            false => Ok(()),
        }
    }

    async fn remove(&self, uid: &Arc<str>) {
        let mut calls = self.calls.lock().expect("lock");
        calls.push(format!("remove {uid}"));
    }

    fn pending(&self, pods: Vec<Pod>) {
        let uids = pods.into_iter().map(|pod| pod.spec.uid);
        *self.pending.lock().expect("lock") = uids.collect();
    }

    async fn takes_over(&self) -> bool {
        *self.taking_over.lock().expect("lock")
    }
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().expect("lock"))
    }

    fn pending(&self) -> Vec<Arc<str>> {
        self.pending.lock().expect("lock").clone()
    }
}

/// The agent's side.
struct Agent {
    listener: OwnedFd,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ztunnel.sock");
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("socket");
        let address = UnixAddr::new(&path).expect("short path");
        bind(listener.as_raw_fd(), &address).expect("binds");
        listen(&listener, Backlog::new(4).expect("small")).expect("listens");
        Self {
            listener,
            path,
            _dir: dir,
        }
    }

    async fn accept(&self) -> Peer {
        let fd = self.listener.as_raw_fd();
        let accepted = tokio::task::spawn_blocking(move || {
            accept4(fd, SockFlag::SOCK_CLOEXEC).expect("accepts")
        })
        .await
        .expect("no panic");
        let peer = Peer(Socket::from_owned(packet::take(accepted)).expect("socket"));
        let hello = peer.0.receive().await.expect("readable").expect("open");
        let hello = ZdsHello::decode(&*hello.bytes).expect("hello");
        assert_eq!(hello.version, i32::from(Version::V1));
        peer
    }
}

struct Peer(Socket);

impl Peer {
    /// Sends a request and waits for its acknowledgement's error.
    async fn ask(&self, ask: Ask, fd: Option<&File>) -> String {
        let request = WorkloadRequest { payload: Some(ask) };
        self.send(&request.encode_to_vec(), fd);
        self.acknowledgement().await.expect("acknowledged")
    }

    fn send(&self, bytes: &[u8], fd: Option<&File>) {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::empty(),
            None,
        )
        .expect("sends");
    }

    async fn acknowledgement(&self) -> Option<String> {
        let packet = self.0.receive().await.expect("readable")?;
        let response = WorkloadResponse::decode(&*packet.bytes).expect("response");
        let Some(Payload::Ack(ack)) = response.payload else {
            panic!("not an acknowledgement");
        };
        Some(ack.error)
    }
}

fn add(uid: &str) -> Ask {
    Ask::Add(AddWorkload {
        uid: uid.to_owned(),
        workload_info: Some(WorkloadInfo {
            name: format!("pod-{uid}"),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            search_domains: vec!["shop.svc.cluster.local".to_owned()],
        }),
    })
}

fn keep(uid: &str) -> Ask {
    Ask::Keep(KeepWorkload {
        uid: uid.to_owned(),
    })
}

fn sent() -> Ask {
    Ask::SnapshotSent(SnapshotSent {})
}

fn netns() -> File {
    File::open("/proc/self/ns/net").expect("exists")
}

async fn until_ready(readiness: &Readiness, ready: bool) {
    let reached = async {
        while readiness.open().is_empty() != ready {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(60), reached)
        .await
        .expect("readiness follows");
}

#[tokio::test]
async fn pods_come_and_go_as_the_agent_says() {
    let agent = Agent::new();
    let recorder = Recorder::default();
    let readiness = Readiness::new();
    let mut client = Client::new(agent.path.clone(), recorder.clone(), &readiness);
    let client = tokio::spawn(async move { client.run().await });

    let peer = agent.accept().await;
    assert_eq!(peer.ask(add("a"), Some(&netns())).await, "");
    assert_eq!(peer.ask(add("b"), Some(&netns())).await, "");
    assert_eq!(readiness.open(), [TASK]);
    assert_eq!(peer.ask(sent(), None).await, "");
    until_ready(&readiness, true).await;
    assert_eq!(
        recorder.take(),
        [
            "add a pod-a [\"shop.svc.cluster.local\"]",
            "add b pod-b [\"shop.svc.cluster.local\"]"
        ]
    );

    // The agent restarts: pods stay until its new snapshot says otherwise.
    drop(peer);
    until_ready(&readiness, false).await;
    let peer = agent.accept().await;
    assert_eq!(peer.ask(keep("a"), None).await, "");
    assert_eq!(peer.ask(sent(), None).await, "");
    until_ready(&readiness, true).await;
    assert_eq!(recorder.take(), ["remove b"]);

    let delete = Ask::Del(DelWorkload {
        uid: "a".to_owned(),
    });
    assert_eq!(peer.ask(delete, None).await, "");
    assert_eq!(recorder.take(), ["remove a"]);
    client.abort();
}

#[tokio::test]
async fn a_pod_that_cannot_be_served_is_tried_again() {
    let agent = Agent::new();
    let recorder = Recorder::default();
    *recorder.failing.lock().expect("lock") = true;
    let readiness = Readiness::new();
    let mut client = Client::new(agent.path.clone(), recorder.clone(), &readiness);
    client.retry = Duration::from_millis(10);
    let client = tokio::spawn(async move { client.run().await });
    let peer = agent.accept().await;
    assert_eq!(peer.ask(add("a"), Some(&netns())).await, "port in use");
    assert_eq!(peer.ask(sent(), None).await, "");
    assert_eq!(recorder.pending(), [Arc::from("a")]);
    assert_eq!(readiness.open(), [TASK]);

    *recorder.failing.lock().expect("lock") = false;
    until_ready(&readiness, true).await;
    assert!(recorder.take().len() >= 2);
    assert!(recorder.pending().is_empty());
    client.abort();
}

#[tokio::test]
async fn a_pod_that_waits_is_tried_again_after_the_agent_has_lost_it() {
    let agent = Agent::new();
    let recorder = Recorder::default();
    *recorder.failing.lock().expect("lock") = true;
    let readiness = Readiness::new();
    let mut client = Client::new(agent.path.clone(), recorder.clone(), &readiness);
    client.retry = Duration::from_millis(10);
    let client = tokio::spawn(async move { client.run().await });
    let peer = agent.accept().await;
    assert_eq!(peer.ask(add("a"), Some(&netns())).await, "port in use");
    assert_eq!(peer.ask(sent(), None).await, "");
    drop(peer);

    let peer = agent.accept().await;
    assert_eq!(peer.ask(keep("a"), None).await, "");
    assert_eq!(peer.ask(sent(), None).await, "");
    assert_eq!(recorder.pending(), [Arc::from("a")]);
    *recorder.failing.lock().expect("lock") = false;
    recorder.take();
    until_ready(&readiness, true).await;
    assert!(recorder.take()[0].starts_with("add a"));
    client.abort();
}

#[tokio::test]
async fn a_pod_that_nobody_has_is_waited_for_only_before_the_takeover() {
    let agent = Agent::new();
    let recorder = Recorder::default();
    *recorder.taking_over.lock().expect("lock") = true;
    let readiness = Readiness::new();
    let mut client = Client::new(agent.path.clone(), recorder.clone(), &readiness);
    let client = tokio::spawn(async move { client.run().await });
    let peer = agent.accept().await;
    assert_eq!(peer.ask(keep("a"), None).await, "");
    assert_eq!(peer.ask(sent(), None).await, "");
    assert_eq!(readiness.open(), [TASK]);
    let delete = Ask::Del(DelWorkload {
        uid: "a".to_owned(),
    });
    assert_eq!(peer.ask(delete, None).await, "");
    until_ready(&readiness, true).await;
    *recorder.taking_over.lock().expect("lock") = false;
    drop(peer);
    until_ready(&readiness, false).await;

    let peer = agent.accept().await;
    assert_eq!(peer.ask(keep("b"), None).await, "");
    assert_eq!(peer.ask(sent(), None).await, "");
    until_ready(&readiness, true).await;
    client.abort();
}

#[tokio::test]
async fn broken_packets_end_the_connection_and_not_the_process() {
    let agent = Agent::new();
    let recorder = Recorder::default();
    let mut client = Client::new(agent.path.clone(), recorder.clone(), &Readiness::new());
    let client = tokio::spawn(async move { client.run().await });
    let file = File::open("/dev/null").expect("exists");
    let cases: [(Vec<u8>, Option<&File>, &str); 5] = [
        (vec![0xff; 8], None, "cannot decode"),
        (vec![0x3a, 0x00], None, "no payload"),
        (encoded(add("a")), None, "has 0"),
        (encoded(add("a")), Some(&file), "not a network namespace"),
        (encoded(keep("a")), Some(&file), "only AddWorkload"),
    ];
    for (bytes, fd, expected) in cases {
        let peer = agent.accept().await;
        peer.send(&bytes, fd);
        let error = peer.acknowledgement().await.expect("acknowledged");
        assert!(error.contains(expected), "{error:?} has no {expected:?}");
        assert_eq!(peer.acknowledgement().await, None);
    }
    let peer = agent.accept().await;
    peer.send(&[0; PACKET_TOO_LONG], None);
    assert_eq!(peer.acknowledgement().await, None);
    assert!(!client.is_finished());
    assert!(recorder.take().is_empty());
    client.abort();
}

const PACKET_TOO_LONG: usize = 1025;

fn encoded(ask: Ask) -> Vec<u8> {
    WorkloadRequest { payload: Some(ask) }.encode_to_vec()
}

#[tokio::test]
async fn another_protocol_ends_the_client() {
    let agent = Agent::new();
    let mut client = Client::new(agent.path.clone(), Recorder::default(), &Readiness::new());
    let client = tokio::spawn(async move { client.run().await });
    let peer = agent.accept().await;
    let bare = Ask::Add(AddWorkload {
        uid: "a".to_owned(),
        workload_info: None,
    });
    let error = peer.ask(bare, Some(&netns())).await;
    assert_eq!(error, "AddWorkload without workload_info");
    let ended = client.await.expect("no panic");
    assert_eq!(ended, ProtocolError::MissingWorkloadInfo);
}
