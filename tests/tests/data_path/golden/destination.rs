//! A tunnel of ours is asked.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

use mesh::destination::HBONE_PORT;
use mesh::snapshot::Change;
use mesh::workload::{ApplicationProtocol, ApplicationTunnel, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ztunnel::proxy::access_log::Direction;

use super::{credentials, hello};
use crate::counterpart::{Answer, Head, Hello, Setting, Tunnel, converse, from_pod, proxy_header};
use crate::lab::{APPLICATION, Lab};
use crate::objects::{HOSTNAME, baggage, described, only, waypoint, web};
use crate::{SERVICE, identity_of};

/// `server`, an endpoint of `web` with a tunnel of ours, and `client`, with Istio's.
fn lab_with(change: impl FnOnce(&mut Workload)) -> Lab {
    lab_of(Lab::new(), &[""], change)
}

fn lab_of(mut lab: Lab, networks: &[&str], change: impl FnOnce(&mut Workload)) -> Lab {
    lab.bare_pod("client");
    lab.pod("server", 2);
    let service = web(networks);
    let mut server = described(&lab, "server", 2);
    server.services.insert(service.key(), service.ports.clone());
    change(&mut server);
    let client = described(&lab, "client", 1);
    lab.publish([
        Change::Service(service),
        Change::Workload(server),
        Change::Workload(client),
    ]);
    lab
}

/// A request as Istio's ztunnel sends it for the application at `source`.
fn istios(target: &str, source: SocketAddr) -> Head {
    let (forwarded, baggage) = (
        format!("for=\"{source}\";host={HOSTNAME}"),
        baggage("client"),
    );
    let headers = [
        ("baggage", baggage.as_str()),
        ("forwarded", &forwarded),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        ),
    ];
    Head::connect(target, &headers)
}

/// Asks `server` from `pod`, as `account`, and goes on with the answer.
fn ask<T>(
    lab: &Lab,
    (pod, account): (&str, &str),
    head: impl FnOnce(SocketAddr) -> Head,
    then: impl AsyncFnOnce(Hello, Answer) -> T,
) -> T {
    let server = SocketAddr::new(lab.ip("server"), HBONE_PORT);
    ask_at(lab, server, (pod, account), head, then)
}

fn ask_at<T>(
    lab: &Lab,
    server: SocketAddr,
    (pod, account): (&str, &str),
    head: impl FnOnce(SocketAddr) -> Head,
    then: impl AsyncFnOnce(Hello, Answer) -> T,
) -> T {
    let credentials = credentials(lab, account);
    from_pod(lab, pod, server, async |tcp| {
        let source = tcp.local_addr().expect("bound");
        let mut tunnel = Tunnel::open(tcp, &credentials).await;
        let answer = tunnel.ask(&head(source)).await;
        then(tunnel.hello(), answer).await
    })
}

/// Uses `server` by each of its authorities, and answers how its tunnel has begun and who was calling.
pub(crate) fn check_answers(lab: &Lab) -> Vec<(Hello, IpAddr)> {
    let targets = [lab.address("server").to_string(), format!("{HOSTNAME}:80")];
    let answers = targets.iter().map(|target| {
        let head = |source| istios(target, source);
        ask(lab, ("client", "client"), head, async |hello, answer| {
            assert_eq!(answer.headers, [("baggage".to_owned(), baggage("server"))]);
            (hello, converse(answer.stream()).await)
        })
    });
    answers.collect()
}

/// How our called end begins, towards one that sends a key share of the first of Istio's groups only.
pub(crate) fn server_hello() -> Hello {
    let own = [
        (Setting::MaxHeaderListSize, 65_536),
        (Setting::MaxConcurrentStreams, 200),
    ];
    hello("server", "X25519", &own)
}

