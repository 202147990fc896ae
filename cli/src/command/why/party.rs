//! SRC and DST as people write them, and what they stand for in the mesh.

mod destination;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use istio_compat::enablement::Enablement;
use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use mesh::address::NetworkAddress;
use mesh::identity::Identity;
use mesh::workload::{TunnelProtocol, Workload};

pub(super) use self::destination::Destination;
use super::answer::{Outcome, Stage, Step};
use super::known::Known;
use crate::exit::{Exit, Result};

/// Who opens the connection.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// As the mesh knows it, where its node captures what it sends.
    pub(super) captured: Option<Arc<Workload>>,
    pub(super) namespace: Arc<str>,
    pub(super) step: Step,
}

/// `namespace/name`, `name.namespace` or `name`.
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

// === impl Source ===

impl Source {
    pub(super) fn find(known: &Known, text: &str, namespace: &str) -> Result<Self> {
        if text.starts_with("spiffe://") {
            let identity: Identity = text
                .parse()
                .map_err(|error| Exit::Usage.because(format!("{text}: {error}")))?;
            return Ok(Self::with_identity(known, text, &identity));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::at(known, address));
        }
        let name = Name::parse(text, namespace);
        let found = name.workloads(known);
        if let Some((first, others)) = found.split_first() {
            return Ok(Self::of(known, text, first, others.len()));
        }
        let account = ObjectKey::new(Kind::ServiceAccount, name.namespace, name.name);
        let identity = Identity::new(
            known.context().trust_domain.clone(),
            name.namespace,
            name.name,
        );
        let runs = known
            .snapshot
            .workloads()
            .any(|workload| workload.identity() == identity);
        if runs || known.index.object(&account).is_some() {
            return Ok(Self::with_identity(known, text, &identity));
        }
        Err(Exit::NotFound.because(format!(
            "there is no pod, Deployment or ServiceAccount {}/{}",
            name.namespace, name.name
        )))
    }

    /// A pod that runs under it, or one that would.
    fn with_identity(known: &Known, text: &str, identity: &Identity) -> Self {
        let mut workloads: Vec<&Arc<Workload>> = known
            .snapshot
            .workloads()
            .filter(|workload| workload.identity() == *identity)
            .collect();
        workloads.sort_by_key(|workload| &workload.uid);
        if let Some((first, others)) = workloads.split_first() {
            return Self::of(known, text, first, others.len());
        }
        let mut workload = Workload::new("", "", &identity.namespace);
        workload.trust_domain = identity.trust_domain.clone();
        workload.service_account = identity.service_account.clone();
        workload.tunnel_protocol = TunnelProtocol::Hbone;
        let text = format!("no pod runs as {identity}; taken for one that is captured");
        Self {
            name: identity.to_string(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            namespace: identity.namespace.clone(),
            captured: Some(Arc::new(workload)),
            step: Step::new(Stage::Source, Outcome::Neutral, text),
        }
    }

    fn at(known: &Known, address: IpAddr) -> Self {
        let network = known.context().network.clone();
        let key = NetworkAddress::new(network, address);
        if let Some(workload) = known.snapshot.workload_at(&key) {
            return Self::of(known, &address.to_string(), workload, 0);
        }
        let text = format!("{address} is outside the mesh: it has no identity and sends plaintext");
        Self {
            name: address.to_string(),
            address,
            captured: None,
            namespace: "".into(),
            step: Step::new(Stage::Source, Outcome::Neutral, text),
        }
    }

    fn of(known: &Known, written: &str, workload: &Arc<Workload>, others: usize) -> Self {
        let pod = known.pod(workload);
        let is_captured = workload.tunnel_protocol == TunnelProtocol::Hbone;
        let object = known.workload_object(workload);
        let identity = workload.identity();
        let (text, outcome) = match (is_captured, pod) {
            (true, _) => (
                format!("{object} is captured and is {identity}"),
                Outcome::Pass,
            ),
            (false, Some(pod)) => {
                let why = match known.enablement(pod) {
                    Enablement::NotCaptured(why) => why.to_string(),
                    Enablement::Captured => "its node has not captured it yet".to_owned(),
                };
                let text = format!("{object} is not captured: {why}; it sends plaintext");
                (text, Outcome::Neutral)
            }
            (false, None) => (
                format!("{object} is not captured: it sends plaintext"),
                Outcome::Neutral,
            ),
        };
        let several = (others > 0).then(|| {
            let others = format!("{written} has {others} more");
            format!("{others}, which are taken to be alike")
        });
        let unspecified = Ipv4Addr::UNSPECIFIED.into();
        Self {
            name: format!("{}/{}", workload.namespace, workload.name()),
            address: workload.addresses.first().copied().unwrap_or(unspecified),
            captured: is_captured.then(|| workload.clone()),
            namespace: workload.namespace.clone(),
            step: Step::new(Stage::Source, outcome, text)
                .at(known.place(&object))
                .with(several),
        }
    }
}

// === impl Name ===

impl<'a> Name<'a> {
    fn parse(text: &'a str, namespace: &'a str) -> Self {
        let (namespace, name) = match text.split_once('/') {
            Some(split) => split,
            None => match text.split_once('.') {
                // `name.namespace`, and longer forms of it.
                Some((name, rest)) => (rest.split('.').next().unwrap_or(rest), name),
                None => (namespace, text),
            },
        };
        Self { namespace, name }
    }

    /// What it could be as a hostname, as it is written first.
    fn hostnames(&self, known: &Known, written: &str) -> Vec<String> {
        let of_service = known.context().service_hostname(self.name, self.namespace);
        let entry = ObjectKey::new(Kind::ServiceEntry, self.namespace, self.name);
        let of_entry = known
            .index
            .object(&entry)
            .and_then(|object| object.get::<istio_compat::kinds::service_entry::ServiceEntry>())
            .and_then(|entry| entry.spec.hosts.first().cloned());
        let written = written.trim_end_matches('.').to_owned();
        [Some(written), Some(of_service), of_entry]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The pod or WorkloadEntry of the name; else the pods of the Deployment.
    fn workloads(&self, known: &Known) -> Vec<Arc<Workload>> {
        let mut found: Vec<Arc<Workload>> = known
            .snapshot
            .workloads()
            .filter(|workload| *workload.namespace == *self.namespace)
            .filter(|workload| {
                *workload.name() == *self.name || *workload.workload_name == *self.name
            })
            .cloned()
            .collect();
        // Its own name, then what is ready.
        found.sort_by_key(|workload| {
            let is_ready = workload.status == mesh::workload::WorkloadStatus::Healthy;
            (
                *workload.name() != *self.name,
                !is_ready,
                workload.uid.clone(),
            )
        });
        let own = found.iter().take_while(|one| *one.name() == *self.name);
        match own.count() {
            0 => found,
            amount => {
                found.truncate(amount);
                found
            }
        }
    }
}
