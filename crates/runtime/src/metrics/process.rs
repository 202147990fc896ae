//! What the kernel knows of this process, and what tokio knows of its runtimes.

use std::fs;
use std::time::{Duration, SystemTime};

use tokio::runtime::RuntimeMetrics;

use super::exposition::{Exposition, Kind};

/// Kernel clock ticks per second in `/proc`: USER_HZ, 100 on every Linux.
const TICKS: f64 = 100.0;

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    start_seconds_after_boot: f64,
    virtual_bytes: u64,
}

pub(super) fn collect(exposition: &mut Exposition) {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory handle that counts is one of them.
        let open = entries.count().saturating_sub(1);
        exposition
            .family("process_open_fds", Kind::Gauge, "Open file descriptors")
            .sample(&[], open);
    }
    if let Some(limit) = read("/proc/self/limits").as_deref().and_then(max_fds) {
        exposition
            .family("process_max_fds", Kind::Gauge, "Limit of file descriptors")
            .sample(&[], limit);
    }
    if let Some(resident) = read("/proc/self/status").as_deref().and_then(resident) {
        let help = "Resident memory in bytes";
        exposition
            .family("process_resident_memory_bytes", Kind::Gauge, help)
            .sample(&[], resident);
    }
    let Some(stat) = read("/proc/self/stat").as_deref().and_then(parse_stat) else {
        return;
    };
    let help = "User and system CPU time in seconds";
    exposition
        .family("process_cpu_seconds_total", Kind::Counter, help)
        .sample(&[], stat.cpu_seconds);
    exposition
        .family("process_threads", Kind::Gauge, "Threads")
        .sample(&[], stat.threads);
    let help = "Virtual memory in bytes";
    exposition
        .family("process_virtual_memory_bytes", Kind::Gauge, help)
        .sample(&[], stat.virtual_bytes);
    if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_time) {
        let start = boot + Duration::from_secs_f64(stat.start_seconds_after_boot);
        if let Ok(start) = start.duration_since(SystemTime::UNIX_EPOCH) {
            let help = "Start time in seconds since the epoch";
            exposition
                .family("process_start_time_seconds", Kind::Gauge, help)
                .sample(&[], start.as_secs_f64());
        }
    }
}

pub(super) fn collect_runtime(runtime: &RuntimeMetrics, exposition: &mut Exposition) {
    exposition
        .family("tokio_num_workers", Kind::Gauge, "Worker threads")
        .sample(&[], runtime.num_workers());
    exposition
        .family("tokio_num_alive_tasks", Kind::Gauge, "Tasks alive")
        .sample(&[], runtime.num_alive_tasks());
    let help = "Tasks in the global queue";
    exposition
        .family("tokio_global_queue_depth", Kind::Gauge, help)
        .sample(&[], runtime.global_queue_depth());
    let workers = || (0..runtime.num_workers()).map(|worker| (worker, worker.to_string()));
    let name = "tokio_worker_total_busy_duration_seconds_total";
    let mut family = exposition.family(name, Kind::Counter, "Time a worker was busy");
    for (worker, label) in workers() {
        let busy = runtime.worker_total_busy_duration(worker).as_secs_f64();
        family.sample(&[("worker", &label)], busy);
    }
    let name = "tokio_worker_park_count_total";
    let mut family = exposition.family(name, Kind::Counter, "Times a worker parked");
    for (worker, label) in workers() {
        family.sample(&[("worker", &label)], runtime.worker_park_count(worker));
    }
    let name = "tokio_worker_park_unpark_count_total";
    let help = "Times a worker parked or unparked";
    let mut family = exposition.family(name, Kind::Counter, help);
    for (worker, label) in workers() {
        let count = runtime.worker_park_unpark_count(worker);
        family.sample(&[("worker", &label)], count);
    }
}

/// Tasks of threads of their own, see [`crate::tasks`].
pub(super) fn collect_tasks(exposition: &mut Exposition) {
    let help = "Tasks alive on worker threads";
    exposition
        .family("weft_worker_tasks_alive", Kind::Gauge, help)
        .sample(&[], crate::tasks::alive());
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|l| l.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn boot_time(stat: &str) -> Option<SystemTime> {
    let seconds = stat.lines().find_map(|l| l.strip_prefix("btime "))?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `/proc/PID/stat`; the command's name, in parentheses, may hold anything.
fn parse_stat(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS,
        threads: number(17)?,
        start_seconds_after_boot: number(19)? as f64 / TICKS,
        virtual_bytes: number(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0 3 0 1000 4096 10 18";
        assert_eq!(
            parse_stat(stat),
            Some(Stat {
                cpu_seconds: 2.0,
                threads: 3,
                start_seconds_after_boot: 10.0,
                virtual_bytes: 4096,
            })
        );
    }

    #[test]
    fn limits_and_memory_are_found() {
        let limits = "Max open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12288));
    }
}
