//! Certificates of the pods on this node: asked for before they are needed, forgotten with the last pod.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    pods: Arc<Mutex<Users>>,
}

/// What the agent tells of a pod's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Account {
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Which pods use which identity.
#[derive(Debug, Default)]
struct Users {
    account_of: HashMap<Arc<str>, Account>,
    used: HashMap<Account, Used>,
}

#[derive(Debug, Default)]
struct Used {
    pods: usize,
    /// None until the mesh has told the trust domain; more than one where it tells of pods that they
    /// are of different ones.
    identities: Vec<Identity>,
}

/// What asking for an identity's certificate means.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    Nobodys,
    Known,
    /// From now on.
    New,
}

/// A certificate being asked for, which may be for nobody by the time it comes.
struct Asking<'a> {
    certificates: &'a PodCertificates,
    identity: &'a Identity,
}

// === impl PodCertificates ===

impl PodCertificates {
    pub fn new(manager: Option<CertificateManager>) -> Self {
        Self {
            manager,
            pods: Arc::default(),
        }
    }

    pub fn manager(&self) -> Option<&CertificateManager> {
        self.manager.as_ref()
    }

    /// A pod is here.
    pub fn pod_added(&self, uid: &Arc<str>, info: &WorkloadInfo) {
        let account = Account {
            namespace: info.namespace.clone(),
            service_account: info.service_account.clone(),
        };
        let unused = self.users().add(uid, account);
        self.forget(&unused);
    }

    /// A pod here is known to have this identity: its certificate will be needed.
    pub fn will_be_needed(&self, identity: &Identity) {
        let is_new = self.users().uses(identity) == Use::New;
        if let (Some(manager), true) = (&self.manager, is_new) {
            manager.prefetch(identity);
        }
    }

    /// These are the identities of all pods here of whom the mesh tells: their certificates will be
    /// needed, and no more those of others of the same accounts.
    pub fn are_needed(&self, identities: &[Identity]) {
        let unused = self.users().only(identities);
        self.forget(&unused);
        for identity in identities {
            self.will_be_needed(identity);
        }
    }

