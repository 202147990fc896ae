//! A node whose tunnel may have little memory, and applications that make it hold much.

use tests::lab::control_group::ControlGroup;

use crate::shop::{BACK, Running, mesh_with, restart_server, still_serves, warm_deaf};

/// What the tunnel of the server's node may have.
const LIMIT: u64 = 128 << 20;
/// Connections of which each can fill four mebibytes there: twice the limit in all.
const DEAF: &str = "64";

#[test]
fn what_is_not_read_is_given_up_before_the_process_is_killed() {
    let limit = ControlGroup::with_memory(LIMIT).expect("a control group");
    let prelude = format!("if [ $NODE_NAME = node-2 ]; then {}; fi", limit.enter());
    let lab = mesh_with(&prelude);
    let baseline = warm_deaf(&lab);
    let mut deaf = Running::start(&lab, "shop/client", &["pour", "server:9005", DEAF]);
    let poured = deaf.line();
    for why in ["memory is short", "the application does not read"] {
        lab.logged("nodes/node-2/ztunnel.log", why)
            .unwrap_or_else(|error| panic!("{poured}: {error:#}"));
    }
    // Those that are left are no reason to refuse others for good.
    lab.eventually(BACK, "the node serves others", || {
        lab.peer("shop/neighbour", &["get", "server:80"])
            .map(|_| ())
    })
    .expect("serves");
    deaf.end();
    // What has been said to an application that does not read is over when it is.
    restart_server(&lab);
    still_serves(&lab);
    // Among others that the process is the same one.
    baseline.awaited(&lab, BACK).expect("back at rest");
}
