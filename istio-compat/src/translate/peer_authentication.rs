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
use crate::object::{ObjectKey, Resource};
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

/// Where the mode of a port is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeSource {
    pub policy: ObjectKey,
    /// Under `portLevelMtls`; else it is `mtls.mode`.
    pub port: Option<u16>,
}

impl View {
    /// What says whether a port of a workload takes plaintext; nothing where no mode is set.
    pub fn mode_source(&self, namespace: &str, labels: &Labels, port: u16) -> Option<ModeSource> {
        let source = |policy: &PeerAuthentication, port| ModeSource {
            policy: policy.key(),
            port,
        };
        if let Some(policy) = of_workload(self, namespace, labels) {
            let mode = policy.spec.mtls.mode;
            let strict = is_strict(mode, parent_is_strict(self, namespace));
            let by_port = policy.spec.port_level_mtls.get(&port);
            if by_port.is_some_and(|port| decides(port.mode, mode, strict)) {
                return Some(source(policy, Some(port)));
            }
            if mode != Mode::Unset {
                return Some(source(policy, None));
            }
        }
        parents(self, namespace)
            .next()
            .map(|policy| source(policy, None))
    }
}

/// The policies that a workload lists for its effective mode.
pub(super) fn selecting(view: &View, namespace: &str, labels: &Labels) -> Option<PolicyKey> {
    let workload = of_workload(view, namespace, labels);
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

fn of_workload<'a>(
    view: &'a View,
    namespace: &str,
    labels: &Labels,
) -> Option<&'a Arc<PeerAuthentication>> {
    oldest(view, namespace, |policy| {
        let labels_of = selector(policy);
        !labels_of.is_empty() && labels_match(labels_of, labels)
    })
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

/// Of the namespace, then of the mesh, what sets a mode.
fn parents<'a>(
    view: &'a View,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
    [namespace, &view.context.root_namespace]
        .into_iter()
        .filter_map(|namespace| oldest(view, namespace, |policy| selector(policy).is_empty()))
        .filter(|policy| policy.spec.mtls.mode != Mode::Unset)
}

/// Whether the namespace, or else the mesh, wants STRICT.
fn parent_is_strict(view: &View, namespace: &str) -> bool {
    let first = parents(view, namespace).next();
    first.is_some_and(|policy| policy.spec.mtls.mode == Mode::Strict)
}

fn is_strict(mode: Mode, parent_is_strict: bool) -> bool {
    match mode {
        Mode::Strict => true,
        Mode::Permissive | Mode::Disable => false,
        Mode::Unset => parent_is_strict,
    }
}

/// Whether the mode of a port counts, and not that of its policy or, where `mode` is unset, of
/// a parent.
fn decides(port: Mode, mode: Mode, strict: bool) -> bool {
    match port {
        Mode::Strict | Mode::Permissive => true,
        // Only a mode written in the same policy is undone by DISABLE, not a parent's.
        Mode::Disable => !strict || mode == Mode::Strict,
        Mode::Unset => false,
    }
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
    let strict = is_strict(mode, parent_is_strict);
    let ports: Vec<u16> = spec
        .port_level_mtls
        .iter()
        .filter(|(_, port)| decides(port.mode, mode, strict))
        .filter(|(_, port)| (port.mode == Mode::Strict) != strict)
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
