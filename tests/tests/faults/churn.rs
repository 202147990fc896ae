//! Connections that come and go without end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::lab::Lab;
use tests::lab::scale::is_full;
use tests::peer::client::LoadReport;

use crate::shop::{BACK, mesh, scaled, still_serves, warm};

const LOOK: Duration = Duration::from_secs(1);
/// Share of its memory that a ztunnel may grow by in a minute.
const GROWTH: f64 = 0.001;

#[test]
fn nothing_is_left_of_many_short_connections() {
    let lab = mesh("RUST_LOG=warn");
    let neighbour = lab.addresses("shop/neighbour").expect("addresses")[0];
    let near = SocketAddr::new(neighbour, 8080).to_string();
    let load = |seconds: &str| {
        let mut succeeded = 0;
        for target in ["server:80", &near] {
            let load = ["load", target, "--seconds", seconds, "--connections", "8"];
            let report = lab.peer("shop/client", &load).expect("a report");
            let report: LoadReport = serde_json::from_str(&report).expect("JSON");
            assert_eq!(report.failed, 0, "{report:?}");
            assert!(report.succeeded > 10, "{report:?}");
            succeeded += report.succeeded;
        }
        succeeded
    };
    load(scaled("1", "30"));
    let mut baseline = warm(&lab);
    let soak = || {
        let began = Instant::now();
        let mut connections = 0;
        while connections < scaled(1, 1_000_000) {
            connections += load(scaled("3", "10"));
        }
        println!("{connections} connections in {:?}", began.elapsed());
    };
    if is_full() {
        let grown = growth_during(&lab, soak);
        println!("memory grows by {grown:.5?} of itself in a minute");
        assert!(grown.iter().all(|grown| *grown < GROWTH), "{grown:?}");
        baseline = baseline.keeping(0.10);
    } else {
        soak();
    }
    let idle = Instant::now();
    baseline.awaited(&lab, BACK).expect("back at rest");
    println!("at rest after {:?}", idle.elapsed());
    still_serves(&lab);
}

/// By which share of itself each ztunnel's memory grows in a minute meanwhile.
fn growth_during(lab: &Lab, load: impl FnOnce()) -> Vec<f64> {
    let (nodes, over) = (lab.nodes().expect("nodes"), AtomicBool::new(false));
    let looks = || {
        let began = Instant::now();
        let mut looks = vec![Vec::new(); nodes.len()];
        while !over.load(Ordering::Relaxed) {
            for (node, looks) in nodes.iter().zip(&mut looks) {
                let minute = began.elapsed().as_secs_f64() / 60.0;
                looks.push((minute, lab.own_memory(node).expect("it runs")));
            }
            thread::sleep(LOOK);
        }
        looks
    };
    let looks = thread::scope(|scope| {
        let looks = scope.spawn(looks);
        load();
        over.store(true, Ordering::Relaxed);
        looks.join().expect("no panic")
    });
    let all = nodes.iter().zip(looks).map(|(node, looks)| {
        let whole = lab.memory(node, "VmRSS").expect("it runs");
        slope(&looks) / whole
    });
    all.collect()
}

/// The slope of the line through points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean =
        |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut both, mut square) = (0.0, 0.0);
    for point in points {
        both += (point.0 - x) * (point.1 - y);
        square += (point.0 - x).powi(2);
    }
    both / square
}

#[test]
fn a_slope_is_that_of_the_line_closest_to_all_points() {
    assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
    assert!(slope(&[(0.0, 1.0), (1.0, 9.0), (2.0, 1.0)]).abs() < 1e-9);
}
