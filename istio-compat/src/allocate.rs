//! Addresses for ServiceEntries that give none: one IPv4 and one IPv6 for each host.
//!
//! The search for a free address starts at a place computed from the host's owner and
//! name, so that the same objects get the same addresses after a restart, whatever the
//! order in which they arrive (but for the rare two that meet).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::kinds::service_entry::{Resolution, ServiceEntry};
use crate::labels;
use crate::object::ObjectKey;

/// 240.240.0.0/16, Istio's default.
const IPV4_PREFIX: [u8; 2] = [240, 240];
/// 2001:2::/48, Istio's default.
const IPV6_PREFIX: [u16; 3] = [0x2001, 2, 0];
/// Places in the smaller range, its first and last address left out.
const SIZE: u32 = 0xfffe;

/// A host of a ServiceEntry.
type Host = (ObjectKey, String);

#[derive(Clone, Debug, Default)]
pub(crate) struct Allocator {
    /// Both addresses of a host have the same place in their ranges.
    places: HashMap<u32, Host>,
    hosts: BTreeMap<ObjectKey, BTreeMap<String, u32>>,
    /// Addresses that users gave to their own entries: these win.
    reserved: BTreeMap<ObjectKey, BTreeSet<u32>>,
}

/// Whether a host gets addresses by itself.
pub(crate) fn wants_address(entry: &ServiceEntry, host: &str) -> bool {
    let resolution = entry.spec.resolution;
    let opted_out = entry.metadata.label(labels::AUTOALLOCATE_IP) == Some("false");
    entry.spec.addresses.is_empty()
        && !opted_out
        && resolution != Resolution::None
        && (!host.starts_with('*') || resolution == Resolution::DynamicDns)
}

// === impl Allocator ===

impl Allocator {
    /// Brings an entry's allocations up to date; returns the other entries that had to
    /// move away from addresses this one gives itself.
    pub(crate) fn assign(&mut self, key: &ObjectKey, entry: &ServiceEntry) -> BTreeSet<ObjectKey> {
        let given: BTreeSet<u32> = entry
            .spec
            .addresses
            .iter()
            .filter_map(|address| place_of(given_address(address)?))
            .collect();
        let displaced: Vec<Host> = given
            .iter()
            .filter_map(|place| self.places.remove(place))
            .collect();
        if given.is_empty() {
            self.reserved.remove(key);
        } else {
            self.reserved.insert(key.clone(), given);
        }
        let wanted: BTreeSet<String> = entry
            .spec
            .hosts
            .iter()
            .filter(|host| wants_address(entry, host))
            .map(|host| host.to_ascii_lowercase())
            .collect();
        let stale: Vec<String> = self
            .hosts
            .get(key)
            .into_iter()
            .flat_map(|hosts| hosts.keys())
            .filter(|host| !wanted.contains(*host))
            .cloned()
            .collect();
        for host in stale {
            self.give_up(key, &host);
        }
        for (owner, host) in &displaced {
            self.take(owner, host, &[]);
        }
        for host in &wanted {
            let known = self
                .hosts
                .get(key)
                .is_some_and(|hosts| hosts.contains_key(host));
            if !known {
                let remembered: Vec<u32> = entry
                    .status
                    .addresses
                    .iter()
                    .filter(|address| address.host.eq_ignore_ascii_case(host))
                    .filter_map(|address| place_of(address.value.parse().ok()?))
                    .collect();
                self.take(key, host, &remembered);
            }
        }
        displaced
            .into_iter()
            .map(|(owner, _)| owner)
            .filter(|owner| owner != key)
            .collect()
    }

    pub(crate) fn release(&mut self, key: &ObjectKey) {
        self.reserved.remove(key);
        for place in self.hosts.remove(key).unwrap_or_default().into_values() {
            self.places.remove(&place);
        }
    }

    pub(crate) fn allocated(&self, key: &ObjectKey, host: &str) -> Option<[IpAddr; 2]> {
        let place = *self.hosts.get(key)?.get(&host.to_ascii_lowercase())?;
        Some(addresses(place))
    }

    fn give_up(&mut self, key: &ObjectKey, host: &str) {
        if let Some(hosts) = self.hosts.get_mut(key)
            && let Some(place) = hosts.remove(host)
        {
            self.places.remove(&place);
        }
    }

    /// Takes a remembered place, or else the first free one from the host's own start.
    fn take(&mut self, key: &ObjectKey, host: &str, remembered: &[u32]) {
        let start = hash(&format!("{}/{}/{host}", key.namespace, key.name)) % u64::from(SIZE);
        let start = u32::try_from(start).unwrap_or_default();
        let place = remembered
            .iter()
            .copied()
            .chain((0..SIZE).map(|step| (start + step) % SIZE + 1))
            .find(|place| {
                !self.places.contains_key(place)
                    && !self.reserved.values().any(|given| given.contains(place))
            });
        let hosts = self.hosts.entry(key.clone()).or_default();
        match place {
            Some(place) => {
                self.places.insert(place, (key.clone(), host.to_owned()));
                hosts.insert(host.to_owned(), place);
            }
            None => {
                hosts.remove(host);
            }
        }
    }
}

