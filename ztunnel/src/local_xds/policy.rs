//! AuthorizationPolicies of a local mesh.

use std::sync::Arc;

use ipnet::IpNet;
use mesh::authorization::{self, Action, Authorization, Scope};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalPolicy {
    name: Arc<str>,
    namespace: Arc<str>,
    scope: LocalScope,
    action: LocalAction,
    #[serde(default)]
    dry_run: bool,
    /// Any of, all of, any of.
    #[serde(default)]
    rules: Vec<Vec<Vec<LocalMatch>>>,
}

#[derive(Debug, Deserialize)]
enum LocalScope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Debug, Deserialize)]
enum LocalAction {
    Allow,
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LocalMatch {
    namespaces: Vec<StringMatch>,
    not_namespaces: Vec<StringMatch>,
    principals: Vec<StringMatch>,
    not_principals: Vec<StringMatch>,
    service_accounts: Vec<ServiceAccountMatch>,
    not_service_accounts: Vec<ServiceAccountMatch>,
    source_ips: Vec<IpNet>,
    not_source_ips: Vec<IpNet>,
    destination_ips: Vec<IpNet>,
    not_destination_ips: Vec<IpNet>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
    /// Why nobody may rely on it.
    unparsable: Option<Arc<str>>,
}

#[derive(Debug, Deserialize)]
enum StringMatch {
    #[serde(alias = "exact")]
    Exact(Arc<str>),
    #[serde(alias = "prefix")]
    Prefix(Arc<str>),
    #[serde(alias = "suffix")]
    Suffix(Arc<str>),
    /// With an empty list.
    #[serde(alias = "presence")]
    Presence(),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceAccountMatch {
    namespace: Arc<str>,
    service_account: Arc<str>,
}

// === impl LocalPolicy, LocalMatch ===

impl From<LocalPolicy> for Authorization {
    fn from(policy: LocalPolicy) -> Self {
        let clause = |matches: Vec<LocalMatch>| authorization::Clause {
            matches: matches.into_iter().map(Into::into).collect(),
        };
        let rule = |clauses: Vec<Vec<LocalMatch>>| authorization::Rule {
            clauses: clauses.into_iter().map(clause).collect(),
        };
        Self {
            name: policy.name,
            namespace: policy.namespace,
            scope: match policy.scope {
                LocalScope::Global => Scope::Global,
                LocalScope::Namespace => Scope::Namespace,
                LocalScope::WorkloadSelector => Scope::WorkloadSelector,
            },
            action: match policy.action {
                LocalAction::Allow => Action::Allow,
                LocalAction::Deny => Action::Deny,
            },
            dry_run: policy.dry_run,
            targets: Vec::new(),
            rules: policy.rules.into_iter().map(rule).collect(),
        }
    }
}

impl From<LocalMatch> for authorization::Match {
    fn from(from: LocalMatch) -> Self {
        let texts = |texts: Vec<StringMatch>| texts.into_iter().map(Into::into).collect();
        let accounts = |accounts: Vec<ServiceAccountMatch>| {
            accounts
                .into_iter()
                .map(|account| authorization::ServiceAccountMatch {
                    namespace: account.namespace,
                    service_account: account.service_account,
                })
                .collect()
        };
        Self {
            namespaces: texts(from.namespaces),
            not_namespaces: texts(from.not_namespaces),
            principals: texts(from.principals),
            not_principals: texts(from.not_principals),
            service_accounts: accounts(from.service_accounts),
            not_service_accounts: accounts(from.not_service_accounts),
            source_ips: from.source_ips,
            not_source_ips: from.not_source_ips,
            destination_ips: from.destination_ips,
            not_destination_ips: from.not_destination_ips,
            destination_ports: from.destination_ports,
            not_destination_ports: from.not_destination_ports,
            unparsable: from.unparsable,
            ..Self::default()
        }
    }
}

impl From<StringMatch> for authorization::StringMatch {
    fn from(from: StringMatch) -> Self {
        match from {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence() => Self::Presence,
        }
    }
}
