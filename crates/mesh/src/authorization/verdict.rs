//! What policy says of a connection or a request, and which policy says it.

use std::fmt;

use super::PolicyKey;
use crate::identity::Identity;

/// The verdict and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No ALLOW policy applies and no DENY policy matched.
    AllowedByDefault,
    AllowedBy(PolicyKey),
    /// A waypoint in front of the workload, which has evaluated the policies.
    AdmittedWaypoint(Identity),
    DeniedBy(PolicyKey),
    /// ALLOW policies apply and none matched.
    NoAllowMatched,
    /// A policy is named that has not arrived: refused until it does.
    PolicyUnknown(PolicyKey),
}

// === impl Verdict ===

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::AllowedByDefault | Self::AllowedBy(_) | Self::AdmittedWaypoint(_) => true,
            Self::DeniedBy(_) | Self::NoAllowMatched | Self::PolicyUnknown(_) => false,
        }
    }

    /// `allow` or `deny`, as metrics have it.
    pub fn word(&self) -> &'static str {
        match self.is_allowed() {
            true => "allow",
            false => "deny",
        }
    }

    /// The policy that decided it; none where it was no single one.
    pub fn policy(&self) -> Option<&PolicyKey> {
        match self {
            Self::AllowedBy(key) | Self::DeniedBy(key) | Self::PolicyUnknown(key) => Some(key),
            Self::AllowedByDefault | Self::AdmittedWaypoint(_) | Self::NoAllowMatched => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedByDefault => f.write_str("allowed: no ALLOW policy applies"),
            Self::AllowedBy(key) => write!(f, "allowed by policy {key}"),
            Self::AdmittedWaypoint(identity) => {
                write!(f, "allowed: {identity} is the workload's waypoint")
            }
            Self::DeniedBy(key) => write!(f, "denied by policy {key}"),
            Self::NoAllowMatched => f.write_str("denied: ALLOW policies apply and none matched"),
            Self::PolicyUnknown(key) => {
                write!(f, "denied: policy {key} applies and has not arrived")
            }
        }
    }
}
