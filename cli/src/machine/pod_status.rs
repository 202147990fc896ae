//! A pod's status from what its sandbox reports. No I/O.
use istio_compat::kinds::metadata::Condition;
use istio_compat::kinds::pod::{ContainerStatus, Pod, PodPhase, PodStatus, RestartPolicy};

use super::sandbox::Report;

/// Where a pod is on its way, apart from what its containers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No node suits it.
    Unschedulable(String),
    /// Its network is being made.
    Preparing,
    /// It can't be given its network, its sandbox, or its place in the mesh.
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running,
}

/// The status without addresses, which `status` holds already.
pub(crate) fn update(status: &mut PodStatus, pod: &Pod, stage: &Stage, report: &Report, now: &str) {
    let phase = phase(pod, stage, report);
    status.phase = Some(phase);
    (status.reason, status.message) = explanation(stage, report);
    status
        .init_container_statuses
        .clone_from(&report.init_containers);
    status.container_statuses.clone_from(&report.containers);

    let scheduled = !matches!(stage, Stage::Unschedulable(_));
    let running = matches!(stage, Stage::Running) && phase == PodPhase::Running;
    let unready: Vec<_> = report
        .containers
        .iter()
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    let said: Vec<String> = unready
        .iter()
        .filter_map(|name| Some(format!("; {name}: {}", report.failing_probes.get(*name)?)))
        .collect();
    let ready = running && report.initialized && unready.is_empty();
    let why_not = match phase {
        PodPhase::Succeeded => ("PodCompleted", String::new()),
        PodPhase::Failed => ("PodFailed", status.message.clone()),
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => (
            "ContainersNotReady",
            format!(
                "containers with unready status: [{}]{}",
                unready.join(" "),
                said.concat()
            ),
        ),
    };
    let condition = |type_: &str, value: bool, (reason, message): (&str, String)| {
        if value {
            Condition::new(type_, true, "", "")
        } else {
            Condition::new(type_, false, reason, message)
        }
    };
    let scheduling = match stage {
        Stage::Unschedulable(why) => ("Unschedulable", why.clone()),
        Stage::Preparing | Stage::Waiting { .. } | Stage::Running => ("", String::new()),
    };
    let conditions = [
        condition("PodScheduled", scheduled, scheduling),
        condition(
            "Initialized",
            report.initialized,
            ("ContainersNotInitialized", String::new()),
        ),
        condition("ContainersReady", ready, why_not.clone()),
        condition("Ready", ready, why_not),
    ];
    status.conditions = conditions
        .into_iter()
        .map(|mut condition| {
            let before = status
                .conditions
                .iter()
                .find(|before| before.type_ == condition.type_);
            condition.last_transition_time =
                match before.filter(|before| before.status == condition.status) {
                    Some(before) => before.last_transition_time.clone(),
                    None => Some(now.to_owned()),
                };
            condition
        })
        .collect();
}

fn phase(pod: &Pod, stage: &Stage, report: &Report) -> PodPhase {
    if report.failure.is_some() {
        return PodPhase::Failed;
    }
    if !matches!(stage, Stage::Running) {
        return PodPhase::Pending;
    }
    let ended = |container: &ContainerStatus| {
        container
            .state
            .terminated
            .as_ref()
            .map(|ended| ended.exit_code)
    };
    if report.finished {
        let sidecar = |name: &str| {
            let mut init = pod.spec.init_containers.iter();
            init.any(|container| container.name == name && container.restart_policy.is_some())
        };
        let mut failed = report
            .init_containers
            .iter()
            .chain(&report.containers)
            .filter(|container| !sidecar(&container.name) && ended(container) != Some(0));
        return if failed.next().is_none() && report.initialized {
            PodPhase::Succeeded
        } else {
            PodPhase::Failed
        };
    }
    let started = |container: &ContainerStatus| {
        container.state.running.is_some()
            || ended(container).is_some()
            || container.last_state.terminated.is_some()
    };
    // As in Kubernetes: running once every container has been started.
    if report.initialized && !report.containers.is_empty() && report.containers.iter().all(started)
    {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

fn explanation(stage: &Stage, report: &Report) -> (String, String) {
    if let Some(failure) = &report.failure {
        return ("SandboxFailed".to_owned(), failure.clone());
    }
    match stage {
        Stage::Unschedulable(why) => ("Unschedulable".to_owned(), why.clone()),
        Stage::Waiting { reason, message } => ((*reason).to_owned(), message.clone()),
        Stage::Preparing | Stage::Running => (String::new(), String::new()),
    }
}

/// One line on why a pod isn't running or ready, for people.
pub(crate) fn summary(pod: &Pod) -> Option<String> {
    let status = &pod.status;
    if !status.reason.is_empty() {
        return Some(format!("{}: {}", status.reason, status.message));
    }
    let troubled = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .find_map(|container| {
            let waiting = container
                .state
                .waiting
                .as_ref()
                .map(|waiting| (&waiting.reason, &waiting.message));
            let terminated = container
                .state
                .terminated
                .as_ref()
                .filter(|ended| ended.exit_code != 0);
            let terminated = terminated.map(|ended| (&ended.reason, &ended.message));
            let (reason, message) = waiting.or(terminated)?;
            Some(if message.is_empty() {
                format!("{}: {reason}", container.name)
            } else {
                format!("{}: {reason}: {message}", container.name)
            })
        });
    let policy_ended = pod.spec.restart_policy != RestartPolicy::Always
        && status.phase == Some(PodPhase::Succeeded);
    let not_ready = || {
        let mut conditions = status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        (status.phase == Some(PodPhase::Running) && !ready.message.is_empty())
            .then(|| ready.message.clone())
    };
    troubled.filter(|_| !policy_ended).or_else(not_ready)
}

#[cfg(test)]
mod tests;
