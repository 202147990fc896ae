//! Connections between two pods of this process: the same identities, policy, logs and
//! metrics as over a tunnel, and then the two sockets are joined without one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, OptionFuture};
use hbone::client::OpenError;
use hbone::copy;
use hbone::headers::TraceParent;
use mesh::destination::{Authority, Hop};
use mesh::identity::Identity;
use tokio::net::TcpStream;

use super::access_log::Direction;
use super::arrival::{Arrival, Passage, Refusal};
use super::connections::Protocol;
use super::outbound::Client;
use super::outbound::attempts::{Fault, HopFailure};
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
    let mut conversation = client.mutual(hop, address);
    let trace = TraceParent::random(&mut rand::rng()).trace_id();
    conversation.trace = Some(trace);
    let own = pod.identity(&hop.workload);
    let revoked = match resolve_identities(client, expected, &own).await {
        Ok(revoked) => revoked,
        Err((failure, fault)) => {
            return Err(HopFailure {
                conversation,
                failure,
                fault,
            });
        }
    };
    let arrival = Arrival {
        worker: client.worker.clone(),
        pod: pod.clone(),
        peer: client.caller.peer,
        local: address,
        identity: Some(client.identity()),
        own: Some(Rc::new(own)),
        tls_group: None,
        cut: Rc::default(),
        source: Some(client.workload.clone()),
        trace: Some(trace),
    };
    let authority = Authority::Address(hop.target);
    let service = client.service.as_ref().map(|service| &*service.hostname);
    let passage = match Box::pin(arrival.admit(&authority, service)).await {
        Ok(passage) => passage,
        Err(refusal) => {
            return Err(HopFailure {
                conversation,
                failure: refusal.as_seen_by_client(),
                fault: fault_of(&refusal, hop.target.ip() == address.ip()),
            });
        }
    };
    client.established(&hop.workload);
    client.caller.reached().await;
    join(client, conversation, passage, revoked).await;
    Ok(())
}

/// As over a tunnel, whose client is told a status and no more. Here it is known besides whose fault
/// it is that an application is not connected to.
fn fault_of(refusal: &Refusal, asks_for_itself: bool) -> Fault {
    match refusal {
        Refusal::Connect(error) => Fault::of_connect(error),
        Refusal::UnknownWorkload
        | Refusal::NotKnown(_)
        | Refusal::Destination(_)
        | Refusal::ForeignPort(_)
        | Refusal::Policy(_)
        | Refusal::Header(_)
        | Refusal::NoAddress(_) => {
            Fault::of_open(&OpenError::Status(refusal.status()), asks_for_itself)
        }
    }
}

/// Resolves when one of two certificates is revoked; none where no lists are kept.
type Revoked = OptionFuture<LocalBoxFuture<'static, ()>>;

/// Both ends must hold valid certificates of one trust domain, none of them revoked, and the
/// server's must be an expected one: what the handshake would have proved. Without a certificate for
/// the server, that one would fail, and another endpoint's may not.
async fn resolve_identities(
    client: &Client,
    expected: &Arc<[Identity]>,
    peer: &Identity,
) -> Result<Revoked, (Failure, Fault)> {
    if !expected.contains(peer) {
        let reason = format!("the peer is {peer}, which is not expected");
        let failure = Failure::new(ResponseFlags::IdentityError, reason);
        return Err((failure, Fault::Final));
    }
    let identity = client.identity();
    if identity.trust_domain != peer.trust_domain {
        let reason = format!("{identity} is not of the trust domain of {peer}");
        let failure = Failure::new(ResponseFlags::IdentityError, reason);
        return Err((failure, Fault::Final));
    }
    let worker = &client.worker;
    let unavailable = |reason| Failure::new(ResponseFlags::TlsFailure, reason);
    let own = worker.certificate(&identity).await;
    let own = own.map_err(|reason| (unavailable(reason), Fault::Final))?;
    let peer = worker.certificate(peer).await;
    let peer = peer.map_err(|reason| (unavailable(reason), Fault::Endpoint))?;
    let mut either = own.revocation_of_either(&peer).map(FutureExt::boxed_local);
    if let Some(revoked) = &mut either
        && revoked.now_or_never().is_some()
    {
        worker.count_revocation(Direction::Outbound);
        return Err((Failure::revoked(), Fault::Final));
    }
    Ok(either.into())
}

fn join(
    client: &mut Client,
    conversation: Conversation,
    passage: Passage,
    mut revoked: Revoked,
) -> impl Future<Output = ()> {
    let Passage {
        conversation: inbound,
        mut application,
        mut admission,
        listed: listed_inbound,
    } = passage;
    let outbound = conversation.open(&client.worker);
    let inbound = inbound.open(&client.worker);
    listed_inbound.is_other_side();
    let listed = (
        listed_inbound,
        client.list(application_address(&application, client), Protocol::Hbone),
    );
    // Only what this holds stays with the connection.
    async move {
        let _listed = &listed;
        let half_closed = client.worker.shared.config.half_closed_timeout;
        let both = BothSides(&outbound, &inbound);
        let tcp = &mut client.caller.tcp;
        let result = tokio::select! {
            result = copy::sockets(tcp, &mut application, half_closed, &both) => Ok(result),
            // Whose policy it is knows why; the client is told no more than that it is over.
            Ok(verdict) = &mut admission.denied => Err((Failure::denied(&verdict), cut())),
            Some(()) = &mut revoked => {
                client.worker.count_revocation(Direction::Outbound);
                Err((Failure::revoked(), Failure::revoked()))
            }
        };
        match result {
            Ok(result) => {
                let failure = Failure::of_copy(result);
                inbound.finish(failure.clone());
                outbound.finish(failure);
            }
            Err((at_server, at_client)) => {
                copy::abort(&client.caller.tcp);
                copy::abort(&application);
                inbound.finish(Some(at_server));
                outbound.finish(Some(at_client));
            }
        }
    }
}

/// As a stream that its server has reset.
fn cut() -> Failure {
    Failure::new(ResponseFlags::None, "cut by the destination")
}

fn application_address(application: &TcpStream, client: &Client) -> SocketAddr {
    application.peer_addr().unwrap_or(client.original)
}

#[cfg(test)]
mod tests {
    use std::io;

    use mesh::authorization::{PolicyKey, Verdict};
    use mesh::destination::InboundRefusal;

    use super::*;

    #[test]
    fn an_endpoint_that_is_not_ready_to_serve_is_passed_over_and_one_that_says_no_is_not() {
        let denied = Verdict::DeniedBy(PolicyKey::new("shop", "no-entry"));
        let elsewhere = InboundRefusal::WrongAddress("10.0.0.1:80".into());
        let cases = [
            (Refusal::UnknownWorkload, Fault::Endpoint),
            (Refusal::NoAddress("web".into()), Fault::Endpoint),
            (
                Refusal::Connect(io::ErrorKind::ConnectionRefused.into()),
                Fault::Endpoint,
            ),
            (
                Refusal::Connect(io::ErrorKind::AddrNotAvailable.into()),
                Fault::Unclear,
            ),
            (Refusal::Policy(denied), Fault::Final),
            (Refusal::Destination(elsewhere), Fault::Final),
        ];
        for (refusal, expected) in cases {
            assert_eq!(fault_of(&refusal, true), expected, "{refusal:?}");
        }
        assert_eq!(fault_of(&Refusal::UnknownWorkload, false), Fault::Unclear);
    }
}
