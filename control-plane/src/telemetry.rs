//! Metrics that are computed when they are asked for, under istiod's names.

use std::time::Instant;

use istio_compat::diagnostic::Severity;
use runtime::metrics::{Kind, Metrics};
use xds::server::Peers;

use crate::controller::Knowledge;
use crate::index::Resource;

/// Adds them to the process's metrics.
pub(crate) fn install(metrics: &Metrics, knowledge: Knowledge, peers: Peers) {
    let started = Instant::now();
    metrics.add_collector(move |exposition| {
        let (mut workloads, mut services, mut policies) = (0_usize, 0_usize, 0_usize);
        let (objects, errors) = {
            let state = knowledge.read();
            for (_, resource) in state.index.resources() {
                match resource {
                    Resource::Workload(_) => workloads += 1,
                    Resource::Service(_) => services += 1,
                    Resource::Authorization(_) => policies += 1,
                }
            }
            let diagnostics = state.report.diagnostics.iter();
            let errors = diagnostics.filter(|one| one.severity == Severity::Error);
            (state.index.objects().count(), errors.count())
        };
        exposition
            .family("pilot_xds", Kind::Gauge, "Proxies connected")
            .sample(
                &[("version", env!("CARGO_PKG_VERSION"))],
                peers.connected().len(),
            );
        exposition
            .family("pilot_services", Kind::Gauge, "Services in force")
            .sample(&[], services);
        exposition
            .family("weft_resources", Kind::Gauge, "Resources in force")
            .sample(&[("kind", "workload")], workloads)
            .sample(&[("kind", "service")], services)
            .sample(&[("kind", "policy")], policies);
        exposition
            .family("weft_objects", Kind::Gauge, "Objects in force")
            .sample(&[], objects);
        exposition
            .family(
                "pilot_total_rejected_configs",
                Kind::Gauge,
                "Mistakes in files",
            )
            .sample(&[], errors);
        exposition
            .family("istiod_uptime_seconds", Kind::Gauge, "Time since the start")
            .sample(&[], started.elapsed().as_secs());
    });
}
