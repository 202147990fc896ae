//! A naive model of policies, which the evaluation must agree with.
//!
//! It is written otherwise: rules are multiplied out into conjunctions, patterns become regular
//! expressions over whole texts, and every attribute is true, false or not known. An ALLOW
//! conjunction holds when all is true, any other when nothing is false.

use ipnet::IpNet;
use proptest::prelude::*;
use regex::bytes::RegexBuilder;

use super::evaluation::Facts;
use super::policy_list::PolicyList;
use super::request::OtherReadings;
use super::strategies::{Message, any_connection, any_message, any_policies, policies};
use super::*;
use crate::request::{Claims, Request};

/// What an attribute is held against.
enum Observed {
    Unknown,
    /// All of them are there, and one that matches is enough.
    Any(Vec<Vec<u8>>),
    /// One of them is what the application goes by; which one, nobody knows.
    OneOf(Vec<Vec<u8>>),
}

type Truth = Option<bool>;

// === The model ===

fn fits(pattern: &StringMatch, text: &[u8], any_case: bool) -> bool {
    let quoted = |text: &str| regex::escape(text);
    let expression = match pattern {
        StringMatch::Exact(exact) => quoted(exact),
        StringMatch::Prefix(prefix) => format!("{}.*", quoted(prefix)),
        StringMatch::Suffix(suffix) => format!(".*{}", quoted(suffix)),
        StringMatch::Presence => ".+".to_owned(),
    };
    expression_fits(&expression, text, any_case)
}

fn expression_fits(expression: &str, text: &[u8], any_case: bool) -> bool {
    let whole = format!("^(?:{expression})$");
    let regex = RegexBuilder::new(&whole)
        .case_insensitive(any_case)
        .dot_matches_new_line(true)
        .unicode(false)
        .build();
    regex.expect("escaped").is_match(text)
}

fn truth<T>(wanted: &[T], observed: &Observed, fits: impl Fn(&T, &[u8]) -> bool) -> Truth {
    let fitting = |texts: &[Vec<u8>]| {
        let fits = |text: &&Vec<u8>| wanted.iter().any(|one| fits(one, text));
        texts.iter().filter(fits).count()
    };
    match observed {
        Observed::Unknown => None,
        Observed::Any(texts) => Some(fitting(texts) > 0),
        Observed::OneOf(texts) => match fitting(texts) {
            0 => Some(false),
            all if all == texts.len() => Some(true),
            _ => None,
        },
    }
}

fn any_truth(truths: impl IntoIterator<Item = Truth>) -> Truth {
    let truths: Vec<Truth> = truths.into_iter().collect();
    match truths.contains(&Some(true)) {
        true => Some(true),
        false if truths.contains(&None) => None,
        false => Some(false),
    }
}

fn path_truth(patterns: &[PathPattern], path: &str) -> Truth {
    let plain: Vec<&str> = path
        .split('/')
        .map(|segment| segment.split(';').next().expect("first"))
        .collect();
    let plain = plain.join("/");
    any_truth(patterns.iter().map(|pattern| {
        let text = pattern.to_string();
        let fits = |path: &str| match pattern {
            PathPattern::Text(text) => fits(text, path.as_bytes(), false),
            PathPattern::Template(template) => {
                let expression = regex::escape(template)
                    .replace(r"\{\*\*\}", ".*")
                    .replace(r"\{\*\}", "[^/]+");
                expression_fits(&expression, path.as_bytes(), false)
            }
        };
        match (fits(path), fits(&plain)) {
            (literal, _) if text.contains(';') => Some(literal),
            (true, true) => Some(true),
            (false, false) => Some(false),
            (true, false) | (false, true) => None,
        }
    }))
}

fn principal_truth(patterns: &[StringMatch], claims: &Claims) -> Truth {
    let (issuer, subject) = (claims.issuer.as_bytes(), claims.subject.as_bytes());
    let together = claims.principal();
    any_truth(patterns.iter().map(|pattern| {
        let text = pattern.to_string();
        let parts = match text.rfind('/') {
            Some(slash) => (text[..slash].to_owned(), text[slash + 1..].to_owned()),
            None if text.starts_with('*') => ("*".to_owned(), text.clone()),
            None if text.ends_with('*') => (text.clone(), "*".to_owned()),
            None => return Some(fits(pattern, together.as_bytes(), false)).filter(|fits| !fits),
        };
        let part_fits = |pattern: &str, text: &[u8]| match pattern {
            "*" => !text.is_empty(),
            _ => fits(&StringMatch::parse(pattern), text, false),
        };
        let split = !issuer.is_empty()
            && !subject.is_empty()
            && part_fits(&parts.0, issuer)
            && part_fits(&parts.1, subject);
        match (split, fits(pattern, together.as_bytes(), false)) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }))
}

