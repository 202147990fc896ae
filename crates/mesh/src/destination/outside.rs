//! Endpoints outside the mesh: to which addresses of a name, or of an entry, plaintext may be sent.
//! DNS is no authority on where a tunnel ends, nor on who may be sent plaintext.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::NetworkAddress;
use crate::service::LoadBalancingMode;
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::{TunnelProtocol, WorkloadUid};

/// Why nothing is sent to an endpoint: to a name, or to the address that a workload is given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOutside {
    #[error("the host {0} can't be resolved")]
    NoAddress(Arc<str>),
    #[error(
        "{endpoint} is at {address}, which is captured workload {workload}'s: plaintext is not \
         sent there"
    )]
    Captured {
        endpoint: Arc<str>,
        address: IpAddr,
        workload: WorkloadUid,
    },
    #[error(
        "{endpoint} is at {address}, which is service {service}'s: plaintext is not sent there"
    )]
    Service {
        endpoint: Arc<str>,
        address: IpAddr,
        service: String,
    },
}

/// Those of a name's addresses that are nobody's in the mesh.
pub fn outside(
    snapshot: &Snapshot,
    network: &Arc<str>,
    hostname: &Arc<str>,
    addresses: &[IpAddr],
) -> Result<Vec<IpAddr>, NotOutside> {
    let mut refused = NotOutside::NoAddress(hostname.clone());
    let mut outside = Vec::new();
    for address in addresses {
        match of_the_mesh(snapshot, network, hostname, *address) {
            Some(why) => refused = why,
            None => outside.push(*address),
        }
    }
    match outside.is_empty() {
        true => Err(refused),
        false => Ok(outside),
    }
}

/// Whose an address of an endpoint is, where it is the mesh's.
pub(super) fn of_the_mesh(
    snapshot: &Snapshot,
    network: &Arc<str>,
    endpoint: &Arc<str>,
    address: IpAddr,
) -> Option<NotOutside> {
    let at = NetworkAddress::new(network.clone(), address.to_canonical());
    if let Some(workload) = snapshot.workload_at(&at)
        && workload.tunnel_protocol == TunnelProtocol::Hbone
    {
        return Some(NotOutside::Captured {
            endpoint: endpoint.clone(),
            address,
            workload: workload.uid.clone(),
        });
    }
    let entry = snapshot.service_at(&at, "")?;
    leads_into_the_mesh(entry).then(|| NotOutside::Service {
        endpoint: endpoint.clone(),
        address,
        service: entry.service.key().to_string(),
    })
}

/// Whether a captured workload is behind a service's address, or may be: of one without endpoints it
/// is not known who will be. Nobody is behind what is passed through.
fn leads_into_the_mesh(entry: &ServiceEntry) -> bool {
    let is_captured =
        |endpoint: &Endpoint| endpoint.workload.tunnel_protocol == TunnelProtocol::Hbone;
    match entry.service.load_balancing.mode {
        LoadBalancingMode::Passthrough => false,
        LoadBalancingMode::Standard | LoadBalancingMode::Strict | LoadBalancingMode::Failover => {
            entry.endpoints.is_empty() || entry.endpoints.iter().any(is_captured)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;
    use crate::snapshot::Change;
    use crate::workload::Workload;

    #[test]
    fn plaintext_goes_to_what_is_nobodys_in_the_mesh() {
        let service = |name: &str, last| Service {
            addresses: vec![NetworkAddress::new("", [10, 96, 0, last].into())],
            ..Service::new(name, "shop", &format!("{name}.shop.svc.cluster.local"))
        };
        let mut passed_through = service("range", 3);
        passed_through.load_balancing.mode = LoadBalancingMode::Passthrough;
        let pod = |name: &str, last, tunnel_protocol| {
            let uid = format!("Kubernetes//Pod/shop/{name}");
            let mut workload = Workload::new(&uid, name, "shop");
            workload.addresses = [[10, 0, 0, last].into()].into_iter().collect();
            workload.tunnel_protocol = tunnel_protocol;
            if tunnel_protocol == TunnelProtocol::None {
                let legacy = service("legacy", 2).key();
                workload.services.insert(legacy, Vec::new());
            }
            Change::Workload(workload)
        };
        let network: Arc<str> = "".into();
        let mut snapshot = Snapshot::default();
        snapshot.apply([
            pod("captured", 1, TunnelProtocol::Hbone),
            pod("plain", 2, TunnelProtocol::None),
            Change::Service(service("web", 1)),
            Change::Service(service("legacy", 2)),
            Change::Service(passed_through),
        ]);
        let hostname: Arc<str> = "api.example".into();
        let ask = |addresses: &[[u8; 4]]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|one| (*one).into()).collect();
            outside(&snapshot, &network, &hostname, &addresses)
        };
        // Nobody is captured there, nor behind a service there.
        for address in [
            [192, 0, 2, 1],
            [10, 0, 0, 2],
            [10, 96, 0, 2],
            [10, 96, 0, 3],
        ] {
            assert_eq!(ask(&[address]), Ok(vec![address.into()]));
        }
        // One that may not be used leaves the others.
        assert_eq!(
            ask(&[[10, 0, 0, 1], [192, 0, 2, 1], [10, 96, 0, 1]]),
            Ok(vec![[192, 0, 2, 1].into()])
        );
        assert_eq!(ask(&[]), Err(NotOutside::NoAddress(hostname.clone())));
        let told = |address| ask(&[address]).expect_err("refused").to_string();
        assert!(told([10, 0, 0, 1]).contains("Pod/shop/captured"));
        assert!(told([10, 96, 0, 1]).contains("service shop/web"));
    }
}
