//! Golden rulesets, one per variant of a pod.

use super::{Exclusions, InterfaceName, Options, capture, release, remove};

fn interface(name: &str) -> InterfaceName {
    InterfaceName::try_from(name).unwrap()
}

#[test]
fn an_interface_name_cannot_smuggle_a_rule() {
    assert!(InterfaceName::try_from("eth0.5").is_ok());
    for name in ["", "a\" accept", "sixteen-letters-", "net1\n", "n;flush"] {
        assert!(InterfaceName::try_from(name).is_err(), "{name:?}");
    }
}

#[test]
fn default() {
    insta::assert_snapshot!(capture(&Options::default()));
}

#[test]
fn ipv4_only() {
    insta::assert_snapshot!(capture(&Options {
        ipv6: false,
        ..Options::default()
    }));
}

#[test]
fn ipv6_refused() {
    insta::assert_snapshot!(capture(&Options {
        ipv6: false,
        refuse_ipv6: true,
        virtual_interfaces: vec![interface("net1")],
        exclude: Exclusions {
            inbound_ports: vec![9090],
            outbound_ports: vec![3306],
            outbound_ranges: vec!["fd00:1::/64".parse().unwrap()],
        },
        ..Options::default()
    }));
}

#[test]
fn ingress_with_ipv6_refused() {
    insta::assert_snapshot!(capture(&Options {
        ipv6: false,
        refuse_ipv6: true,
        dns_capture: false,
        bypass_inbound: true,
        virtual_interfaces: vec![interface("net1")],
        ..Options::default()
    }));
}

#[test]
fn dns_off() {
    insta::assert_snapshot!(capture(&Options {
        dns_capture: false,
        ..Options::default()
    }));
}

#[test]
fn ingress() {
    insta::assert_snapshot!(capture(&Options {
        bypass_inbound: true,
        ..Options::default()
    }));
}

#[test]
fn virtual_interfaces() {
    insta::assert_snapshot!(capture(&Options {
        virtual_interfaces: vec![interface("net1"), interface("net2")],
        ..Options::default()
    }));
}

#[test]
fn ingress_and_virtual_interfaces() {
    insta::assert_snapshot!(capture(&Options {
        bypass_inbound: true,
        virtual_interfaces: vec![interface("net1")],
        ..Options::default()
    }));
}

#[test]
fn exclusions() {
    insta::assert_snapshot!(capture(&Options {
        virtual_interfaces: vec![interface("net1")],
        exclude: Exclusions {
            inbound_ports: vec![9090],
            outbound_ports: vec![5432],
            outbound_ranges: vec!["192.0.2.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()],
        },
        ..Options::default()
    }));
}

#[test]
fn released() {
    insta::assert_snapshot!(release());
}

#[test]
fn removed() {
    insta::assert_snapshot!(remove());
}
