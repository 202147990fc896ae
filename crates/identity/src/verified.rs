//! A peer that was let in once, and goes on asking for more.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::WorkloadCertificate;
use crate::certificate::CertificateSummary;

/// A client whose chain was verified in a handshake. What that has shown ends with the certificates,
/// and with our roots of then: a session outlives both.
#[derive(Debug)]
pub struct VerifiedClient {
    chain: Arc<[CertificateDer<'static>]>,
    /// When the first of its certificates ends.
    until: SystemTime,
    /// What it was verified with.
    by: Weak<WorkloadCertificate>,
}

// === impl VerifiedClient ===

impl VerifiedClient {
    pub fn new(chain: Arc<[CertificateDer<'static>]>, by: &Arc<WorkloadCertificate>) -> Self {
        let ends = chain.iter().map(|one| {
            // One that can't be read has to be looked at each time.
            CertificateSummary::read(one).map_or(SystemTime::UNIX_EPOCH, |one| one.not_after)
        });
        Self {
            until: ends.min().unwrap_or(SystemTime::UNIX_EPOCH),
            chain,
            by: Arc::downgrade(by),
        }
    }

    /// Whether a handshake would let it in now too, `own` being what we show at present. Cheap while
    /// neither its certificates have ended nor ours is another one.
    pub fn verify_again(
        &mut self,
        own: &Arc<WorkloadCertificate>,
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        let same = Weak::as_ptr(&self.by) == Arc::as_ptr(own);
        if same && now < self.until {
            return Ok(());
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        own.verify_client(
            &self.chain,
            UnixTime::since_unix_epoch(since.unwrap_or_default()),
        )?;
        self.by = Arc::downgrade(own);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh::identity::Identity;
    use rustls::{CertificateError, Error};

    use super::*;
    use crate::authority::Signer;

    const HOUR: Duration = Duration::from_secs(3600);

    fn signer(now: SystemTime) -> Signer {
        Signer::self_signed("cluster.local", HOUR * 1000, now).expect("a root")
    }

    fn certificate(signer: &Signer, now: SystemTime) -> Arc<WorkloadCertificate> {
        let identity = Identity::new("cluster.local", "shop", "web");
        let certificate = signer.workload_certificate(&identity, HOUR, now);
        Arc::new(certificate.expect("a certificate"))
    }

    fn chain(certificate: &WorkloadCertificate) -> Arc<[CertificateDer<'static>]> {
        certificate.sent_chain().into()
    }

    #[test]
    fn what_a_handshake_has_shown_ends_with_the_certificate() {
        let now = SystemTime::now();
        let signer = signer(now);
        let (own, peer) = (certificate(&signer, now), certificate(&signer, now));
        let mut client = VerifiedClient::new(chain(&peer), &own);
        assert_eq!(client.verify_again(&own, now), Ok(()));
        assert_eq!(client.verify_again(&own, now + HOUR / 2), Ok(()));
        let ended = client.verify_again(&own, now + HOUR + Duration::from_secs(1));
        let Err(Error::InvalidCertificate(error)) = ended else {
            panic!("{ended:?}");
        };
        assert!(
            matches!(
                error,
                CertificateError::ExpiredContext { .. } | CertificateError::Expired
            ),
            "{error}"
        );
    }

    #[test]
    fn roots_that_are_others_by_now_are_asked() {
        let now = SystemTime::now();
        let (signer, other) = (signer(now), signer(now));
        let peer = certificate(&signer, now);
        let mut client = VerifiedClient::new(chain(&peer), &certificate(&signer, now));
        let renewed = certificate(&signer, now);
        assert_eq!(client.verify_again(&renewed, now), Ok(()));
        assert_eq!(Weak::as_ptr(&client.by), Arc::as_ptr(&renewed));
        let without = certificate(&other, now);
        for _ in 0..2 {
            let refused = client.verify_again(&without, now);
            assert!(
                matches!(refused, Err(Error::InvalidCertificate(_))),
                "{refused:?}"
            );
        }
    }
}
