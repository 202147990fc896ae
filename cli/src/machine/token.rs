//! Node tokens: what a ztunnel shows the control plane, as a cluster's service account tokens.

use std::convert::Infallible;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use boring::ec::{EcGroup, EcKey};
use boring::nid::Nid;
use boring::pkey::PKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use runtime::wall_clock;
use serde::Serialize;
use tokio::time;

const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Kubelets renew at four fifths; half leaves room for a control plane that is away.
const RENEWAL: Duration = Duration::from_secs(6 * 60 * 60);
/// A clock that is set back by less is only set right.
const SET_RIGHT: Duration = Duration::from_secs(60);
/// Between tries to write one.
const RETRY: Duration = Duration::from_secs(60);

/// Signs tokens with a key that never leaves memory.
pub(crate) struct Issuer {
    key: EncodingKey,
    public: Vec<u8>,
}

/// The pod a token is for, and the node it is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    pub(crate) service_account: Reference,
    pub(crate) pod: Reference,
    pub(crate) node: Reference,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: [&'static str; 1],
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes<'a>,
}

#[derive(Serialize)]
struct Kubernetes<'a> {
    namespace: &'a str,
    serviceaccount: &'a Reference,
    pod: &'a Reference,
    node: &'a Reference,
}

// === impl Issuer ===

impl Issuer {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        Ok(Self {
            key: EncodingKey::from_ec_der(&key.private_key_to_der_pkcs8()?),
            public: key.public_key_to_pem()?,
        })
    }

    /// The key tokens are checked with, as PEM.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn issue(&self, subject: &Subject, now: SystemTime) -> anyhow::Result<String> {
        let issued = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = Claims {
            iss: "weft",
            aud: ["istio-ca"],
            sub: format!(
                "system:serviceaccount:{}:{}",
                subject.namespace, subject.service_account.name
            ),
            iat: issued,
            exp: issued + LIFETIME.as_secs(),
            kubernetes: Kubernetes {
                namespace: &subject.namespace,
                serviceaccount: &subject.service_account,
                pod: &subject.pod,
                node: &subject.node,
            },
        };
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::ES256),
            &claims,
            &self.key,
        )?)
    }

    /// Replaces the token in `folder`, which was just written, whenever half of its life is over by the
    /// clock that it is judged by, or that clock is set back to before it.
    pub(crate) async fn renew(&self, subject: &Subject, folder: &Path) -> Infallible {
        loop {
            wall_clock::leaves(&fresh(SystemTime::now())).await;
            while let Err(error) = self.write(subject, folder) {
                let pod = &subject.pod.name;
                tracing::warn!(pod, %error, "can't renew the token");
                time::sleep(RETRY).await;
            }
        }
    }

    /// Puts a fresh token where a ztunnel running in `folder` looks for it.
    pub(crate) fn write(&self, subject: &Subject, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("var/run/secrets/tokens/istio-token");
        let token = self.issue(subject, SystemTime::now())?;
        Ok(super::file::write(&path, token.as_bytes())?)
    }
}

/// While a token of this time needs no renewal. Where the clock is set back to before it, half of its life
/// is far away, and it would be good for longer than any token should.
fn fresh(issued: SystemTime) -> Range<SystemTime> {
    issued - SET_RIGHT..issued + RENEWAL
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn a_token_is_fresh_for_half_of_its_life_and_not_before_it() {
        let issued = SystemTime::now();
        for (now, expected) in [
            (issued, true),
            (issued - SET_RIGHT, true),
            (issued - SET_RIGHT * 2, false),
            (issued + RENEWAL - SET_RIGHT, true),
            (issued + RENEWAL, false),
            // After a night.
            (issued + LIFETIME * 2, false),
        ] {
            assert_eq!(fresh(issued).contains(&now), expected);
        }
    }

    #[test]
    fn a_token_says_who_and_where_and_is_checked_with_the_public_key() {
        let issuer = Issuer::new().unwrap();
        let reference = |name: &str| Reference {
            name: name.into(),
            uid: format!("uid-of-{name}"),
        };
        let subject = Subject {
            namespace: "weft-system".into(),
            service_account: reference("ztunnel"),
            pod: reference("ztunnel-node-1"),
            node: reference("node-1"),
        };
        let token = issuer.issue(&subject, SystemTime::now()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["istio-ca"]);
        validation.set_issuer(&["weft"]);
        let public = PKey::public_key_from_pem(issuer.public_key()).unwrap();
        let spki = public.public_key_to_der().unwrap();
        // The point ends the structure: a byte for its form and two coordinates.
        let key = DecodingKey::from_ec_der(&spki[spki.len() - 65..]);
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], "system:serviceaccount:weft-system:ztunnel");
        assert_eq!(claims["kubernetes.io"]["node"]["name"], "node-1");
        assert_eq!(
            claims["kubernetes.io"]["pod"]["uid"],
            "uid-of-ztunnel-node-1"
        );
        assert_eq!(
            claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
            12 * 60 * 60
        );
    }
}
