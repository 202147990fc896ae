//! Connections that reach a pod in plaintext (port 15006).

use std::rc::Rc;

use hbone::copy;
use tokio::time::Instant;

use super::access_log::Direction;
use super::arrival::{Arrival, is_behind_header, reported_service};
use super::caller::Caller;
use super::connections::{OpenConnection, Protocol};
use super::sockets;
use super::telemetry::Failure;
use super::worker::{Accepted, Worker};
use crate::metrics::ResponseFlags;

pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let mut caller = Caller::new(accepted);
    let Ok(original) = sockets::original_destination(&caller.tcp) else {
        return;
    };
    let mut arrival = Arrival {
        worker: worker.clone(),
        pod: caller.pod.clone(),
        peer: caller.peer,
        local: original,
        identity: None,
        own: None,
        tls_group: None,
        cut: Rc::default(),
        source: None,
        trace: None,
    };
    arrival.source = arrival.workload_at_peer();
    let mut conversation = arrival.conversation(Instant::now());
    let Some(workload) = worker.workload(&arrival.pod).await else {
        return conversation.reject(&worker, "the pod is not known to the mesh");
    };
    conversation.destination.workload = Some(workload.clone());
    if sockets::is_own_port(
        original,
        &caller.tcp,
        Some(&workload),
        &worker.shared.config,
    ) {
        return conversation.reject(&worker, format_args!("{original} is the tunnel itself"));
    }
    if is_behind_header(&workload, original.port()) {
        let reason = format!("{original} is behind the PROXY protocol and takes no plaintext");
        return conversation.fail(&worker, &Failure::new(ResponseFlags::Connect, reason));
    }
    let snapshot = worker.shared.state.snapshot();
    conversation.service = reported_service(&snapshot, &workload, None, original.port());
    let connection = arrival.connection(original);
    let admitted = worker.policies.admit(&snapshot, &workload, connection);
    let mut admission = match admitted {
        Ok(admission) => admission,
        Err(verdict) => return conversation.fail(&worker, &Failure::denied(&verdict)),
    };
    conversation.dry_run = admission.dry_run.take();
    let mut application = match Box::pin(arrival.connect(original)).await {
        Ok(application) => application,
        Err(error) => return conversation.fail(&worker, &Failure::connect(&error)),
    };
    let connection = OpenConnection {
        src: arrival.peer,
        original_dst: Some(original.into()),
        actual_dst: original,
        protocol: Protocol::Tcp,
    };
    let connections = &worker.shared.connections;
    let _listed = connections.list(&arrival.pod.uid, Direction::Inbound, connection);
    caller.reached().await;
    let tracked = conversation.open(&worker);
    let half_closed = worker.shared.config.half_closed_timeout;
    let tcp = &mut caller.tcp;
    let result = tokio::select! {
        result = copy::sockets(tcp, &mut application, half_closed, &tracked) => Ok(result),
        Ok(verdict) = &mut admission.denied => Err(verdict),
    };
    match result {
        Ok(result) => tracked.finish(Failure::of_copy(result)),
        Err(verdict) => {
            copy::abort(&caller.tcp);
            copy::abort(&application);
            tracked.finish(Some(Failure::new(ResponseFlags::Deny, verdict)));
        }
    }
}
