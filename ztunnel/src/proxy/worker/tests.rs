//! What one connection costs while it is idle, and what becomes of queues when accepting ends.

use tokio::task::LocalSet;

use super::*;
use crate::access_log::ProcessLog;
use crate::certificates::PodCertificates;
use crate::proxy::config::Config;
use crate::proxy::{PodSpec, Served, WorkloadInfo};

/// The size of the future that a function of these arguments returns, without calling it.
fn future_size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn connections_stay_small() {
    for (name, size, most) in [
        ("outbound", future_size(outbound::serve), 1024),
        ("socks5", future_size(socks5::serve), 1024),
        ("plaintext", future_size(plaintext::serve), 2624),
        ("inbound", future_size(inbound::serve), 2336),
        ("request", future_size(inbound::serve_request), 1600),
    ] {
        assert!(size <= most, "{name}: {size} bytes");
    }
}

fn pod() -> Arc<Pod> {
    let info = WorkloadInfo {
        name: "web".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
    };
    let spec = PodSpec {
        uid: "a".into(),
        info,
        netns: None,
        served: Served::Everything,
    };
    Arc::new(Pod::new(spec, &Config::default()))
}

/// How many are accepted of one client who is in the queue when accepting ends.
async fn accepted_at_the_end(lent: bool, handed_over: bool) -> usize {
    let shared = Arc::new(Shared::new(
        Config::default(),
        Arc::default(),
        Arc::new(PodCertificates::new(None)),
        Arc::new(ProcessLog),
        Arc::default(),
    ));
    shared.handed_over.store(handed_over, Ordering::Release);
    let worker = Rc::new(Worker::new(shared));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("an option");
    let address = listener.local_addr().expect("an address");
    let opening = Opening::new(address.port(), listener, Gate::open()).expect("a listener");
    opening.listener.lent.set(lent);
    let accepted = Rc::new(Cell::new(0));
    let count = accepted.clone();
    let serve = move |_, _| {
        count.set(count.get() + 1);
        std::future::ready(())
    };
    let (_trigger, drain) = runtime::drain::channel();
    let stop = worker.accept(opening, &pod(), &drain, Direction::Outbound, serve);
    tokio::task::yield_now().await;
    // From here on the loop does not run, nor what tells it of clients, before it must end.
    let _client = std::net::TcpStream::connect(address).expect("listens");
    drop(stop);
    // The loop holds `serve` until it has ended.
    while Rc::strong_count(&accepted) > 1 {
        tokio::task::yield_now().await;
    }
    accepted.get()
}

#[tokio::test]
async fn only_a_queue_that_a_successor_has_too_is_left_to_it() {
    let ends = async {
        for (lent, handed_over, expected) in [
            (true, true, 0),
            (false, true, 1),
            (true, false, 1),
            (false, false, 1),
        ] {
            let accepted = accepted_at_the_end(lent, handed_over).await;
            assert_eq!(
                accepted, expected,
                "lent: {lent}, handed over: {handed_over}"
            );
        }
    };
    LocalSet::new().run_until(ends).await;
}
