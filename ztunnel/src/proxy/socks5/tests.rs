//! Handshakes byte by byte.

use tokio::io::{DuplexStream, duplex};

use super::*;

const HELLO: &[u8] = &[5, 1, 0];

/// What a client's bytes ask for, and what it is answered.
async fn handshake_with(bytes: &[u8]) -> (Result<Target, HandshakeError>, Vec<u8>) {
    let (mut client, mut server): (DuplexStream, DuplexStream) = duplex(1024);
    client.write_all(bytes).await.expect("fits");
    client.shutdown().await.expect("open");
    let result = handshake(&mut server).await;
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("readable");
    (result, answer)
}

async fn target(request: &[u8]) -> Target {
    let (target, answer) = handshake_with(&[HELLO, request].concat()).await;
    // Nothing is said of the destination yet.
    assert_eq!(answer, [5, 0]);
    target.expect("a target")
}

#[tokio::test]
async fn a_destination_is_an_address_of_either_family_or_a_name() {
    let address = |text: &str| Target::Address(text.parse().expect("an address"));
    let v4 = [5, 1, 0, 1, 10, 0, 0, 7, 1, 187];
    assert_eq!(target(&v4).await, address("10.0.0.7:443"));
    let mut v6 = vec![5, 1, 0, 4, 0xfd];
    v6.extend([0; 14]);
    v6.extend([9, 0, 80]);
    assert_eq!(target(&v6).await, address("[fd00::9]:80"));
    let name = |name: &str| {
        let length = u8::try_from(name.len()).expect("short");
        [&[5, 1, 0, 3, length], name.as_bytes(), &[0, 80]].concat()
    };
    let web = Target::Name("web.shop".into(), 80);
    assert_eq!(target(&name("web.shop")).await, web);
    // Some applications know no other way to say an address.
    assert_eq!(target(&name("10.0.0.7")).await, address("10.0.0.7:80"));
    let mut mapped = vec![5, 1, 0, 4];
    mapped.extend([0; 10]);
    mapped.extend([0xff, 0xff, 10, 0, 0, 7, 0, 80]);
    assert_eq!(target(&mapped).await, address("10.0.0.7:80"));
}

#[tokio::test]
async fn what_is_not_done_is_refused_by_its_number() {
    let refused = async |bytes: &[u8]| {
        let (result, answer) = handshake_with(bytes).await;
        assert!(result.is_err(), "{bytes:?}");
        answer
    };
    let zero = [0, 0, 0, 0, 0, 0];
    let after_hello = async |request: &[u8]| {
        let answer = refused(&[HELLO, request].concat()).await;
        assert_eq!(answer[..2], [5, 0]);
        answer[2..].to_vec()
    };
    // Only user name and password.
    assert_eq!(refused(&[5, 1, 2]).await, [5, 0xFF]);
    for command in [2, 3] {
        let request = [5, command, 0, 1, 10, 0, 0, 7, 0, 80];
        let answer = after_hello(&request).await;
        assert_eq!(answer, [&[5, 7, 0, 1], &zero[..]].concat());
    }
    let answer = after_hello(&[5, 1, 0, 9]).await;
    assert_eq!(answer, [&[5, 8, 0, 1], &zero[..]].concat());
    let answer = after_hello(&[5, 1, 0, 3, 2, b'a', b'/', 0, 80]).await;
    assert_eq!(answer, [&[5, 4, 0, 1], &zero[..]].concat());
    // Whoever speaks something else is told nothing.
    assert!(refused(b"GET / HTTP/1.1\r\n\r\n").await.is_empty());
    assert!(refused(&[4, 1, 0, 80, 10, 0, 0, 7, 0]).await.is_empty());
}

#[tokio::test]
async fn a_request_that_ends_early_is_none() {
    let whole = [HELLO, &[5, 1, 0, 3, 3, b'w', b'e', b'b', 0, 80]].concat();
    for length in 0..whole.len() {
        let (result, _) = handshake_with(&whole[..length]).await;
        assert!(result.is_err(), "{length}");
    }
}

#[test]
fn a_failure_has_the_number_of_its_cause() {
    let connect = |kind: io::ErrorKind| Failure::connect(&kind.into());
    let of = |flags| Failure::new(flags, "");
    for (failure, reply) in [
        (connect(io::ErrorKind::ConnectionRefused), 5),
        (connect(io::ErrorKind::NetworkUnreachable), 3),
        (connect(io::ErrorKind::HostUnreachable), 4),
        (connect(io::ErrorKind::TimedOut), 4),
        (of(ResponseFlags::Connect), 4),
        (of(ResponseFlags::Deny), 2),
        (of(ResponseFlags::IdentityError), 1),
        (of(ResponseFlags::TlsFailure), 1),
    ] {
        assert_eq!(Reply::of(&failure) as u8, reply, "{failure:?}");
    }
}
