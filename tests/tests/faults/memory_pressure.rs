//! A node whose tunnel may have little memory, and applications that make it hold much.

use std::io::Write;
use std::time::{Duration, Instant};

use tests::lab::Lab;
use tests::lab::baseline::Baseline;
use tests::lab::control_group::ControlGroup;
use tests::lab::scale::is_full;

use crate::shop::{BACK, Running, mesh_with, restart_server, still_serves, warm_deaf};

/// What the tunnel of the server's node may have.
const LIMIT: u64 = 112 << 20;
/// Connections of which each can fill four mebibytes there: twice the limit in all.
const DEAF: &str = "64";
/// What the tunnel of the client's node may have, and connections of which each can fill 128 KiB there:
/// twice the limit in all.
const LIMIT_OF_CLIENTS: u64 = 64 << 20;
const CROWD: &str = "1000";
/// For how long that goes on, at full size.
const PRESSED: Duration = Duration::from_secs(300);
/// Connections that hold all that they may, and twice as many are too many. A tunnel's window admits
/// no more of them; those after them get another one.
const LARGE: &str = "16";
/// Connections besides that hold half as much at most: some of what is said to them is in the kernel.
const SMALL: usize = 16;
const LITTLE: &str = "2097152";

/// Connections that say nothing, and for how long they are nearly all that their node may have.
const IDLE: &str = "1000";
const SHORT_FOR: Duration = Duration::from_secs(5);
/// Hundredths of its limit.
const USED: u64 = 96;
/// How often that is seen to.
const LOOK: Duration = Duration::from_millis(50);
/// What those who talk have said at least, of the fifty times a second that they would.
const BEATS: u64 = 50;

struct Short {
    lab: Lab,
    baseline: Baseline,
    /// Empty only once the lab is gone.
    _limit: ControlGroup,
}

fn short() -> Short {
    short_on("node-2", LIMIT, "")
}

fn short_on(node: &str, limit: u64, settings: &str) -> Short {
    let limit = ControlGroup::with_memory(limit).expect("a control group");
    let enter = limit.enter();
    let prelude = format!("{settings}\nif [ $NODE_NAME = {node} ]; then {enter}; fi");
    let lab = mesh_with(&prelude);
    let baseline = warm_deaf(&lab);
    Short {
        lab,
        baseline,
        _limit: limit,
    }
}

/// Fills the tunnel's memory more than twice, and sees that others are served all the same.
fn press(lab: &Lab) -> String {
    let mut deaf = Running::start(lab, "shop/client", &["pour", "server:9005", DEAF]);
    let poured = deaf.line();
    await_relief(lab, "node-2", &poured);
    deaf.end();
    poured
}

/// Waits until connections have been given up, and those that are left are no reason to refuse others.
fn await_relief(lab: &Lab, node: &str, poured: &str) {
    for why in ["memory is short", "nobody takes its bytes"] {
        lab.logged(&format!("nodes/{node}/ztunnel.log"), why)
            .unwrap_or_else(|error| panic!("{poured}: {error:#}"));
    }
    lab.eventually(BACK, "the node serves others", || {
        lab.peer("shop/neighbour", &["get", "server:80"])
            .map(|_| ())
    })
    .expect("serves");
}

#[test]
fn what_is_not_read_is_given_up_before_the_process_is_killed() {
    let short = short();
    let lab = &short.lab;
    let poured = press(lab);
    // What has been said to an application that does not read is over when it is.
    restart_server(lab);
    still_serves(lab);
    // Among others that the process is the same one.
    short.baseline.awaited(lab, BACK).expect("back at rest");
    println!("{poured}");
    if is_full() {
        goes_on(lab);
    }
}

/// The same for minutes: the process lives, and serves.
fn goes_on(lab: &Lab) {
    let process = || lab.piece("ztunnel", Some("node-2")).expect("known")["pid"].clone();
    let before = process();
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < PRESSED {
        press(lab);
        times += 1;
    }
    println!("{times} times in {:?}", begun.elapsed());
    restart_server(lab);
    still_serves(lab);
    assert_eq!(process(), before);
}

/// The server's node admits little of each connection, and its client's keeps what it has read.
#[test]
fn what_a_peer_does_not_take_is_given_up_too() {
    let windows = "export HTTP2_STREAM_WINDOW_SIZE=65535 HTTP2_CONNECTION_WINDOW_SIZE=16777216";
    let short = short_on("node-1", LIMIT_OF_CLIENTS, windows);
    let lab = &short.lab;
    let mut deaf = Running::start(lab, "shop/client", &["pour", "server:9005", CROWD]);
    let poured = deaf.line();
    await_relief(lab, "node-1", &poured);
    deaf.end();
    restart_server(lab);
    still_serves(lab);
    short.baseline.awaited(lab, BACK).expect("back at rest");
}

#[test]
fn those_that_hold_the_most_are_given_up_first() {
    let short = short();
    let lab = &short.lab;
    let small = SMALL.to_string();
    let little = ["pour", "server:9005", &small, "--each", LITTLE];
    let mut small = Running::start(lab, "shop/neighbour", &little);
    let poured = small.line();
    assert!(poured.ends_with("cut 0"), "{poured}");
    let large = [(); 2].map(|()| {
        let mut large = Running::start(lab, "shop/client", &["pour", "server:9005", LARGE]);
        (large.line(), large)
    });
    let poured = format!("{}, {}", large[0].0, large[1].0);
    await_relief(lab, "node-2", &poured);
    assert_eq!(small.end(), format!("alive {SMALL}"), "{poured}");
    for (_, large) in large {
        large.end();
    }
    restart_server(lab);
    still_serves(lab);
    short.baseline.awaited(lab, BACK).expect("back at rest");
}

/// Where connections that say nothing are what there is of memory, giving up what waits gives nothing
/// back, and what is open goes on.
#[test]
fn where_nothing_can_be_given_up_what_is_open_goes_on() {
    let limit = ControlGroup::with_memory(LIMIT * 4).expect("a control group");
    let probes = "export HTTP2_PING_INTERVAL=500ms HTTP2_PING_TIMEOUT=1s";
    let enter = limit.enter();
    let lab = mesh_with(&format!(
        "{probes}\nif [ $NODE_NAME = node-1 ]; then {enter}; fi"
    ));
    let mut idle = Running::start(&lab, "shop/neighbour", &["crowd", "server:9000", IDLE]);
    idle.line();
    let neighbour = lab.addresses("shop/neighbour").expect("addresses")[0];
    let near = format!("{neighbour}:9000");
    let mut holds = ["server:9000", &near].map(|target| {
        let mut hold = Running::start(&lab, "shop/client", &["hold", target]);
        assert_eq!(hold.line(), "open");
        hold
    });
    let begun = Instant::now();
    while begun.elapsed() < SHORT_FOR {
        limit.squeeze(USED).expect("set");
        std::thread::sleep(LOOK);
    }
    let log = lab.run_file("nodes/node-1/ztunnel.log");
    assert!(log.contains("now=Shed"), "{log}");
    for hold in &mut holds {
        writeln!(hold.input(), "stop").expect("told");
        let stopped = hold.line();
        let echoed = stopped.strip_prefix("stopped after ");
        let echoed: u64 = echoed.expect(&stopped).parse().expect("a number");
        assert!(echoed > BEATS, "{stopped}");
    }
    assert_eq!(idle.end(), format!("alive {IDLE}"));
}
