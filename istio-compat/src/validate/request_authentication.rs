//! RequestAuthentication: issuers with keys that can be had.

use crate::kinds::request_authentication::{JwtRule, RequestAuthentication};
use crate::validate::{Problems, Validate, http, policy_target};

/// Kinds of public keys (RFC 7518 §6.1, RFC 8037 §2).
const KEY_TYPES: [&str; 3] = ["RSA", "EC", "OKP"];

impl Validate for RequestAuthentication {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        policy_target::attachment(
            &self.metadata,
            spec.selector.as_ref(),
            spec.target_ref.as_ref(),
            &spec.target_refs,
            problems,
        );
        if spec.jwt_rules.is_empty() {
            problems.warn("spec.jwtRules", "has no rule: no token is looked at");
        }
        for (index, rule) in spec.jwt_rules.iter().enumerate() {
            self::rule(&format!("spec.jwtRules[{index}]"), rule, problems);
        }
    }
}

fn rule(field: &str, rule: &JwtRule, problems: &mut Problems<'_>) {
    problems.given(format!("{field}.issuer"), &rule.issuer);
    keys(field, rule, problems);
    for (name, texts) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (index, text) in texts.iter().enumerate() {
            problems.given(format!("{field}.{name}[{index}]"), text);
        }
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        let field = format!("{field}.fromHeaders[{index}].name");
        problems.check(field, http::header_name(&header.name));
    }
    if !rule.output_payload_to_header.is_empty() {
        problems.check(
            format!("{field}.outputPayloadToHeader"),
            http::header_name(&rule.output_payload_to_header),
        );
    }
    for (index, one) in rule.output_claim_to_headers.iter().enumerate() {
        let field = format!("{field}.outputClaimToHeaders[{index}]");
        problems.check(format!("{field}.header"), http::header_name(&one.header));
        problems.given(format!("{field}.claim"), &one.claim);
    }
    if !rule.timeout.is_empty() && rule.timeout().is_none_or(|timeout| timeout.is_zero()) {
        problems.error(
            format!("{field}.timeout"),
            format!("{:?} is not a duration: write seconds, as 5s", rule.timeout),
        );
    }
}

fn keys(field: &str, rule: &JwtRule, problems: &mut Problems<'_>) {
    match (rule.jwks.as_str(), rule.jwks_uri.as_str()) {
        ("", "") => {
            if let Err(problem) = http::url(&rule.issuer) {
                problems.error(
                    format!("{field}.issuer"),
                    format!("{problem}; or say where its keys are with jwksUri or jwks"),
                );
            }
        }
        ("", uri) => problems.check(format!("{field}.jwksUri"), http::url(uri)),
        (jwks, "") => match document(jwks) {
            Ok(true) => {}
            Ok(false) => problems.warn(
                format!("{field}.jwks"),
                format!(
                    "has no key with a \"kty\" of {}: every token of the issuer is refused",
                    KEY_TYPES.join(", ")
                ),
            ),
            Err(problem) => problems.error(format!("{field}.jwks"), problem),
        },
        (_, _) => problems.error(
            format!("{field}.jwks"),
            "is there together with jwksUri: keep one of them",
        ),
    }
}

/// Whether a set of keys has one that verifies tokens (RFC 7517 §5).
fn document(text: &str) -> Result<bool, String> {
    let document: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let Some(keys) = document["keys"].as_array() else {
        return Err("is no set of keys: it has no list \"keys\"".to_owned());
    };
    let usable = |key: &serde_json::Value| {
        let kind = key["kty"].as_str();
        kind.is_some_and(|kind| KEY_TYPES.contains(&kind))
    };
    Ok(keys.iter().any(usable))
}
