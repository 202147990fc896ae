//! Asking the nameservers of /etc/resolv.conf, with its search domains, after /etc/hosts.

use std::cell::RefCell;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::{DnsError, NetError};
use tokio::time;

use super::schedule::Answer;

/// One question, with all nameservers and search domains.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The system's nameservers, as their file had them when it was last read.
#[derive(Default)]
pub(super) struct Nameservers(RefCell<Option<TokioResolver>>);

// === impl Nameservers ===

impl Nameservers {
    pub(super) async fn ask(&self, hostname: &str) -> Answer {
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => return Answer::Failure(format!("/etc/resolv.conf: {error}")),
        };
        let found = match time::timeout(TIMEOUT, resolver.lookup_ip(hostname)).await {
            Ok(Ok(found)) => found,
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let lifetime = none.negative_ttl.map(u64::from).map(Duration::from_secs);
                return Answer::None(none.response_code.to_string(), lifetime);
            }
            Ok(Err(error)) => return self.failed(error.to_string()),
            Err(_) => return self.failed("no answer in time".to_owned()),
        };
        let now = std::time::Instant::now();
        let lifetime = found.valid_until().saturating_duration_since(now);
        let addresses = found.iter().map(|one| one.to_canonical()).collect();
        Answer::Addresses(addresses, lifetime)
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut known = self.0.borrow_mut();
        if let Some(resolver) = &*known {
            return Ok(resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // What is kept, and for how long, is decided by the schedule.
        options.cache_size = 0;
        Ok(known.insert(builder.build()?).clone())
    }

    /// The file may have changed since it was read.
    fn failed(&self, why: String) -> Answer {
        self.0.take();
        Answer::Failure(why)
    }
}
