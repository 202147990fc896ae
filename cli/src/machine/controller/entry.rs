//! A pod as the controller keeps it.
use std::net::IpAddr;
use std::sync::Arc;

use istio_compat::exclusions::{Exclusions, bypasses_inbound};
use istio_compat::kinds::pod::{Pod, PodIp, PodPhase};
use istio_compat::labels::REDIRECTION;
use tokio::sync::watch;

use crate::control;
use crate::machine::desired::Name;
use crate::machine::now;
use crate::machine::pod::Wish;
use crate::machine::pod_status::{self, Stage};
use crate::machine::replicas::{self, Existing};
use crate::machine::sandbox::Report;

/// A pod that is there, or on its way in or out.
pub(super) struct Entry {
    pub(super) pod: Pod,
    pub(super) origin: Origin,
    pub(super) waypoint: bool,
    pub(super) stage: Stage,
    pub(super) report: Report,
    /// Set once it is scheduled.
    pub(super) wish: Option<watch::Sender<Wish>>,
    pub(super) sandbox: Option<i32>,
    pub(super) captured_since: Option<String>,
    pub(super) capture_pending: Option<String>,
}

/// Who asked for a pod.
pub(super) enum Origin {
    /// The object as it was when the pod was made: another one replaces the pod.
    Folder(Arc<Pod>),
    Deployment(Name),
}

// === impl Entry ===

impl Entry {
    pub(super) fn is_of(&self, deployment: &Name) -> bool {
        matches!(&self.origin, Origin::Deployment(name) if name == deployment)
    }

    pub(super) fn existing(&self) -> Existing {
        Existing {
            name: self.pod.metadata.name.clone(),
            template: self
                .pod
                .metadata
                .labels
                .get(replicas::TEMPLATE_HASH)
                .cloned()
                .unwrap_or_default(),
            ready: self.pod.is_ready(),
            going: self.pod.metadata.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn addressed(&mut self, addresses: &[IpAddr]) {
        let status = &mut self.pod.status;
        status.pod_ip = addresses.first().copied();
        status.pod_ips = addresses.iter().map(|ip| PodIp { ip: *ip }).collect();
        status.start_time = Some(now());
    }

    /// Labels and annotations change without a restart.
    pub(super) fn relabel(&mut self, wanted: Arc<Pod>) {
        let metadata = &mut self.pod.metadata;
        let redirection = metadata.annotations.remove(REDIRECTION);
        metadata.labels.clone_from(&wanted.metadata.labels);
        metadata
            .annotations
            .clone_from(&wanted.metadata.annotations);
        metadata.annotations.remove(REDIRECTION);
        metadata
            .annotations
            .extend(redirection.map(|value| (REDIRECTION.to_owned(), value)));
        self.origin = Origin::Folder(wanted);
    }

    pub(super) fn status(&self) -> control::Pod {
        let pod = &self.pod;
        let going = pod.metadata.deletion_timestamp.is_some();
        let phase = pod.status.phase.unwrap_or(PodPhase::Pending);
        control::Pod {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            service_account: pod.service_account().to_owned(),
            node: Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()),
            addresses: pod.ips(),
            phase: if going {
                "Terminating".to_owned()
            } else {
                format!("{phase:?}")
            },
            ready: pod.is_ready(),
            restarts: self
                .report
                .containers
                .iter()
                .map(|container| container.restart_count)
                .sum(),
            created: pod.metadata.creation_timestamp.clone().unwrap_or_default(),
            reason: pod_status::summary(pod),
            waypoint: self.waypoint,
            captured: self.captured_since.is_some(),
            captured_since: self.captured_since.clone(),
            capture_pending: self.capture_pending.clone(),
            not_captured: not_captured(&self.pod),
        }
    }
}

/// Connections that the pod's annotations keep from capture.
fn not_captured(pod: &Pod) -> Option<String> {
    let exclusions = Exclusions::of(&pod.metadata);
    let inbound = bypasses_inbound(&pod.metadata).then(|| "to it".to_owned());
    let excluded = (!exclusions.is_empty()).then(|| exclusions.to_string());
    let all: Vec<String> = inbound.into_iter().chain(excluded).collect();
    (!all.is_empty()).then(|| format!("connections {}, by annotation", all.join(", ")))
}
