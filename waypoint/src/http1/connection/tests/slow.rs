//! Clients that are slow or ask for too much: what they hold is bounded, and they are told of.

use super::*;

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";

/// Tells how the body ended.
async fn ending(request: Request<Body>, _: Interim) -> Response<Body> {
    let text = match collect(request.into_body()).await {
        Ok((data, _)) => format!("{} bytes", data.len()),
        Err(error) => error.to_string(),
    };
    Response::new(Body::Full(text.into()))
}

#[test]
fn each_limit_has_its_status_and_is_counted_once() {
    run(async {
        let fields = "x: y\r\n".repeat(101);
        let long = "x".repeat(61 << 10);
        for (hazard, head, status) in [
            ("head without an end", "GET / HTTP/1.1\r\n".to_owned(), 408),
            (
                "large head",
                format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"),
                431,
            ),
            (
                "many fields",
                format!("GET / HTTP/1.1\r\n{fields}\r\n"),
                431,
            ),
            (
                "long target",
                format!("GET /{} HTTP/1.1\r\n\r\n", &long[..17 << 10]),
                414,
            ),
            (
                "long method",
                format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(33)),
                501,
            ),
            (
                "NUL",
                "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n".to_owned(),
                400,
            ),
            (
                "version",
                "GET / HTTP/1.2\r\nhost: a\r\n\r\n".to_owned(),
                505,
            ),
            (
                "coding",
                format!("{POST}transfer-encoding: gzip, chunked\r\n\r\n"),
                501,
            ),
            (
                "lengths",
                format!("{POST}content-length: 1, 2\r\n\r\n"),
                400,
            ),
            (
                "CONNECT",
                "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".to_owned(),
                405,
            ),
        ] {
            let mut client = Client::new(Limits::default(), echo);
            // It may be refused before all of it is out.
            let _ = client.io.write_all(head.as_bytes()).await;
            let answer = client.read_until("\r\n\r\n").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{hazard}: {answer}"
            );
            assert_eq!(*client.rejected.borrow(), [status], "{hazard}");
        }
    });
}

#[test]
fn a_head_by_the_byte_has_no_more_time_than_another() {
    run(async {
        let limits = Limits::default();
        let most = limits.head_timeout;
        let mut client = Client::new(limits, echo);
        let began = time::Instant::now();
        for byte in "GET / HTTP/1.1\r\nx: "
            .bytes()
            .chain(std::iter::repeat(b'y'))
        {
            if client.io.write_all(&[byte]).await.is_err() || began.elapsed() > most * 2 {
                break;
            }
            time::sleep(Duration::from_secs(1)).await;
            if !client.rejected.borrow().is_empty() {
                break;
            }
        }
        assert!(
            began.elapsed() <= most + Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    });
}

/// CVE-2020-8659.
#[test]
fn chunks_of_one_byte_are_a_body_like_any_other() {
    run(async {
        let mut client = Client::new(Limits::default(), ending);
        let chunks = "1\r\nx\r\n".repeat(10_000);
        client
            .send(&format!("{POST}{CHUNKED}{chunks}0\r\n\r\n"))
            .await;
        assert!(
            client
                .read_until("10000 bytes")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    });
}

#[test]
fn trailers_and_extensions_without_an_end_break_the_connection() {
    run(async {
        for (begin, more) in [("0\r\n", "x: y\r\n"), ("1;", "extension")] {
            let mut client = Client::new(Limits::default(), ending);
            client.send(&format!("{POST}{CHUNKED}{begin}")).await;
            let mut sent = 0;
            while client.io.write_all(more.as_bytes()).await.is_ok() {
                sent += more.len();
                assert!(sent < 1 << 20, "{more:?} is read without an end");
            }
            let answer = client.rest().await;
            assert!(answer.contains("malformed body"), "{answer}");
        }
    });
}

#[test]
fn a_body_that_stops_is_given_up() {
    run(async {
        let limits = Limits::default();
        let most = limits.body_idle_timeout;
        let mut client = Client::new(limits, ending);
        client
            .send(&format!("{POST}content-length: 9\r\n\r\n"))
            .await;
        let began = time::Instant::now();
        // Whoever is slow makes progress.
        for _ in 0..4 {
            time::sleep(most / 2).await;
            client.send("x").await;
        }
        let answer = client.rest().await;
        assert!(answer.contains("timed out"), "{answer}");
        assert_eq!(began.elapsed().as_secs() / 10, (most * 3).as_secs() / 10);
    });
}
