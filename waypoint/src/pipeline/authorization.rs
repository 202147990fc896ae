//! AuthorizationPolicy: the verdict on a request or a connection, and what AUDIT and dry-run
//! policies have to say of it.

use mesh::authorization::{Action, Authorization, Connection, PolicySet, Verdict};
use mesh::local_reply::Reason;
use mesh::request::Request;

/// Decides, and tells of what only watches.
pub(crate) fn authorize(
    set: &PolicySet,
    connection: &Connection,
    request: Option<&Request<'_>>,
) -> Verdict {
    let verdict = set.authorize(connection, request);
    for policy in set.audits(connection, request) {
        told("audit", policy, connection, request);
    }
    for policy in set.dry_run_matches(connection, request) {
        told("dry_run", policy, connection, request);
    }
    verdict
}

fn told(
    kind: &'static str,
    policy: &Authorization,
    connection: &Connection,
    request: Option<&Request<'_>>,
) {
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
    };
    let key = policy.key();
    metrics::counter!(
        "waypoint_policy_matches_total",
        "kind" => kind,
        "action" => action,
        "policy" => key.to_string(),
    )
    .increment(1);
    tracing::info!(
        target: "policy",
        kind,
        action,
        policy = %key,
        source = %connection.source_ip,
        identity = connection.source_identity.as_ref().map(tracing::field::display),
        destination = %connection.destination,
        method = request.map(|request| request.method.as_str()),
        path = request.map(|request| request.path),
        "policy matched"
    );
}

/// Why a request is denied, for the client and the log.
pub(crate) fn denial(verdict: &Verdict) -> Option<Reason> {
    match verdict {
        Verdict::AllowedByDefault | Verdict::AllowedBy(_) | Verdict::AdmittedWaypoint(_) => None,
        Verdict::DeniedBy(key) | Verdict::PolicyUnknown(key) => {
            Some(Reason::AuthorizationDenied(Some(key.clone())))
        }
        Verdict::NoAllowMatched => Some(Reason::AuthorizationDenied(None)),
    }
}
