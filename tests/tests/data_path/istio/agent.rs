//! Istio's CNI agent as a node tunnel sees it: one packet a message, one acknowledgement each.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use prost::Message;
use proto::zds::workload_request::Payload;
use proto::zds::workload_response::Payload as Answer;
use proto::zds::{
    AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::lab::PATIENCE;

/// Where tunnels connect to.
pub(super) struct Agent(Socket);

/// One tunnel's connection.
pub(super) struct Connection(Socket);

// === impl Agent ===

impl Agent {
    pub(super) fn listen(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("socket");
        let address = SockAddr::unix(path).expect("a short path");
        socket.bind(&address).expect("binds");
        socket.listen(4).expect("listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("socket");
        Self(socket)
    }

    /// The next tunnel, which has said hello.
    pub(super) fn accept(&self) -> Connection {
        let (socket, _) = self.0.accept().expect("a tunnel, in time");
        socket.set_read_timeout(Some(PATIENCE)).expect("socket");
        let connection = Connection(socket);
        let hello = connection.receive().expect("a hello");
        let hello = ZdsHello::decode(&*hello).expect("a hello");
        assert_eq!(hello.version, i32::from(Version::V1));
        connection
    }
}

// === impl Connection ===

impl Connection {
    /// The error of the acknowledgement; empty where it is well.
    pub(super) fn add(&self, uid: &str, account: &str, netns: &OwnedFd) -> String {
        let workload_info = WorkloadInfo {
            name: account.to_owned(),
            namespace: "shop".to_owned(),
            service_account: account.to_owned(),
            ..Default::default()
        };
        let add = AddWorkload {
            uid: uid.to_owned(),
            workload_info: Some(workload_info),
        };
        self.ask(Payload::Add(add), &[netns.as_raw_fd()])
    }

    pub(super) fn keep(&self, uid: &str) -> String {
        let uid = uid.to_owned();
        self.ask(Payload::Keep(KeepWorkload { uid }), &[])
    }

    pub(super) fn delete(&self, uid: &str) -> String {
        let uid = uid.to_owned();
        self.ask(Payload::Del(DelWorkload { uid }), &[])
    }

    pub(super) fn snapshot_sent(&self) -> String {
        self.ask(Payload::SnapshotSent(SnapshotSent {}), &[])
    }

    fn ask(&self, payload: Payload, fds: &[RawFd]) -> String {
        let request = WorkloadRequest {
            payload: Some(payload),
        };
        self.send(&request.encode_to_vec(), fds);
        let answer = self.receive().expect("an acknowledgement");
        let answer = WorkloadResponse::decode(&*answer).expect("an answer");
        let Some(Answer::Ack(acknowledgement)) = answer.payload else {
            panic!("not an acknowledgement");
        };
        acknowledgement.error
    }

    fn send(&self, bytes: &[u8], fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::empty());
        sendmsg::<()>(fd, &[IoSlice::new(bytes)], control, flags, None).expect("sends");
    }

    /// A packet; none at the end.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty());
        let length = length.expect("an answer, in time");
        assert!(length <= 1024, "{length}");
        buffer.truncate(length);
        (length > 0).then_some(buffer)
    }
}
