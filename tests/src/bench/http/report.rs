//! The table of HTTP loads: our waypoint and Envoy as one, in one run.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::super::tally::Measured;
use super::objects::{self, NAMESPACE, Work};
use super::{Speech, envoy};
use crate::lab::{Lab, process_status};

/// Requests a second at which latency is compared.
const RATE: f64 = 2000.0;
/// Idle connections opened to see what each costs.
const IDLE: usize = 500;

/// Requests each second to reach, as a multiple of Envoy's.
const RATE_BAR: f64 = 1.3;
/// Memory, as a share of Envoy's.
const MEMORY_BAR: f64 = 0.5;

/// Whose waypoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Weft,
    Envoy,
}

/// One load through one waypoint.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Requests each second, as many as go.
    rate: f64,
    /// Requests for each second of the proxy's processor time.
    per_core: f64,
    /// Microseconds at a fixed rate.
    median: f64,
    p99: f64,
}

/// Runs every load, `rounds` times in turn through each waypoint, and prints medians.
pub fn run(only: Option<&str>, rounds: usize, seconds: f64) -> Result<()> {
    let program = envoy::fetch(Path::new("target/envoy"))?;
    let program = program.canonicalize()?;
    let lab = Lab::up_with(&objects::ours(), &["--nodes", "2"])?;
    let server = pod_address(&lab, "server-envoy")?;
    let files = envoy::Envoy::new(&lab.state().join("envoy"), &lab.state().join("ca"))?;
    let mut configurations = Vec::new();
    for work in Work::ALL {
        configurations.push((work, files.configure(work, &server)?));
    }
    let program = program.to_str().context("a path of text")?;
    let yaml = objects::envoys(program, |work| {
        let found = configurations.iter().find(|(one, _)| *one == work);
        found.map_or(String::new(), |(_, path)| path.display().to_string())
    });
    lab.write("envoy.yaml", &yaml)?;
    lab.ready()?;
    for proxy in [Proxy::Weft, Proxy::Envoy] {
        for work in Work::ALL {
            wait_for(&lab, proxy, work)?;
        }
    }
    println!(
        "memory, idle: weft {:.1} MB, envoy {:.1} MB (bar {MEMORY_BAR})",
        resident(&lab, Proxy::Weft, Work::Plain)? / 1e6,
        resident(&lab, Proxy::Envoy, Work::Plain)? / 1e6,
    );
    println!(
        "{:<16} {:>10} {:>10} {:>7} {:>9} {:>9} {:>7} {:>17} {:>17}",
        "load",
        "weft r/s",
        "envoy r/s",
        "ratio",
        "/core",
        "/core",
        "ratio",
        "weft p50/p99 µs",
        "envoy p50/p99 µs"
    );
    for speech in Speech::ALL {
        for work in Work::ALL {
            let name = format!("{} {}", speech.name(), work.name());
            if only.is_some_and(|only| !name.contains(only)) {
                continue;
            }
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                for (proxy, runs) in [Proxy::Weft, Proxy::Envoy].into_iter().zip(&mut figures) {
                    runs.push(measure(&lab, proxy, speech, work, seconds)?);
                }
            }
            let [weft, envoy] = figures.map(medians);
            let ratio = weft.rate / envoy.rate;
            println!(
                "{name:<16} {:>10.0} {:>10.0} {ratio:>6.2}{} {:>9.0} {:>9.0} {:>7.2} {:>17} {:>17}",
                weft.rate,
                envoy.rate,
                if ratio >= RATE_BAR { ' ' } else { '!' },
                weft.per_core,
                envoy.per_core,
                weft.per_core / envoy.per_core,
                format!("{:.0}/{:.0}", weft.median, weft.p99),
                format!("{:.0}/{:.0}", envoy.median, envoy.p99),
            );
        }
    }
    memory(&lab)
}

/// The service's waypoint answers.
fn wait_for(lab: &Lab, proxy: Proxy, work: Work) -> Result<()> {
    lab.eventually(
        std::time::Duration::from_secs(20),
        "the waypoint answers",
        || {
            client(
                lab,
                proxy,
                Speech::Http1,
                work,
                &["--connections", "1", "--seconds", "0.05"],
            )
            .map(|_| ())
        },
    )
}

