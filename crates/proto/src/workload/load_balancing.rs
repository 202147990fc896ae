//! How to choose among endpoints.

use mesh::service::{self as model, LoadBalancingMode};

use super::LoadBalancing;
use crate::error::{ConversionError, known};
use crate::generated::istio::workload::load_balancing::{Algorithm, HealthPolicy, Mode, Scope};

impl TryFrom<LoadBalancing> for model::LoadBalancing {
    type Error = ConversionError;

    fn try_from(wire: LoadBalancing) -> Result<Self, Self::Error> {
        Ok(Self {
            mode: known::<Mode>("mode", wire.mode)?.into(),
            routing_preference: wire
                .routing_preference
                .into_iter()
                .map(|value| known::<Scope>("routing_preference", value)?.try_into())
                .collect::<Result<_, _>>()?,
            health_policy: match known::<HealthPolicy>("health_policy", wire.health_policy)? {
                HealthPolicy::OnlyHealthy => model::HealthPolicy::OnlyHealthy,
                HealthPolicy::AllowAll => model::HealthPolicy::AllowAll,
            },
            algorithm: match known::<Algorithm>("algorithm", wire.algorithm)? {
                Algorithm::Random => model::Algorithm::Random,
                Algorithm::LeastRequest => model::Algorithm::LeastRequest,
            },
        })
    }
}

impl From<&model::LoadBalancing> for LoadBalancing {
    fn from(balancing: &model::LoadBalancing) -> Self {
        let health_policy = match balancing.health_policy {
            model::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            model::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        };
        let algorithm = match balancing.algorithm {
            model::Algorithm::Random => Algorithm::Random,
            model::Algorithm::LeastRequest => Algorithm::LeastRequest,
        };
        Self {
            routing_preference: balancing
                .routing_preference
                .iter()
                .map(|scope| Scope::from(*scope).into())
                .collect(),
            mode: Mode::from(balancing.mode).into(),
            health_policy: health_policy.into(),
            algorithm: algorithm.into(),
        }
    }
}

impl From<Mode> for LoadBalancingMode {
    fn from(wire: Mode) -> Self {
        match wire {
            Mode::UnspecifiedMode => Self::Standard,
            Mode::Strict => Self::Strict,
            Mode::Failover => Self::Failover,
            Mode::Passthrough => Self::Passthrough,
        }
    }
}

impl From<LoadBalancingMode> for Mode {
    fn from(mode: LoadBalancingMode) -> Self {
        match mode {
            LoadBalancingMode::Standard => Self::UnspecifiedMode,
            LoadBalancingMode::Strict => Self::Strict,
            LoadBalancingMode::Failover => Self::Failover,
            LoadBalancingMode::Passthrough => Self::Passthrough,
        }
    }
}

impl TryFrom<Scope> for model::Scope {
    type Error = ConversionError;

    fn try_from(wire: Scope) -> Result<Self, Self::Error> {
        match wire {
            Scope::Region => Ok(Self::Region),
            Scope::Zone => Ok(Self::Zone),
            Scope::Subzone => Ok(Self::Subzone),
            Scope::Node => Ok(Self::Node),
            Scope::Cluster => Ok(Self::Cluster),
            Scope::Network => Ok(Self::Network),
            Scope::UnspecifiedScope => Err(ConversionError::UnknownEnum {
                field: "routing_preference",
                value: wire.into(),
            }),
        }
    }
}

impl From<model::Scope> for Scope {
    fn from(scope: model::Scope) -> Self {
        match scope {
            model::Scope::Region => Self::Region,
            model::Scope::Zone => Self::Zone,
            model::Scope::Subzone => Self::Subzone,
            model::Scope::Node => Self::Node,
            model::Scope::Cluster => Self::Cluster,
            model::Scope::Network => Self::Network,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    proptest! {
        #[test]
        fn reads_back_as_written(balancing in strategies::load_balancing()) {
            prop_assert_eq!(LoadBalancing::from(&balancing).try_into(), Ok(balancing));
        }
    }

    #[test]
    fn what_no_enum_has_is_rejected() {
        for wire in [
            LoadBalancing {
                routing_preference: vec![0],
                ..Default::default()
            },
            LoadBalancing {
                routing_preference: vec![7],
                ..Default::default()
            },
            LoadBalancing {
                mode: 4,
                ..Default::default()
            },
            LoadBalancing {
                health_policy: 2,
                ..Default::default()
            },
            LoadBalancing {
                algorithm: 2,
                ..Default::default()
            },
        ] {
            assert!(
                model::LoadBalancing::try_from(wire.clone()).is_err(),
                "{wire:?}"
            );
        }
    }
}
