//! What an authenticated caller may have a certificate for: its own identity, or as a trusted node proxy, that of a pod
//! running on its own node. Decided from the caller, the policy and what is known of pods.

use std::fmt;
use std::str::FromStr;

use mesh::identity::Identity;

use super::token::Caller;

/// What the authority needs to know of pods.
pub trait Pods: Send + Sync + 'static {
    /// The pod of that name, as it is now.
    fn pod(&self, namespace: &str, name: &str) -> Option<PodRecord>;

    /// Whether a pod with that account is on `node`, is in the mesh or about to be, and has
    /// not come to its end.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
}

/// One pod, as far as the authority is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRecord {
    pub uid: String,
    pub service_account: String,
    pub node: Option<String>,
    /// Succeeded or failed: nothing of it runs any more.
    pub finished: bool,
    /// It has a tunnel of its own.
    pub native_tunnel: bool,
    /// It is labelled as the waypoint of a Gateway.
    pub waypoint: bool,
}

/// A service account, written `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

/// Why a caller gets no certificate. Told to the log; the caller only learns that it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is not trusted to ask for other identities")]
    NotTrusted(Account),
    #[error("the token of {0} is not bound to a pod")]
    NotPodBound(Account),
    #[error("the caller's pod {0} does not exist with the token's uid and account")]
    NoSuchPod(String),
    #[error("the caller's pod {0} is not running on the token's node")]
    NotRunning(String),
    #[error("{0:?} is no workload identity")]
    Identity(String),
    #[error("{0} is not of this trust domain")]
    TrustDomain(Identity),
    #[error("no running pod of {identity} is enrolled on {node}")]
    NotOnNode { identity: Identity, node: String },
}

/// The identity to certify: `impersonated` if the caller may have it, its own if it asks for no other.
pub(super) fn authorize(
    caller: &Caller,
    impersonated: Option<&str>,
    trust_domain: &str,
    trusted: &[Account],
    pods: &dyn Pods,
) -> Result<Identity, Refusal> {
    let Some(wanted) = impersonated else {
        running_pod(caller, pods)?;
        return Ok(Identity::new(
            trust_domain,
            caller.namespace.as_str(),
            caller.service_account.as_str(),
        ));
    };
    let account = Account::of(caller);
    if !trusted.contains(&account) {
        return Err(Refusal::NotTrusted(account));
    }
    let pod = running_pod(caller, pods)?;
    let identity: Identity = wanted
        .parse()
        .map_err(|_| Refusal::Identity(wanted.to_owned()))?;
    if &*identity.trust_domain != trust_domain {
        return Err(Refusal::TrustDomain(identity));
    }
    // It would have this one without naming it, enrolled or not.
    if Account::of_identity(&identity) == account {
        return Ok(identity);
    }
    match pod.node {
        Some(node) if pods.runs_on(&node, &identity.namespace, &identity.service_account) => {
            Ok(identity)
        }
        node => Err(Refusal::NotOnNode {
            identity,
            node: node.unwrap_or_else(|| "no node".to_owned()),
        }),
    }
}

/// The pod a caller's token is bound to, if it is that very pod, unfinished, and where the token says.
pub fn running_pod(caller: &Caller, pods: &dyn Pods) -> Result<PodRecord, Refusal> {
    let bound = caller
        .pod
        .as_ref()
        .ok_or_else(|| Refusal::NotPodBound(Account::of(caller)))?;
    let name = || format!("{}/{}", caller.namespace, bound.name);
    let pod = pods
        .pod(&caller.namespace, &bound.name)
        .filter(|pod| pod.uid == bound.uid && pod.service_account == caller.service_account)
        .ok_or_else(|| Refusal::NoSuchPod(name()))?;
    let elsewhere = caller.node.is_some() && caller.node != pod.node;
    match pod.finished || elsewhere {
        true => Err(Refusal::NotRunning(name())),
        false => Ok(pod),
    }
}

// === impl Account ===

impl Account {
    fn of(caller: &Caller) -> Self {
        Self {
            namespace: caller.namespace.clone(),
            name: caller.service_account.clone(),
        }
    }

    fn of_identity(identity: &Identity) -> Self {
        Self {
            namespace: identity.namespace.to_string(),
            name: identity.service_account.to_string(),
        }
    }
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(format!("{text:?} is not of the form NAMESPACE/NAME")),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
