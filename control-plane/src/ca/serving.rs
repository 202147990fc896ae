//! The control plane's own certificate for 15012, renewed while it serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::{Issued, SignerError, Subject};
use identity::key::PrivateKey;
use identity::serving::ServingCertificate;
use runtime::wall_clock;
use rustls::ServerConfig;

use super::Authority;

/// The names every control plane of ours answers to.
const NAMES: [&str; 2] = ["istiod.istio-system.svc", "control-plane.weft-system.svc"];
const LIFETIME: Duration = Duration::from_secs(86_400);
const RETRY: Duration = Duration::from_secs(60);

/// The certificate in use and what it takes to make the next.
pub struct Serving {
    authority: Arc<Authority>,
    subject: Subject,
    certificate: Arc<ServingCertificate>,
    config: Arc<ServerConfig>,
    renewal: SystemTime,
}

// === impl Serving ===

impl Serving {
    /// Signs a certificate for the fixed names and `further` ones, which may be addresses.
    pub fn new(authority: Arc<Authority>, further: &[String]) -> Result<Self, SignerError> {
        let mut names: Vec<String> = NAMES.map(str::to_owned).into();
        let mut addresses = Vec::new();
        for name in further {
            match name.parse::<IpAddr>() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name.clone()),
            }
        }
        let subject = Subject::Server { names, addresses };
        let (key, issued) = sign(&authority, &subject)?;
        let certificate = ServingCertificate::new(key, &issued.chain)?;
        Ok(Self {
            config: certificate.server_config()?,
            authority,
            subject,
            certificate,
            renewal: renewal(&issued),
        })
    }

    /// The configuration to accept with; it follows every renewal.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Renews at half of each certificate's life, and when the authority has changed, for as long
    /// as it is polled.
    pub async fn renew(mut self) {
        let mut changes = self.authority.changes();
        loop {
            tokio::select! {
                () = wall_clock::reaches(self.renewal) => {}
                // The sender is the authority, which is held here.
                _ = changes.changed() => {}
            }
            match self.replace() {
                Ok(()) => tracing::info!("renewed the serving certificate"),
                Err(error) => {
                    tracing::error!(%error, "the serving certificate can't be renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn renew_at(&mut self, time: SystemTime) {
        self.renewal = time;
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> Arc<ServingCertificate> {
        self.certificate.clone()
    }

    fn replace(&mut self) -> Result<(), SignerError> {
        let (key, issued) = sign(&self.authority, &self.subject)?;
        self.certificate.replace(key, &issued.chain)?;
        self.renewal = renewal(&issued);
        Ok(())
    }
}

/// When half of the life that it has left is over; of what ends at once, a second later.
fn renewal(issued: &Issued) -> SystemTime {
    let now = SystemTime::now();
    let left = issued.not_after.duration_since(now).unwrap_or_default();
    now + (left / 2).max(Duration::from_secs(1))
}

fn sign(authority: &Authority, subject: &Subject) -> Result<(PrivateKey, Issued), SignerError> {
    let key = PrivateKey::generate()?;
    let issued = authority.issue(key.public(), subject, LIFETIME)?;
    Ok((key, issued))
}
