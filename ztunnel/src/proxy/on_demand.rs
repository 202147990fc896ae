//! Addresses that the control plane is asked for when a connection needs them (`XDS_ON_DEMAND`).
//!
//! A subscription outlives its answer, so each name is asked for once: from then on the snapshot says
//! all there is to know of it. What nobody has is forgotten when there is too much of it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::address::{GatewayAddress, GatewayDestination, NetworkAddress};
use mesh::service::Service;
use mesh::snapshot::{ServiceEntry, Snapshot};
use mesh::workload::Workload;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use xds::client::Demand;

use super::state::State;

/// How long a connection waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names at most that are asked for and that nobody has: whoever calls at random must not make the
/// control plane and this node remember every address there is.
const NAMES: usize = 1 << 14;

/// Asks for what connections need, and remembers what was answered.
pub struct OnDemand {
    demand: Box<dyn Fn(Demand) + Send + Sync>,
    names: Mutex<Names>,
    answers: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Names {
    asked: HashMap<String, Answer>,
    /// Those that nobody has, or may have, the oldest first. What is there by now is among them until
    /// it is met.
    of_nobody: VecDeque<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// None yet; since when.
    Awaited(Instant),
    Present,
    Absent,
}

/// Why it is not known what an address is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKnown {
    #[error("the control plane has not said in time what {0} is")]
    Unanswered(String),
    #[error("{0} is not asked for: too many addresses have been")]
    TooMany(String),
}

// === impl OnDemand ===

impl OnDemand {
    pub fn new(demand: impl Fn(Demand) + Send + Sync + 'static) -> Self {
        Self {
            demand: Box::new(demand),
            names: Mutex::default(),
            answers: watch::channel(()).0,
        }
    }

    /// The control plane has no such resource. To be called when the snapshot without it is published.
    pub fn absent(&self, name: &str) {
        let is_awaited = self.names().answer(name, Answer::Absent);
        if is_awaited {
            self.answers.send_replace(());
        }
    }

    /// Waits until the state has all there is to know for a connection of `client` to `address`: what is
    /// there, the waypoints in front of it, and the gateways into other networks of all of them.
    pub(crate) async fn fetch(
        &self,
        state: &State,
        client: &Workload,
        address: &NetworkAddress,
    ) -> Result<(), NotKnown> {
        self.await_address(state, client, address).await?;
        let (waypoints, mut gateways) = {
            let snapshot = state.load();
            match snapshot.service_at(address, &client.namespace) {
                Some(entry) => (waypoints(&entry.service), beyond(entry)),
                None => {
                    let workload = snapshot.workload_at(address);
                    let waypoint = workload.and_then(|workload| workload.waypoint.clone());
                    (waypoint.into_iter().collect(), Vec::new())
                }
            }
        };
        for waypoint in &waypoints {
            self.fetch_gateway(state, client, waypoint).await?;
            if let GatewayDestination::Hostname(service) = &waypoint.destination
                && let Some(entry) = state.load().service(service)
            {
                gateways.extend(beyond(entry));
            }
        }
        for gateway in &gateways {
            self.fetch_gateway(state, client, gateway).await?;
        }
        Ok(())
    }

    /// Waits until the state has the service that a peer asks `workload` for by its hostname. Only those
    /// that the workload backs are asked for, so that no peer fills what is remembered.
    pub(crate) async fn fetch_backed(
        &self,
        state: &State,
        workload: &Workload,
        hostname: &str,
    ) -> Result<(), NotKnown> {
        let mut backed = workload.services.keys();
        let Some(key) = backed.find(|key| key.hostname.eq_ignore_ascii_case(hostname)) else {
            return Ok(());
        };
        let is_there = |snapshot: &Snapshot| snapshot.service(key).is_some();
        self.await_name(state, key.to_string(), is_there).await
    }

    /// Waits until the state has what is at an address that a peer asks `workload` for: a waypoint is
    /// asked for what is behind it.
    pub(crate) async fn fetch_behind(
        &self,
        state: &State,
        workload: &Workload,
        address: IpAddr,
    ) -> Result<(), NotKnown> {
        let address = NetworkAddress::new(workload.network.clone(), address.to_canonical());
        self.await_address(state, workload, &address).await
    }

    async fn await_address(
        &self,
        state: &State,
        client: &Workload,
        address: &NetworkAddress,
    ) -> Result<(), NotKnown> {
        let is_there = |snapshot: &Snapshot| {
            snapshot.service_at(address, &client.namespace).is_some()
                || snapshot.workload_at(address).is_some()
        };
        self.await_name(state, address.to_string(), is_there).await
    }

