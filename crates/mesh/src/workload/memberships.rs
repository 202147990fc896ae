//! The services that a workload backs. There are one or two as a rule, for which a map's nodes
//! would take many times the memory.

use serde::{Serialize, Serializer};

use crate::address::NamespacedHostname;
use crate::service::{Port, Service};

/// Services, and a workload's own ports for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memberships(
    /// In the order of their keys, each once.
    Box<[(NamespacedHostname, Box<[Port]>)]>,
);

// === impl Memberships ===

impl Memberships {
    pub fn get(&self, service: &NamespacedHostname) -> Option<&[Port]> {
        self.at(&service.namespace, &service.hostname)
    }

    pub fn of(&self, service: &Service) -> Option<&[Port]> {
        self.at(&service.namespace, &service.hostname)
    }

    pub fn contains_key(&self, service: &NamespacedHostname) -> bool {
        self.get(service).is_some()
    }

    pub fn keys(&self) -> impl Iterator<Item = &NamespacedHostname> + Clone {
        self.0.iter().map(|(service, _)| service)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedHostname, &[Port])> {
        self.0.iter().map(|(service, ports)| (service, &**ports))
    }

    pub fn insert(&mut self, service: NamespacedHostname, ports: Vec<Port>) {
        match self.position(&service.namespace, &service.hostname) {
            Ok(known) => self.0[known].1 = ports.into(),
            Err(place) => {
                let mut all = std::mem::take(&mut self.0).into_vec();
                all.insert(place, (service, ports.into()));
                self.0 = all.into();
            }
        }
    }

    fn at(&self, namespace: &str, hostname: &str) -> Option<&[Port]> {
        let at = self.position(namespace, hostname).ok()?;
        Some(&self.0[at].1)
    }

    fn position(&self, namespace: &str, hostname: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| {
            (&*known.namespace, &*known.hostname).cmp(&(namespace, hostname))
        })
    }
}

impl FromIterator<(NamespacedHostname, Vec<Port>)> for Memberships {
    fn from_iter<I: IntoIterator<Item = (NamespacedHostname, Vec<Port>)>>(services: I) -> Self {
        let mut memberships = Self::default();
        for (service, ports) in services {
            memberships.insert(service, ports);
        }
        memberships
    }
}

impl Serialize for Memberships {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, ports)| (key.to_string(), ports)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn port(service_port: u16) -> Port {
        Port {
            service_port,
            target_port: 8080,
            app_protocol: Default::default(),
        }
    }

    proptest! {
        #[test]
        fn they_are_a_sorted_map(services in vec((0..6_u8, 0..3_u16), 0..12)) {
            let services: Vec<_> = services
                .into_iter()
                .map(|(name, number)| (NamespacedHostname::new("shop", format!("{name}")), vec![port(number)]))
                .collect();
            let memberships: Memberships = services.iter().cloned().collect();
            let model: BTreeMap<_, _> = services.into_iter().collect();
            let expected: Vec<_> = model.iter().map(|(key, ports)| (key, &ports[..])).collect();
            prop_assert_eq!(memberships.iter().collect::<Vec<_>>(), expected);
            prop_assert!(memberships.keys().eq(model.keys()));
            for name in 0..6 {
                let key = NamespacedHostname::new("shop", format!("{name}"));
                prop_assert_eq!(memberships.get(&key), model.get(&key).map(Vec::as_slice));
                prop_assert_eq!(memberships.contains_key(&key), model.contains_key(&key));
            }
        }
    }
}
