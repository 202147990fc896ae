//! Workloads of other networks, which are known only by what they say of themselves. It serves
//! telemetry alone, and is bounded: each of them becomes labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use hbone::headers::Baggage;
use http::HeaderMap;
use mesh::identity::Identity;
use mesh::workload::{Locality, Workload};

/// Descriptions of one identity in use at a time; others count as unknown.
const PER_IDENTITY: usize = 32;
/// Identities beyond which those that nothing uses are forgotten.
const IDENTITIES: usize = 1024;
/// No name in Kubernetes is longer.
const LONGEST: usize = 253;

/// One worker's. What a series or a connection holds is found again, so that equal descriptions are
/// one workload.
#[derive(Debug, Default)]
pub(crate) struct Described(RefCell<HashMap<Identity, Vec<Description>>>);

/// What was said, and the workload made of it as long as something holds that.
type Description = (Baggage, Weak<Workload>);

// === impl Described ===

impl Described {
    /// The peer as its `baggage` describes it. Its namespace and account are its certificate's.
    pub(crate) fn workload(
        &self,
        identity: &Identity,
        headers: &HeaderMap,
    ) -> Option<Arc<Workload>> {
        let baggage = Baggage::parse(headers);
        let mut known = self.0.borrow_mut();
        if known.len() >= IDENTITIES {
            known.retain(|_, all| all.iter().any(|(_, one)| one.strong_count() > 0));
        }
        let all = known.entry(identity.clone()).or_default();
        all.retain(|(_, one)| one.strong_count() > 0);
        let found = all.iter().find(|(one, _)| *one == baggage);
        if let Some(workload) = found.and_then(|(_, one)| one.upgrade()) {
            return Some(workload);
        }
        if all.len() >= PER_IDENTITY {
            return None;
        }
        let workload = Arc::new(workload(identity, &baggage));
        all.push((baggage, Arc::downgrade(&workload)));
        Some(workload)
    }
}

fn workload(identity: &Identity, baggage: &Baggage) -> Workload {
    let text = |value: &Option<String>| -> Arc<str> {
        let value = value.as_deref().unwrap_or_default();
        match value.len() <= LONGEST {
            true => value.into(),
            false => "".into(),
        }
    };
    let name = text(&baggage.workload_name);
    let mut workload = Workload::new("", &name, &identity.namespace);
    workload.service_account = identity.service_account.clone();
    workload.trust_domain = identity.trust_domain.clone();
    workload.cluster_id = text(&baggage.cluster_id);
    workload.workload_name = name;
    workload.canonical_name = text(&baggage.service_name);
    workload.canonical_revision = text(&baggage.revision);
    workload.locality = Arc::new(Locality {
        region: text(&baggage.region),
        zone: text(&baggage.zone),
        ..Locality::default()
    });
    workload
}

#[cfg(test)]
mod tests {
    use hbone::headers::BAGGAGE;
    use http::HeaderValue;

    use super::*;

    fn says(text: &str) -> HeaderMap {
        let value = HeaderValue::from_str(text).expect("a header");
        [(BAGGAGE, value)].into_iter().collect()
    }

    #[test]
    fn the_certificate_counts_for_what_it_says() {
        let described = Described::default();
        let identity = Identity::new("cluster.local", "shop", "web");
        let headers = says(
            "k8s.cluster.name=west,k8s.namespace.name=bank,k8s.deployment.name=web,\
             service.name=web,service.version=v2,cloud.region=eu",
        );
        let web = described.workload(&identity, &headers).expect("room");
        assert_eq!(web.identity(), identity);
        let told = [
            &web.cluster_id,
            &web.workload_name,
            &web.canonical_name,
            &web.canonical_revision,
            &web.locality.region,
        ];
        assert_eq!(told.map(|text| &**text), ["west", "web", "web", "v2", "eu"]);
        let again = described.workload(&identity, &headers).expect("known");
        assert!(Arc::ptr_eq(&web, &again));
        let nothing = described.workload(&identity, &HeaderMap::new());
        assert_eq!(&*nothing.expect("room").namespace, "shop");
    }

    #[test]
    fn an_identity_has_so_many_descriptions_at_a_time() {
        let described = Described::default();
        let [web, api] = ["web", "api"].map(|name| Identity::new("td", "shop", name));
        let describe = |identity, number| {
            let headers = says(&format!("service.version=v{number}"));
            described.workload(identity, &headers)
        };
        let mut held: Vec<_> = (0..2 * PER_IDENTITY)
            .filter_map(|number| describe(&web, number))
            .collect();
        assert_eq!(held.len(), PER_IDENTITY);
        assert!(describe(&api, 0).is_some());
        held.pop();
        assert!(describe(&web, 999).is_some());
        let long = says(&format!("service.name={}", "n".repeat(LONGEST + 1)));
        let workload = described.workload(&api, &long).expect("room");
        assert_eq!(&*workload.canonical_name, "");
    }
}
