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
        Some(share) => thousandths(share)
            .filter(|share| (1..=100_000).contains(share))
            .map(|share| cpus.saturating_mul(share).div_ceil(100_000)),
        None => text.parse().ok().map(|n| if n == 0 { cpus } else { n }),
    };
    if threads.is_none() {
        raw.mistake(format!(
            "ZTUNNEL_WORKER_THREADS: {text:?} is neither a number nor a share up to 100%"
        ));
    }
    threads
}

/// Whole cores, from `2`, `1.5`, or millicores as Kubernetes writes them (`1500m`), rounded up.
fn cores(raw: &mut Raw, name: &str) -> Option<usize> {
    let text = raw.text(name)?;
    let cores = match text.strip_suffix('m') {
        Some(millicores) => millicores.parse::<usize>().ok(),
        None => thousandths(&text),
    };
    let cores = cores.map(|thousandths| thousandths.div_ceil(1000));
    if cores.is_none() {
        raw.mistake(format!("{name}: {text:?} is not a number of CPUs"));
    }
    cores
}

/// Of a decimal number; what is smaller counts as one.
fn thousandths(text: &str) -> Option<usize> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.is_empty() {
        return None;
    }
    let (three, rest) = fraction.split_at(fraction.len().min(3));
    let three = format!("{three:0<3}").parse::<usize>().ok()?;
    let rest = usize::from(rest.bytes().any(|byte| byte != b'0'));
    let whole = whole.parse::<usize>().ok()?.checked_mul(1000)?;
    whole.checked_add(three + rest)
}
