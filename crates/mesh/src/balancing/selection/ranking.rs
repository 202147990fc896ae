//! How close the endpoints of a service are to its clients of one place, kept for each chunk of the
//! list: of a large service one endpoint or other changes all the time, and then only its chunk is
//! looked at again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::balancing::weights::Weights;
use crate::balancing::{eligible_rank, is_reachable};
use crate::snapshot::{Endpoint, ServiceEntry};
use crate::workload::Workload;

/// The endpoints that may be used, chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct Ranking(Vec<Arc<Chunk>>);

#[derive(Debug)]
struct Chunk {
    endpoints: Arc<[Endpoint]>,
    members: Box<[Member]>,
}

/// An endpoint that may be used.
#[derive(Debug)]
struct Member {
    /// Its place in the chunk.
    at: u32,
    rank: u32,
    capacity: u32,
}

/// The places, in the service's list, of endpoints that are equally close.
pub(super) struct Equals {
    pub(super) places: Box<[u32]>,
    pub(super) weights: Weights,
}

// === impl Ranking ===

impl Ranking {
    /// What was found out `before` about the same service holds for chunks that are the same.
    pub(super) fn of(
        entry: &ServiceEntry,
        client: &Workload,
        service_port: u16,
        before: Option<&Self>,
    ) -> Self {
        let known = before.map_or(&[][..], |before| &before.0).iter();
        let known: HashMap<_, _> = known
            .map(|chunk| (address(&chunk.endpoints), chunk))
            .collect();
        let chunks =
            entry
                .endpoints
                .chunks()
                .map(|endpoints| match known.get(&address(endpoints)) {
                    Some(chunk) => Arc::clone(chunk),
                    None => Arc::new(Chunk::of(endpoints, entry, client, service_port)),
                });
        Self(chunks.collect())
    }

    /// The closest first; in each, the order is the service's.
    pub(super) fn tiers(&self) -> impl Iterator<Item = Equals> {
        // There are few ranks, and going through them beats sorting all endpoints.
        let mut tiers: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        let mut first = 0;
        for chunk in &self.0 {
            for member in &chunk.members {
                let rank = member.rank as usize;
                if tiers.len() <= rank {
                    tiers.resize_with(rank + 1, Default::default);
                }
                let (places, capacities) = &mut tiers[rank];
                places.push(first + member.at);
                capacities.push(member.capacity);
            }
            first += u32::try_from(chunk.endpoints.len()).unwrap_or(u32::MAX);
        }
        let tiers = tiers.into_iter().rev();
        let tiers = tiers.filter(|(places, _)| !places.is_empty());
        tiers.map(|(places, capacities)| Equals {
            places: places.into(),
            weights: capacities.into_iter().collect(),
        })
    }
}

#[cfg(test)]
impl Ranking {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many chunks have been looked at that the other has not.
    pub(super) fn not_of(&self, other: &Self) -> usize {
        let is_new = |one: &&Arc<Chunk>| !other.0.iter().any(|known| Arc::ptr_eq(known, one));
        self.0.iter().filter(is_new).count()
    }
}

// === impl Chunk ===

impl Chunk {
    fn of(
        endpoints: &Arc<[Endpoint]>,
        entry: &ServiceEntry,
        client: &Workload,
        service_port: u16,
    ) -> Self {
        let balancing = &entry.service.load_balancing;
        let all = (0..).zip(endpoints.iter());
        let members = all.filter_map(|(at, endpoint)| {
            let workload = &endpoint.workload;
            if !is_reachable(entry, endpoint, &client.network, service_port) {
                return None;
            }
            let rank = eligible_rank(balancing, client, workload)?;
            Some(Member {
                at,
                rank: rank.try_into().ok()?,
                capacity: workload.capacity,
            })
        });
        Self {
            members: members.collect(),
            endpoints: endpoints.clone(),
        }
    }
}

/// What a chunk is known by while it is there.
fn address(chunk: &Arc<[Endpoint]>) -> usize {
    Arc::as_ptr(chunk).cast::<Endpoint>().addr()
}
