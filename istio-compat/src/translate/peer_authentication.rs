//! PeerAuthentication to DENY policies against plaintext.
//!
//! The mode of the mesh, then of the namespace, then of the selected workload holds; at
//! each level the oldest policy wins and UNSET leaves the level above in force. Workloads
//! that are STRICT on all ports share one static policy; those with exceptions by port
//! get one of their own instead.

use std::sync::Arc;

use mesh::authorization::{
    Action, Authorization, Clause, Match, PolicyKey, Rule, Scope, StringMatch,
};

use crate::kinds::peer_authentication::{Mode, PeerAuthentication, PeerAuthenticationSpec};
use crate::kinds::selector::{Labels, labels_match};
use crate::object::Resource;
use crate::translate::Translation;
use crate::view::View;

/// Name, in the root namespace, of the policy that STRICT workloads share.
pub const STATIC_STRICT: &str = "istio_converted_static_strict";
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

pub(super) fn translate(view: &View, policy: &PeerAuthentication) -> Translation {
    let mut authorizations = Vec::new();
    let first = view.peer_authentications().next();
    if first.is_some_and(|first| first.key() == policy.key()) {
        authorizations.push(static_strict(view));
    }
    authorizations.extend(converted(view, policy));
    Translation {
        authorizations,
        ..Translation::default()
    }
}

/// The policies that a workload lists for its effective mode.
pub(super) fn selecting(view: &View, namespace: &str, labels: &Labels) -> Option<PolicyKey> {
    let workload = oldest(view, namespace, |policy| {
        let labels_of = selector(policy);
        !labels_of.is_empty() && labels_match(labels_of, labels)
    });
    let parent = parent_is_strict(view, namespace);
    let strict = match workload {
        Some(policy) => match resolve(&policy.spec, parent) {
            Effective::AllPorts(strict) => strict,
            Effective::StrictBut(_) | Effective::StrictOn(_) => {
                return Some(PolicyKey::new(namespace, converted_name(policy)));
            }
        },
        None => parent,
    };
    strict.then(|| PolicyKey::new(view.context.root_namespace.clone(), STATIC_STRICT))
}

fn converted_name(policy: &PeerAuthentication) -> String {
    format!("{CONVERTED_PREFIX}{}", policy.metadata.name)
}

fn selector(policy: &PeerAuthentication) -> &Labels {
    const EVERYTHING: &Labels = &Labels::new();
    let selector = policy.spec.selector.as_ref();
    selector.map_or(EVERYTHING, |selector| &selector.match_labels)
}

fn oldest<'a>(
    view: &'a View,
    namespace: &str,
    applies: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'a Arc<PeerAuthentication>> {
    view.contents(namespace)?
        .peer_authentications
        .values()
        .filter(|policy| applies(policy))
        .min_by_key(|policy| policy.metadata.age())
}

/// Whether the namespace, or else the mesh, wants STRICT.
fn parent_is_strict(view: &View, namespace: &str) -> bool {
    [namespace, &view.context.root_namespace]
        .into_iter()
        .filter_map(|namespace| oldest(view, namespace, |policy| selector(policy).is_empty()))
        .map(|policy| policy.spec.mtls.mode)
        .find(|mode| *mode != Mode::Unset)
        == Some(Mode::Strict)
}

/// What a policy with a selector and its parents come to.
enum Effective {
    AllPorts(bool),
    /// Ascending; never empty.
    StrictBut(Vec<u16>),
    /// Ascending; never empty.
    StrictOn(Vec<u16>),
}

fn resolve(spec: &PeerAuthenticationSpec, parent_is_strict: bool) -> Effective {
    let mode = spec.mtls.mode;
    let strict = match mode {
        Mode::Strict => true,
        Mode::Permissive | Mode::Disable => false,
        Mode::Unset => parent_is_strict,
    };
    let ports: Vec<u16> = spec
        .port_level_mtls
        .iter()
        .filter(|(_, port)| match (strict, port.mode) {
            (false, port) => port == Mode::Strict,
            (true, Mode::Permissive) => true,
            // Only a mode written in the same policy is undone by DISABLE, not a parent's.
            (true, Mode::Disable) => mode == Mode::Strict,
            (true, Mode::Strict | Mode::Unset) => false,
        })
        .map(|(port, _)| *port)
        .collect();
    match (strict, ports.is_empty()) {
        (strict, true) => Effective::AllPorts(strict),
        (true, false) => Effective::StrictBut(ports),
        (false, false) => Effective::StrictOn(ports),
    }
}

fn converted(view: &View, policy: &PeerAuthentication) -> Option<Authorization> {
    if selector(policy).is_empty() {
        return None;
    }
    let namespace = &policy.metadata.namespace;
    let rules = match resolve(&policy.spec, parent_is_strict(view, namespace)) {
        Effective::AllPorts(_) => return None,
        Effective::StrictOn(ports) => ports
            .into_iter()
            .map(|port| Rule {
                clauses: vec![clause(Match {
                    destination_ports: vec![port],
                    ..plaintext()
                })],
            })
            .collect(),
        Effective::StrictBut(ports) => {
            let mut clauses: Vec<Clause> = ports
                .into_iter()
                .map(|port| {
                    clause(Match {
                        not_destination_ports: vec![port],
                        ..Match::default()
                    })
                })
                .collect();
            // Istio's order, for whoever compares.
            match policy.spec.mtls.mode {
                Mode::Strict => clauses.insert(0, clause(plaintext())),
                Mode::Unset | Mode::Disable | Mode::Permissive => {
                    clauses.push(clause(plaintext()));
                }
            }
            vec![Rule { clauses }]
        }
    };
    Some(deny(namespace, &converted_name(policy), rules))
}

fn static_strict(view: &View) -> Authorization {
    let rule = Rule {
        clauses: vec![clause(plaintext())],
    };
    deny(&view.context.root_namespace, STATIC_STRICT, vec![rule])
}

fn deny(namespace: &str, name: &str, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules,
    }
}

fn clause(one: Match) -> Clause {
    Clause { matches: vec![one] }
}

/// A peer without identity.
fn plaintext() -> Match {
    Match {
        not_principals: vec![StringMatch::Presence],
        ..Match::default()
    }
}
