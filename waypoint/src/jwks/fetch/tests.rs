//! Documents from real servers, over TLS and without.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use http::Response;
use identity::authority::{Signer, Subject};
use identity::key::PrivateKey;
use identity::serving::ServingCertificate;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::message::UpstreamError;

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Nothing is in the mesh.
struct Nowhere;

impl Upstream for Nowhere {
    async fn send(
        &self,
        _: &Endpoint,
        _: Request<Body>,
        _: &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        Err(UpstreamError::RefusedStream)
    }
}

/// An authority, and the file that holds its root.
struct Authority {
    signer: Signer,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let day = Duration::from_secs(86_400);
        let signer = Signer::self_signed("test", day, SystemTime::now()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), signer.roots()).unwrap();
        Self { signer, folder }
    }

    fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// A server on the loopback address, with a certificate for `name`, that answers as told.
    async fn serve(&self, name: &str, answer: String) -> u16 {
        let key = PrivateKey::generate().unwrap();
        let subject = Subject::Server {
            names: vec![name.to_owned()],
            addresses: vec![],
        };
        let hour = Duration::from_secs(3600);
        let issued = self
            .signer
            .issue(key.public(), &subject, hour, SystemTime::now())
            .unwrap();
        let certificate = ServingCertificate::new(key, &issued.chain).unwrap();
        let acceptor = TlsAcceptor::from(certificate.server_config().unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
}

async fn fetch(roots: PathBuf, blocked: &[&str], origin: Origin) -> Result<KeySet, FetchError> {
    let config = config::Jwks {
        blocked_cidrs: blocked.iter().map(|range| range.parse().unwrap()).collect(),
        maximum_size: 1000,
        refresh: Duration::from_secs(1200),
        roots: roots.to_str().unwrap().into(),
    };
    let fetcher = Fetcher {
        config: &config,
        upstream: &Nowhere,
        in_mesh: |_: &str, _| None,
    };
    fetcher.fetch(&origin).await
}

fn at(port: u16, path: &str) -> Origin {
    Origin::Uri(format!("https://localhost:{port}{path}").into())
}

#[tokio::test]
async fn keys_come_over_tls_from_outside_the_mesh() {
    let authority = Authority::new();
    let port = authority.serve("localhost", answer("200 OK", KEYS)).await;
    let keys = fetch(authority.roots(), &[], at(port, "/keys")).await;
    assert_eq!(keys.unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_found_where_the_issuer_says() {
    let authority = Authority::new();
    let keys = authority.serve("localhost", answer("200 OK", KEYS)).await;
    let document = format!(r#"{{"jwks_uri":"https://localhost:{keys}/keys"}}"#);
    let issuer = authority
        .serve("localhost", answer("200 OK", &document))
        .await;
    let origin = Origin::Discovery(format!("https://localhost:{issuer}/").into());
    let keys = fetch(authority.roots(), &[], origin).await;
    assert_eq!(keys.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_not_believed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for port in [
        stranger.serve("localhost", answer("200 OK", KEYS)).await,
        authority.serve("elsewhere", answer("200 OK", KEYS)).await,
    ] {
        let keys = fetch(authority.roots(), &[], at(port, "/")).await;
        assert!(matches!(keys, Err(FetchError::Connection(..))), "{keys:?}");
    }
}

#[tokio::test]
async fn only_a_whole_and_small_document_is_one() {
    let authority = Authority::new();
    let large = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(2000));
    let moved = answer("302 Found\r\nlocation: /keys", "");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2000)
    );
    for (response, expected) in [
        (answer("200 OK", &large), "larger than"),
        (chunked, "larger than"),
        (answer("404 Not Found", KEYS), "answered 404"),
        (moved, "answered 302"),
        (answer("200 OK", "not JSON"), "expected"),
        (
            answer("200 OK", r#"{"keys":[]}"#),
            "no key that can be used",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(),
            "",
        ),
        ("nonsense".to_owned(), ""),
    ] {
        let port = authority.serve("localhost", response.clone()).await;
        let keys = fetch(authority.roots(), &[], at(port, "/")).await;
        let error = keys.expect_err(&response).to_string();
        assert!(error.contains(expected), "{error}, {response}");
    }
}

#[tokio::test]
async fn what_a_name_leads_to_is_looked_at_before_it_is_dialled() {
    let authority = Authority::new();
    let port = authority.serve("localhost", answer("200 OK", KEYS)).await;
    let blocked = ["127.0.0.0/8", "::1/128"];
    let keys = fetch(authority.roots(), &blocked, at(port, "/")).await;
    assert!(matches!(keys, Err(FetchError::Blocked(..))), "{keys:?}");
}
