//! Round trips of workloads, and what is rejected.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::strategies;

proptest! {
    #[test]
    fn reads_back_as_written(workload in strategies::workload()) {
        let bytes = Workload::from(&workload).encode_to_vec();
        let wire = Workload::decode(bytes.as_slice()).expect("just encoded");
        prop_assert_eq!(wire.try_into(), Ok(workload));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        if let Ok(address) = Address::decode(bytes.as_slice()) {
            let _ = mesh::snapshot::Change::try_from(address);
        }
    }
}

fn valid() -> Workload {
    Workload::from(&model::Workload::new(
        "Kubernetes//Pod/shop/web",
        "web",
        "shop",
    ))
}

fn rejected(wire: Workload) -> ConversionError {
    model::Workload::try_from(wire).expect_err("invalid")
}

#[test]
fn texts_left_out_have_defaults() {
    let wire = Workload {
        uid: "a".to_owned(),
        ..Default::default()
    };
    let workload = model::Workload::try_from(wire).expect("valid");
    assert_eq!(&*workload.trust_domain, "cluster.local");
    assert_eq!(&*workload.service_account, "default");
    assert_eq!(&*workload.cluster_id, "Kubernetes");
    assert_eq!(workload.capacity, 1);
}

#[test]
fn legacy_mtls_is_rejected() {
    let wire = Workload {
        tunnel_protocol: TunnelProtocol::LegacyIstioMtls.into(),
        ..valid()
    };
    assert_eq!(rejected(wire), ConversionError::LegacyTunnel);
}

#[test]
fn a_type_of_a_later_version_costs_no_workload() {
    let wire = Workload {
        workload_type: 4,
        ..valid()
    };
    assert!(model::Workload::try_from(wire).is_ok());
}

#[test]
fn a_workload_that_cannot_be_understood_is_rejected() {
    let list = |service_port| PortList {
        ports: vec![Port {
            service_port,
            ..Default::default()
        }],
    };
    for wire in [
        Workload {
            uid: String::new(),
            ..valid()
        },
        Workload {
            addresses: vec![vec![1, 2, 3]],
            ..valid()
        },
        Workload {
            tunnel_protocol: 3,
            ..valid()
        },
        Workload {
            status: -1,
            ..valid()
        },
        Workload {
            network_mode: 2,
            ..valid()
        },
        Workload {
            authorization_policies: vec!["nameless".to_owned()],
            ..valid()
        },
        Workload {
            services: [("nameless".to_owned(), list(80))].into(),
            ..valid()
        },
        Workload {
            services: [("shop/web".to_owned(), list(70_000))].into(),
            ..valid()
        },
        Workload {
            waypoint: Some(GatewayAddress::default()),
            ..valid()
        },
    ] {
        rejected(wire);
    }
}