    /// A pod is gone, and with the last one of its identity the certificate.
    pub fn pod_removed(&self, uid: &Arc<str>) {
        let unused = self.users().remove(uid);
        self.forget(&unused);
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
                let users = self.users();
                let used = users.used.values();
                used.flat_map(|used| used.identities.clone()).collect()
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

    fn users(&self) -> MutexGuard<'_, Users> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, identities: &[Identity]) {
        if let Some(manager) = &self.manager {
            identities
                .iter()
                .for_each(|identity| manager.forget(identity));
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
            if certificates.users().uses(&identity) == Use::Nobodys {
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
        if !self.certificates.users().is_used(self.identity) {
            self.certificates
                .forget(std::slice::from_ref(self.identity));
        }
    }
}

// === impl Account ===

impl Account {
    fn of(identity: &Identity) -> Self {
        Self {
            namespace: identity.namespace.clone(),
            service_account: identity.service_account.clone(),
        }
    }
}

// === impl Users ===

impl Users {
    /// Returns the identities that nobody uses any more.
    fn add(&mut self, uid: &Arc<str>, account: Account) -> Vec<Identity> {
        if self.account_of.get(uid) == Some(&account) {
            return Vec::new();
        }
        let unused = self.remove(uid);
        self.account_of.insert(uid.clone(), account.clone());
        self.used.entry(account).or_default().pods += 1;
        unused
    }

    /// Returns the identities of the pod's account if no other pod has it.
    fn remove(&mut self, uid: &Arc<str>) -> Vec<Identity> {
        let account = self.account_of.remove(uid);
        let Some(Entry::Occupied(mut used)) = account.map(|account| self.used.entry(account))
        else {
            return Vec::new();
        };
        used.get_mut().pods -= 1;
        match used.get().pods {
            0 => used.remove().identities,
            _ => Vec::new(),
        }
    }

    fn uses(&mut self, identity: &Identity) -> Use {
        match self.used.get_mut(&Account::of(identity)) {
            None => Use::Nobodys,
            Some(used) if used.identities.contains(identity) => Use::Known,
            Some(used) => {
                used.identities.push(identity.clone());
                Use::New
            }
        }
    }

    /// Returns the identities that are used no more where pods have these. An account of which
    /// nothing is told keeps what it had.
    fn only(&mut self, identities: &[Identity]) -> Vec<Identity> {
        let told: HashSet<_> = identities.iter().map(Account::of).collect();
        let of_told = self
            .used
            .iter_mut()
            .filter(|(account, _)| told.contains(account));
        let is_over = |own: &mut Identity| !identities.contains(own);
        let unused = of_told.flat_map(|(_, used)| used.identities.extract_if(.., is_over));
        unused.collect()
    }

    fn is_used(&self, identity: &Identity) -> bool {
        let used = self.used.get(&Account::of(identity));
        used.is_some_and(|used| used.identities.contains(identity))
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
        let certificates = PodCertificates::new(Some(manager.clone()));
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
            let certificates = PodCertificates::new(Some(manager));
            for account in ["web", "api"] {
                let info = WorkloadInfo {
                    name: account.into(),
                    namespace: "shop".into(),
                    service_account: account.into(),
                };
                certificates.pod_added(&account.into(), &info);
                certificates.will_be_needed(&Identity::new("cluster.local", "shop", account));
            }
            let all = tokio::time::timeout(Duration::from_secs(600), certificates.all_present());
            assert_eq!(all.await.is_err(), waits, "{text}");
        }
    }

    #[test]
    fn an_identity_goes_with_its_last_pod() {
        let mut users = Users::default();
        let none: [Identity; 0] = [];
        let web = Identity::new("cluster.local", "shop", "web");
        let corp = Identity::new("corp", "shop", "web");
        let (account, api) = (
            Account::of(&web),
            Account::of(&Identity::new("corp", "shop", "api")),
        );
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!(users.uses(&web), Use::Nobodys);
        assert_eq!(users.add(&a, account.clone()), none);
        assert_eq!(users.add(&a, account.clone()), none);
        assert_eq!(users.add(&b, account), none);
        assert!(!users.is_used(&web));
        assert_eq!(users.uses(&web), Use::New);
        assert_eq!(users.uses(&web), Use::Known);
        assert!(users.is_used(&web));
        assert_eq!(users.uses(&corp), Use::New);
        assert!(users.is_used(&web) && users.is_used(&corp));
        assert_eq!(users.only(&[web.clone(), corp.clone()]), none);
        // Of another account only.
        assert_eq!(users.only(&[Identity::new("corp", "shop", "api")]), none);
        assert_eq!(users.only(std::slice::from_ref(&corp)), [web]);
        assert_eq!(users.remove(&a), none);
        assert_eq!(users.add(&b, api), [corp]);
        assert_eq!(users.remove(&b), none);
        assert!(users.used.is_empty() && users.account_of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_one_account_and_two_trust_domains_keep_their_certificates() {
        let (hour, now) = (Duration::from_secs(3600), std::time::SystemTime::now());
        let signer = Signer::self_signed("cluster.local", hour, now).expect("root");
        let ca = LocalCa {
            signer,
            lifetime: hour,
        };
        let certificates = PodCertificates::new(Some(CertificateManager::new(Arc::new(ca))));
        let info = |name: &str| WorkloadInfo {
            name: name.into(),
            namespace: "shop".into(),
            service_account: "web".into(),
        };
        certificates.pod_added(&"a".into(), &info("web-0"));
        certificates.pod_added(&"b".into(), &info("web-1"));
        let both = ["cluster.local", "corp"].map(|domain| Identity::new(domain, "shop", "web"));
        let mut first: Option<Vec<_>> = None;
        // As often as the mesh changes, and connections of both in between.
        for _ in 0..3 {
            certificates.are_needed(&both);
            let mut now = Vec::new();
            for identity in &both {
                now.push(certificates.certificate(identity).await.expect("signed"));
            }
            let first = first.get_or_insert_with(|| now.clone());
            let mut pairs = first.iter().zip(&now);
            assert!(pairs.all(|(first, now)| Arc::ptr_eq(first, now)));
        }
        certificates.are_needed(&both[1..]);
        tokio::time::sleep(RETRY).await;
        assert!(certificates.cached(&both[0]).is_none());
        assert!(certificates.cached(&both[1]).is_some());
    }
}
