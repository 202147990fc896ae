//! Since when conditions hold, and of which generation of their object they tell.
//!
//! Objects of a folder have no `metadata.generation`. Here it is counted as an API server does it:
//! 1 when the object comes, and one more with every change of what it says, metadata and status
//! aside. It begins anew with the control plane, and so do the times.

use std::collections::HashMap;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use istio_compat::kind::Kind;
use istio_compat::kinds::gateway::GatewayStatus;
use istio_compat::kinds::metadata::Condition;
use istio_compat::kinds::route::RouteParentStatus;
use istio_compat::object::{Body, ObjectKey};

/// Of the objects in force whose kind has any.
#[derive(Default)]
pub(super) struct Generations(HashMap<ObjectKey, i64>);

/// What conditions that were made now are marked with.
pub(super) struct Mark {
    now: String,
    generation: Option<i64>,
}

// === impl Generations ===

impl Generations {
    pub(super) fn of(&self, key: &ObjectKey) -> Option<i64> {
        self.0.get(key).copied()
    }

    /// Follows an object from what it was to what it is.
    pub(super) fn follow(&mut self, key: &ObjectKey, before: Option<&Body>, after: Option<&Body>) {
        match (before, after) {
            (_, None) => {
                self.0.remove(key);
            }
            (None, Some(_)) if has_generation(key.kind) => {
                self.0.insert(key.clone(), 1);
            }
            (Some(before), Some(after)) => {
                if let Some(generation) = self.0.get_mut(key)
                    && !before.says_the_same(after)
                {
                    *generation += 1;
                }
            }
            (None, Some(_)) => {}
        }
    }
}

/// Kubernetes counts none of these, of pods only lately.
fn has_generation(kind: Kind) -> bool {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Pod
        | Kind::Service => false,
        Kind::Deployment
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::RequestAuthentication
        | Kind::Gateway
        | Kind::GatewayClass
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::ReferenceGrant => true,
    }
}

// === impl Mark ===

impl Mark {
    pub(super) fn new(now: SystemTime, generation: Option<i64>) -> Self {
        Self {
            now: DateTime::<Utc>::from(now).to_rfc3339_opts(SecondsFormat::Secs, true),
            generation,
        }
    }

    /// A condition holds since its status came to be what it is; reason and message may differ.
    pub(super) fn conditions(&self, made: &mut [Condition], before: &[Condition]) {
        for condition in made {
            let same = before
                .iter()
                .find(|one| one.type_ == condition.type_ && one.status == condition.status);
            let since = same.and_then(|one| one.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or_else(|| self.now.clone()));
            condition.observed_generation = self.generation;
        }
    }

    pub(super) fn parents(&self, made: &mut [RouteParentStatus], before: &[RouteParentStatus]) {
        for parent in made {
            let same = before
                .iter()
                .find(|one| one.parent_ref == parent.parent_ref);
            let before = same.map_or(&[][..], |one| &one.conditions);
            self.conditions(&mut parent.conditions, before);
        }
    }

    pub(super) fn listeners(&self, made: &mut GatewayStatus, before: Option<&GatewayStatus>) {
        for listener in &mut made.listeners {
            let mut before = before.into_iter().flat_map(|before| &before.listeners);
            let same = before.find(|one| one.name == listener.name);
            let before = same.map_or(&[][..], |one| &one.conditions);
            self.conditions(&mut listener.conditions, before);
        }
    }
}

#[cfg(test)]
mod tests;
