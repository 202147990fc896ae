//! The server against a peer that speaks the wire by hand.

use std::io::{IoSliceMut, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use prost::Message as _;
use proto::zds::{
    Ack, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_request::Payload,
    workload_response,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use super::*;

struct Fixture {
    folder: TempDir,
    server: Server,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind(&folder.path().join("ztunnel.sock")).unwrap();
        Fixture { folder, server }
    }

    async fn ztunnel(&self) -> Ztunnel {
        let path = self.folder.path().join("ztunnel.sock");
        blocking(move || {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
            let hello = ZdsHello {
                version: Version::V1.into(),
            };
            (&socket).write_all(&hello.encode_to_vec()).unwrap();
            Ztunnel(Arc::new(socket))
        })
        .await
    }
}

#[derive(Clone)]
struct Ztunnel(Arc<Socket>);

impl Ztunnel {
    /// The next request in short, with the inode of the namespace that came along.
    async fn receive(&self) -> (String, Option<u64>) {
        let socket = self.0.clone();
        blocking(move || {
            let mut data = [0; 2048];
            let mut control = nix::cmsg_space!([i32; 2]);
            let mut slices = [IoSliceMut::new(&mut data)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message =
                recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).unwrap();
            let fds: Vec<i32> = message
                .cmsgs()
                .unwrap()
                .flat_map(|cmsg| match cmsg {
                    ControlMessageOwned::ScmRights(fds) => fds,
                    _ => Vec::new(),
                })
                .collect();
            let length = message.bytes;
            let inode = fds.first().map(|fd| {
                std::fs::metadata(format!("/proc/self/fd/{fd}"))
                    .unwrap()
                    .ino()
            });
            let text = match WorkloadRequest::decode(&data[..length]).unwrap().payload {
                Some(Payload::Add(add)) => format!("add {}", add.uid),
                Some(Payload::Del(del)) => format!("del {}", del.uid),
                Some(Payload::Keep(keep)) => format!("keep {}", keep.uid),
                Some(Payload::SnapshotSent(_)) => "snapshot sent".into(),
                None => "nothing".into(),
            };
            (text, inode)
        })
        .await
    }

    async fn expect(&self, request: &str) {
        assert_eq!(self.receive().await.0, request);
        self.ack("");
    }

    fn ack(&self, error: &str) {
        let response = WorkloadResponse {
            payload: Some(workload_response::Payload::Ack(Ack {
                error: error.into(),
            })),
        };
        (&*self.0).write_all(&response.encode_to_vec()).unwrap();
    }

    async fn closed(&self) {
        let socket = self.0.clone();
        let read = blocking(move || (&*socket).read(&mut [0; 16])).await;
        assert_eq!(read.unwrap(), 0);
    }
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(job).await.unwrap()
}

fn info(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        search_domains: vec!["shop.svc.cluster.local".into()],
    }
}

fn netns() -> Arc<OwnedFd> {
    Arc::new(crate::netns::current().unwrap())
}

#[tokio::test]
async fn a_ztunnel_gets_the_snapshot_one_by_one_and_then_what_changes() {
    let fixture = Fixture::new();
    let pending = fixture.server.add("a", info("a"), Some(netns())).await;
    assert_eq!(pending, Delivery::waiting());
    fixture.server.add("b", info("b"), None).await;

    let ztunnel = fixture.ztunnel().await;
    let (request, inode) = ztunnel.receive().await;
    assert_eq!(request, "add a");
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(inode, Some(own));
    ztunnel.ack("");
    ztunnel.expect("keep b").await;
    ztunnel.expect("snapshot sent").await;

    let (delivery, ()) = tokio::join!(
        fixture.server.add("c", info("c"), Some(netns())),
        ztunnel.expect("add c")
    );
    assert_eq!(delivery, Delivery::Done);
    assert_eq!(fixture.server.delivery("a"), Some(Delivery::Done));
    tokio::join!(fixture.server.del("a"), ztunnel.expect("del a"));
    assert_eq!(fixture.server.delivery("a"), None);
}

