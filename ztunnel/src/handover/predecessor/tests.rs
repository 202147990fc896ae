//! Both sides in one process, over a real socket, with real descriptors.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use proto::handover::{Hello, Ready};
use tokio::task::JoinHandle;

use super::super::successor::{self, Found, Succession};
use super::*;

const NETNS: NetnsId = NetnsId {
    device: 4,
    inode: 7,
};

/// Three listeners and a datagram socket of one pod.
struct Sockets {
    tcp: Vec<TcpListener>,
    udp: UdpSocket,
}

struct Lent(Arc<Sockets>);

impl Lender for Lent {
    async fn lend(&self, owner: Owner, port: Port) -> Vec<OwnedFd> {
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().expect("fd");
        match (owner == pod(), port) {
            (true, Port::Tcp(15001)) => self
                .0
                .tcp
                .iter()
                .map(|one| duplicate(one.as_fd()))
                .collect(),
            (true, Port::Udp(15053)) => vec![duplicate(self.0.udp.as_fd())],
            _ => Vec::new(),
        }
    }

    fn take_back(&self) {}
}

fn pod() -> Owner {
    Owner::Pod {
        uid: "a".into(),
        netns: NETNS,
    }
}

struct Test {
    folder: tempfile::TempDir,
    sockets: Arc<Sockets>,
    serving: JoinHandle<Successor>,
}

impl Test {
    fn new(listeners: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listen = |_| TcpListener::bind("127.0.0.1:0").expect("binds");
        let sockets = Arc::new(Sockets {
            tcp: (0..listeners).map(listen).collect(),
            udp: UdpSocket::bind("127.0.0.1:0").expect("binds"),
        });
        let predecessor = Predecessor::bind(&folder.path().join("h")).expect("binds");
        let lent = Lent(sockets.clone());
        let serving = tokio::spawn(async move { predecessor.replaced(&lent).await });
        Self {
            folder,
            sockets,
            serving,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("h")
    }

    async fn succession(&self) -> Succession {
        match successor::find(&self.path()).await {
            Found::Predecessor(succession) => succession,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_successor_gets_the_sockets_takes_over_and_hears_the_end() {
    // More than one packet carries.
    let test = Test::new(MAX_DESCRIPTORS + 7);
    let succession = test.succession().await;
    assert_eq!(succession.release(), env!("CARGO_PKG_VERSION"));
    let ports = [Port::Tcp(15001), Port::Tcp(15006), Port::Udp(15053)];
    let mut inherited = succession.inherit(&pod(), &ports).await;
    let addresses = |all: &[TcpListener]| -> Vec<_> {
        let address = |one: &TcpListener| one.local_addr().expect("address");
        all.iter().map(address).collect()
    };
    assert_eq!(
        addresses(&inherited.tcp(15001)),
        addresses(&test.sockets.tcp)
    );
    assert!(inherited.tcp(15006).is_empty());
    assert_eq!(inherited.udp(15053).len(), 1);
    let elsewhere = Owner::Pod {
        uid: "a".into(),
        netns: NetnsId {
            device: 4,
            inode: 8,
        },
    };
    let mut nothing = succession.inherit(&elsewhere, &ports).await;
    assert!(nothing.tcp(15001).is_empty());

    let mut gate = succession.gate();
    let (former, successor) = tokio::join!(succession.take_over(), async {
        gate.opened().await;
        let mut successor = test.serving.await.expect("replaced");
        assert_eq!(
            successor.pid,
            i32::try_from(std::process::id()).expect("a pid")
        );
        successor.release(12).await;
        successor
    });
    let former = former.expect("it is there");
    assert_eq!(former.left, 12);
    // Whoever comes now does not wait for that end.
    let mut late = succession.inherit(&pod(), &ports).await;
    assert!(late.tcp(15001).is_empty());
    let (cut, ()) = tokio::join!(former.farewell(), successor.farewell(3));
    assert_eq!(cut, Some(3));
    // The path is the successor's to bind.
    assert!(test.folder.path().join("h").exists());
}

#[tokio::test]
async fn one_successor_at_a_time_and_the_next_after_its_death() {
    let test = Test::new(1);
    let first = test.succession().await;
    match successor::find(&test.path()).await {
        Found::Refused(reason) => assert!(reason.contains("another successor"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(first);
    let second = loop {
        match successor::find(&test.path()).await {
            Found::Predecessor(second) => break second,
            Found::Refused(_) => tokio::task::yield_now().await,
            Found::Nobody => panic!("it serves on"),
        }
    };
    let mut inherited = second.inherit(&pod(), &[Port::Tcp(15001)]).await;
    assert_eq!(inherited.tcp(15001).len(), 1);
}

#[tokio::test]
async fn another_version_is_refused_politely_and_garbage_ignored() {
    let test = Test::new(1);
    let socket = Socket::connect(&test.path()).expect("connects");
    let hello = Hello {
        version: VERSION + 1,
        release: "9".to_owned(),
    };
    let request = Request {
        payload: Some(Ask::Hello(hello)),
    };
    socket.send(&request).await.expect("sent");
    let packet = socket.receive().await.expect("readable").expect("answered");
    let reply = Reply::decode(&*packet.bytes).expect("a reply");
    let Some(Answer::Welcome(welcome)) = reply.payload else {
        panic!("{reply:?}");
    };
    assert!(welcome.refusal.contains("version 2"), "{}", welcome.refusal);

    let rude = Socket::connect(&test.path()).expect("connects");
    let early = Request {
        payload: Some(Ask::Ready(Ready {})),
    };
    rude.send(&early).await.expect("sent");
    assert!(rude.receive().await.expect("readable").is_none());
    // It still serves.
    let succession = test.succession().await;
    let mut inherited = succession.inherit(&pod(), &[Port::Tcp(15001)]).await;
    assert_eq!(inherited.tcp(15001).len(), 1);
}

#[tokio::test]
async fn nobody_is_found_where_nobody_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("h");
    assert!(matches!(successor::find(&path).await, Found::Nobody));
    drop(Predecessor::bind(&path).expect("binds"));
    assert!(!path.exists(), "removed at its end");
    std::fs::write(&path, "a file that is no socket").expect("written");
    assert!(matches!(successor::find(&path).await, Found::Nobody));
    let _bound = Predecessor::bind(&path).expect("takes its place");
}
