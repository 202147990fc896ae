//! What a node's proxy needs its two capabilities for: with them and no other it serves pods, and
//! without one of them it can't.

use std::io::ErrorKind;

use runtime::confinement::capabilities::Capability;
use ztunnel::proxy::config::{Config, OriginalSource};

use super::lab::Lab;
use super::{close, echo};

#[test]
fn two_capabilities_serve_pods_under_their_clients_addresses() {
    let both = &[Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];
    let mut lab = Lab::with_capabilities(both, |_| {});
    for (name, node) in [("client", 1), ("near", 1), ("far", 2)] {
        lab.pod(name, node);
    }
    for server in ["near", "far"] {
        let (mut stream, caller) = lab.call("client", lab.address(server)).expect(server);
        assert_eq!(caller, lab.ip("client"), "{server}");
        echo(&mut stream);
        close(stream);
    }
}

#[test]
fn without_one_of_them_no_pod_is_served() {
    let unmarked = |config: &mut Config| config.packet_mark = None;
    let check = |kept, configure: &dyn Fn(&mut Config), is_served: bool| {
        let mut lab = Lab::with_capabilities(kept, configure);
        lab.bare_pod("web");
        let outcome = lab.attend("web", 1).map_err(|error| error.kind());
        let expected = is_served.then_some(()).ok_or(ErrorKind::PermissionDenied);
        assert_eq!(outcome, expected, "{kept:?}");
    };
    // Its namespace can't be entered.
    check(&[Capability::CAP_NET_ADMIN], &|_| {}, false);
    // Sockets can't be marked: its rules would send our connections back to us.
    check(&[Capability::CAP_SYS_ADMIN], &|_| {}, false);
    // Where nothing needs a mark, sockets can't have clients' addresses,
    check(
        &[Capability::CAP_SYS_ADMIN],
        &|config| {
            unmarked(config);
            config.original_source = OriginalSource::Required;
        },
        false,
    );
    // which is all that is left to need it for.
    check(&[Capability::CAP_SYS_ADMIN], &unmarked, true);
}