fn measure(lab: &Lab, proxy: Proxy, speech: Speech, work: Work, seconds: f64) -> Result<Figures> {
    let seconds = seconds.to_string();
    let before = processor_seconds(lab, proxy, work)?;
    let closed = client(lab, proxy, speech, work, &["--seconds", &seconds])?;
    let spent = processor_seconds(lab, proxy, work)? - before;
    let rate = RATE.to_string();
    let open = client(
        lab,
        proxy,
        speech,
        work,
        &["--seconds", &seconds, "--rate", &rate],
    )?;
    let warm_up = super::super::pace::WARM_UP.as_secs_f64();
    let measured: f64 = seconds.parse()?;
    Ok(Figures {
        rate: closed.rate,
        per_core: closed.rate * (measured + warm_up) / spent,
        median: open.median,
        p99: open.p99,
    })
}

fn client(lab: &Lab, proxy: Proxy, speech: Speech, work: Work, more: &[&str]) -> Result<Measured> {
    let host = format!("{}-{}.{NAMESPACE}", proxy.name(), work.name());
    let path = work.path();
    let mut command = vec![
        "bench",
        "client-http",
        speech.name(),
        &host,
        "--path",
        &path,
    ];
    command.extend(more);
    let output = lab.exec(&format!("{NAMESPACE}/client"), &command)?;
    Ok(serde_json::from_str(&output)?)
}

// === impl Proxy ===

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Self::Weft => "weft",
            Self::Envoy => "envoy",
        }
    }

    /// A pod of the waypoint that does the work.
    fn pod(self, lab: &Lab, work: Work) -> Result<String> {
        let wanted = match self {
            Self::Weft => "weft-".to_owned(),
            Self::Envoy => format!("envoy-{}", work.name()),
        };
        let pods = lab.pods()?;
        let name = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .find(|name| name.starts_with(&wanted))
            .with_context(|| format!("no pod {wanted}"))?;
        Ok(format!("{NAMESPACE}/{name}"))
    }

    fn program(self) -> &'static str {
        match self {
            Self::Weft => "waypoint",
            Self::Envoy => "envoy",
        }
    }
}

fn medians(mut runs: Vec<Figures>) -> Figures {
    let mut of = |figure: fn(&Figures) -> f64| {
        runs.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
        figure(&runs[runs.len() / 2])
    };
    Figures {
        rate: of(|one| one.rate),
        per_core: of(|one| one.per_core),
        median: of(|one| one.median),
        p99: of(|one| one.p99),
    }
}

/// What the waypoints hold after the loads, and for connections that do nothing.
fn memory(lab: &Lab) -> Result<()> {
    let connections = IDLE.to_string();
    for proxy in [Proxy::Weft, Proxy::Envoy] {
        let before = resident(lab, proxy, Work::Plain)?;
        let host = format!("{}-plain.{NAMESPACE}", proxy.name());
        // So slow a rate that every connection sends once and is left alone.
        let mut idle = lab.exec_spawn(
            &format!("{NAMESPACE}/client"),
            &[
                "bench",
                "client-http",
                "http1",
                &host,
                "--connections",
                &connections,
                "--rate",
                "200",
                "--seconds",
                "6",
            ],
        )?;
        std::thread::sleep(std::time::Duration::from_secs(4));
        let during = resident(lab, proxy, Work::Plain)?;
        ensure!(idle.wait()?.success(), "the idle connections failed");
        println!(
            "memory, {}: {:.1} MB after the loads; {:.1} KB per idle connection",
            proxy.name(),
            before / 1e6,
            (during - before).max(0.0) / 1e3 / IDLE as f64
        );
    }
    Ok(())
}

/// Resident bytes of a waypoint's process.
fn resident(lab: &Lab, proxy: Proxy, work: Work) -> Result<f64> {
    process_status::memory(&of_process(lab, proxy, work, "status")?, "VmRSS")
}

/// Seconds of processor time that a waypoint's process has used (proc(5): fields 14 and 15 of
/// `stat`, in ticks of 10 ms).
fn processor_seconds(lab: &Lab, proxy: Proxy, work: Work) -> Result<f64> {
    let stat = of_process(lab, proxy, work, "stat")?;
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

fn of_process(lab: &Lab, proxy: Proxy, work: Work, file: &str) -> Result<String> {
    let pod = proxy.pod(lab, work)?;
    let read = format!("cat /proc/$(pgrep -o {})/{file}", proxy.program());
    lab.exec(&pod, &["sh", "-c", &read])
}

fn pod_address(lab: &Lab, name: &str) -> Result<String> {
    let pods = lab.pods()?;
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
    let address = pod.and_then(|pod| pod["status"]["podIP"].as_str());
    Ok(address.context("the pod has no address")?.to_owned())
}
