//! Tunnels of a pool whose peer is not what it was when they were made.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::{HALF_CLOSED, Mesh, Pooling, run};
use crate::client::{ConnectError, OpenError};
use crate::pool::Pool;
use crate::server;
use crate::settings::Settings;

/// What a server does about a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accept,
    AcceptAfter(Duration),
    /// Closes the connection instead.
    HangUp,
    HangUpAfter(Duration),
    /// Says nothing on the connection any more.
    Freeze,
}

/// A pool, and a server that answers the requests of its first, second, ... connection so.
async fn pooling(
    settings: Settings,
    answer: impl Fn(usize, usize) -> Answer + Clone + 'static,
) -> Pooling {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (certificate, settings_there) = (mesh.server.clone(), settings.clone());
    spawn_local(async move {
        for connection in 1.. {
            let (tcp, _) = listener.accept().await.expect("accept");
            let (config, settings) = (certificate.server_config(), settings_there.clone());
            let answer = answer.clone();
            spawn_local(async move {
                let accepted = server::accept(tcp, config, &settings).await;
                let mut accepted = accepted.expect("handshake");
                for request in 1.. {
                    let Some(Ok(asked)) = accepted.next().await else {
                        return;
                    };
                    let pause = match answer(connection, request) {
                        Answer::Accept => Duration::ZERO,
                        Answer::AcceptAfter(pause) => pause,
                        Answer::HangUp => return,
                        Answer::HangUpAfter(pause) => {
                            let _ = tokio::time::timeout(pause, accepted.next()).await;
                            return;
                        }
                        Answer::Freeze => std::future::pending().await,
                    };
                    spawn_local(async move {
                        tokio::time::sleep(pause).await;
                        let stream = asked.accept(None).expect("answered");
                        std::future::pending::<()>().await;
                        drop(stream);
                    });
                }
            });
        }
    });
    Pooling {
        mesh,
        pool: Pool::new(HALF_CLOSED),
        address,
        settings,
        dials: Rc::default(),
    }
}

#[test]
fn what_a_stale_tunnel_fails_is_opened_on_a_new_one() {
    run(async {
        // Gone at its second request, and the one in its place is leaving too.
        let pooling = pooling(Settings::default(), |connection, request| {
            match (connection, request) {
                (1, 1) | (3, _) => Answer::Accept,
                (..) => Answer::HangUp,
            }
        })
        .await;
        pooling.open().await;
        pooling.open().await;
        assert_eq!(pooling.dials.get(), 3);
    });
}

#[test]
fn a_peer_that_fails_every_stream_is_given_up() {
    run(async {
        let pooling = pooling(Settings::default(), |_, _| Answer::HangUp).await;
        let failed = pooling.try_open_as(&pooling.key()).await;
        assert!(matches!(failed, Err(OpenError::Tunnel(_))), "{failed:?}");
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (3, 0));
    });
}

/// Settings under which a CONNECT waits for this long.
fn patient_for(response_timeout: Duration) -> Settings {
    Settings {
        response_timeout,
        ..Settings::default()
    }
}

#[test]
fn a_silent_tunnel_is_replaced_while_there_is_time() {
    run(async {
        let pooling = pooling(
            patient_for(Duration::from_secs(8)),
            |connection, request| match (connection, request) {
                (1, 2) => Answer::Freeze,
                (..) => Answer::Accept,
            },
        )
        .await;
        pooling.open().await;
        pooling.open().await;
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (2, 1));
    });
}

#[test]
fn where_nothing_answers_any_more_the_time_for_an_answer_is_all_there_is() {
    run(async {
        let pooling = pooling(
            patient_for(Duration::from_secs(2)),
            |_, request| match request {
                1 => Answer::Accept,
                _ => Answer::Freeze,
            },
        )
        .await;
        pooling.open().await;
        let key = pooling.key();
        let config = pooling.mesh.client.client_config(&key.expected);
        let dialled = Cell::new(false);
        let connect = || {
            dialled.set(true);
            std::future::pending::<Result<_, ConnectError>>()
        };
        let opening = pooling
            .pool
            .open(&key, &config, connect, super::request(), None);
        let failed = opening.await;
        assert!(
            matches!(failed, Err(OpenError::ResponseTimeout)),
            "{failed:?}"
        );
        assert!(dialled.get());
        assert_eq!(pooling.pool.tunnels(), 0);
    });
}

#[test]
fn an_application_that_takes_its_time_does_not_make_its_tunnel_silent() {
    run(async {
        let pooling = pooling(
            patient_for(Duration::from_secs(4)),
            |_, request| match request {
                1 => Answer::Accept,
                _ => Answer::AcceptAfter(Duration::from_secs(3)),
            },
        )
        .await;
        pooling.open().await;
        pooling.open().await;
        assert_eq!(pooling.dials.get(), 1);
    });
}

/// As who can go elsewhere has it.
const BRIEF: Duration = Duration::from_millis(100);

#[test]
fn who_can_go_elsewhere_does_so_where_a_tunnel_is_silent_and_it_is_not_used_again() {
    run(async {
        let pooling = pooling(Settings::default(), |connection, request| {
            match (connection, request) {
                (1, 2..) => Answer::Freeze,
                (..) => Answer::Accept,
            }
        })
        .await;
        pooling.open().await;
        let failed = pooling.try_open_within(&pooling.key(), Some(BRIEF)).await;
        assert!(
            matches!(failed, Err(OpenError::NoSign(BRIEF))),
            "{failed:?}"
        );
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (1, 0));
        pooling.open().await;
        assert_eq!(pooling.dials.get(), 2);
    });
}

#[test]
fn an_application_that_takes_its_time_sends_nobody_elsewhere() {
    run(async {
        let slow = BRIEF * 20;
        let pooling = pooling(Settings::default(), move |_, request| match request {
            1 => Answer::Accept,
            _ => Answer::AcceptAfter(slow),
        })
        .await;
        pooling.open().await;
        let opened = pooling
            .try_open_within(&pooling.key(), Some(slow * 4 / 5))
            .await;
        opened.expect("a stream");
        assert_eq!(pooling.dials.get(), 1);
    });
}

#[test]
fn the_time_for_a_sign_begins_anew_with_each_tunnel() {
    run(async {
        let pooling = pooling(Settings::default(), |connection, request| {
            match (connection, request) {
                (1, 2..) => Answer::HangUpAfter(BRIEF * 3),
                (..) => Answer::Accept,
            }
        })
        .await;
        pooling.open().await;
        let opened = pooling.try_open_within(&pooling.key(), Some(BRIEF)).await;
        opened.expect("a stream of another tunnel");
        assert_eq!(pooling.dials.get(), 2);
    });
}

#[test]
fn a_tunnel_that_somebody_did_not_wait_for_serves_the_next() {
    run(async {
        let pooling = pooling(Settings::default(), |_, _| Answer::Accept).await;
        let key = pooling.key();
        let config = pooling.mesh.client.client_config(&key.expected);
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let held = Cell::new(Some(held));
        let connect = || {
            let held = held.take();
            let connecting = pooling.connect(&key);
            async move {
                if let Some(held) = held {
                    let _ = held.await;
                }
                connecting.await
            }
        };
        let opening = pooling
            .pool
            .open(&key, &config, connect, super::request(), Some(BRIEF));
        let failed = opening.await;
        assert!(
            matches!(failed, Err(OpenError::NoSign(BRIEF))),
            "{failed:?}"
        );
        release.send(()).expect("goes on");
        pooling.open().await;
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (1, 1));
    });
}
