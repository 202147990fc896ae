//! Endpoints outside the mesh that have only a name: to which of the name's addresses plaintext may
//! be sent. DNS is no authority on where a tunnel ends, nor on who may be sent plaintext.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::NetworkAddress;
use crate::snapshot::Snapshot;
use crate::workload::{TunnelProtocol, WorkloadUid};

/// Why nothing is sent to a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOutside {
    #[error("the host {0} has no address")]
    NoAddress(Arc<str>),
    #[error(
        "{hostname} is at {address}, which is captured workload {workload}'s: plaintext is not \
         sent there"
    )]
    Captured {
        hostname: Arc<str>,
        address: IpAddr,
        workload: WorkloadUid,
    },
    #[error(
        "{hostname} is at {address}, which is service {service}'s: plaintext is not sent there"
    )]
    Service {
        hostname: Arc<str>,
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

fn of_the_mesh(
    snapshot: &Snapshot,
    network: &Arc<str>,
    hostname: &Arc<str>,
    address: IpAddr,
) -> Option<NotOutside> {
    let at = NetworkAddress::new(network.clone(), address.to_canonical());
    if let Some(workload) = snapshot.workload_at(&at)
        && workload.tunnel_protocol == TunnelProtocol::Hbone
    {
        return Some(NotOutside::Captured {
            hostname: hostname.clone(),
            address,
            workload: workload.uid.clone(),
        });
    }
    // Behind it are workloads that may be captured.
    let entry = snapshot.service_at(&at, "")?;
    Some(NotOutside::Service {
        hostname: hostname.clone(),
        address,
        service: entry.service.key().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;
    use crate::snapshot::Change;
    use crate::workload::Workload;

    #[test]
    fn plaintext_goes_to_what_is_nobodys_in_the_mesh() {
        let pod = |name: &str, last, tunnel_protocol| {
            let uid = format!("Kubernetes//Pod/shop/{name}");
            let mut workload = Workload::new(&uid, name, "shop");
            workload.addresses = [[10, 0, 0, last].into()].into_iter().collect();
            workload.tunnel_protocol = tunnel_protocol;
            Change::Workload(workload)
        };
        let network: Arc<str> = "".into();
        let mut snapshot = Snapshot::default();
        snapshot.apply([
            pod("captured", 1, TunnelProtocol::Hbone),
            pod("plain", 2, TunnelProtocol::None),
            Change::Service(Service {
                addresses: vec![NetworkAddress::new("", [10, 96, 0, 1].into())],
                ..Service::new("web", "shop", "web.shop.svc.cluster.local")
            }),
        ]);
        let hostname: Arc<str> = "api.example".into();
        let ask = |addresses: &[[u8; 4]]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|one| (*one).into()).collect();
            outside(&snapshot, &network, &hostname, &addresses)
        };
        assert_eq!(
            ask(&[[192, 0, 2, 1], [10, 0, 0, 2]]),
            Ok(vec![[192, 0, 2, 1].into(), [10, 0, 0, 2].into()])
        );
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
