//! Real connections on the loopback of namespaces that have nothing else.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Command;
use std::thread;

use super::*;

/// For what only a mistake makes long.
const PATIENCE: Duration = Duration::from_secs(60);
const LOCALHOST: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Both ends of one connection, the client's first.
fn connected(listen: SocketAddr, dial: SocketAddr) -> [TcpStream; 2] {
    let listener = TcpListener::bind(listen).expect("binds");
    let port = listener.local_addr().expect("an address").port();
    let client = TcpStream::connect((dial.ip(), port)).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    let ends = [client, server];
    for end in &ends {
        end.set_read_timeout(Some(PATIENCE)).expect("an option");
    }
    ends
}

/// A namespace, and what `job` makes in it.
async fn namespace<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> (OwnedFd, T) {
    let netns = netns::create().expect("the right to make namespaces");
    let made = netns::run(&netns, || {
        let up = ["link", "set", "lo", "up"];
        let status = Command::new("ip").args(up).status();
        assert!(status.expect("ip is installed").success());
        job()
    });
    let made = made.await.expect("entered");
    (netns, made)
}

#[tokio::test]
async fn every_connection_of_a_namespace_ends_and_none_elsewhere() {
    let mut elsewhere = connected(LOCALHOST.into(), LOCALHOST.into());
    let (netns, all) = namespace(|| {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        [
            connected(LOCALHOST.into(), LOCALHOST.into()),
            connected(v6, v6),
            // IPv4 on a socket of both families.
            connected(any, LOCALHOST.into()),
        ]
    })
    .await;
    // The other end of one that was ended may be gone before its turn comes.
    let ended = end(&netns, PATIENCE).await.expect("ended");
    assert!(ended >= all.len(), "{ended}");
    for mut end in all.into_iter().flatten() {
        let error = end.read(&mut [0]).expect_err("ended");
        let kinds = [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
        ];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    let again = end(&netns, PATIENCE).await;
    assert_eq!(again.expect("nothing to do"), 0);

    let [client, server] = &mut elsewhere;
    client.write_all(b"x").expect("open");
    server.read_exact(&mut [0]).expect("open");
}

#[tokio::test]
async fn what_was_sent_before_arrives() {
    let (netns, (mut server, sent)) = namespace(|| {
        let [mut client, server] = connected(LOCALHOST.into(), LOCALHOST.into());
        client.set_nonblocking(true).expect("an option");
        // As much as the kernel takes, and the process is gone.
        let mut sent = 0;
        while let Ok(more) = client.write(&[7; 1 << 16]) {
            sent += more;
        }
        (server, sent)
    })
    .await;
    assert!(sent > 0);
    let mut ending = pin!(end(&netns, PATIENCE));
    let soon = time::timeout(LOOK * 4, &mut ending).await;
    assert!(soon.is_err(), "it is still on its way");
    let reading = thread::spawn(move || {
        let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(more @ 1..) = server.read(&mut buffer) {
            read += more;
        }
        read
    });
    ending.await.expect("ended");
    assert_eq!(reading.join().expect("no panic"), sent);
}

#[tokio::test]
async fn what_nobody_reads_is_waited_for_no_longer_than_told() {
    let (netns, _ends) = namespace(|| {
        let mut ends = connected(LOCALHOST.into(), LOCALHOST.into());
        ends[0].write_all(b"unread").expect("writes");
        ends
    })
    .await;
    end(&netns, LOOK).await.expect("ended");
    let again = end(&netns, PATIENCE).await;
    assert_eq!(again.expect("nothing to do"), 0);
}

#[tokio::test]
async fn a_listener_stays() {
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80));
    let (netns, listener) = namespace(listen).await;
    let _listener = listener.expect("binds");
    let ended = end(&netns, PATIENCE).await;
    assert_eq!(ended.expect("nothing to do"), 0);
    let again = netns::run(&netns, listen).await;
    again.expect("entered").expect_err("taken");
}

#[test]
fn what_is_no_message_ends_the_reading() {
    let whole = request(SOCK_DESTROY, NLM_F_ACK, 2, [7; 48]);
    let (kind, payload, rest) = message(&whole).expect("a message");
    assert_eq!((kind, payload.len(), rest.len()), (SOCK_DESTROY, 56, 0));
    for cut in 0..whole.len() {
        assert!(message(&whole[..cut]).is_none(), "{cut}");
    }
    let mut short = whole;
    short[0..4].copy_from_slice(&3u32.to_ne_bytes());
    assert!(message(&short).is_none());
    assert!(error(&[0; 4]).is_ok());
    assert!(error(&[]).is_err());
    assert!(Connection::read(2, &[0; 51]).is_none());
}