    async fn fetch_gateway(
        &self,
        state: &State,
        client: &Workload,
        gateway: &GatewayAddress,
    ) -> Result<(), NotKnown> {
        match &gateway.destination {
            GatewayDestination::Address(address) => {
                self.await_address(state, client, address).await
            }
            GatewayDestination::Hostname(service) => {
                let is_there = |snapshot: &Snapshot| snapshot.service(service).is_some();
                self.await_name(state, service.to_string(), is_there).await
            }
        }
    }

    async fn await_name(
        &self,
        state: &State,
        name: String,
        is_there: impl Fn(&Snapshot) -> bool,
    ) -> Result<(), NotKnown> {
        // Before the look, so that no answer is missed.
        let (mut changes, mut answers) = (state.changes(), self.answers.subscribe());
        if is_there(&state.load()) || self.names().is_answered(&name) {
            return Ok(());
        }
        self.ask(&name)?;
        let answered = async {
            loop {
                if is_there(&state.load()) {
                    self.names().answer(&name, Answer::Present);
                    return;
                }
                if self.names().is_answered(&name) {
                    return;
                }
                tokio::select! {
                    Ok(()) = changes.changed() => {}
                    Ok(()) = answers.changed() => {}
                    else => std::future::pending().await,
                }
            }
        };
        match Box::pin(time::timeout(PATIENCE, answered)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(NotKnown::Unanswered(name)),
        }
    }

    fn ask(&self, name: &str) -> Result<(), NotKnown> {
        let mut names = self.names();
        let now = Instant::now();
        if names.asked.contains_key(name) {
            return Ok(());
        }
        if !names.has_room() {
            match names.forget_one(now) {
                Some(forgotten) => (self.demand)(Demand::Unsubscribe(forgotten)),
                None if names.has_room() => {}
                None => return Err(NotKnown::TooMany(name.to_owned())),
            }
        }
        names.ask(name, now);
        // In the same order in which they are remembered.
        (self.demand)(Demand::Subscribe(name.to_owned()));
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Names ===

impl Names {
    fn ask(&mut self, name: &str, now: Instant) {
        self.asked.insert(name.to_owned(), Answer::Awaited(now));
        self.of_nobody.push_back(name.to_owned());
    }

    fn is_answered(&self, name: &str) -> bool {
        let answer = self.asked.get(name);
        matches!(answer, Some(Answer::Present | Answer::Absent))
    }

    /// Remembers an answer, if the name was asked for.
    fn answer(&mut self, name: &str, answer: Answer) -> bool {
        let Some(known) = self.asked.get_mut(name) else {
            return false;
        };
        if (*known, answer) == (Answer::Present, Answer::Absent) {
            self.of_nobody.push_back(name.to_owned());
        }
        *known = answer;
        true
    }

    fn has_room(&self) -> bool {
        self.of_nobody.len() < NAMES
    }

    /// Forgets the one that nobody has for longest. None where there is room without, or where all
    /// have been asked for in this moment.
    fn forget_one(&mut self, now: Instant) -> Option<String> {
        while !self.has_room() {
            let oldest = self.of_nobody.front()?;
            match self.asked.get(oldest) {
                Some(Answer::Awaited(since)) if now.duration_since(*since) <= PATIENCE => {
                    return None;
                }
                Some(Answer::Awaited(_) | Answer::Absent) => {
                    let oldest = self.of_nobody.pop_front()?;
                    self.asked.remove(&oldest);
                    return Some(oldest);
                }
                Some(Answer::Present) | None => _ = self.of_nobody.pop_front(),
            }
        }
        None
    }
}

fn waypoints(service: &Service) -> Vec<GatewayAddress> {
    let weighted = service.weighted_waypoints.iter();
    weighted
        .filter(|waypoint| waypoint.weight > 0)
        .map(|waypoint| &waypoint.destination)
        .chain(&service.waypoint)
        .cloned()
        .collect()
}

fn beyond(entry: &ServiceEntry) -> Vec<GatewayAddress> {
    let gateways = entry.endpoints.network_gateways();
    gateways.into_iter().cloned().collect()
}

/// Where addresses are on demand, there is one of these; everywhere else all of them are known.
pub(crate) async fn fetch(
    on_demand: Option<&Arc<OnDemand>>,
    state: &State,
    client: &Workload,
    address: &NetworkAddress,
) -> Result<(), NotKnown> {
    match on_demand {
        Some(on_demand) => Box::pin(on_demand.fetch(state, client, address)).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
