//! WorkloadEntry, and the inline endpoints of a ServiceEntry.

use std::net::IpAddr;

use crate::kinds::workload_entry::{WorkloadEntry, WorkloadEntrySpec};
use crate::validate::{Problems, Validate, labels, names};

impl Validate for WorkloadEntry {
    fn validate(&self, problems: &mut Problems<'_>) {
        workload_entry_spec("spec", &self.spec, problems);
    }
}

pub(super) fn workload_entry_spec(
    field: &str,
    spec: &WorkloadEntrySpec,
    problems: &mut Problems<'_>,
) {
    let address = format!("{field}.address");
    match spec.address.as_str() {
        "" => problems.error(address, "has no value: give an IP address or a DNS name"),
        text if text.starts_with("unix:") => problems.error(
            address,
            format!("{text:?} is a unix socket, which the mesh can't reach: give an IP address"),
        ),
        text if text.parse::<IpAddr>().is_ok() => {}
        text => problems.check(address, names::host(text)),
    }
    for (name, port) in &spec.ports {
        problems.check(
            format!("{field}.ports[\"{name}\"]"),
            names::port((*port).into()),
        );
    }
    labels(&format!("{field}.labels"), &spec.labels, problems);
    if !spec.service_account.is_empty() {
        problems.check(
            format!("{field}.serviceAccount"),
            names::subdomain(&spec.service_account),
        );
    }
    if spec.locality.split('/').count() > 3 {
        problems.error(
            format!("{field}.locality"),
            format!("{:?} is not of the form region/zone/subzone", spec.locality),
        );
    }
}
