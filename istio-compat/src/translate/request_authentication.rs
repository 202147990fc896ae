//! RequestAuthentication: issuers, their keys, and where tokens are.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh::authorization::PolicyKey;
use mesh::request_authentication::{
    ClaimToHeader, JwtKeys, JwtRule as MeshRule, RequestAuthentication as MeshPolicy, TokenLocation,
};

use crate::kinds::metadata::Condition;
use crate::kinds::request_authentication::{JwtRule, RequestAuthentication};
use crate::kinds::selector::{Labels, labels_match};
use crate::translate::Translation;
use crate::translate::policy_target::{self, WAYPOINT_ACCEPTED};
use crate::view::View;

/// For fetching keys, where the rule does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn translate(view: &View, policy: &RequestAuthentication) -> Translation {
    let metadata = &policy.metadata;
    let (namespace, spec) = (metadata.namespace.as_str(), &policy.spec);
    let targeted = spec.targets().next().is_some();
    let targets = policy_target::resolve(view, namespace, spec.targets());
    let condition = match targeted {
        true => policy_target::condition(view, namespace, spec.targets()),
        false => Condition::new(
            WAYPOINT_ACCEPTED,
            true,
            "Accepted",
            "enforced by the waypoints in front of the workloads it is for",
        ),
    };
    let translated = (!targeted || !targets.is_empty()).then(|| MeshPolicy {
        namespace: namespace.into(),
        name: metadata.name.as_str().into(),
        scope: policy_target::scope(view, namespace, spec.selector.is_some(), targeted),
        targets,
        rules: spec.jwt_rules.iter().map(rule).collect(),
        unparsable: None,
    });
    Translation {
        request_authentications: translated.into_iter().collect(),
        conditions: vec![condition],
        ..Translation::default()
    }
}

/// The policies with a selector that choose a workload, sorted.
pub(super) fn selecting(view: &View, namespace: &str, labels: &Labels) -> Vec<PolicyKey> {
    let namespaces = BTreeSet::from([namespace, &*view.context.root_namespace]);
    namespaces
        .into_iter()
        .filter_map(|namespace| view.contents(namespace))
        .flat_map(|contents| contents.request_authentications.values())
        .filter(|policy| {
            let selector = policy.spec.selector.as_ref();
            selector.is_some_and(|selector| labels_match(&selector.match_labels, labels))
                && policy.spec.targets().next().is_none()
        })
        .map(|policy| {
            let metadata = &policy.metadata;
            PolicyKey::new(metadata.namespace.as_str(), metadata.name.as_str())
        })
        .collect()
}

fn rule(rule: &JwtRule) -> MeshRule {
    let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let header = rule.output_payload_to_header.as_str();
    MeshRule {
        issuer: rule.issuer.as_str().into(),
        audiences: texts(&rule.audiences),
        keys: match (rule.jwks.as_str(), rule.jwks_uri.as_str()) {
            ("", "") => JwtKeys::Discovery,
            ("", uri) => JwtKeys::Uri(uri.into()),
            (jwks, _) => JwtKeys::Inline(jwks.into()),
        },
        locations: locations(rule),
        output_payload_to_header: (!header.is_empty()).then(|| header.into()),
        output_claim_to_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|one| ClaimToHeader {
                header: one.header.as_str().into(),
                claim: one.claim.as_str().into(),
            })
            .collect(),
        forward_original_token: rule.forward_original_token,
        timeout: rule.timeout().unwrap_or(TIMEOUT),
        space_delimited_claims: texts(&rule.space_delimited_claims),
    }
}

/// Where the rule says; else in the Authorization header, then in the query.
fn locations(rule: &JwtRule) -> Vec<TokenLocation> {
    let headers = rule
        .from_headers
        .iter()
        .map(|header| TokenLocation::Header {
            name: header.name.to_ascii_lowercase().into(),
            prefix: header.prefix.as_str().into(),
        });
    let params = rule.from_params.iter();
    let params = params.map(|param| TokenLocation::Param(param.as_str().into()));
    let cookies = rule.from_cookies.iter();
    let cookies = cookies.map(|cookie| TokenLocation::Cookie(cookie.as_str().into()));
    let named: Vec<_> = headers.chain(params).chain(cookies).collect();
    match named.is_empty() {
        false => named,
        true => vec![
            TokenLocation::Header {
                name: "authorization".into(),
                prefix: "Bearer ".into(),
            },
            TokenLocation::Param("access_token".into()),
        ],
    }
}
