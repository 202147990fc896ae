//! The manager over an in-process CA, on a paused clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::authority::Signer;
use crate::ca_client::{FetchError, LocalCa};

const DAY: Duration = Duration::from_secs(86_400);

/// Answers after a while, or fails while told to, and counts.
struct TestCa {
    local: LocalCa,
    takes: Duration,
    down: Mutex<Option<Down>>,
    fetches: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    order: Mutex<Vec<String>>,
}

/// How a CA is away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Down {
    Refusing,
    /// It takes requests, and answers them when it is back.
    Silent,
}

impl TestCa {
    fn new(lifetime: Duration, takes: Duration) -> Arc<Self> {
        let signer =
            Signer::self_signed("cluster.local", DAY * 30, SystemTime::now()).expect("a root");
        Arc::new(Self {
            local: LocalCa { signer, lifetime },
            takes,
            down: Mutex::default(),
            fetches: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            order: Mutex::default(),
        })
    }

    fn set_down(&self, down: bool) {
        self.be(down.then_some(Down::Refusing));
    }

    fn be(&self, down: Option<Down>) {
        *self.down.lock().expect("no panic") = down;
    }

    fn is(&self, down: Down) -> bool {
        *self.down.lock().expect("no panic") == Some(down)
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl CaClient for TestCa {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
        Box::pin(async move {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            self.order
                .lock()
                .expect("no panic")
                .push(identity.service_account.to_string());
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_running.fetch_max(running, Ordering::SeqCst);
            sleep(self.takes).await;
            while self.is(Down::Silent) {
                sleep(Duration::from_millis(10)).await;
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            assert_ne!(&*identity.service_account, "panics");
            if self.is(Down::Refusing) {
                return Err(FetchError::Refused {
                    code: tonic::Code::Unavailable,
                    message: "down".to_owned(),
                });
            }
            self.local.fetch(identity).await
        })
    }
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn state_of(manager: &CertificateManager, wanted: &Identity) -> Option<State> {
    let found = manager
        .snapshot()
        .into_iter()
        .find(|(one, _)| one == wanted);
    found.map(|(_, state)| state)
}

#[tokio::test(start_paused = true)]
async fn many_askers_share_one_fetch() {
    let ca = TestCa::new(DAY, Duration::from_millis(100));
    let manager = CertificateManager::new(ca.clone());
    let web = identity("web");
    assert!(manager.cached(&web).is_none());
    let all = futures::future::join_all((0..50).map(|_| manager.certificate(&web))).await;
    assert!(all.iter().all(|one| one.is_ok()));
    assert_eq!(ca.fetches(), 1);
    let cached = manager.cached(&web).expect("available");
    assert!(Arc::ptr_eq(&cached, all[0].as_ref().expect("available")));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_eight_fetches_run_and_connections_go_first() {
    let ca = TestCa::new(DAY, Duration::from_secs(1));
    let manager = CertificateManager::new(ca.clone());
    for index in 0..30 {
        manager.prefetch(&identity(&format!("warm-{index}")));
    }
    sleep(Duration::from_millis(500)).await;
    manager
        .certificate(&identity("urgent"))
        .await
        .expect("available");
    let order = ca.order.lock().expect("no panic").clone();
    assert_eq!(order.iter().position(|one| one == "urgent"), Some(8));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ca.fetches(), 31);
    assert_eq!(ca.most_running.load(Ordering::SeqCst), 8);
}

/// What a ztunnel that was restarted does: none of its pods can talk before.
#[tokio::test(start_paused = true)]
async fn the_first_of_a_hundred_pods_are_here_within_a_second_and_renewals_take_their_time() {
    let ca = TestCa::new(DAY, Duration::from_millis(20));
    let manager = CertificateManager::new(ca.clone());
    let all: Vec<_> = (0..110)
        .map(|index| identity(&format!("a-{index}")))
        .collect();
    let began = Instant::now();
    for one in &all {
        manager.prefetch(one);
    }
    futures::future::join_all(all.iter().map(|one| manager.certificate(one))).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(ca.most_running.load(Ordering::SeqCst), 8);
    manager.renew_all(Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    let renewed = ca.fetches() - all.len();
    assert!((35..=41).contains(&renewed), "{renewed} within a second");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(ca.fetches(), 2 * all.len());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let ca = TestCa::new(DAY, Duration::ZERO);
    let manager = CertificateManager::new(ca.clone());
    let web = identity("web");
    let first = manager.certificate(&web).await.expect("available");
    sleep(DAY * 2 / 5 - Duration::from_secs(60)).await;
    assert_eq!(ca.fetches(), 1);
    sleep(DAY / 10 + Duration::from_secs(120)).await;
    assert_eq!(ca.fetches(), 2);
    let second = manager.cached(&web).expect("available");
    assert_ne!(first.serial(), second.serial());
}

#[tokio::test(start_paused = true)]
async fn a_valid_certificate_is_served_while_renewal_fails_and_an_expired_one_never() {
    let ca = TestCa::new(DAY, Duration::ZERO);
    let manager = CertificateManager::new(ca.clone());
    let web = identity("web");
    let first = manager.certificate(&web).await.expect("available");
    ca.set_down(true);
    sleep(DAY - Duration::from_secs(60)).await;
    assert!(ca.fetches() > 100, "renewal is tried again and again");
    let served = manager.certificate(&web).await.expect("still valid");
    assert!(Arc::ptr_eq(&first, &served));
    sleep(Duration::from_secs(61)).await;
    assert!(manager.cached(&web).is_none());
    assert!(matches!(
        state_of(&manager, &web),
        Some(State::Unavailable(_))
    ));
    let asked = Instant::now();
    let refused = manager.certificate(&web).await.expect_err("expired");
    // At once, or by a retry that chance has put no further away than two seconds.
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "answered after {took:?}");
    assert_eq!(refused.identity, web);
    assert!(refused.reason.starts_with("CERT_EXPIRED"), "{refused}");
    ca.set_down(false);
    let _ = manager.certificate(&web).await;
    sleep(Duration::from_secs(6)).await;
    assert!(
        manager.cached(&web).is_some(),
        "an asker shortens the backoff"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_at_once_is_renewed_spread_out() {
    let ca = TestCa::new(DAY, Duration::ZERO);
    let manager = CertificateManager::new(ca.clone());
    let all: Vec<_> = (0..50)
        .map(|index| identity(&format!("a-{index}")))
        .collect();
    futures::future::join_all(all.iter().map(|one| manager.certificate(one))).await;
    // Renewals are between two fifths of the life and half of it, which a second of clocks is added to.
    let second = Duration::from_secs(1);
    sleep(DAY * 2 / 5 - second).await;
    let mut renewed = Vec::new();
    for _ in 0..6 {
        let before = ca.fetches();
        sleep(DAY / 60 + second).await;
        renewed.push(ca.fetches() - before);
    }
    assert_eq!(renewed.iter().sum::<usize>(), all.len(), "{renewed:?}");
    // Chance puts more than half of them in one sixth about once in 15 million runs.
    assert!(renewed.iter().all(|count| *count <= 25), "{renewed:?}");
}

/// After an outage the CA is asked by everybody, but not by everybody at once.
#[tokio::test(start_paused = true)]
async fn a_ca_that_is_back_has_renewed_everything_within_half_a_minute() {
    for down in [Down::Refusing, Down::Silent] {
        let ca = TestCa::new(Duration::from_secs(3600), Duration::from_millis(20));
        let manager = CertificateManager::new(ca.clone());
        let all: Vec<_> = (0..1000)
            .map(|index| identity(&format!("a-{index}")))
            .collect();
        futures::future::join_all(all.iter().map(|one| manager.certificate(one))).await;
        ca.be(Some(down));
        sleep(Duration::from_secs(3000)).await;
        ca.be(None);
        let mut most = 0;
        for _ in 0..30 {
            let before = ca.fetches();
            sleep(Duration::from_secs(1)).await;
            most = most.max(ca.fetches() - before);
        }
        assert!(most <= 50, "{down:?}: {most} requests within a second");
        for one in &all {
            let certificate = manager.cached(one).expect("available");
            let left = certificate.remaining();
            assert!(left > Duration::from_secs(3500), "{down:?}: {left:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_of_the_certificate_that_ends_first() {
    let ca = TestCa::new(DAY, Duration::from_secs(1));
    let manager = CertificateManager::new(ca.clone());
    let text = || {
        let mut exposition = Exposition::default();
        manager.expose(&mut exposition);
        exposition.into_text()
    };
    assert!(!text().contains("weft_certificate_expiry_seconds"));
    manager.prefetch(&identity("web"));
    sleep(Duration::from_millis(10)).await;
    assert!(text().contains("weft_certificates{state=\"initializing\"} 1"));
    manager
        .certificate(&identity("web"))
        .await
        .expect("available");
    ca.set_down(true);
    sleep(DAY * 3 / 4).await;
    manager
        .certificate(&identity("api"))
        .await
        .expect_err("the CA is away");
    let telling = text();
    let value = |name: &str| -> f64 {
        let mut lines = telling.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.parse().ok()).expect("a value")
    };
    let quarter = DAY.as_secs_f64() / 4.0;
    assert!((value("weft_certificate_expiry_seconds") - quarter).abs() < 60.0);
    assert!((value("weft_certificate_life_left_ratio") - 0.25).abs() < 0.001);
    for state in ["available", "unavailable"] {
        let line = format!("weft_certificates{{state=\"{state}\"}} 1");
        assert!(telling.contains(&line), "{telling}");
    }
    sleep(DAY / 4).await;
    for ended in ["expiry_seconds 0\n", "life_left_ratio 0.000\n"] {
        assert!(text().contains(ended), "{}", text());
    }
}

/// CVE-2020-8664.
#[tokio::test(start_paused = true)]
async fn changed_roots_renew_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("root-cert.pem");
    std::fs::write(&path, "one").expect("written");
    let ca = TestCa::new(DAY, Duration::ZERO);
    let manager = CertificateManager::new(ca.clone());
    manager
        .certificate(&identity("web"))
        .await
        .expect("available");
    let following = tokio::spawn(manager.clone().follow_roots(path.clone()));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(ca.fetches(), 1);
    std::fs::write(&path, "one and two").expect("written");
    while ca.fetches() < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(ca.fetches(), 2);
    following.abort();
}

#[tokio::test(start_paused = true)]
async fn the_first_failures_are_waited_out_then_the_reason_is_told() {
    let ca = TestCa::new(DAY, Duration::ZERO);
    let manager = CertificateManager::new(ca.clone());
    ca.set_down(true);
    let asked = Instant::now();
    let web = identity("web");
    let refused = manager.certificate(&web).await.expect_err("down");
    assert!(
        refused.reason.contains("Unavailable: down"),
        "{}",
        refused.reason
    );
    assert!(asked.elapsed() < Duration::from_secs(10));

    let (api, back) = (identity("api"), ca.clone());
    tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        back.set_down(false);
    });
    manager
        .certificate(&api)
        .await
        .expect("the retry after half a second succeeds");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_gone_and_no_longer_renewed() {
    let ca = TestCa::new(DAY, Duration::from_millis(100));
    let manager = CertificateManager::new(ca.clone());
    let web = identity("web");
    manager.certificate(&web).await.expect("available");
    manager.forget(&web);
    sleep(DAY).await;
    assert!(manager.cached(&web).is_none());
    assert!(manager.snapshot().is_empty());
    assert_eq!(ca.fetches(), 1);

    let waiting = manager.clone();
    let wanted = web.clone();
    let asked = tokio::spawn(async move { waiting.certificate(&wanted).await });
    sleep(Duration::from_millis(50)).await;
    manager.forget(&web);
    asked.await.expect("no panic").expect_err("forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_dump_has_istios_shape() {
    let ca = TestCa::new(DAY, Duration::from_secs(1));
    let manager = CertificateManager::new(ca.clone());
    manager
        .certificate(&identity("web"))
        .await
        .expect("available");
    manager.prefetch(&identity("slow"));
    advance(Duration::from_millis(10)).await;
    sleep(Duration::from_millis(1)).await;
    let dump = manager.dump();
    assert_eq!(dump[0]["state"], "Initializing");
    assert_eq!(dump[1]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(dump[1]["state"], "Available");
    let leaf = &dump[1]["certChain"][0];
    assert!(
        leaf["serialNumber"]
            .as_str()
            .is_some_and(|serial| serial.len() > 30)
    );
    assert!(
        leaf["expirationTime"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    assert_eq!(dump[1]["rootCerts"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_fetch_does_not_end_the_others() {
    let manager = CertificateManager::new(TestCa::new(DAY, Duration::ZERO));
    let refused = manager.certificate(&identity("panics")).await;
    assert!(refused.expect_err("a bug").reason.contains("panic"));
    manager
        .certificate(&identity("web"))
        .await
        .expect("available");
}

#[test]
fn one_manager_serves_several_runtimes() {
    let main = tokio::runtime::Runtime::new().expect("a runtime");
    let ca = TestCa::new(DAY, Duration::from_millis(20));
    let manager = main.block_on(async { CertificateManager::new(ca.clone()) });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .expect("a runtime")
                    .block_on(manager.certificate(&identity("web")))
                    .expect("available");
            });
        }
    });
    assert_eq!(ca.fetches(), 1);
}
