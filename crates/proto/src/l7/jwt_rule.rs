//! How tokens of one issuer are verified.

use std::sync::Arc;

use mesh::request_authentication as model;

use super::http_rule::try_all;
use super::{ClaimToHeader, JwtRule, duration};
use crate::error::ConversionError;
use crate::generated::weft::l7::jwt_rule::Keys;

impl TryFrom<JwtRule> for model::JwtRule {
    type Error = ConversionError;

    fn try_from(wire: JwtRule) -> Result<Self, Self::Error> {
        let keys = match wire.keys {
            Some(Keys::Inline(document)) => model::JwtKeys::Inline(document.into()),
            Some(Keys::Uri(uri)) => model::JwtKeys::Uri(uri.into()),
            Some(Keys::Discovery(())) => model::JwtKeys::Discovery,
            None => return Err(ConversionError::Missing("keys")),
        };
        let texts = |wire: Vec<String>| wire.into_iter().map(Into::into).collect();
        let timeout = wire.timeout.ok_or(ConversionError::Missing("timeout"))?;
        Ok(Self {
            issuer: wire.issuer.into(),
            audiences: texts(wire.audiences),
            keys,
            locations: try_all(wire.locations)?,
            output_payload_to_header: wire.output_payload_to_header.map(Into::into),
            output_claim_to_headers: wire
                .output_claim_to_headers
                .into_iter()
                .map(Into::into)
                .collect(),
            forward_original_token: wire.forward_original_token,
            timeout: duration::decode("timeout", timeout)?,
            space_delimited_claims: texts(wire.space_delimited_claims),
        })
    }
}

impl From<&model::JwtRule> for JwtRule {
    fn from(rule: &model::JwtRule) -> Self {
        let keys = match &rule.keys {
            model::JwtKeys::Inline(document) => Keys::Inline(document.to_string()),
            model::JwtKeys::Uri(uri) => Keys::Uri(uri.to_string()),
            model::JwtKeys::Discovery => Keys::Discovery(()),
        };
        let texts = |texts: &[Arc<str>]| texts.iter().map(ToString::to_string).collect();
        let output_payload_to_header = rule.output_payload_to_header.as_ref();
        Self {
            issuer: rule.issuer.to_string(),
            audiences: texts(&rule.audiences),
            keys: Some(keys),
            locations: rule.locations.iter().map(Into::into).collect(),
            output_payload_to_header: output_payload_to_header.map(ToString::to_string),
            output_claim_to_headers: rule
                .output_claim_to_headers
                .iter()
                .map(Into::into)
                .collect(),
            forward_original_token: rule.forward_original_token,
            timeout: Some(duration::encode(rule.timeout)),
            space_delimited_claims: texts(&rule.space_delimited_claims),
        }
    }
}

// === ClaimToHeader ===

impl From<ClaimToHeader> for model::ClaimToHeader {
    fn from(wire: ClaimToHeader) -> Self {
        Self {
            header: wire.header.into(),
            claim: wire.claim.into(),
        }
    }
}

impl From<&model::ClaimToHeader> for ClaimToHeader {
    fn from(one: &model::ClaimToHeader) -> Self {
        Self {
            header: one.header.to_string(),
            claim: one.claim.to_string(),
        }
    }
}
