//! Signs revocation lists, and adds to those that are there.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{Signer, SignerError, since_epoch};
use crate::certificate::CertificateError;
use crate::serial::Serial;

const END: &str = "-----END X509 CRL-----";

/// A list as it was read.
struct Listed {
    /// The identifier of the key that signed it.
    key: Option<Vec<u8>>,
    revoked: Vec<Serial>,
}

// === impl Signer ===

impl Signer {
    /// A list that takes the certificates of these numbers back, valid for `lifetime`; PEM.
    pub fn revocation_list(
        &self,
        revoked: &[Serial],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, SignerError> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let this_update = epoch + since_epoch(now);
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial.to_bytes()),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update,
            next_update: this_update + lifetime,
            crl_number: SerialNumber::from(since_epoch(now).as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key().public().identifier()),
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// What `lists` say, and that these certificates are taken back. This signer's own list is made anew;
    /// those that other keys have signed stay as they are, for nobody may have the keys any more.
    pub fn revoke(
        &self,
        lists: &str,
        revoked: &[Serial],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, SignerError> {
        let own = self.key().public().identifier();
        let mut all: BTreeSet<_> = revoked.iter().cloned().collect();
        let mut others = String::new();
        for pem in lists.split_inclusive(END).filter(|pem| pem.ends_with(END)) {
            let listed = Listed::read(pem)?;
            if listed.key.as_ref() != Some(&own) {
                others.push_str(pem.trim_start());
                others.push('\n');
            }
            all.extend(listed.revoked);
        }
        let all: Vec<_> = all.into_iter().collect();
        Ok(self.revocation_list(&all, lifetime, now)? + &others)
    }
}

// === impl Listed ===

impl Listed {
    fn read(pem: &str) -> Result<Self, CertificateError> {
        let malformed = |error: &dyn ToString| CertificateError::Malformed(error.to_string());
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| malformed(&error))?;
        let (_, list) =
            CertificateRevocationList::from_der(&der).map_err(|error| malformed(&error))?;
        let key =
            list.extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(authority) => {
                        authority.key_identifier.as_ref().map(|key| key.0.to_vec())
                    }
                    _ => None,
                });
        let revoked = list.iter_revoked_certificates();
        Ok(Self {
            key,
            revoked: revoked.map(|one| Serial::new(one.serial())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh::identity::Identity;

    use super::*;
    use crate::WorkloadCertificate;
    use crate::revocation::RevocationLists;

    const DAY: Duration = Duration::from_secs(86_400);

    fn signer() -> Signer {
        Signer::self_signed("weft", DAY, SystemTime::now()).expect("a root")
    }

    fn issued(signer: &Signer) -> WorkloadCertificate {
        let web = Identity::new("cluster.local", "shop", "web");
        let issued = signer.workload_certificate(&web, DAY / 2, SystemTime::now());
        issued.expect("signed")
    }

    fn is_revoked(lists: &str, certificate: &WorkloadCertificate) -> bool {
        let lists = RevocationLists::from_pem(lists).expect("lists");
        let chain = certificate.sent_chain();
        let now = rustls_pki_types::UnixTime::now();
        let checked = lists.check(&certificate.root_store(), &chain[0], &chain[1..], now);
        checked.is_err()
    }

    #[test]
    fn what_was_revoked_stays_so_also_under_another_root() {
        let (former, next) = (signer(), signer());
        let [first, second] = [(); 2].map(|()| issued(&former));
        let (third, good) = (issued(&next), issued(&next));
        let number = |certificate: &WorkloadCertificate| -> Serial {
            certificate.serial().parse().expect("a number")
        };
        let now = SystemTime::now();
        let mut lists = former.revoke("", &[], DAY, now).expect("a list");
        assert!(!is_revoked(&lists, &first));
        for (signer, revoked) in [(&former, &first), (&former, &second), (&next, &third)] {
            let serials = [number(revoked)];
            lists = signer.revoke(&lists, &serials, DAY, now).expect("revoked");
            assert!(is_revoked(&lists, revoked));
        }
        assert!(
            [&first, &second, &third]
                .iter()
                .all(|one| is_revoked(&lists, one))
        );
        assert!(!is_revoked(&lists, &good));
        // One for each root, however often something is revoked.
        assert_eq!(lists.matches(END).count(), 2);
        assert!(next.revoke("nonsense", &[], DAY, now).is_ok());
        let torn = format!("-----BEGIN X509 CRL-----\nAAAA\n{END}\n");
        assert!(next.revoke(&torn, &[], DAY, now).is_err());
    }
}
