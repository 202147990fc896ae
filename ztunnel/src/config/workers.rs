//! How many worker threads the data path gets.

use std::num::NonZeroUsize;

use super::raw::Raw;

/// Fewer make one busy connection a neighbour of everybody.
const LEAST: usize = 2;

/// CPUs this process may run on, by affinity and control group.
pub(super) fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `ZTUNNEL_WORKER_THREADS` is a number, a share of the CPUs (`50%`), or 0 for all of them.
/// Unset: the container's CPU limit (at least its request), else a quarter of the CPUs, but
/// at least the request and two.
pub(super) fn threads(raw: &mut Raw, cpus: usize) -> NonZeroUsize {
    let cpus = match raw.parsed::<usize>("ZTUNNEL_CPU_LIMIT") {
        Some(limit) if limit > 0 => cpus.min(limit),
        _ => cpus,
    };
    let request = cores(raw, "ZTUNNEL_RESOURCE_CPU_REQUEST").unwrap_or(0);
    let limit = cores(raw, "ZTUNNEL_RESOURCE_CPU_LIMIT").filter(|limit| *limit > 0);
    let default = match limit {
        Some(limit) => limit.max(request),
        None => cpus.div_ceil(4).max(request).max(LEAST),
    };
    let threads = match raw.text("ZTUNNEL_WORKER_THREADS") {
        Some(text) => said(raw, &text, cpus).unwrap_or(default),
        None => raw.proxy_config.concurrency.map_or(default, |threads| {
            // Istio's concurrency 0 means all, as here.
            if threads == 0 { cpus } else { threads }
        }),
    };
    NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN)
}

fn said(raw: &mut Raw, text: &str, cpus: usize) -> Option<usize> {
    let threads = match text.strip_suffix('%') {
        Some(share) => share
            .parse::<usize>()
            .ok()
            .filter(|share| (1..=100).contains(share))
            .map(|share| (cpus * share).div_ceil(100)),
        None => text.parse().ok().map(|n| if n == 0 { cpus } else { n }),
    };
    if threads.is_none() {
        raw.mistake(format!(
            "ZTUNNEL_WORKER_THREADS: {text:?} is neither a number nor a share from 1% to 100%"
        ));
    }
    threads
}

/// Whole cores, from `2`, or millicores as Kubernetes writes them (`1500m`), rounded up.
fn cores(raw: &mut Raw, name: &str) -> Option<usize> {
    let text = raw.text(name)?;
    let cores = match text.strip_suffix('m') {
        Some(millicores) => millicores.parse::<usize>().ok().map(|m| m.div_ceil(1000)),
        None => text.parse().ok(),
    };
    if cores.is_none() {
        raw.mistake(format!("{name}: {text:?} is not a number of CPUs"));
    }
    cores
}
