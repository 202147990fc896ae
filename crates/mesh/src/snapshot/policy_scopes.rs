//! The policies of each scope that binds workloads by where they are, so that it is seen at once
//! whether they are those of another snapshot.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::authorization::{Authorization, Scope};

/// All policies of one scope, in the order of their keys. The same ones share their list.
#[derive(Clone, Debug, Default)]
pub struct ScopedPolicies(Arc<[Arc<Authorization>]>);

/// A state of all policies; equal to its clones and to nothing else.
#[derive(Clone, Debug, Default)]
pub struct PoliciesVersion(Arc<()>);

/// The policies of the mesh, and those of each namespace that has any.
pub(super) fn of<'a>(
    in_order: impl Iterator<Item = &'a Arc<Authorization>>,
) -> (ScopedPolicies, HashMap<Arc<str>, ScopedPolicies>) {
    let mut global = Vec::new();
    let mut namespaces: HashMap<Arc<str>, Vec<_>> = HashMap::new();
    for policy in in_order {
        match policy.scope {
            Scope::Global => global.push(policy.clone()),
            Scope::Namespace => namespaces
                .entry(policy.namespace.clone())
                .or_default()
                .push(policy.clone()),
            Scope::WorkloadSelector | Scope::Target => {}
        }
    }
    let namespaces = namespaces.into_iter();
    let shared = |policies: Vec<_>| ScopedPolicies(policies.into());
    (
        shared(global),
        namespaces.map(|(name, all)| (name, shared(all))).collect(),
    )
}

// === impl ScopedPolicies ===

impl ScopedPolicies {
    /// Whether the list is shared.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The list of before, where it holds the same policies.
    pub(super) fn or_as_before(self, before: Option<&Self>) -> Self {
        let same = |before: &&Self| {
            let mut pairs = before.iter().zip(self.iter());
            before.len() == self.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
        };
        match before.filter(same) {
            Some(before) => before.clone(),
            None => self,
        }
    }
}

impl Deref for ScopedPolicies {
    type Target = [Arc<Authorization>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

// === impl PoliciesVersion ===

impl PartialEq for PoliciesVersion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PoliciesVersion {}
