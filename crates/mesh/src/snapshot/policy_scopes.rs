//! The policies of each scope that binds workloads by where they are, so that it is seen at once
//! whether they are those of another snapshot, and so that what finds them is made once for all of
//! its workloads.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::authorization::{Authorization, PolicyLists, Scope};

/// All policies of one scope, in the order of their keys. The same ones share their list.
#[derive(Clone, Default)]
pub struct ScopedPolicies(Arc<Scoped>);

#[derive(Default)]
struct Scoped {
    in_order: InOrder,
    lists: Arc<PolicyLists>,
}

/// Policies in the order of their keys.
type InOrder = Vec<Arc<Authorization>>;

/// A state of all policies; equal to its clones and to nothing else.
#[derive(Clone, Debug, Default)]
pub struct PoliciesVersion(Arc<()>);

/// The policies of the mesh, and those of each namespace that has any.
pub(super) fn of<'a>(
    in_order: impl Iterator<Item = &'a Arc<Authorization>>,
) -> (InOrder, HashMap<Arc<str>, InOrder>) {
    let mut global = InOrder::new();
    let mut namespaces: HashMap<Arc<str>, InOrder> = HashMap::new();
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
    (global, namespaces)
}

// === impl ScopedPolicies ===

impl ScopedPolicies {
    /// These policies: as before, where they are the same.
    pub(super) fn of(in_order: InOrder, before: Option<&Self>) -> Self {
        let same = |before: &&Self| {
            let mut pairs = before.iter().zip(&in_order);
            before.len() == in_order.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
        };
        match before.filter(same) {
            Some(before) => before.clone(),
            None => Self(Arc::new(Scoped {
                lists: Arc::new(PolicyLists::of(&in_order)),
                in_order,
            })),
        }
    }

    /// Whether the list is shared.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn lists(&self) -> &Arc<PolicyLists> {
        &self.0.lists
    }
}

impl Deref for ScopedPolicies {
    type Target = [Arc<Authorization>];

    fn deref(&self) -> &Self::Target {
        &self.0.in_order
    }
}

impl fmt::Debug for ScopedPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

// === impl PoliciesVersion ===

impl PartialEq for PoliciesVersion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PoliciesVersion {}
