//! An address whose pod has gone and that is another pod's at once, of another identity: nobody is
//! taken for whoever had it before, however late the mesh hears of it.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Result, ensure};
use mesh::snapshot::Change;
use tests::lab::baseline::RULES;
use tests::lab::scale::{is_full, scaled};
use tests::lab::{eventually, process_status};
use ztunnel::proxy::access_log::Direction;

use super::lab::{APPLICATION, Lab, PATIENCE};
use super::{allow_again, close, deny_account, echo, has_error, identity_of, is_refused};

/// Set in the process that the reuses have for themselves.
const ALONE: &str = "WEFT_TEST_ALONE";
/// Bytes that a reuse may leave behind: nothing that is kept of a connection or a pod is so small.
const KEPT: f64 = 256.0;

/// What this process and its pods hold between two reuses.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    tasks: usize,
    rules: Vec<String>,
}

/// Has `to` take the address from `from`, and the route that goes with it. Nothing is said to those
/// who hold connections to it.
fn hand_over(lab: &Lab, from: &str, to: &str, address: IpAddr) {
    lab.run(from, &format!("ip addr del {address}/16 dev eth0"));
    let gateway = "ip route add default via 10.44.255.254";
    lab.run(
        to,
        &format!("ip addr add {address}/16 dev eth0 && {gateway}"),
    );
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
    // Descriptors, tasks and memory are the whole process's: others' tests would be counted too.
    if env::var_os(ALONE).is_none() {
        let output = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture"])
            .arg("ip_reuse::who_gets_an_address_is_not_taken_for_who_had_it")
            .env(ALONE, "1")
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"));
        return;
    }
    // On the client's node and on another.
    for node in [1, 2] {
        reuse(node);
    }
}

/// The address goes back and forth between two pods of a node, and nothing stays of it.
fn reuse(node: usize) {
    // Tunnels that nobody uses end soon, those of an address that is gone when a probe has no answer.
    let mut lab = Lab::with(["", ""], |config| {
        config.pool_idle = Duration::from_secs(2);
        config.tunnel.ping_interval = Duration::from_millis(500);
        config.tunnel.ping_timeout = Duration::from_secs(3);
    });
    lab.pod("client", 1);
    lab.pod("old", node);
    lab.pod("new", node);
    let shared = lab.ip("old");
    lab.run("new", "ip -4 addr flush dev eth0");
    publish(&mut lab, "new", "old", shared, node);
    let before = Held::at_rest(&lab);
    // Memory that is kept for good is there after some reuses.
    let (warm, count) = scaled((2, 10), (1_000, 5_000));
    let there_and_back = |lab: &mut Lab| {
        pass_on(lab, "old", "new", shared, node);
        pass_on(lab, "new", "old", shared, node);
    };
    (0..warm / 2).for_each(|_| there_and_back(&mut lab));
    if is_full() {
        before.awaited(&lab);
    }
    let had = own_memory();
    (0..count / 2).for_each(|_| there_and_back(&mut lab));
    before.awaited(&lab);
    let kept = (own_memory() - had) / f64::from(count);
    println!("{count} reuses on node {node}: {kept:.0} bytes kept of each");
    assert!(!is_full() || kept < KEPT, "{kept} bytes of each reuse");
}

/// Has `heir` get the address that `holder` has, and the mesh hear of it too late.
fn pass_on(lab: &mut Lab, holder: &str, heir: &str, shared: IpAddr, node: usize) {
    lab.forget();
    let (to_shared, to_client) = ((shared, APPLICATION).into(), lab.address("client"));
    // A tunnel to the holder stays with the client's node.
    let (mut stream, _) = lab.call("client", to_shared).expect("the holder");
    echo(&mut stream);
    drop(stream);
    lab.release(holder, node);
    hand_over(lab, holder, heir, shared);

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

    publish(lab, holder, heir, shared, node);
    let (mut stream, _) = lab.call("client", to_shared).expect("the heir");
    echo(&mut stream);
    close(stream);
    lab.log_of(1, Direction::Outbound, |record| {
        record.error.is_none()
            && record.destination.address.ip() == shared
            && record.destination.identity == Some(identity_of(heir))
    });
    lab.capture(holder, node);
}

/// Bytes that this process has for itself, without what it has given back.
fn own_memory() -> f64 {
    runtime::allocator::give_back();
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    process_status::memory(&status, "RssAnon").expect("a number")
}

// === impl Held ===

impl Held {
    fn now(lab: &Lab) -> Self {
        let rules = ["client", "old", "new"].map(|pod| lab.ask(pod, RULES));
        Self {
            descriptors: fs::read_dir("/proc/self/fd").expect("proc").count(),
            tasks: lab.tasks(),
            rules: rules.into(),
        }
    }

    /// Once it holds no less the next time.
    fn at_rest(lab: &Lab) -> Self {
        let mut last = Self::now(lab);
        let settled = eventually(PATIENCE, "it is at rest", || {
            let now = Self::now(lab);
            let moved = std::mem::replace(&mut last, now);
            ensure!(moved == last, "{moved:?}, then {last:?}");
            Ok(())
        });
        settled.expect("at rest");
        last
    }

    #[track_caller]
    fn awaited(&self, lab: &Lab) {
        let is_back = || -> Result<()> {
            let now = Self::now(lab);
            let counts = |held: &Self| (held.descriptors, held.tasks);
            let ((descriptors, tasks), most) = (counts(&now), counts(self));
            let is_no_more = descriptors <= most.0 && tasks <= most.1;
            ensure!(
                is_no_more,
                "{most:?} were open and alive, {descriptors} and {tasks} are"
            );
            ensure!(now.rules == self.rules, "it was {self:#?} and is {now:#?}");
            Ok(())
        };
        eventually(PATIENCE, "nothing stays of the reuses", is_back).expect("given back");
    }
}
