//! Asks Istio's certificate service for workload certificates.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use mesh::identity::Identity;
use prost_types::value::Kind;
use proto::citadel::{
    IMPERSONATED_IDENTITY, IstioCertificateRequest, IstioCertificateServiceClient,
};
use runtime::{causes, vital};

use crate::authority::{Signer, SignerError};
use crate::certificate::{CertificateError, WorkloadCertificate};
use crate::grpc::ControlPlane;
use crate::key::PrivateKey;
use crate::request::signing_request;
use crate::revocation::{RevocationError, RevocationFile, RevocationLists};

/// Whoever answers with certificates.
pub trait CaClient: Send + Sync + 'static {
    /// One new certificate with a new key for `identity`.
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>>;
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no request could be made: {0}")]
    Request(String),
    #[error("the CA answered {code:?}: {message}")]
    Refused { code: tonic::Code, message: String },
    #[error("the CA did not answer in time")]
    Timeout,
    #[error("the CA's answer can't be used: {0}")]
    Answer(#[from] CertificateError),
    #[error("the CA answered with a certificate for {0}")]
    OtherIdentity(Identity),
    #[error("the CA answered with an expired certificate")]
    Expired,
}

/// Who has failed, and so whether asking again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The CA has judged the request: asking again changes nothing.
    Refused,
    /// The CA has answered without a certificate. istiod says the same (`Unauthenticated`) to an
    /// asker that it does not know and of an identity that the asker may not have.
    Answered,
    /// Nobody has answered.
    Unanswered,
}

/// For whom a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A node's tunnel: the pods' identities are impersonated.
    Shared,
    /// A process with one identity of its own, which its token proves.
    Dedicated,
}

/// The client of an `IstioCertificateService`.
pub struct CitadelClient {
    service: IstioCertificateServiceClient<ControlPlane>,
    mode: Mode,
    lifetime: Duration,
}

/// Signs on the spot, with no service in between.
pub struct LocalCa {
    pub signer: Signer,
    pub lifetime: Duration,
}

/// Another CA's certificates, whose peers are looked up in revocation lists.
pub struct WithRevocations {
    pub ca: Arc<dyn CaClient>,
    pub lists: Arc<RevocationLists>,
}

// === impl FetchError ===

impl FetchError {
    pub(crate) fn fault(&self) -> Fault {
        use tonic::Code;
        match self {
            Self::Refused { code, .. } => match code {
                Code::PermissionDenied | Code::InvalidArgument => Fault::Refused,
                // Those by which a connection without an answer is told, and a CA that has no time.
                Code::Unavailable
                | Code::Unknown
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted => Fault::Unanswered,
                _ => Fault::Answered,
            },
            Self::Answer(_) | Self::OtherIdentity(_) | Self::Expired => Fault::Answered,
            Self::Request(_) | Self::Timeout => Fault::Unanswered,
        }
    }
}

// === impl CitadelClient ===

impl CitadelClient {
    /// Certificates will be asked to live for `lifetime` (`SECRET_TTL`).
    pub fn new(control_plane: ControlPlane, mode: Mode, lifetime: Duration) -> Self {
        Self {
            service: IstioCertificateServiceClient::new(control_plane),
            mode,
            lifetime,
        }
    }

    fn request(&self, csr: String, identity: &Identity) -> IstioCertificateRequest {
        let impersonated = || prost_types::Struct {
            fields: BTreeMap::from([(
                IMPERSONATED_IDENTITY.to_owned(),
                prost_types::Value {
                    kind: Some(Kind::StringValue(identity.to_string())),
                },
            )]),
        };
        IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: match self.mode {
                Mode::Shared => Some(impersonated()),
                Mode::Dedicated => None,
            },
        }
    }
}

impl CaClient for CitadelClient {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
        Box::pin(async move {
            let unmade = |error: &dyn std::error::Error| FetchError::Request(error.to_string());
            let key = PrivateKey::generate().map_err(|error| unmade(&error))?;
            let csr = signing_request(&key, identity).map_err(|error| unmade(&error))?;
            let answer = self
                .service
                .clone()
                .create_certificate(self.request(csr, identity))
                .await
                .map_err(|status| FetchError::Refused {
                    code: status.code(),
                    message: reason(&status),
                })?
                .into_inner();
            let certificate = WorkloadCertificate::new(key, &answer.cert_chain)?;
            match certificate.identity() == identity {
                true => Ok(certificate),
                false => Err(FetchError::OtherIdentity(certificate.identity().clone())),
            }
        })
    }
}

/// A status whose cause is a failed connection says only "transport error": the causes tell more.
fn reason(status: &tonic::Status) -> String {
    causes::told(status.message(), status)
}

// === impl LocalCa ===

impl CaClient for LocalCa {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
        Box::pin(async move {
            self.signer
                .workload_certificate(identity, self.lifetime, SystemTime::now())
                .map_err(|error| match error {
                    SignerError::Certificate(error) => FetchError::Answer(error),
                    error => FetchError::Request(error.to_string()),
                })
        })
    }
}

// === impl WithRevocations ===

impl WithRevocations {
    /// Follows the lists in a file from here on.
    pub fn follow(ca: Arc<dyn CaClient>, path: &Path) -> Result<Self, RevocationError> {
        let file = RevocationFile::open(path)?;
        let lists = file.lists();
        tokio::spawn(vital::task("revocations", file.follow()));
        Ok(Self { ca, lists })
    }
}

impl CaClient for WithRevocations {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, FetchError>> {
        Box::pin(async move {
            let certificate = self.ca.fetch(identity).await?;
            Ok(certificate.with_revocations(self.lists.clone())?)
        })
    }
}
