//! Handshakes between proxies that get their certificates from an authority whose root is being
//! replaced: each of them, whoever has followed how far, succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use identity::WorkloadCertificate;
use identity::authority::Subject;
use identity::ca_client::{CaClient, FetchError};
use identity::certificate::is_signed_by;
use identity::key::PrivateKey;
use identity::manager::CertificateManager;
use mesh::identity::Identity;
use rustls::{ClientConnection, ServerConnection};

use super::super::Authority;
use super::Step;

/// As the tests of whole meshes are told it.
const SCALE: &str = "WEFT_TEST_SCALE";
const PROXIES: usize = 6;
const STEPS: [Step; 3] = [Step::Add, Step::Switch, Step::Remove];
/// Proxies don't ask together.
const SPREAD: Duration = Duration::from_millis(40);
const LOOK: Duration = Duration::from_millis(5);

struct Ca(Arc<Authority>);

impl CaClient for Ca {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
        Box::pin(async move {
            let key = PrivateKey::generate().expect("a key");
            let subject = Subject::Workload(identity.clone());
            let hour = Duration::from_secs(3600);
            let issued = self.0.issue(key.public(), &subject, hour).expect("signed");
            Ok(WorkloadCertificate::new(key, &issued.chain)?)
        })
    }
}

struct Proxy {
    identity: Identity,
    certificates: CertificateManager,
}

impl Proxy {
    fn certificate(&self) -> Arc<WorkloadCertificate> {
        self.certificates.cached(&self.identity).expect("available")
    }

    fn has_followed(&self, authority: &Authority) -> bool {
        let certificate = self.certificate();
        let trusted: String = certificate.roots().map(|root| root.pem).collect();
        let roots = authority.roots();
        let own = roots.split_inclusive("-----END CERTIFICATE-----\n").next();
        let leaf = certificate.chain().next().expect("a leaf");
        trusted == roots && is_signed_by(&leaf.pem, own.expect("a root"))
    }
}

/// Everything of a handshake but the wire.
fn shake(client: &WorkloadCertificate, server: &WorkloadCertificate) -> Result<(), rustls::Error> {
    let expected = [server.identity().clone()].into();
    let mut client =
        ClientConnection::new(client.client_config(&expected), identity::no_server_name())?;
    let mut server = ServerConnection::new(server.server_config())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut &*wire).expect("memory");
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).expect("memory");
        client.read_tls(&mut &*wire).expect("memory");
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn no_handshake_fails_while_roots_come_and_go() {
    let full = std::env::var(SCALE).is_ok_and(|scale| scale == "full");
    let wanted = if full { 100_000 } else { 1500 };
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Arc::new(Authority::load_or_create(folder.path()).expect("an authority"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let proxies: Arc<[Proxy]> = (0..PROXIES)
        .map(|index| Proxy {
            identity: Identity::new("cluster.local", "shop", format!("a-{index}")),
            certificates: runtime
                .block_on(async { CertificateManager::new(Arc::new(Ca(authority.clone()))) }),
        })
        .collect();
    for proxy in &*proxies {
        let asked = proxy.certificates.certificate(&proxy.identity);
        runtime.block_on(asked).expect("available");
    }
    let (shaken, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut rotations = 0;
    thread::scope(|scope| {
        for offset in 1..3 {
            let (proxies, shaken, done) = (&proxies, &shaken, &done);
            scope.spawn(move || {
                for index in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let client = proxies[index % PROXIES].certificate();
                    let server = proxies[(index + offset) % PROXIES].certificate();
                    if let Err(error) = shake(&client, &server) {
                        done.store(true, Ordering::Relaxed);
                        panic!("after {}: {error}", shaken.load(Ordering::Relaxed));
                    }
                    shaken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while shaken.load(Ordering::Relaxed) < wanted && !done.load(Ordering::Relaxed) {
            for step in STEPS {
                authority.rotate(step).expect("taken");
                for proxy in &*proxies {
                    proxy.certificates.renew_all(SPREAD);
                }
                while !proxies.iter().all(|proxy| proxy.has_followed(&authority)) {
                    thread::sleep(LOOK);
                }
            }
            rotations += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(rotations > 0);
    if full {
        println!("{shaken:?} handshakes over {rotations} rotations, none failed");
    }
}
