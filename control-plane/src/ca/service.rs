//! `IstioCertificateService`: authenticates, authorizes, signs. Callers learn that they were refused, the log learns why.

use std::sync::Arc;
use std::time::Duration;

use identity::authority::Subject;
use mesh::identity::Identity;
use metrics::counter;
use prost_types::value::Kind;
use proto::citadel::{
    IMPERSONATED_IDENTITY, IstioCertificateRequest, IstioCertificateResponse,
    IstioCertificateService, IstioCertificateServiceServer,
};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::node_authorizer::{Account, Pods, Refusal, authorize};
use super::token::Authenticator;
use super::{Authority, csr};

/// Nothing bigger is even read: a request and its metadata are a few kilobytes.
const MAX_MESSAGE: usize = 64 * 1024;
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// A stolen key is good for as long as its certificate.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Istio's.
const MAX_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// What may be issued, and to whom.
#[derive(Debug, Clone)]
pub struct Policy {
    pub trust_domain: String,
    /// Accounts of node proxies (`CA_TRUSTED_NODE_ACCOUNTS`).
    pub trusted_node_accounts: Vec<Account>,
    /// When a request names no lifetime (`DEFAULT_WORKLOAD_CERT_TTL`).
    pub default_lifetime: Duration,
    /// A longer one is an error (`MAX_WORKLOAD_CERT_TTL`).
    pub max_lifetime: Duration,
}

/// The service's state.
pub struct Service {
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
    pods: Arc<dyn Pods>,
    policy: Policy,
}

/// The service, ready to be added to a tonic server.
pub fn service(
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
    pods: Arc<dyn Pods>,
    policy: Policy,
) -> IstioCertificateServiceServer<Service> {
    let service = Service::new(authority, authenticator, pods, policy);
    IstioCertificateServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE)
}

impl From<Refusal> for Status {
    fn from(_: Refusal) -> Self {
        Self::permission_denied("the caller may not have this identity")
    }
}

// === impl Policy ===

impl Policy {
    /// The defaults for a trust domain: an hour, at most ninety days.
    pub fn new(trust_domain: impl Into<String>, trusted_node_accounts: Vec<Account>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            trusted_node_accounts,
            default_lifetime: DEFAULT_LIFETIME,
            max_lifetime: MAX_LIFETIME,
        }
    }

    fn lifetime(&self, requested_seconds: i64) -> Result<Duration, Status> {
        let requested = match u64::try_from(requested_seconds) {
            Ok(0) => self.default_lifetime,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => Duration::ZERO,
        };
        match requested {
            _ if requested < MIN_LIFETIME => Err(Status::invalid_argument(
                "a certificate must live for at least a minute",
            )),
            _ if requested > self.max_lifetime => Err(Status::invalid_argument(format!(
                "a certificate may live for at most {} seconds",
                self.max_lifetime.as_secs()
            ))),
            _ => Ok(requested),
        }
    }
}

// === impl Service ===

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        counter!("citadel_server_csr_count").increment(1);
        let identity = self.identity(&request)?;
        let request = request.get_ref();
        let lifetime = self.policy.lifetime(request.validity_duration)?;
        let key = csr::public_key(&request.csr).map_err(|error| {
            counter!("citadel_server_csr_parsing_err_count").increment(1);
            warn!(%identity, %error, "certificate request refused");
            Status::invalid_argument(error.to_string())
        })?;
        let subject = Subject::Workload(identity.clone());
        let issued = self
            .authority
            .issue(&key, &subject, lifetime)
            .map_err(|error| {
                counter!("citadel_server_csr_sign_err_count").increment(1);
                tracing::error!(%identity, %error, "signing failed");
                Status::internal("the certificate could not be signed")
            })?;
        counter!("citadel_server_success_cert_issuance_count").increment(1);
        info!(%identity, serial = issued.serial, lifetime = ?lifetime, "certificate issued");
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: issued.chain,
        }))
    }
}

impl Service {
    pub(super) fn new(
        authority: Arc<Authority>,
        authenticator: Arc<Authenticator>,
        pods: Arc<dyn Pods>,
        policy: Policy,
    ) -> Self {
        Self {
            authority,
            authenticator,
            pods,
            policy,
        }
    }

    /// Who the certificate is for, if the caller may have it.
    fn identity(&self, request: &Request<IstioCertificateRequest>) -> Result<Identity, Status> {
        let caller = self
            .authenticator
            .authenticate(request.metadata())
            .map_err(|error| {
                counter!("citadel_server_authentication_failure_count").increment(1);
                warn!(peer = ?request.remote_addr(), %error, "caller not authenticated");
                Status::unauthenticated("the caller is not authenticated")
            })?;
        let impersonated = impersonated(request.get_ref());
        let authorized = authorize(
            &caller,
            impersonated.as_deref(),
            &self.policy.trust_domain,
            &self.policy.trusted_node_accounts,
            &*self.pods,
        );
        authorized.map_err(|refusal| {
            match refusal {
                Refusal::Identity(_) => counter!("citadel_server_id_extraction_err_count"),
                Refusal::NotTrusted(_)
                | Refusal::NotPodBound(_)
                | Refusal::NoSuchPod(_)
                | Refusal::NotRunning(_)
                | Refusal::TrustDomain(_)
                | Refusal::NotOnNode { .. } => {
                    counter!("citadel_server_authentication_failure_count")
                }
            }
            .increment(1);
            warn!(
                caller = %format_args!("{}/{}", caller.namespace, caller.service_account),
                pod = caller.pod.as_ref().map(|pod| pod.name.as_str()),
                requested = impersonated,
                reason = %refusal,
                "certificate refused"
            );
            refusal.into()
        })
    }
}

/// The identity asked for on a pod's behalf. One that isn't a text is still asked for, and can only be refused.
fn impersonated(request: &IstioCertificateRequest) -> Option<String> {
    let value = request
        .metadata
        .as_ref()?
        .fields
        .get(IMPERSONATED_IDENTITY)?;
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        Some(_) | None => Some(String::new()),
    }
}