/// The address that an entry's own text stands for, `/32` and `/128` included; none for a range.
fn given_address(text: &str) -> Option<IpAddr> {
    match text.parse::<IpNet>() {
        Ok(range) => (range.prefix_len() == range.max_prefix_len()).then(|| range.addr()),
        Err(_) => text.parse().ok(),
    }
}

fn addresses(place: u32) -> [IpAddr; 2] {
    let [_, _, high, low] = place.to_be_bytes();
    let [a, b] = IPV4_PREFIX;
    let [p, q, r] = IPV6_PREFIX;
    let tail = u16::from_be_bytes([high, low]);
    [
        Ipv4Addr::new(a, b, high, low).into(),
        Ipv6Addr::new(p, q, r, 0, 0, 0, 0, tail).into(),
    ]
}

/// The place of an address in the ranges, if it is in one.
fn place_of(address: IpAddr) -> Option<u32> {
    let place = match address {
        IpAddr::V4(address) => match address.octets() {
            [a, b, high, low] if [a, b] == IPV4_PREFIX => u32::from_be_bytes([0, 0, high, low]),
            _ => return None,
        },
        IpAddr::V6(address) => match address.segments() {
            [p, q, r, 0, 0, 0, 0, tail] if [p, q, r] == IPV6_PREFIX => u32::from(tail),
            _ => return None,
        },
    };
    (1..=SIZE).contains(&place).then_some(place)
}

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn entry(hosts: &[&str], addresses: &[&str]) -> ServiceEntry {
        let mut entry = ServiceEntry::default();
        entry.spec.resolution = Resolution::Dns;
        entry.spec.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        entry.spec.addresses = addresses.iter().map(|one| (*one).to_owned()).collect();
        entry
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::ServiceEntry, "shop", name)
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let names: Vec<String> = (0..100).map(|number| format!("entry-{number}")).collect();
        let (mut one, mut other) = (Allocator::default(), Allocator::default());
        for name in &names {
            one.assign(&key(name), &entry(&["a.example.com"], &[]));
        }
        for name in names.iter().rev() {
            other.assign(&key(name), &entry(&["a.example.com"], &[]));
        }
        for name in &names {
            let allocated = one.allocated(&key(name), "a.example.com");
            assert!(allocated.is_some());
            assert_eq!(allocated, other.allocated(&key(name), "A.example.com"));
        }
    }

    #[test]
    fn no_two_hosts_share_an_address() {
        let mut allocator = Allocator::default();
        let mut seen = BTreeSet::new();
        for number in 0..2_000 {
            let host = format!("h{number}.example.com");
            let key = key(&format!("entry-{number}"));
            allocator.assign(&key, &entry(&[&host], &[]));
            for address in allocator.allocated(&key, &host).expect("there is room") {
                assert!(seen.insert(address), "{address} is taken twice");
            }
        }
    }

    #[test]
    fn a_given_address_displaces_an_allocated_one() {
        let host = "a.example.com";
        for (family, suffix) in [(0, ""), (0, "/32"), (1, ""), (1, "/128")] {
            let mut allocator = Allocator::default();
            allocator.assign(&key("auto"), &entry(&[host], &[]));
            let before = allocator.allocated(&key("auto"), host).expect("allocated");
            let given = format!("{}{suffix}", before[family]);
            let moved = allocator.assign(&key("given"), &entry(&["b.example.com"], &[&given]));
            assert_eq!(moved, BTreeSet::from([key("auto")]), "{given}");
            let after = allocator.allocated(&key("auto"), host).expect("moved");
            assert_ne!(before, after);
            assert_eq!(allocator.allocated(&key("given"), "b.example.com"), None);
        }
    }

    #[test]
    fn a_host_that_goes_gives_its_address_back() {
        let mut allocator = Allocator::default();
        allocator.assign(
            &key("one"),
            &entry(&["a.example.com", "b.example.com"], &[]),
        );
        let kept = allocator.allocated(&key("one"), "a.example.com");
        allocator.assign(&key("one"), &entry(&["a.example.com"], &[]));
        assert_eq!(allocator.allocated(&key("one"), "a.example.com"), kept);
        assert_eq!(allocator.allocated(&key("one"), "b.example.com"), None);
        allocator.release(&key("one"));
        assert!(allocator.places.is_empty());
    }
}