fn claim_texts(claims: &Claims, path: &[Arc<str>]) -> Vec<Vec<u8>> {
    let pointer: String = path.iter().map(|name| format!("/{name}")).collect();
    let whole = serde_json::Value::Object(claims.all.clone());
    let bytes = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            Some(value.to_string().into_bytes())
        }
        _ => None,
    };
    match whole.pointer(&pointer) {
        Some(serde_json::Value::String(text)) if pointer == "/scope" => text
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect(),
        Some(serde_json::Value::Array(values)) => values.iter().filter_map(bytes).collect(),
        Some(value) => bytes(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn of_token(request: Option<&Request<'_>>, texts: impl Fn(&Claims) -> Vec<Vec<u8>>) -> Observed {
    match request {
        None => Observed::Unknown,
        Some(request) => Observed::Any(request.claims.map(texts).unwrap_or_default()),
    }
}

fn condition_truth(
    condition: &Condition,
    wanted: &[StringMatch],
    connection: &Connection,
    request: Option<&Request<'_>>,
) -> Truth {
    let text = |text: &str| text.as_bytes().to_vec();
    let as_written = |one: &StringMatch, text: &[u8]| fits(one, text, false);
    match &condition.key {
        ConditionKey::Header(name) => {
            let values = request?.headers.get_all(&**name).iter();
            let values = values.map(|value| value.as_bytes().to_vec()).collect();
            truth(wanted, &Observed::OneOf(values), |one, value| {
                *one == StringMatch::Presence || as_written(one, value)
            })
        }
        ConditionKey::Audiences => {
            let audiences = |claims: &Claims| claims.audiences.iter().map(|a| text(a)).collect();
            truth(wanted, &of_token(request, audiences), as_written)
        }
        ConditionKey::Presenter => {
            let presenter = |claims: &Claims| claims.presenter.iter().map(|a| text(a)).collect();
            truth(wanted, &of_token(request, presenter), as_written)
        }
        ConditionKey::Claim(path) => {
            let texts = |claims: &Claims| claim_texts(claims, path);
            truth(wanted, &of_token(request, texts), as_written)
        }
        ConditionKey::TrustDomain => {
            let identity = connection.source_identity.iter();
            let domains = identity.map(|id| text(&id.trust_domain)).collect();
            truth(wanted, &Observed::Any(domains), as_written)
        }
        ConditionKey::Sni => {
            let names = connection.sni.iter().map(|sni| text(sni)).collect();
            truth(wanted, &Observed::Any(names), |one, text| {
                fits(one, text, true)
            })
        }
    }
}

fn within(net: &IpNet, ip: IpAddr) -> bool {
    net.network().is_ipv4() == ip.is_ipv4() && net.network() <= ip && ip <= net.broadcast()
}

/// The truth of each attribute that is set.
fn truths(one: &Match, connection: &Connection, request: Option<&Request<'_>>) -> Vec<Truth> {
    let mut truths = Vec::new();
    let mut attribute = |positive: bool, set: bool, truth: Truth| {
        if set {
            truths.push(truth.map(|truth| truth == positive));
        }
    };
    let id = connection.source_identity.as_ref();
    let of_id = |text: fn(&Identity) -> String| {
        Observed::Any(id.map(|id| text(id).into_bytes()).into_iter().collect())
    };
    let as_written = |one: &StringMatch, text: &[u8]| fits(one, text, false);
    let namespace = of_id(|id| id.namespace.to_string());
    let principal = of_id(|id| id.to_string().replace("spiffe://", ""));
    let account = of_id(|id| format!("{}/{}", id.namespace, id.service_account));
    let account_fits = |one: &ServiceAccountMatch, text: &[u8]| one.to_string().as_bytes() == text;
    let (ip, port) = (connection.destination.ip(), connection.destination.port());
    let in_any = |nets: &[IpNet], ip| Some(nets.iter().any(|net| within(net, ip)));
    for (positive, names, principals, accounts, sources, destinations, ports) in [
        (
            true,
            &one.namespaces,
            &one.principals,
            &one.service_accounts,
            &one.source_ips,
            &one.destination_ips,
            &one.destination_ports,
        ),
        (
            false,
            &one.not_namespaces,
            &one.not_principals,
            &one.not_service_accounts,
            &one.not_source_ips,
            &one.not_destination_ips,
            &one.not_destination_ports,
        ),
    ] {
        attribute(
            positive,
            !names.is_empty(),
            truth(names, &namespace, as_written),
        );
        attribute(
            positive,
            !principals.is_empty(),
            truth(principals, &principal, as_written),
        );
        attribute(
            positive,
            !accounts.is_empty(),
            truth(accounts, &account, account_fits),
        );
        attribute(
            positive,
            !sources.is_empty(),
            in_any(sources, connection.source_ip),
        );
        attribute(positive, !destinations.is_empty(), in_any(destinations, ip));
        attribute(positive, !ports.is_empty(), Some(ports.contains(&port)));
    }
    let Some(l7) = one.request.as_deref() else {
        return truths;
    };
    let host = match request {
        None => Observed::Unknown,
        Some(request) => {
            let port = request.port.map(|port| format!("{}:{port}", request.host));
            let texts = [Some(request.host.to_owned()), port].into_iter().flatten();
            Observed::Any(texts.map(String::into_bytes).collect())
        }
    };
    let method = request.map_or(Observed::Unknown, |request| {
        Observed::Any(vec![request.method.to_string().into_bytes()])
    });
    let path = |patterns| request.and_then(|request| path_truth(patterns, request.path));
    let token = |patterns| {
        request.and_then(|request| match request.claims {
            Some(claims) => principal_truth(patterns, claims),
            None => Some(false),
        })
    };
    let remote = request.map_or(connection.source_ip, |request| request.remote_ip);
    for (positive, hosts, methods, paths, principals, remotes) in [
        (
            true,
            &l7.hosts,
            &l7.methods,
            &l7.paths,
            &l7.request_principals,
            &l7.remote_ips,
        ),
        (
            false,
            &l7.not_hosts,
            &l7.not_methods,
            &l7.not_paths,
            &l7.not_request_principals,
            &l7.not_remote_ips,
        ),
    ] {
        let any_case = |one: &StringMatch, text: &[u8]| fits(one, text, true);
        attribute(positive, !hosts.is_empty(), truth(hosts, &host, any_case));
        attribute(
            positive,
            !methods.is_empty(),
            truth(methods, &method, as_written),
        );
        attribute(positive, !paths.is_empty(), path(paths));
        attribute(positive, !principals.is_empty(), token(principals));
        attribute(positive, !remotes.is_empty(), in_any(remotes, remote));
    }
    for condition in &l7.conditions {
        let of = |wanted| condition_truth(condition, wanted, connection, request);
        let (values, not_values) = (&condition.values, &condition.not_values);
        attribute(true, !values.is_empty(), of(values));
        attribute(false, !not_values.is_empty(), of(not_values));
        attribute(true, values.is_empty() && not_values.is_empty(), None);
    }
    truths
}

/// The rule multiplied out: each conjunction takes one match of every clause that has some.
fn conjunctions(rule: &Rule) -> Vec<Vec<&Match>> {
    let clauses = rule
        .clauses
        .iter()
        .filter(|clause| !clause.matches.is_empty());
    clauses.fold(vec![Vec::new()], |conjunctions, clause| {
        let with = |one| {
            conjunctions
                .iter()
                .map(move |conjunction: &Vec<_>| conjunction.iter().copied().chain([one]).collect())
        };
        clause.matches.iter().flat_map(with).collect()
    })
}

fn holds(policy: &Authorization, connection: &Connection, request: Option<&Request<'_>>) -> bool {
    let conjunctions = || policy.rules.iter().flat_map(conjunctions);
    let truths = |one: &Match| match (&one.unparsable, truths(one, connection, request)) {
        (Some(_), _) => vec![None],
        (None, truths) if truths.is_empty() => vec![Some(false)],
        (None, truths) => truths,
    };
    let mut conjunctions = conjunctions().map(|conjunction| {
        let all: Vec<Truth> = conjunction.into_iter().flat_map(truths).collect();
        all
    });
    match policy.action {
        Action::Allow => conjunctions.any(|all| all.iter().all(|truth| *truth == Some(true))),
        Action::Deny | Action::Audit => {
            conjunctions.any(|all| all.iter().all(|truth| *truth != Some(false)))
        }
    }
}

fn allows(
    policies: &[Authorization],
    connection: &Connection,
    request: Option<&Request<'_>>,
) -> bool {
    let enforced = |action| {
        let chosen = move |policy: &&Authorization| !policy.dry_run && policy.action == action;
        policies.iter().filter(chosen)
    };
    let holds = |policy: &Authorization| holds(policy, connection, request);
    let denied = enforced(Action::Deny).any(holds);
    let without_allow = enforced(Action::Allow).next().is_none();
    !denied && (without_allow || enforced(Action::Allow).any(holds))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn policies_hold_as_in_the_naive_model(
        policies in any_policies(),
        connection in any_connection(),
        message in proptest::option::weighted(0.8, any_message()),
    ) {
        let request = message.as_ref().map(Message::request);
        for policy in &policies {
            let expected = holds(policy, &connection, request.as_ref());
            prop_assert_eq!(policy.matches(&connection, request.as_ref()), expected);
        }
    }

    #[test]
    fn verdicts_agree_with_the_naive_model(
        policies in any_policies(),
        connection in any_connection(),
        message in proptest::option::weighted(0.8, any_message()),
    ) {
        let request = message.as_ref().map(Message::request);
        let verdict = set(&policies, &web()).authorize(&connection, request.as_ref());
        let expected = allows(&policies, &connection, request.as_ref());
        prop_assert_eq!(verdict.is_allowed(), expected);
    }

    #[test]
    fn of_many_policies_those_that_hold_are_found_in_order(
        policies in policies(9..12),
        connection in any_connection(),
        message in proptest::option::of(any_message()),
    ) {
        let request = message.as_ref().map(Message::request);
        let mut list = PolicyList::default();
        policies.iter().for_each(|policy| list.add(&Arc::new(policy.clone())));
        let holds = |policy: &&Authorization| policy.matches(&connection, request.as_ref());
        let others = OtherReadings::default();
        let facts = Facts { connection: &connection, request: request.as_ref(), others: &others };
        let candidates = list.candidates(facts);
        let found: Vec<PolicyKey> = candidates.filter(holds).map(Authorization::key).collect();
        let expected: Vec<PolicyKey> =
            policies.iter().filter(holds).map(Authorization::key).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn an_explanation_has_the_verdict_and_every_policy(
        policies in any_policies(),
        connection in any_connection(),
        message in proptest::option::weighted(0.8, any_message()),
    ) {
        let request = message.as_ref().map(Message::request);
        let set = set(&policies, &web());
        let explanation = set.explain(&connection, request.as_ref());
        prop_assert_eq!(&explanation.verdict, &set.authorize(&connection, request.as_ref()));
        prop_assert_eq!(explanation.policies.len(), policies.len());
        for trace in &explanation.policies {
            let policy = policies.iter().find(|policy| policy.key() == trace.policy);
            let policy = policy.expect("one of them");
            prop_assert_eq!(trace.held, policy.matches(&connection, request.as_ref()));
            prop_assert!(trace.is_consistent(), "{:?}", trace);
            prop_assert_eq!(trace.rules.len(), policy.rules.len());
        }
    }

    #[test]
    fn a_request_less_verdict_is_never_wider_than_one_with_a_request(
        policies in any_policies(),
        connection in any_connection(),
        message in any_message(),
    ) {
        // The peer is the client: what is asked of its address has one answer.
        let mut message = message;
        message.remote_ip = connection.source_ip;
        let without = policies.iter().filter(|policy| policy.action != Action::Audit);
        for policy in without {
            let request = message.request();
            let (with, without) = (
                policy.matches(&connection, Some(&request)),
                policy.matches(&connection, None),
            );
            match policy.action {
                Action::Allow => prop_assert!(with || !without),
                Action::Deny | Action::Audit => prop_assert!(!with || without),
            }
        }
    }
}

impl PolicyTrace {
    /// Whether each level follows from the one below.
    fn is_consistent(&self) -> bool {
        let match_holds = |one: &MatchTrace| {
            let all = !one.attributes.is_empty() && one.attributes.iter().all(|a| a.held);
            match one.unparsable {
                Some(_) => one.held == (self.action != Action::Allow),
                None => one.held == all,
            }
        };
        let clause_holds = |clause: &ClauseTrace| {
            let any = clause.matches.is_empty() || clause.matches.iter().any(|one| one.held);
            clause.held == any && clause.matches.iter().all(match_holds)
        };
        let rule_holds = |rule: &RuleTrace| {
            let all = rule.clauses.iter().all(|clause| clause.held);
            rule.held == all && rule.clauses.iter().all(clause_holds)
        };
        self.held == self.rules.iter().any(|rule| rule.held) && self.rules.iter().all(rule_holds)
    }
}
