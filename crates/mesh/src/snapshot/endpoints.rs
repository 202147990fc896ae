//! The endpoints of one service, in the order of their uids.
//!
//! A service may have ten thousand, of which one changes at a time while readers hold the list as
//! it was: it is kept in chunks, of which a change copies one.

use std::cmp::Ordering;
use std::ops::Index;
use std::sync::Arc;

use super::Endpoint;
use crate::address::GatewayAddress;
use crate::workload::WorkloadUid;

/// Most endpoints in a chunk: about as many as a service of ten thousand has chunks.
const CHUNK: usize = 128;

/// A list that is cheap to clone, to change by one and to draw from.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// None of them is empty.
    chunks: Arc<[Chunk]>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// The position of its first endpoint among all.
    first: usize,
    endpoints: Arc<[Endpoint]>,
    /// What each of them weighs, where all weigh the same.
    capacity: Option<u32>,
    /// What those in other networks are behind, each once.
    network_gateways: Arc<[GatewayAddress]>,
}

// === impl Endpoints ===

impl Endpoints {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, index: usize) -> Option<&Endpoint> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= index);
        let chunk = &self.chunks[after.checked_sub(1)?];
        chunk.endpoints.get(index - chunk.first)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.endpoints.iter())
    }

    /// The list in pieces, of which most are shared with the list before a change.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Arc<[Endpoint]>> {
        self.chunks.iter().map(|chunk| &chunk.endpoints)
    }

    pub fn find(&self, uid: &WorkloadUid) -> Option<&Endpoint> {
        let chunk = self.chunks.get(self.chunk_of(uid))?;
        let at = chunk.position(uid).ok()?;
        Some(&chunk.endpoints[at])
    }

    /// Whether all endpoints weigh the same and something, so that any one may be drawn without
    /// a scan.
    pub fn have_equal_capacity(&self) -> bool {
        let Some((first, others)) = self.chunks.split_first() else {
            return true;
        };
        first.capacity.is_some_and(|capacity| capacity != 0)
            && others.iter().all(|other| other.capacity == first.capacity)
    }

    /// The gateways that endpoints in other networks are behind, each once.
    pub fn network_gateways(&self) -> Vec<&GatewayAddress> {
        let chunks = self.chunks.iter();
        distinct(chunks.flat_map(|chunk| chunk.network_gateways.iter()))
    }

    /// Puts an endpoint in its place, where one of the same workload may be already.
    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let uid = &endpoint.workload.uid;
        let last = self.chunks.len().saturating_sub(1);
        let at = self.chunk_of(uid).min(last);
        let mut changed = match self.chunks.get(at) {
            Some(chunk) => chunk.endpoints.to_vec(),
            None => Vec::with_capacity(1),
        };
        match position(&changed, uid) {
            Ok(known) => changed[known] = endpoint,
            Err(place) => changed.insert(place, endpoint),
        }
        self.replace(at, changed);
    }

    pub(super) fn remove(&mut self, uid: &WorkloadUid) {
        let at = self.chunk_of(uid);
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        if let Ok(known) = chunk.position(uid) {
            let mut changed = chunk.endpoints.to_vec();
            changed.remove(known);
            self.replace(at, changed);
        }
    }

    /// The first chunk that ends with this workload or one after it.
    fn chunk_of(&self, uid: &WorkloadUid) -> usize {
        self.chunks.partition_point(|chunk| {
            let last = chunk.endpoints.last();
            last.is_some_and(|last| last.workload.uid < *uid)
        })
    }

    fn replace(&mut self, at: usize, changed: Vec<Endpoint>) {
        let before = self.chunks.iter().take(at);
        let after = self.chunks.iter().skip(at + 1);
        // A half each of what has grown too large leaves both room.
        let size = match changed.len() > CHUNK {
            true => changed.len().div_ceil(2),
            false => CHUNK,
        };
        let changed = changed.chunks(size).map(Chunk::new);
        let chunks = before.cloned().chain(changed).chain(after.cloned());
        *self = Self::of(chunks.collect());
    }

    fn of(mut chunks: Vec<Chunk>) -> Self {
        let mut len = 0;
        for chunk in &mut chunks {
            chunk.first = len;
            len += chunk.endpoints.len();
        }
        Self {
            chunks: chunks.into(),
            len,
        }
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl FromIterator<Endpoint> for Endpoints {
    /// They must come in the order of their uids.
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let endpoints: Vec<Endpoint> = endpoints.into_iter().collect();
        Self::of(endpoints.chunks(CHUNK).map(Chunk::new).collect())
    }
}

