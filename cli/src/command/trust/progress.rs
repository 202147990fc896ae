//! How far a proxy has followed the mesh's roots, from its configuration dump; pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use identity::certificate::{CertificateSummary, is_signed_by};
use serde::Serialize;
use serde_json::Value;

/// What is trusted now, the signing root first.
pub(super) struct Roots(Vec<CertificateSummary>);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) serial: String,
    pub(super) signs: bool,
    pub(super) not_after: String,
}

/// A proxy's certificates, counted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Proxy {
    answers: bool,
    pub(super) certificates: usize,
    /// With which exactly the mesh's roots are trusted.
    pub(super) trusting: usize,
    /// Signed by the root that signs now.
    pub(super) signed: usize,
}

// === impl Roots ===

impl Roots {
    pub(super) fn read(pem: &str) -> Self {
        Self(CertificateSummary::read_all(pem).unwrap_or_default())
    }

    pub(super) fn summaries(&self) -> Vec<Summary> {
        let roots = self.0.iter().enumerate();
        roots
            .map(|(index, root)| Summary {
                serial: root.serial.clone(),
                signs: index == 0,
                not_after: chrono::DateTime::<chrono::Utc>::from(root.not_after)
                    .to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            })
            .collect()
    }

    fn serials(&self) -> Vec<&str> {
        let mut serials: Vec<_> = self.0.iter().map(|root| root.serial.as_str()).collect();
        serials.sort_unstable();
        serials
    }
}

// === impl Proxy ===

impl Proxy {
    /// One that nothing is known of.
    pub(super) fn silent() -> Self {
        Self {
            answers: false,
            certificates: 0,
            trusting: 0,
            signed: 0,
        }
    }

    pub(super) fn of(dump: &Value, roots: &Roots) -> Self {
        let mut proxy = Self {
            answers: true,
            ..Self::silent()
        };
        let expected = roots.serials();
        for certificate in dump["certificates"].as_array().into_iter().flatten() {
            // What could not be had has nothing to renew; it will come with the new roots.
            let Some(leaf) = pem(&certificate["certChain"][0]) else {
                continue;
            };
            proxy.certificates += 1;
            let own = certificate["rootCerts"].as_array().into_iter().flatten();
            let mut own: Vec<_> = own
                .filter_map(|root| root["serialNumber"].as_str())
                .collect();
            own.sort_unstable();
            proxy.trusting += usize::from(own == expected);
            let signer = roots.0.first();
            proxy.signed += usize::from(signer.is_some_and(|root| is_signed_by(&leaf, &root.pem)));
        }
        proxy
    }

    pub(super) fn followed(&self) -> bool {
        self.answers && self.trusting == self.certificates && self.signed == self.certificates
    }
}

/// Dumps hold certificates in PEM in base64.
fn pem(certificate: &Value) -> Option<String> {
    let bytes = STANDARD.decode(certificate["pem"].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use identity::authority::Signer;
    use mesh::identity::Identity;
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn signer() -> Signer {
        Signer::self_signed("weft", DAY, SystemTime::now()).expect("a root")
    }

    /// A dump with one certificate, signed by `signer`, that trusts these roots.
    fn dump(signer: &Signer, roots: &Roots) -> Value {
        let web = Identity::new("cluster.local", "shop", "web");
        let signed = signer.workload_certificate(&web, DAY / 2, SystemTime::now());
        let leaf = signed.expect("signed").chain().next().expect("a leaf");
        let roots: Vec<_> = roots
            .0
            .iter()
            .map(|root| json!({"serialNumber": root.serial}))
            .collect();
        json!({"certificates": [
            {"certChain": [{"pem": STANDARD.encode(leaf.pem)}], "rootCerts": roots},
            {"certChain": [], "rootCerts": []},
        ]})
    }

    #[test]
    fn a_proxy_has_followed_when_it_trusts_what_the_mesh_trusts_and_is_signed_by_what_signs() {
        let (former, next) = (signer(), signer());
        let one = Roots::read(former.roots());
        let added = Roots::read(&format!("{}{}", former.roots(), next.roots()));
        let switched = Roots::read(&format!("{}{}", next.roots(), former.roots()));
        let removed = Roots::read(next.roots());
        for (signed_by, trusts, asked, followed) in [
            (&former, &one, &one, true),
            (&former, &one, &added, false),
            (&former, &added, &added, true),
            (&former, &added, &switched, false),
            (&next, &switched, &switched, true),
            (&next, &switched, &removed, false),
            (&next, &removed, &removed, true),
        ] {
            let proxy = Proxy::of(&dump(signed_by, trusts), asked);
            assert_eq!(proxy.certificates, 1);
            assert_eq!(proxy.followed(), followed, "{proxy:?}");
        }
        assert!(!Proxy::silent().followed());
        assert!(Proxy::of(&json!({"certificates": []}), &one).followed());
    }
}
