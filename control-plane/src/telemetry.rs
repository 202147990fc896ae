//! Metrics that are computed when they are asked for, under istiod's names.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use istio_compat::diagnostic::Severity;
use runtime::metrics::{Exposition, Kind, Metrics};
use xds::server::Peers;

use crate::ca::Authority;
use crate::controller::Knowledge;

/// Adds them to the process's metrics.
pub(crate) fn install(
    metrics: &Metrics,
    knowledge: Knowledge,
    peers: Peers,
    authority: Arc<Authority>,
) {
    let started = Instant::now();
    metrics.add_collector(move |exposition| {
        expiry(exposition, authority.not_after(), SystemTime::now());
    });
    metrics.add_collector(move |exposition| {
        let (counts, objects, errors) = {
            let state = knowledge.read();
            let diagnostics = state.report.diagnostics.iter();
            let errors = diagnostics.filter(|one| one.severity == Severity::Error);
            let objects = state.index.objects().count();
            (state.index.counts(), objects, errors.count())
        };
        exposition
            .family("pilot_xds", Kind::Gauge, "Proxies connected")
            .sample(
                &[("version", env!("CARGO_PKG_VERSION"))],
                peers.connected().len(),
            );
        exposition
            .family("pilot_services", Kind::Gauge, "Services in force")
            .sample(&[], counts.services);
        exposition
            .family("weft_resources", Kind::Gauge, "Resources in force")
            .sample(&[("kind", "workload")], counts.workloads)
            .sample(&[("kind", "service")], counts.services)
            .sample(&[("kind", "policy")], counts.policies)
            .sample(&[("kind", "route")], counts.routes)
            .sample(&[("kind", "request_policy")], counts.request_policies);
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

/// When the authority's certificates end, and how long that is from now: the signer's own and
/// its root end together.
fn expiry(exposition: &mut Exposition, not_after: SystemTime, now: SystemTime) {
    let seconds = |since| {
        not_after
            .duration_since(since)
            .unwrap_or_default()
            .as_secs()
    };
    let (timestamp, left) = (seconds(SystemTime::UNIX_EPOCH), seconds(now));
    for (name, help, value) in [
        (
            "citadel_server_root_cert_expiry_timestamp",
            "When the root certificate ends, in seconds since 1970",
            timestamp,
        ),
        (
            "citadel_server_root_cert_expiry_seconds",
            "Time until the root certificate ends",
            left,
        ),
        (
            "citadel_server_cert_chain_expiry_timestamp",
            "When the signing certificate ends, in seconds since 1970",
            timestamp,
        ),
        (
            "citadel_server_cert_chain_expiry_seconds",
            "Time until the signing certificate ends",
            left,
        ),
    ] {
        exposition
            .family(name, Kind::Gauge, help)
            .sample(&[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_left_is_counted_down() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let left = |now| {
            let mut exposition = Exposition::default();
            expiry(
                &mut exposition,
                end,
                SystemTime::UNIX_EPOCH + Duration::from_secs(now),
            );
            let text = exposition.into_text();
            assert!(
                text.contains("\ncitadel_server_root_cert_expiry_timestamp 1000\n"),
                "{text}"
            );
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("citadel_server_cert_chain_expiry_seconds "));
            line.expect("the gauge").to_owned()
        };
        assert_eq!([left(10), left(999), left(2_000)], ["990", "1", "0"]);
    }
}
