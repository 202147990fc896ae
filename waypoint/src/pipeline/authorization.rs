//! AuthorizationPolicy: the verdict on a request or a connection, and what AUDIT and dry-run
//! policies have to say of it.

use mesh::authorization::{Authorization, Connection, PolicySet, Verdict};
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
        tell_audit(policy, connection, request);
    }
    if let Some(tried) = set.dry_run_verdict(&verdict, connection, request) {
        tell_dry_run(&verdict, &tried, connection, request);
    }
    verdict
}

fn tell_audit(policy: &Authorization, connection: &Connection, request: Option<&Request<'_>>) {
    let key = policy.key();
    metrics::counter!("waypoint_policy_audits_total", "policy" => key.to_string()).increment(1);
    tracing::info!(
        target: "policy",
        policy = %key,
        source = %connection.source_ip,
        identity = connection.source_identity.as_ref().map(tracing::field::display),
        destination = %connection.destination,
        method = request.map(|request| request.method.as_str()),
        path = request.map(|request| request.path),
        "audited"
    );
}

/// Counts what the verdict would be with the dry-run policies, as a ztunnel does, and logs it where
/// it is another.
fn tell_dry_run(
    enforced: &Verdict,
    tried: &Verdict,
    connection: &Connection,
    request: Option<&Request<'_>>,
) {
    let policy = tried.policy();
    metrics::counter!(
        "weft_policy_dry_run_total",
        "enforced" => enforced.word(),
        "dry_run" => tried.word(),
        "policy" => policy.map_or_else(|| "none".to_owned(), ToString::to_string),
    )
    .increment(1);
    if tried.is_allowed() == enforced.is_allowed() {
        return;
    }
    tracing::info!(
        target: "policy",
        dry_run = %tried,
        %enforced,
        source = %connection.source_ip,
        identity = connection.source_identity.as_ref().map(tracing::field::display),
        destination = %connection.destination,
        method = request.map(|request| request.method.as_str()),
        path = request.map(|request| request.path),
        "dry-run policies would decide otherwise"
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
