//! One identity as `/config_dump` shows it, in the shape Istio's tools read.

use std::time::SystemTime;

use mesh::identity::Identity;
use serde_json::{Value, json};

use super::State;
use crate::certificate::CertificateSummary;

pub(super) fn entry(identity: &Identity, state: &State) -> Value {
    let (state, chain, roots): (_, Vec<_>, Vec<_>) = match state {
        State::Initializing => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        State::Unavailable(failure) => (format!("Unavailable: {failure}"), Vec::new(), Vec::new()),
        State::Available(certificate) => (
            "Available".to_owned(),
            certificate.chain().map(summary).collect(),
            certificate.roots().map(summary).collect(),
        ),
    };
    json!({
        "identity": identity,
        "state": state,
        "certChain": chain,
        "rootCerts": roots,
    })
}

fn summary(certificate: CertificateSummary) -> Value {
    let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    json!({
        "pem": boring::base64::encode_block(certificate.pem.as_bytes()),
        "serialNumber": certificate.serial,
        "validFrom": time(certificate.not_before),
        "expirationTime": time(certificate.not_after),
    })
}