impl Index<usize> for Endpoints {
    type Output = Endpoint;

    fn index(&self, index: usize) -> &Endpoint {
        self.get(index).expect("within the length")
    }
}

// === impl Chunk ===

impl Chunk {
    fn new(endpoints: &[Endpoint]) -> Self {
        let capacity = |endpoint: &Endpoint| endpoint.workload.capacity;
        let of_first = endpoints.first().map(capacity);
        let named = endpoints.iter();
        let named = named.filter_map(|endpoint| endpoint.workload.network_gateway.as_ref());
        Self {
            network_gateways: distinct(named).into_iter().cloned().collect(),
            first: 0,
            endpoints: endpoints.into(),
            capacity: of_first.filter(|of_first| {
                let mut all = endpoints.iter();
                all.all(|endpoint| capacity(endpoint) == *of_first)
            }),
        }
    }

    fn position(&self, uid: &WorkloadUid) -> Result<usize, usize> {
        position(&self.endpoints, uid)
    }
}

/// There are few: a gateway stands for a network.
fn distinct<'a>(gateways: impl Iterator<Item = &'a GatewayAddress>) -> Vec<&'a GatewayAddress> {
    let mut distinct = Vec::new();
    for gateway in gateways {
        if !distinct.contains(&gateway) {
            distinct.push(gateway);
        }
    }
    distinct
}

fn position(endpoints: &[Endpoint], uid: &WorkloadUid) -> Result<usize, usize> {
    endpoints.binary_search_by(|endpoint| -> Ordering { endpoint.workload.uid.cmp(uid) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::workload::Workload;

    fn endpoint(number: u16, capacity: u32) -> Endpoint {
        let name = format!("web-{number:05}");
        let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), &name, "shop");
        workload.capacity = capacity;
        Endpoint {
            workload: Arc::new(workload),
            expected: Arc::new([]),
        }
    }

    fn uid(number: u16) -> WorkloadUid {
        WorkloadUid::new(format!("Kubernetes//Pod/shop/web-{number:05}"))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..600_u16, 0..3_u32).prop_map(|(number, capacity)| Step::Insert(number, capacity)),
            1 => (0..600_u16).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Against a sorted map, with more endpoints than a chunk holds.
        #[test]
        fn it_is_a_sorted_list(first in 0..400_u16, steps in vec(step(), 0..400)) {
            let mut endpoints: Endpoints = (0..first).map(|number| endpoint(number, 1)).collect();
            let mut model: BTreeMap<u16, u32> = (0..first).map(|number| (number, 1)).collect();
            for step in steps {
                match step {
                    Step::Insert(number, capacity) => {
                        endpoints.insert(endpoint(number, capacity));
                        model.insert(number, capacity);
                    }
                    Step::Remove(number) => {
                        endpoints.remove(&uid(number));
                        model.remove(&number);
                    }
                }
            }
            let as_model = |one: &Endpoint| (one.workload.uid.clone(), one.workload.capacity);
            let expected: Vec<_> = model.iter().map(|(number, capacity)| (uid(*number), *capacity)).collect();
            let listed: Vec<_> = endpoints.iter().map(as_model).collect();
            let indexed: Vec<_> = (0..endpoints.len()).map(|index| as_model(&endpoints[index])).collect();
            prop_assert_eq!(&listed, &expected);
            prop_assert_eq!(&indexed, &expected);
            prop_assert!(endpoints.get(expected.len()).is_none());
            for number in 0..600 {
                prop_assert_eq!(endpoints.find(&uid(number)).is_some(), model.contains_key(&number));
            }
            let mut capacities = model.values();
            let equal = match capacities.next() {
                Some(first) => *first != 0 && capacities.all(|other| other == first),
                None => true,
            };
            prop_assert_eq!(endpoints.have_equal_capacity(), equal);
            prop_assert!(endpoints.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.endpoints.len())));
        }
    }
}
