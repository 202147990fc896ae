//! Certificates of the pods on this node: asked for before they are needed, forgotten with the last pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use identity::WorkloadCertificate;
use identity::ca_client::Fault;
use identity::manager::{CertificateManager, Unavailable};
use mesh::identity::Identity;

use crate::proxy::{Certificates, WorkloadInfo};

/// Between two questions after certificates that are late.
const RETRY: Duration = Duration::from_secs(1);

/// The data path's source of certificates.
#[derive(Clone)]
pub struct PodCertificates {
    /// None where no CA is configured: every connection that needs a certificate is refused.
    manager: Option<CertificateManager>,
    trust_domain: Arc<str>,
    pods: Arc<Mutex<Users>>,
}

/// Which pods use which identity.
#[derive(Debug, Default)]
struct Users {
    identity_of: HashMap<Arc<str>, Identity>,
    pods_with: BTreeMap<Identity, usize>,
}

/// A certificate being asked for, which may be for nobody by the time it comes.
struct Asking<'a> {
    certificates: &'a PodCertificates,
    identity: &'a Identity,
}

// === impl PodCertificates ===

impl PodCertificates {
    pub fn new(manager: Option<CertificateManager>, trust_domain: Arc<str>) -> Self {
        Self {
            manager,
            trust_domain,
            pods: Arc::default(),
        }
    }

    pub fn manager(&self) -> Option<&CertificateManager> {
        self.manager.as_ref()
    }

    /// A pod is here: its certificate will be needed.
    pub fn pod_added(&self, uid: &Arc<str>, info: &WorkloadInfo) {
        let identity = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: info.namespace.clone(),
            service_account: info.service_account.clone(),
        };
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = pods.add(uid, &identity) {
            self.forget(&former);
        }
        if let Some(manager) = &self.manager {
            manager.prefetch(&identity);
        }
    }

    /// A pod is gone, and with the last one of its identity the certificate.
    pub fn pod_removed(&self, uid: &Arc<str>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = pods.remove(uid) {
            self.forget(&identity);
        }
    }

    /// Waits until every pod has its certificate. What the CA has said no to will not come, and is
    /// not waited for; nor is what it has no certificate for while it has some for others, so that
    /// this is not about who asks.
    pub async fn all_present(&self) {
        let Some(manager) = &self.manager else {
            return;
        };
        loop {
            let identities: Vec<_> = {
                let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
                pods.pods_with.keys().cloned().collect()
            };
            let asked = identities.iter().map(|one| manager.certificate(one));
            let answers = futures::future::join_all(asked).await;
            let is_known = answers.iter().any(Result::is_ok);
            let missing: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
            let may_come = |missing: &&Unavailable| match missing.fault {
                Fault::Refused => false,
                Fault::Answered => !is_known,
                Fault::Unanswered => true,
            };
            let Some(missing) = missing.iter().find(may_come) else {
                for missing in missing {
                    tracing::warn!(reason = %missing, "not waiting for a certificate that the CA has not given");
                }
                return;
            };
            tracing::warn!(reason = %missing, "waiting for certificates");
            tokio::time::sleep(RETRY).await;
        }
    }

    fn is_used(&self, identity: &Identity) -> bool {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.pods_with.contains_key(identity)
    }

    fn forget(&self, identity: &Identity) {
        if let Some(manager) = &self.manager {
            manager.forget(identity);
        }
    }
}

impl Certificates for PodCertificates {
    fn cached(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        self.manager.as_ref()?.cached(identity)
    }

    fn certificate(
        &self,
        identity: &Identity,
    ) -> BoxFuture<'static, Result<Arc<WorkloadCertificate>, String>> {
        let (certificates, identity) = (self.clone(), identity.clone());
        async move {
            let manager = certificates.manager.as_ref();
            let manager = manager.ok_or("no CA is configured (CA_ADDRESS is empty)")?;
            if !certificates.is_used(&identity) {
                return Err("no pod with this identity is left".to_owned());
            }
            // A connection may outlast its pod: the last one is not to keep a certificate renewed.
            let asking = Asking {
                certificates: &certificates,
                identity: &identity,
            };
            let certificate = manager.certificate(asking.identity).await;
            certificate.map_err(|unavailable| unavailable.reason.to_string())
        }
        .boxed()
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let pods = self.certificates.pods.lock();
        let pods = pods.unwrap_or_else(PoisonError::into_inner);
        if !pods.pods_with.contains_key(self.identity) {
            self.certificates.forget(self.identity);
        }
    }
}

// === impl Users ===

impl Users {
    /// Returns an identity that nobody uses any more.
    fn add(&mut self, uid: &Arc<str>, identity: &Identity) -> Option<Identity> {
        if self.identity_of.get(uid) == Some(identity) {
            return None;
        }
        let unused = self.remove(uid);
        self.identity_of.insert(uid.clone(), identity.clone());
        *self.pods_with.entry(identity.clone()).or_default() += 1;
        unused
    }