#[test]
fn a_server_says_in_its_200_who_serves() {
    let lab = lab_with(|_| {});
    let answers = check_answers(&lab);
    assert_eq!(
        answers,
        [(); 2].map(|()| (server_hello(), lab.ip("client")))
    );
    for target in [lab.address("server").to_string(), format!("{HOSTNAME}:80")] {
        let record = lab.log_of(2, Direction::Inbound, |record| {
            let asked = record.hbone_address.as_ref().map(ToString::to_string);
            asked.as_ref() == Some(&target)
        });
        assert_eq!(record.error, None);
        assert_eq!(record.service.as_deref(), Some(HOSTNAME));
        assert_eq!(record.source.identity, Some(identity_of("client")));
        assert_eq!(record.destination.address, lab.address("server"));
        let trace = record.trace.expect("Istio's").to_string();
        assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}

/// Asks `server`, which lets nobody in, for what is refused.
pub(crate) fn check_refusals(lab: &Lab) {
    let ip = lab.ip("server");
    let get = Head {
        method: "GET".to_owned(),
        ended: true,
        ..Head::connect(&format!("http://{ip}:{APPLICATION}/"), &[])
    };
    let refused = [
        (format!("{ip}:{APPLICATION}"), 401),
        (format!("{HOSTNAME}:80"), 401),
        (ip.to_string(), 400),
        (format!("{}:{APPLICATION}", lab.ip("client")), 400),
        (format!("{HOSTNAME}:81"), 503),
        ("elsewhere.shop.svc.cluster.local:80".to_owned(), 503),
        (format!("{ip}:15006"), 503),
    ];
    let refused = refused.map(|(target, status)| (Head::connect(&target, &[]), status));
    for (head, status) in refused.into_iter().chain([(get, 400)]) {
        let asking = ("client", "client");
        ask(
            lab,
            asking,
            |_| head.clone(),
            async |_, answer| {
                assert_eq!(answer.status, status, "{head:?}");
                assert_eq!(answer.headers, [], "{head:?}");
                assert!(answer.is_ended(), "{head:?}");
            },
        );
    }
}

#[test]
fn a_refusal_is_a_status_and_nothing_else() {
    let mut lab = lab_with(|_| {});
    lab.publish([only("somebody")]);
    check_refusals(&lab);
}

#[test]
fn who_comes_through_a_gateway_is_known_by_certificate_and_baggage() {
    let mut lab = lab_of(Lab::of_two_networks(), &["near", "far"], |_| {});
    lab.bare_pod("gateway");
    lab.join("gateway");
    // Where its own address means somebody else.
    let mut other = Workload::new("Kubernetes//Pod/shop/other", "other", "shop");
    other.network = "far".into();
    other.addresses = [lab.far_ip("gateway")].into();
    lab.publish([Change::Workload(other)]);
    let target = format!("{HOSTNAME}:80");
    let head = |source| {
        let mut head = istios(&target, source);
        let network = ("x-forwarded-network".to_owned(), "near".to_owned());
        head.headers.push(network);
        head
    };
    ask(&lab, ("gateway", "client"), head, async |hello, answer| {
        assert_eq!(hello.identity, Some(identity_of("server")));
        assert_eq!(answer.headers, [("baggage".to_owned(), baggage("server"))]);
        converse(answer.stream()).await
    });
    let record = lab.log_of(2, Direction::Inbound, |_| true);
    assert_eq!(record.error, None);
    assert_eq!(record.source.address.ip(), lab.far_ip("gateway"));
    assert_eq!(record.source.identity, Some(identity_of("client")));
    let client = record.source.workload.expect("described");
    let told = [
        &client.workload_name,
        &client.canonical_name,
        &client.locality.zone,
    ];
    assert_eq!(told.map(|text| &**text), ["client", "client-app", "eu-1"]);
}

#[test]
fn an_application_reads_the_proxy_header_that_istios_would_write() {
    const PORT: u16 = APPLICATION + 1;
    let lab = lab_with(|server| {
        server.application_tunnel = Some(ApplicationTunnel {
            protocol: ApplicationProtocol::Proxy,
            port: Some(PORT),
        });
    });
    let [v4, v6] = [lab.ip("server"), lab.ip6("server")];
    let elsewhere = SocketAddr::from(([10, 99, 0, 1], 443));
    for (to, target, asked) in [
        (
            v4,
            format!("{v4}:{APPLICATION}"),
            SocketAddr::new(v4, APPLICATION),
        ),
        // The name's address, with the port that was asked for.
        (v4, format!("{HOSTNAME}:80"), SERVICE),
        // What it is not itself: the application decides.
        (v4, elsewhere.to_string(), elsewhere),
        (
            v6,
            format!("[{v6}]:{APPLICATION}"),
            SocketAddr::new(v6, APPLICATION),
        ),
    ] {
        // Only the loopback leads there.
        let loopback = match to {
            IpAddr::V4(_) => "127.0.0.1",
            IpAddr::V6(_) => "::1",
        };
        let listener = lab.within("server", || TcpListener::bind((loopback, PORT)));
        let listener = listener.expect("a free port");
        let application = thread::spawn(move || {
            let (mut stream, caller) = listener.accept().expect("accepted");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("all");
            (bytes, caller.ip())
        });
        let server = SocketAddr::new(to, HBONE_PORT);
        let (mut source, asking) = (None, ("client", "client"));
        let head = |from| {
            source = Some(from);
            istios(&target, from)
        };
        ask_at(&lab, server, asking, head, async |_, answer| {
            let mut stream = answer.stream();
            stream.write_all(b"hello").await.expect("written");
            stream.shutdown().await.expect("half closed");
            // Until the application has read it.
            stream.read_to_end(&mut Vec::new()).await
        })
        .expect("the end");
        let identity = identity_of("client").to_string();
        let mut expected = proxy_header(source.expect("asked"), asked, &identity);
        expected.extend(b"hello");
        let (bytes, caller) = application.join().expect("told");
        assert_eq!(bytes, expected, "{target}");
        assert_eq!(caller.to_string(), loopback);
    }
}

#[test]
fn a_waypoint_gets_in_where_only_it_may() {
    let mut lab = lab_with(|_| {});
    lab.bare_pod("waypoint");
    lab.publish([only("waypoint")]);
    // Envoy's request: an address, and headers of its own.
    let head = |_| {
        let headers = [("x-istio-source", "waypoint"), ("x-request-id", "1")];
        Head::connect(&lab.address("server").to_string(), &headers)
    };
    let caller = ask(&lab, ("waypoint", "waypoint"), head, async |_, answer| {
        converse(answer.stream()).await
    });
    // The original client is not told below HTTP.
    assert_eq!(caller, lab.ip("waypoint"));
    for account in ["client", "impostor"] {
        ask(&lab, ("client", account), head, async |_, answer| {
            assert_eq!(answer.status, 401, "{account}");
        });
    }
}

/// A waypoint whose own tunnel is ours, and which takes plain bytes from it.
#[test]
fn a_waypoint_is_asked_for_what_is_bound_to_it_and_nothing_else() {
    let mut lab = lab_with(|_| {});
    // `server` plays it.
    let (address, service, workload) = waypoint(&lab, "server", 2);
    let mut bound = web(&[""]);
    bound.waypoint = Some(address);
    lab.publish([
        Change::Service(service),
        Change::Workload(workload),
        Change::Service(bound),
    ]);
    let asking = ("client", "client");
    let bound = format!("{}:{APPLICATION}", SERVICE.ip());
    let head = |source| istios(&bound, source);
    let caller = ask(&lab, asking, head, async |_, answer| {
        converse(answer.stream()).await
    });
    assert_eq!(caller, lab.ip("client"));
    let unbound = lab.address("client").to_string();
    let head = |source| istios(&unbound, source);
    ask(&lab, asking, head, async |_, answer| {
        assert_eq!(answer.status, 400)
    });
}
