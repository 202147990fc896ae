//! Bytes that nobody takes, of senders that are dead and of others.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Count, Mesh, dial, narrow_pair, pair, request, run, send, serve};
use crate::copy::{self, CopyError, Side};
use crate::settings::Settings;

/// The end of a sender that has died behind what it had said.
async fn left_behind() -> TcpStream {
    let (application, end) = pair().await;
    while application.try_write(&[7; 64 << 10]).is_ok() {
        // Its end takes some more before it is full.
        tokio::task::yield_now().await;
    }
    copy::abort(&application);
    end
}

#[test]
fn what_nobody_takes_from_a_sender_that_is_dead_ends_at_the_deadline() {
    const SOON: Duration = Duration::from_millis(200);
    run(async {
        let mut from = left_behind().await;
        let (_deaf, mut to) = narrow_pair().await;
        let result = copy::sockets(&mut from, &mut to, SOON, &Count::default()).await;
        assert!(matches!(result, Err(CopyError::HalfClosed)), "{result:?}");

        let (mesh, settings) = (Mesh::new(), Settings::default());
        let address = serve(&mesh, settings.clone(), |request| async move {
            let stream = request.accept(None).expect("accept");
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let tunnel = dial(&mesh, address, "server", &settings).await;
        let mut stream = tunnel
            .expect("tunnel")
            .open(request())
            .await
            .expect("stream");
        // Its whole window, so that not a byte of the socket's is taken.
        let window = settings.stream_window as usize;
        send(&mut stream, vec![7; window]).await.expect("sends");
        let mut from = left_behind().await;
        let count = Count::default();
        let result = copy::tunnel(&mut from, &mut stream, Side::Client, SOON, &count).await;
        assert!(matches!(result, Err(CopyError::HalfClosed)), "{result:?}");
    });
}

#[test]
fn what_nobody_takes_from_a_sender_that_waits_is_kept() {
    run(async {
        let (application, mut from) = pair().await;
        let (_deaf, mut to) = pair().await;
        let copying = async {
            let soon = Duration::from_millis(20);
            copy::sockets(&mut from, &mut to, soon, &Count::default()).await
        };
        let sending = async {
            let stuck = Duration::from_millis(100);
            while timeout(stuck, application.writable()).await.is_ok() {
                // It may be full again by now.
                let _ = application.try_write(&[7; 64 << 10]);
            }
            tokio::time::sleep(stuck).await;
        };
        tokio::select! {
            result = copying => panic!("given up: {result:?}"),
            () = sending => {}
        }
    });
}
