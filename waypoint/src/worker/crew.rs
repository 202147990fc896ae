//! What all workers have open, and which of them takes the next tunnel.
//!
//! The kernel spreads connections over listeners by a hash, which is even for many of them. Nodes
//! make few tunnels and keep them: of four, two workers would have all on one side one time in
//! eight. So a tunnel goes to the worker that has fewest.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::limits::Capacity;

/// The workers of the process.
pub(crate) struct Crew {
    members: Vec<Member>,
    connections: AtomicUsize,
    capacity: Capacity,
    /// Held while a member is chosen, so that two tunnels at once don't see the same gap.
    choosing: Mutex<()>,
}

struct Member {
    tunnels: AtomicUsize,
    handed: UnboundedSender<Handed>,
}

/// A tunnel that another worker accepted.
pub(super) struct Handed {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: TunnelPlace,
}

/// A tunnel counts for as long as this lives.
pub(crate) struct TunnelPlace {
    crew: Arc<Crew>,
    pub(super) member: usize,
}

/// A tunnelled connection counts for as long as this lives.
pub(crate) struct ConnectionPlace(Arc<Crew>);

// === impl Crew ===

impl Crew {
    pub(super) fn new(
        count: usize,
        capacity: Capacity,
    ) -> (Arc<Self>, Vec<UnboundedReceiver<Handed>>) {
        let (members, receivers) = (0..count)
            .map(|_| {
                let (handed, receiver) = unbounded_channel();
                let tunnels = AtomicUsize::new(0);
                (Member { tunnels, handed }, receiver)
            })
            .unzip();
        let crew = Self {
            members,
            connections: AtomicUsize::new(0),
            capacity,
            choosing: Mutex::new(()),
        };
        (Arc::new(crew), receivers)
    }

    /// Who takes a tunnel that `own` accepted: itself, unless another has fewer. None where there
    /// are as many as may be.
    pub(super) fn tunnel(self: &Arc<Self>, own: usize) -> Option<TunnelPlace> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |member: &Member| member.tunnels.load(Ordering::Relaxed);
        if self.members.iter().map(open).sum::<usize>() >= self.capacity.tunnels {
            return None;
        }
        let members = self.members.iter().enumerate();
        let (member, least) = members.min_by_key(|(at, member)| (open(member), *at != own))?;
        least.tunnels.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("waypoint_tunnels_open").increment(1);
        Some(TunnelPlace {
            crew: self.clone(),
            member,
        })
    }

    /// None where there are as many as may be.
    pub(crate) fn connection(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.capacity.connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        metrics::gauge!("waypoint_connections_open").increment(1);
        Some(ConnectionPlace(self.clone()))
    }

    /// To the worker whose place it is; dropped where that one has ended.
    pub(super) fn hand(&self, handed: Handed) {
        let to = &self.members[handed.place.member];
        let _ = to.handed.send(handed);
    }
}

impl Drop for TunnelPlace {
    fn drop(&mut self) {
        let tunnels = &self.crew.members[self.member].tunnels;
        tunnels.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("waypoint_tunnels_open").decrement(1);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("waypoint_connections_open").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(count: usize, tunnels: usize, connections: usize) -> Arc<Crew> {
        let capacity = Capacity {
            tunnels,
            connections,
            ..Capacity::default()
        };
        Crew::new(count, capacity).0
    }

    #[test]
    fn whoever_accepts_them_tunnels_are_spread_evenly() {
        let crew = crew(3, 100, 100);
        let places: Vec<TunnelPlace> = (0..7).filter_map(|_| crew.tunnel(1)).collect();
        let mut taken = [0; 3];
        places.iter().for_each(|place| taken[place.member] += 1);
        assert_eq!(places[0].member, 1, "its own goes first");
        taken.sort_unstable();
        assert_eq!(taken, [2, 2, 3]);
        drop(places);
        assert_eq!(crew.tunnel(2).map(|place| place.member), Some(2));
    }

    #[test]
    fn there_are_no_more_than_may_be() {
        let crew = crew(2, 2, 1);
        let one = crew.tunnel(0);
        let two = crew.tunnel(0);
        assert!(one.is_some() && two.is_some() && crew.tunnel(0).is_none());
        drop(one);
        assert!(crew.tunnel(0).is_some());
        let connection = crew.connection();
        assert!(connection.is_some() && crew.connection().is_none());
        drop(connection);
        assert!(crew.connection().is_some());
    }
}