    /// Returns the pod's identity if nobody uses it any more.
    fn remove(&mut self, uid: &Arc<str>) -> Option<Identity> {
        let identity = self.identity_of.remove(uid)?;
        let count = self.pods_with.get_mut(&identity)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.pods_with.remove(&identity);
        Some(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use identity::authority::Signer;
    use identity::ca_client::{CaClient, FetchError, LocalCa};
    use tokio::sync::Notify;
    use tonic::Code;

    use super::*;

    /// A CA that answers when it is let, and then without a certificate.
    #[derive(Default)]
    struct Answering {
        asked: AtomicUsize,
        answer: Notify,
    }

    struct Slow(Arc<Answering>);

    impl CaClient for Slow {
        fn fetch<'a>(
            &'a self,
            _: &'a Identity,
        ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            async {
                self.0.answer.notified().await;
                Err(FetchError::Timeout)
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_connection_does_not_bring_a_forgotten_certificate_back() {
        let ca = Arc::<Answering>::default();
        let manager = CertificateManager::new(Arc::new(Slow(ca.clone())));
        let certificates = PodCertificates::new(Some(manager.clone()), "cluster.local".into());
        let web = Identity::new("cluster.local", "shop", "web");
        let refused = certificates.certificate(&web).await.expect_err("no pod");
        assert!(refused.contains("no pod"), "{refused}");

        let (uid, info) = (
            "a".into(),
            WorkloadInfo {
                name: "web-0".into(),
                namespace: "shop".into(),
                service_account: "web".into(),
            },
        );
        certificates.pod_added(&uid, &info);
        let late = tokio::spawn(certificates.certificate(&web));
        while ca.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        certificates.pod_removed(&uid);
        ca.answer.notify_one();
        late.await.expect("no panic").expect_err("its pod is gone");
        // Longer than any backoff.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(ca.asked.load(Ordering::Relaxed), 1);
        assert!(manager.snapshot().is_empty());
        let refused = certificates.certificate(&web).await;
        refused.expect_err("its pod is gone");
        assert!(manager.snapshot().is_empty());
    }

    /// A CA that signs, but for who has an error.
    struct Partial {
        signing: LocalCa,
        errors: Vec<(&'static str, Code)>,
    }

    impl CaClient for Partial {
        fn fetch<'a>(
            &'a self,
            identity: &'a Identity,
        ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
            let mut errors = self.errors.iter();
            match errors.find(|(account, _)| *account == &*identity.service_account) {
                Some((_, code)) => {
                    let (code, message) = (*code, "no".to_owned());
                    std::future::ready(Err(FetchError::Refused { code, message })).boxed()
                }
                None => self.signing.fetch(identity),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_the_ca_has_for_others_only_is_not_waited_for() {
        for (errors, waits) in [
            (vec![], false),
            (vec![("web", Code::PermissionDenied)], false),
            (vec![("web", Code::Unauthenticated)], false),
            (vec![("web", Code::Unavailable)], true),
            // It may be the asker that it does not know.
            (
                vec![
                    ("web", Code::Unauthenticated),
                    ("api", Code::Unauthenticated),
                ],
                true,
            ),
        ] {
            let (hour, now) = (Duration::from_secs(3600), std::time::SystemTime::now());
            let signer = Signer::self_signed("cluster.local", hour, now).expect("root");
            let signing = LocalCa {
                signer,
                lifetime: hour,
            };
            let text = format!("{errors:?}");
            let manager = CertificateManager::new(Arc::new(Partial { signing, errors }));
            let certificates = PodCertificates::new(Some(manager), "cluster.local".into());
            for account in ["web", "api"] {
                let info = WorkloadInfo {
                    name: account.into(),
                    namespace: "shop".into(),
                    service_account: account.into(),
                };
                certificates.pod_added(&account.into(), &info);
            }
            let all = tokio::time::timeout(Duration::from_secs(600), certificates.all_present());
            assert_eq!(all.await.is_err(), waits, "{text}");
        }
    }

    #[test]
    fn an_identity_goes_with_its_last_pod() {
        let mut users = Users::default();
        let web = Identity::new("cluster.local", "shop", "web");
        let api = Identity::new("cluster.local", "shop", "api");
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!(users.add(&a, &web), None);
        assert_eq!(users.add(&a, &web), None);
        assert_eq!(users.add(&b, &web), None);
        assert_eq!(users.remove(&a), None);
        assert_eq!(users.add(&b, &api), Some(web));
        assert_eq!(users.remove(&b), Some(api));
        assert_eq!(users.remove(&b), None);
        assert!(users.pods_with.is_empty());
    }
}
