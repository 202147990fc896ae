//! The control plane's own certificate for 15012, renewed while it serves.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::{Issued, SignerError, Subject};
use identity::key::PrivateKey;
use identity::serving::ServingCertificate;
use runtime::wall_clock;
use rustls::ServerConfig;
use tokio::time;

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
    /// While it needs no renewal.
    fresh: Range<SystemTime>,
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
            fresh: fresh(&issued, SystemTime::now()),
        })
    }

    /// The configuration to accept with; it follows every renewal.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Renews at half of each certificate's life, when the clock is set back to before it, and when the
    /// authority has changed, for as long as it is polled.
    pub async fn renew(mut self) {
        let mut changes = self.authority.changes();
        loop {
            tokio::select! {
                () = wall_clock::leaves(&self.fresh) => {}
                // The sender is the authority, which is held here.
                _ = changes.changed() => {}
            }
            match self.replace() {
                Ok(()) => tracing::info!("renewed the serving certificate"),
                Err(error) => {
                    tracing::error!(%error, "the serving certificate can't be renewed");
                    time::sleep(RETRY).await;
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn fresh_within(&mut self, times: Range<SystemTime>) {
        self.fresh = times;
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> Arc<ServingCertificate> {
        self.certificate.clone()
    }

    fn replace(&mut self) -> Result<(), SignerError> {
        let (key, issued) = sign(&self.authority, &self.subject)?;
        self.certificate.replace(key, &issued.chain)?;
        self.fresh = fresh(&issued, SystemTime::now());
        Ok(())
    }
}

/// From its beginning until half of the life that it has left is over; of what ends at once, for a second.
/// Where the signer itself begins later no renewal helps, so that it is fresh from now on.
fn fresh(issued: &Issued, now: SystemTime) -> Range<SystemTime> {
    let left = issued.not_after.duration_since(now).unwrap_or_default();
    issued.not_before.min(now)..now + (left / 2).max(Duration::from_secs(1))
}

fn sign(authority: &Authority, subject: &Subject) -> Result<(PrivateKey, Issued), SignerError> {
    let key = PrivateKey::generate()?;
    let issued = authority.issue(key.public(), subject, LIFETIME)?;
    Ok((key, issued))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_fresh_until_half_of_its_life_or_a_clock_before_it() {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(3600);
        let now = SystemTime::now();
        let issued = |not_before, not_after| Issued {
            chain: Vec::new(),
            not_before,
            not_after,
            serial: String::new(),
        };
        let day = issued(now - MINUTE * 10, now + HOUR * 24);
        let ends = issued(now - MINUTE * 10, now);
        let of_a_later_signer = issued(now + HOUR, now + HOUR * 24);
        for (name, certificate, clock, expected) in [
            ("issued", &day, now, true),
            ("before half of it", &day, now + HOUR * 11, true),
            ("at half of it", &day, now + HOUR * 12, false),
            ("after a night", &day, now + HOUR * 30, false),
            ("set back by a little", &day, now - MINUTE * 9, true),
            ("set back by an hour", &day, now - HOUR, false),
            ("set back by a year", &day, now - HOUR * 8760, false),
            ("ends at once", &ends, now, true),
            ("has ended", &ends, now + MINUTE, false),
            ("the signer begins later", &of_a_later_signer, now, true),
        ] {
            let fresh = fresh(certificate, now);
            assert_eq!(fresh.contains(&clock), expected, "{name}");
        }
    }
}
