//! CONNECT requests that no honest node sends.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use hbone::client::{self, ConnectRequest, OpenError, Tunnel};
use hbone::stream::Stream;
use http::{HeaderMap, StatusCode};
use mesh::identity::Identity;
use ztunnel::proxy::access_log::Direction;

use super::lab::{APPLICATION, Authority, Lab, PATIENCE};
use super::{echo, has_error, identity_of};
use crate::counterpart::from_pod;

/// A port of the server where nobody answers.
const SILENT: u16 = 9999;

/// A lab whose attacker is a pod outside the mesh with a certificate. An attempt is not given up for
/// its own sake within a test's patience.
fn lab() -> Lab {
    let mut lab = Lab::with(["", ""], |config| config.connect_timeout = PATIENCE * 2);
    lab.bare_pod("attacker");
    lab.pod("client", 1);
    lab.pod("server", 2);
    lab.pod("other", 2);
    lab
}

/// Speaks to the server's 15008 from the attacker's namespace.
fn attack<T>(
    lab: &Lab,
    authority: &Authority,
    identity: &Identity,
    attempt: impl AsyncFnOnce(Result<Tunnel, client::ConnectError>) -> T,
) -> T {
    let target = SocketAddr::new(lab.ip("server"), 15008);
    let certificate = authority.of(identity);
    from_pod(lab, "attacker", target, async |tcp| {
        let expected = [identity_of("server")].into();
        let tls = certificate.client_config(&expected);
        attempt(client::handshake(tcp, tls, &Default::default()).await).await
    })
}

fn status(lab: &Lab, authority: &str) -> StatusCode {
    let request = ConnectRequest {
        authority: authority.parse().expect("characters of an authority"),
        headers: HeaderMap::new(),
    };
    attack(
        lab,
        lab.authority(),
        &identity_of("attacker"),
        async |tunnel| match tunnel.expect("tunnel").open(request).await {
            Ok(_) => StatusCode::OK,
            Err(OpenError::Status(status)) => status,
            Err(error) => panic!("{error}"),
        },
    )
}

#[test]
fn a_forged_authority_is_refused_with_its_status() {
    let lab = lab();
    let (own, other) = (lab.ip("server"), lab.ip("other"));
    for (authority, expected) in [
        (format!("{own}:{APPLICATION}"), StatusCode::OK),
        (format!("{other}:{APPLICATION}"), StatusCode::BAD_REQUEST),
        (format!("127.0.0.1:{APPLICATION}"), StatusCode::BAD_REQUEST),
        (format!("{own}"), StatusCode::BAD_REQUEST),
        (format!("{own}:99999"), StatusCode::BAD_REQUEST),
        (format!("{own}:15001"), StatusCode::SERVICE_UNAVAILABLE),
        (format!("{own}:15006"), StatusCode::SERVICE_UNAVAILABLE),
        (format!("{own}:15008"), StatusCode::SERVICE_UNAVAILABLE),
        ("nobody.shop:80".into(), StatusCode::SERVICE_UNAVAILABLE),
        ("user@host:80".into(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(status(&lab, &authority), expected, "{authority}");
    }
    let (mut stream, _) = lab.call("client", lab.address("server")).expect("still up");
    echo(&mut stream);
}

#[test]
fn a_certificate_of_another_mesh_or_trust_domain_gets_no_tunnel() {
    let lab = lab();
    let other_mesh = Authority::new();
    let other_domain = Identity::new("elsewhere.example", "shop", "attacker");
    for (authority, identity) in [
        (&other_mesh, &identity_of("attacker")),
        (&**lab.authority(), &other_domain),
    ] {
        let opened = attack(&lab, authority, identity, async |tunnel| match tunnel {
            Ok(tunnel) => {
                let target = SocketAddr::new(lab.ip("server"), APPLICATION);
                let request = ConnectRequest::to(target, HeaderMap::new());
                tunnel.open(request).await.is_ok()
            }
            Err(_) => false,
        });
        assert!(!opened, "{identity}");
    }
    let (mut stream, _) = lab.call("client", lab.address("server")).expect("still up");
    echo(&mut stream);
}

/// Connections the server's tunnel is still waiting for, to a port where no SYN is answered.
fn waiting_for_application(lab: &Lab) -> usize {
    let sockets = lab.within("server", || {
        ["tcp", "tcp6"].map(|file| {
            let path = format!("/proc/thread-self/net/{file}");
            std::fs::read_to_string(path).expect("sockets")
        })
    });
    let state_and_port = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // SYN_SENT, to the port in hexadecimal.
        fields[3] == "02" && fields[2].ends_with(&format!(":{SILENT:04X}"))
    };
    let lines = sockets.iter().flat_map(|text| text.lines().skip(1));
    lines.filter(|line| state_and_port(line)).count()
}

async fn until(holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("in time");
}

#[test]
fn a_request_that_its_client_resets_is_given_up() {
    let lab = lab();
    lab.run(
        "server",
        &format!(
            "nft 'add table inet hole; add chain inet hole in {{ type filter hook input priority 0; }}; \
             add rule inet hole in tcp dport {SILENT} drop'"
        ),
    );
    let attacker = identity_of("attacker");
    attack(&lab, lab.authority(), &attacker, async |tunnel| {
        let tunnel = tunnel.expect("tunnel");
        let target = SocketAddr::new(lab.ip("server"), SILENT);
        let request = ConnectRequest::to(target, HeaderMap::new());
        tokio::select! {
            opened = tunnel.open(request) => panic!("{opened:?}"),
            () = until(|| waiting_for_application(&lab) == 1) => {}
        }
        until(|| waiting_for_application(&lab) == 0).await;
    });
}

/// The application names its peer first.
async fn echoes(stream: &mut Stream) {
    let greeting = poll_fn(|cx| stream.poll_receive(cx)).await;
    greeting.expect("bytes").expect("bytes");
    let mut bytes = Bytes::from_static(b"still here");
    let sent = poll_fn(|cx| stream.poll_send(cx, &mut bytes)).await;
    sent.expect("sent");
    let answer = poll_fn(|cx| stream.poll_receive(cx)).await;
    assert_eq!(&answer.expect("bytes").expect("bytes")[..], b"still here");
}

/// Whoever has its key would have a tunnel for ever otherwise, made while it was good.
#[test]
fn nothing_is_opened_any_more_when_a_certificate_has_ended_and_what_is_open_goes_on() {
    let lab = lab();
    let attacker = identity_of("attacker");
    lab.authority()
        .ends_after(&attacker, Duration::from_secs(2));
    attack(&lab, lab.authority(), &attacker, async |tunnel| {
        let tunnel = tunnel.expect("tunnel");
        let target = SocketAddr::new(lab.ip("server"), APPLICATION);
        let request = || ConnectRequest::to(target, HeaderMap::new());
        let mut stream = tunnel.open(request()).await.expect("it is good");
        let refused = loop {
            if let Err(error) = tunnel.open(request()).await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let OpenError::Tunnel(error) = refused else {
            panic!("{refused}");
        };
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM), "{error}");
        echoes(&mut stream).await;
    });
    lab.log_of(2, Direction::Inbound, |record| {
        has_error(record, "would not be let in any more")
    });
}

#[test]
fn no_certificate_gets_no_tunnel() {
    let lab = lab();
    let target = SocketAddr::new(lab.ip("server"), 15008);
    let answer = lab.within("attacker", || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(target)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    });
    assert!(!answer.is_ok_and(|answer| answer.len() > 7));
    let (mut stream, _) = lab.call("client", lab.address("server")).expect("still up");
    echo(&mut stream);
}
