//! The second waypoint of a service, which gets a share of its connections. Where it can't have
//! them, the first one gets all.

use crate::kinds::metadata::ObjectMeta;
use crate::labels;
use crate::view::View;
use crate::waypoint::WaypointName;
use crate::waypoint::binding::Refusal;
use crate::waypoint::gateway::Traffic;

/// A second waypoint, and its percentage of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub waypoint: WaypointName,
    pub weight: u32,
    /// Why it gets nothing, where it doesn't.
    pub refusal: Option<CanaryRefusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryRefusal {
    InvalidWeight(String),
    SameAsPrimary,
    Refused(Refusal),
    NotReady,
}

impl View {
    /// What the labels of an object say, or those of its namespace where the first waypoint is
    /// the namespace's.
    pub(super) fn canary(
        &self,
        namespace: &str,
        sources: [Option<&ObjectMeta>; 2],
        primary: &WaypointName,
    ) -> Option<Canary> {
        let (source, name) = sources.into_iter().flatten().find_map(|source| {
            let name = source.label(labels::USE_WAYPOINT_CANARY)?;
            Some((source, name))
        })?;
        if name.is_empty() || name == "none" {
            return None;
        }
        let of = source.label(labels::USE_WAYPOINT_CANARY_NAMESPACE);
        let waypoint = WaypointName::new(of.unwrap_or(namespace), name);
        let text = source.annotation(labels::USE_WAYPOINT_CANARY_WEIGHT);
        let weight = text.map_or(Some(0), |text| {
            text.parse().ok().filter(|weight| *weight <= 100)
        });
        let refusal = match weight {
            None => Some(CanaryRefusal::InvalidWeight(
                text.unwrap_or_default().to_owned(),
            )),
            Some(_) if waypoint == *primary => Some(CanaryRefusal::SameAsPrimary),
            Some(_) => match self.refusal(namespace, &waypoint, Traffic::Service) {
                Some(refusal) => Some(CanaryRefusal::Refused(refusal)),
                None if !self.is_ready(&waypoint) => Some(CanaryRefusal::NotReady),
                None => None,
            },
        };
        Some(Canary {
            waypoint,
            weight: weight.unwrap_or_default(),
            refusal,
        })
    }
}

// === impl Canary ===

impl Canary {
    /// Whether some connections go there.
    pub fn has_share(&self) -> bool {
        self.weight > 0 && self.refusal.is_none()
    }

    /// For a person; it stands after what is said of the first waypoint.
    pub fn sentence(&self) -> String {
        let waypoint = &self.waypoint;
        match &self.refusal {
            None => format!(
                "{} % of connections go to canary waypoint {waypoint}",
                self.weight
            ),
            Some(refusal) => format!(
                "canary waypoint {waypoint} gets no connection: {}: {}",
                refusal.reason(),
                refusal.sentence()
            ),
        }
    }
}

// === impl CanaryRefusal ===

impl CanaryRefusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::InvalidWeight(_) => "CanaryInvalidWeight",
            Self::SameAsPrimary => "CanarySameAsPrimary",
            Self::Refused(refusal) => refusal.reason(),
            Self::NotReady => "WaypointIsNotReady",
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::InvalidWeight(text) => format!("{text:?} is no percentage from 0 to 100"),
            Self::SameAsPrimary => "it is the first one, too".to_owned(),
            Self::Refused(refusal) => format!("it {}", refusal.sentence()),
            Self::NotReady => "no pod of it is ready".to_owned(),
        }
    }
}
