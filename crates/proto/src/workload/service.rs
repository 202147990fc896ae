//! A group of endpoints under one hostname.

use mesh::service as model;

use super::network_address::Vip;
use super::repeated::text;
use super::{IpFamilies, NetworkAddress, Service, WeightedWaypoint};
use crate::error::{ConversionError, known};
use crate::generated::istio::workload::service::Visibility;

impl TryFrom<Service> for model::Service {
    type Error = ConversionError;

    fn try_from(wire: Service) -> Result<Self, Self::Error> {
        if wire.namespace.is_empty() {
            return Err(ConversionError::Missing("namespace"));
        }
        if wire.hostname.is_empty() {
            return Err(ConversionError::Missing("hostname"));
        }
        let mut addresses = Vec::new();
        let mut cidr_vips = Vec::new();
        for address in wire.addresses {
            match address.try_into()? {
                Vip::Address(address) => addresses.push(address),
                Vip::Range(range) => cidr_vips.push(range),
            }
        }
        Ok(Self {
            name: text(wire.name),
            namespace: text(wire.namespace),
            hostname: text(wire.hostname),
            addresses,
            cidr_vips,
            ports: convert(wire.ports)?,
            subject_alt_names: wire.subject_alt_names.into_iter().map(Into::into).collect(),
            waypoint: wire.waypoint.map(TryInto::try_into).transpose()?,
            weighted_waypoints: convert(wire.weighted_waypoints)?,
            load_balancing: wire.load_balancing.unwrap_or_default().try_into()?,
            ip_families: known::<IpFamilies>("ip_families", wire.ip_families)?.into(),
            canonical: wire.canonical,
            ingress_use_waypoint: wire.ingress_use_waypoint,
            // The only enum where the unknown is tolerated: Istio may add narrower audiences,
            // and an address that does not resolve would be dialled in plaintext.
            visibility: match Visibility::try_from(wire.visibility) {
                Ok(Visibility::Namespace) => model::Visibility::Namespace,
                Ok(Visibility::Public) | Err(_) => model::Visibility::Public,
            },
        })
    }
}

impl From<&model::Service> for Service {
    fn from(service: &model::Service) -> Self {
        let visibility = match service.visibility {
            model::Visibility::Public => Visibility::Public,
            model::Visibility::Namespace => Visibility::Namespace,
        };
        let addresses = service.addresses.iter().map(NetworkAddress::from);
        let ranges = service.cidr_vips.iter().map(NetworkAddress::from);
        let unset = service.load_balancing == model::LoadBalancing::default();
        Self {
            name: service.name.as_ref().to_owned(),
            namespace: service.namespace.as_ref().to_owned(),
            hostname: service.hostname.as_ref().to_owned(),
            addresses: addresses.chain(ranges).collect(),
            ports: service.ports.iter().map(Into::into).collect(),
            subject_alt_names: service
                .subject_alt_names
                .iter()
                .map(|name| name.as_ref().to_owned())
                .collect(),
            waypoint: service.waypoint.as_ref().map(Into::into),
            load_balancing: (!unset).then(|| (&service.load_balancing).into()),
            ip_families: IpFamilies::from(service.ip_families).into(),
            extensions: Vec::new(),
            canonical: service.canonical,
            ingress_use_waypoint: service.ingress_use_waypoint,
            weighted_waypoints: service.weighted_waypoints.iter().map(Into::into).collect(),
            visibility: visibility.into(),
        }
    }
}

impl TryFrom<WeightedWaypoint> for model::WeightedWaypoint {
    type Error = ConversionError;

    fn try_from(wire: WeightedWaypoint) -> Result<Self, Self::Error> {
        Ok(Self {
            destination: wire
                .destination
                .ok_or(ConversionError::Missing("weighted_waypoints.destination"))?
                .try_into()?,
            weight: wire.weight,
        })
    }
}

impl From<&model::WeightedWaypoint> for WeightedWaypoint {
    fn from(waypoint: &model::WeightedWaypoint) -> Self {
        Self {
            destination: Some((&waypoint.destination).into()),
            weight: waypoint.weight,
        }
    }
}

impl From<IpFamilies> for model::IpFamilies {
    fn from(wire: IpFamilies) -> Self {
        match wire {
            IpFamilies::Automatic => Self::Automatic,
            IpFamilies::Ipv4Only => Self::Ipv4Only,
            IpFamilies::Ipv6Only => Self::Ipv6Only,
            IpFamilies::Dual => Self::Dual,
        }
    }
}

impl From<model::IpFamilies> for IpFamilies {
    fn from(families: model::IpFamilies) -> Self {
        match families {
            model::IpFamilies::Automatic => Self::Automatic,
            model::IpFamilies::Ipv4Only => Self::Ipv4Only,
            model::IpFamilies::Ipv6Only => Self::Ipv6Only,
            model::IpFamilies::Dual => Self::Dual,
        }
    }
}

fn convert<W, M>(wire: Vec<W>) -> Result<Vec<M>, ConversionError>
where
    M: TryFrom<W, Error = ConversionError>,
{
    wire.into_iter().map(M::try_from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    proptest! {
        #[test]
        fn reads_back_as_written(service in strategies::service()) {
            prop_assert_eq!(Service::from(&service).try_into(), Ok(service));
        }
    }

    #[test]
    fn an_unknown_visibility_is_public() {
        let wire = Service {
            visibility: 9,
            ..Service::from(&model::Service::new("web", "shop", "web.shop.svc"))
        };
        let service = model::Service::try_from(wire).expect("valid");
        assert_eq!(service.visibility, model::Visibility::Public);
    }

    #[test]
    fn a_service_without_key_is_rejected() {
        let valid = Service::from(&model::Service::new("web", "shop", "web.shop.svc"));
        for wire in [
            Service {
                namespace: String::new(),
                ..valid.clone()
            },
            Service {
                hostname: String::new(),
                ..valid.clone()
            },
            Service {
                ip_families: 9,
                ..valid
            },
        ] {
            assert!(model::Service::try_from(wire.clone()).is_err(), "{wire:?}");
        }
    }
}
