//! Connections between two pods of this process: the same identities, policy, logs and
//! metrics as over a tunnel, and then the two sockets are joined without one.

use std::net::SocketAddr;
use std::sync::Arc;

use hbone::copy;
use mesh::destination::{Authority, Hop};
use mesh::identity::Identity;
use tokio::net::TcpStream;

use super::arrival::{Arrival, Passage, Refusal};
use super::connections::Protocol;
use super::outbound::{Client, HopFailure};
use super::pods::Pod;
use super::telemetry::{BothSides, Conversation, Failure};
use crate::metrics::ResponseFlags;

/// Runs one connection of `client` to the pod at the other end, served here as well.
pub(crate) async fn run(
    client: &mut Client,
    hop: &Hop,
    address: SocketAddr,
    expected: &Arc<[Identity]>,
    pod: &Arc<Pod>,
) -> Result<(), HopFailure> {
    let conversation = client.mutual(hop, address);
    if let Err(failure) = resolve_identities(client, expected, pod).await {
        return Err(HopFailure {
            conversation,
            failure,
            unreachable: false,
        });
    }
    let arrival = Arrival {
        worker: client.worker.clone(),
        pod: pod.clone(),
        peer: client.accepted.peer,
        local: address,
        identity: Some(client.pod().identity.clone()),
        tls_group: None,
    };
    let authority = Authority::Address(hop.target);
    let service = client.service.as_ref().map(|service| &*service.hostname);
    let passage = match Box::pin(arrival.admit(&authority, service)).await {
        Ok(passage) => passage,
        Err(refusal) => {
            let unreachable = matches!(refusal, Refusal::Connect(_));
            return Err(HopFailure {
                conversation,
                failure: refusal.as_seen_by_client(),
                unreachable,
            });
        }
    };
    join(client, conversation, passage).await;
    Ok(())
}

/// Both ends must hold valid certificates, and the server's must be an expected one: what
/// the handshake would have proved.
async fn resolve_identities(
    client: &Client,
    expected: &Arc<[Identity]>,
    pod: &Arc<Pod>,
) -> Result<(), Failure> {
    if !expected.contains(&pod.identity) {
        let reason = format!("the peer is {}, which is not expected", pod.identity);
        return Err(Failure::new(ResponseFlags::IdentityError, reason));
    }
    for identity in [&client.pod().identity, &pod.identity] {
        client
            .worker
            .certificate(identity)
            .await
            .map_err(|reason| Failure::new(ResponseFlags::TlsFailure, reason))?;
    }
    Ok(())
}

async fn join(client: &mut Client, conversation: Conversation, passage: Passage) {
    let Passage {
        conversation: inbound,
        mut application,
        mut admission,
        listed: _listed_inbound,
    } = passage;
    let outbound = conversation.open(&client.worker);
    let inbound = inbound.open(&client.worker);
    let _listed = client.list(application_address(&application, client), Protocol::Hbone);
    let half_closed = client.worker.shared.config.half_closed_timeout;
    let both = BothSides(&outbound, &inbound);
    let tcp = &mut client.accepted.tcp;
    let result = tokio::select! {
        result = copy::sockets(tcp, &mut application, half_closed, &both) => Ok(result),
        Ok(verdict) = &mut admission.denied => Err(verdict),
    };
    match result {
        Ok(result) => {
            let failure = Failure::of_copy(result);
            inbound.finish(failure.clone());
            outbound.finish(failure);
        }
        Err(verdict) => {
            copy::abort(&client.accepted.tcp);
            copy::abort(&application);
            inbound.finish(Some(Failure::denied(&verdict)));
            outbound.finish(Some(Failure::denied(&verdict)));
        }
    }
}

fn application_address(application: &TcpStream, client: &Client) -> SocketAddr {
    application.peer_addr().unwrap_or(client.original)
}
