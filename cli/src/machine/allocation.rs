//! Addresses of services: given once, kept over restarts, the user's own honoured. No I/O.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use istio_compat::kinds::service::{IpFamily, IpFamilyPolicy, Service, ServiceType};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

/// The first 256 of 65,536 are left to users who write addresses themselves, as in Kubernetes;
/// cluster DNS is the tenth.
const FIRST: u16 = 256;

/// By `namespace/name`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocations {
    services: BTreeMap<String, Vec<IpAddr>>,
}

// === impl Allocations ===

impl Allocations {
    /// Gives every service its addresses and takes them back from services that are gone.
    /// What can't be honoured is said, a sentence each.
    pub(crate) fn assign<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a Service>,
    ) -> Vec<String> {
        let services: BTreeMap<String, &Service> = services
            .into_iter()
            .map(|service| (key(service), service))
            .collect();
        let mut conflicts = Vec::new();
        let mut taken: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut kept: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        // Written addresses come before given ones: a given one can change, a written one can't.
        for (key, service) in &services {
            for address in service.cluster_ips() {
                if !in_range(address) {
                    conflicts.push(format!("Service {key}: {address} is no service address (10.96.0.0/16, fd00:96::/112)"));
                } else if let Some(holder) = taken.get(&address) {
                    conflicts.push(format!("Service {key}: {address} is Service {holder}'s"));
                } else {
                    taken.insert(address, key.clone());
                    kept.entry(key.clone()).or_default().push(address);
                }
            }
        }
        let mut wanting = BTreeSet::new();
        for (key, service) in &services {
            let written = !service.cluster_ips().is_empty();
            if written || service.is_headless() || service.spec.type_ == ServiceType::ExternalName {
                continue;
            }
            for family in families(service) {
                let held = self
                    .services
                    .get(key)
                    .into_iter()
                    .flatten()
                    .find(|address| is_of(**address, family));
                match held.filter(|address| !taken.contains_key(address)) {
                    Some(address) => {
                        taken.insert(*address, key.clone());
                        kept.entry(key.clone()).or_default().push(*address);
                    }
                    None => {
                        wanting.insert((key.clone(), family == IpFamily::Ipv6));
                    }
                }
            }
        }
        for (key, ipv6) in wanting {
            let start = start(&key);
            let free = (0..=u16::MAX - FIRST)
                .map(|step| {
                    FIRST + (start + u32::from(step)).rem_euclid(u32::from(u16::MAX - FIRST)) as u16
                })
                .map(|host| address(ipv6, host))
                .find(|address| !taken.contains_key(address));
            match free {
                Some(address) => {
                    taken.insert(address, key.clone());
                    kept.entry(key).or_default().push(address);
                }
                None => conflicts.push(format!("Service {key}: no service address is free")),
            }
        }
        // The order is the families' order, which decides the primary address.
        for (key, addresses) in &mut kept {
            if let Some(service) = services
                .get(key)
                .filter(|service| service.cluster_ips().is_empty())
            {
                let families = families(service);
                addresses.sort_by_key(|address| {
                    families.iter().position(|family| is_of(*address, *family))
                });
            }
        }
        self.services = kept;
        conflicts
    }

    pub(crate) fn of(&self, service: &Service) -> &[IpAddr] {
        self.services.get(&key(service)).map_or(&[], Vec::as_slice)
    }
}

fn key(service: &Service) -> String {
    format!("{}/{}", service.metadata.namespace, service.metadata.name)
}

fn families(service: &Service) -> Vec<IpFamily> {
    let spec = &service.spec;
    let dual = matches!(
        spec.ip_family_policy,
        Some(IpFamilyPolicy::PreferDualStack | IpFamilyPolicy::RequireDualStack)
    );
    let mut families = spec.ip_families.clone();
    if families.is_empty() {
        families.push(IpFamily::Ipv4);
    }
    if dual && families.len() == 1 {
        families.push(match families[0] {
            IpFamily::Ipv4 => IpFamily::Ipv6,
            IpFamily::Ipv6 => IpFamily::Ipv4,
        });
    }
    families
}

fn is_of(address: IpAddr, family: IpFamily) -> bool {
    match family {
        IpFamily::Ipv4 => address.is_ipv4(),
        IpFamily::Ipv6 => address.is_ipv6(),
    }
}

fn address(ipv6: bool, host: u16) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, host).into()
    } else {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(10, 96, high, low).into()
    }
}

fn in_range(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            matches!(address.octets(), [10, 96, high, low] if !matches!((high, low), (0, 0 | 10) | (255, 255)))
        }
        IpAddr::V6(address) => {
            matches!(address.segments(), [0xfd00, 0x96, 0, 0, 0, 0, 0, host] if host != 0 && host != 0xa)
        }
    }
}

/// Where to begin looking: a service likely has the same address on every machine.
fn start(key: &str) -> u32 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(key.as_bytes());
    (hasher.finish() % u64::from(u16::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, spec: serde_json::Value) -> Service {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn an_address_once_given_is_kept_over_restarts() {
        let web = service("web", serde_json::json!({}));
        let mut allocations = Allocations::default();
        assert!(allocations.assign([&web]).is_empty());
        let given = allocations.of(&web).to_vec();
        assert_eq!(given.len(), 1);
        let mut later: Allocations =
            serde_json::from_str(&serde_json::to_string(&allocations).unwrap()).unwrap();
        let others: Vec<_> = (0..50)
            .map(|index| service(&format!("a{index}"), serde_json::json!({})))
            .collect();
        assert!(later.assign(others.iter().chain([&web])).is_empty());
        assert_eq!(later.of(&web), given);
    }

    #[test]
    fn a_written_address_is_honoured_even_against_a_given_one() {
        let web = service("web", serde_json::json!({}));
        let mut allocations = Allocations::default();
        allocations.assign([&web]);
        let given = allocations.of(&web)[0];
        let fixed = service("fixed", serde_json::json!({"clusterIP": given.to_string()}));
        assert!(allocations.assign([&web, &fixed]).is_empty());
        assert_eq!(allocations.of(&fixed), [given]);
        assert_ne!(allocations.of(&web), [given]);
    }

    #[test]
    fn conflicts_are_said() {
        let a = service("a", serde_json::json!({"clusterIP": "10.96.0.7"}));
        let b = service("b", serde_json::json!({"clusterIP": "10.96.0.7"}));
        let c = service("c", serde_json::json!({"clusterIP": "10.96.0.10"}));
        let mut allocations = Allocations::default();
        let conflicts = allocations.assign([&a, &b, &c]);
        assert_eq!(conflicts.len(), 2, "{conflicts:?}");
        assert!(
            conflicts
                .iter()
                .any(|conflict| conflict.contains("shop/b") && conflict.contains("shop/a"))
        );
        assert!(allocations.of(&b).is_empty() && allocations.of(&c).is_empty());
    }

    #[test]
    fn families_decide_how_many_and_which_first() {
        let dual = service(
            "dual",
            serde_json::json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
        );
        let headless = service("headless", serde_json::json!({"clusterIP": "None"}));
        let mut allocations = Allocations::default();
        allocations.assign([&dual, &headless]);
        let families: Vec<_> = allocations.of(&dual).iter().map(IpAddr::is_ipv6).collect();
        assert_eq!(families, [true, false]);
        assert!(allocations.of(&headless).is_empty());
    }
}
