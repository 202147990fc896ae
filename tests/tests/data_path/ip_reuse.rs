//! An address whose pod has gone and that is another pod's at once, of another identity: nobody is
//! taken for whoever had it before, however late the mesh hears of it.

use std::net::IpAddr;

use mesh::snapshot::Change;
use tests::lab::scale::scaled;
use ztunnel::proxy::access_log::Direction;

use super::lab::{APPLICATION, Lab};
use super::{allow_again, close, deny_account, echo, has_error, identity_of, is_refused};

/// Has `to` take the address from `from`. Nothing is said to those who hold connections to it.
fn hand_over(lab: &Lab, from: &str, to: &str, address: IpAddr) {
    lab.run(from, &format!("ip addr del {address}/16 dev eth0"));
    lab.run(to, &format!("ip addr add {address}/16 dev eth0"));
    for pod in ["client", to] {
        lab.run(pod, "ip neigh flush all");
    }
}

/// Has the mesh hear of it.
fn publish(lab: &mut Lab, from: &str, to: &str, address: IpAddr, node: usize) {
    let workload = |name, address: Option<IpAddr>| {
        let mut workload = lab.workload(name, node);
        workload.addresses = address.into_iter().chain([lab.ip6(name)]).collect();
        Change::Workload(workload)
    };
    let changes = [workload(from, None), workload(to, Some(address))];
    lab.publish(changes);
}

#[test]
fn who_gets_an_address_is_not_taken_for_who_had_it() {
    // On the client's node and on another.
    for node in [1, 2] {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        lab.pod("old", node);
        lab.pod("new", node);
        let shared = lab.ip("old");
        lab.run("new", "ip -4 addr flush dev eth0");
        publish(&mut lab, "new", "old", shared, node);
        let (to_shared, to_client) = ((shared, APPLICATION).into(), lab.address("client"));
        let (mut holder, mut heir) = ("old", "new");
        // The address goes back and forth.
        for _ in 0..scaled(10, 1_000) {
            // A tunnel to the holder stays with the client's node.
            let (mut stream, _) = lab.call("client", to_shared).expect("the holder");
            echo(&mut stream);
            drop(stream);
            lab.release(holder, node);
            hand_over(&lab, holder, heir, shared);

            // The mesh has not heard of it. The heir is not taken for the holder when it is called,
            assert!(is_refused(lab.call("client", to_shared)), "{heir} answers");
            let impostor = format!("shop/sa/{heir}");
            lab.log_of(1, Direction::Outbound, |record| {
                has_error(record, &impostor)
            });
            // nor when it calls.
            lab.publish([deny_account(holder)]);
            let (mut stream, caller) = lab.call(heir, to_client).expect("nobody denies the heir");
            assert_eq!(caller, shared);
            echo(&mut stream);
            lab.publish([deny_account(heir)]);
            assert!(is_refused(lab.call(heir, to_client)), "{heir} calls");
            lab.publish([allow_again("no-entry")]);

            publish(&mut lab, holder, heir, shared, node);
            let (mut stream, _) = lab.call("client", to_shared).expect("the heir");
            echo(&mut stream);
            close(stream);
            lab.log_of(1, Direction::Outbound, |record| {
                record.error.is_none()
                    && record.destination.address.ip() == shared
                    && record.destination.identity == Some(identity_of(heir))
            });
            lab.capture(holder, node);
            std::mem::swap(&mut holder, &mut heir);
        }
    }
}