#[tokio::test]
async fn additions_go_to_the_newest_and_removals_to_all() {
    let fixture = Fixture::new();
    let old = fixture.ztunnel().await;
    old.expect("snapshot sent").await;
    let new = fixture.ztunnel().await;
    new.expect("snapshot sent").await;
    tokio::join!(
        fixture.server.add("a", info("a"), Some(netns())),
        new.expect("add a")
    );
    tokio::join!(
        fixture.server.del("a"),
        old.expect("del a"),
        new.expect("del a")
    );
}

/// An upgrade that failed: what the new ztunnel was given in the meantime is not lost with it.
#[tokio::test]
async fn a_predecessor_gets_what_its_lost_successor_was_given() {
    let fixture = Fixture::new();
    let old = fixture.ztunnel().await;
    old.expect("snapshot sent").await;
    let new = fixture.ztunnel().await;
    new.expect("snapshot sent").await;
    tokio::join!(
        fixture.server.add("a", info("a"), Some(netns())),
        new.expect("add a")
    );
    new.0.shutdown(std::net::Shutdown::Both).unwrap();
    let mut changed = fixture.server.changed();
    old.expect("add a").await;
    while fixture.server.delivery("a") != Some(Delivery::Done) {
        changed.changed().await.unwrap();
    }
    // The end of a predecessor changes nothing for its successor.
    let new = fixture.ztunnel().await;
    new.expect("add a").await;
    new.expect("snapshot sent").await;
    old.0.shutdown(std::net::Shutdown::Both).unwrap();
    while fixture.server.peers().len() > 1 {
        changed.changed().await.unwrap();
    }
    tokio::join!(fixture.server.del("a"), new.expect("del a"));
}

#[tokio::test]
async fn a_refusal_is_kept_with_its_reason_and_the_connection_goes_on() {
    let fixture = Fixture::new();
    let ztunnel = fixture.ztunnel().await;
    ztunnel.expect("snapshot sent").await;
    let refuse = async {
        assert_eq!(ztunnel.receive().await.0, "add a");
        ztunnel.ack("no ports left");
    };
    let (delivery, ()) = tokio::join!(fixture.server.add("a", info("a"), Some(netns())), refuse);
    assert_eq!(delivery, Delivery::pending("no ports left"));
    let (delivery, ()) = tokio::join!(fixture.server.deliver("a"), ztunnel.expect("add a"));
    assert_eq!(delivery, Ok(Delivery::Done));
}

#[tokio::test]
async fn a_lost_ztunnel_leaves_its_pod_pending_and_the_next_one_gets_it() {
    let fixture = Fixture::new();
    let ztunnel = fixture.ztunnel().await;
    ztunnel.expect("snapshot sent").await;
    let vanish = async {
        ztunnel.receive().await;
        ztunnel.0.shutdown(std::net::Shutdown::Both).unwrap();
    };
    let (delivery, ()) = tokio::join!(fixture.server.add("a", info("a"), Some(netns())), vanish);
    assert!(matches!(delivery, Delivery::Pending { .. }), "{delivery:?}");
    let mut changed = fixture.server.changed();
    let ztunnel = fixture.ztunnel().await;
    ztunnel.expect("add a").await;
    ztunnel.expect("snapshot sent").await;
    while !fixture.server.peers().iter().any(|peer| peer.synced) {
        changed.changed().await.unwrap();
    }
    assert_eq!(fixture.server.delivery("a"), Some(Delivery::Done));
}

#[tokio::test]
async fn who_speaks_unasked_is_cut_off() {
    let fixture = Fixture::new();
    let ztunnel = fixture.ztunnel().await;
    ztunnel.expect("snapshot sent").await;
    ztunnel.ack("");
    ztunnel.closed().await;
}

#[tokio::test]
async fn search_domains_that_do_not_fit_are_left_out() {
    let fixture = Fixture::new();
    let ztunnel = fixture.ztunnel().await;
    ztunnel.expect("snapshot sent").await;
    let mut long = info("a");
    long.search_domains = (0..40)
        .map(|number| format!("domain-{number}.of-some-length.example.com"))
        .collect();
    let (delivery, ()) = tokio::join!(
        fixture.server.add("a", long, Some(netns())),
        ztunnel.expect("add a")
    );
    assert_eq!(delivery, Delivery::Done);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("ztunnel.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(fixture.server);
    assert!(!path.exists());
}
