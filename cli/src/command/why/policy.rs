//! What policies say, told to people: which one, where it was written, and on which attribute it
//! turned.

use istio_compat::kind::Kind;
use istio_compat::kinds::authorization_policy::AuthorizationPolicy;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::workload_entry::WorkloadEntry;
use istio_compat::object::ObjectKey;
use istio_compat::translate::{ModeSource, STATIC_STRICT};
use istio_compat::waypoint::attributes::rules_at_nodes;
use istio_compat::waypoint::binding::{Binding, Cause};
use istio_compat::waypoint::reasons::Need;
use mesh::authorization::{
    Action, AttributeTrace, ClauseTrace, Explanation, PolicyKey, PolicyTrace, RuleTrace, Seen,
    Verdict,
};
use mesh::workload::Workload;

use super::answer::{Enforcer, Outcome, Place, Ruling, Stage, Step};
use super::known::Known;

/// Policies of these names are made of other objects.
const REQUIRED: &str = "weft_waypoint_required_";
const CONVERTED: &str = "converted_peer_authentication_";

/// A policy as its author knows it.
struct Named {
    name: String,
    place: Option<Place>,
    /// Number and place of each rule, as its author counts them; where they are told at all.
    rules: Vec<(usize, Option<Place>)>,
    /// What it is for, where the object doesn't say it.
    meaning: Option<String>,
    causes: Vec<String>,
}

/// Where a connection ends: at a workload, on a port.
pub(super) type End<'a> = (&'a Workload, u16);

/// What of a policy turned the verdict: a rule, where it was written, and on which attribute.
struct Turn {
    text: String,
    place: Option<Place>,
}

/// The policies that are told of.
struct Told<'a> {
    known: &'a Known,
    end: Option<End<'a>>,
    enforcer: Enforcer,
}

/// The ruling of a set of policies, and a step for each policy.
pub(super) fn ruling(
    known: &Known,
    explanation: &Explanation,
    end: Option<End<'_>>,
    enforcer: Enforcer,
) -> Ruling {
    let told = Told {
        known,
        end,
        enforcer,
    };
    let mut steps: Vec<(u8, Step)> = explanation
        .policies
        .iter()
        .map(|policy| told.step(policy, &explanation.verdict))
        .collect();
    // What decided comes first.
    steps.sort_by_key(|(rank, _)| *rank);
    let (verdict, reasons) = told.verdict(explanation, &explanation.verdict);
    let allowed = explanation.verdict.is_allowed();
    let mut ruling = Ruling::new(allowed, enforcer, verdict);
    ruling.reasons = reasons;
    if let Some(tried) = &explanation.dry_run
        && tried.is_allowed() != allowed
    {
        let (would, reasons) = told.verdict(explanation, tried);
        ruling.reasons.push(format!("dry run: would be {would}"));
        let reasons = reasons.into_iter().map(|one| format!("dry run: {one}"));
        ruling.reasons.extend(reasons);
    }
    ruling.steps = steps.into_iter().map(|(_, step)| step).collect();
    ruling
}

// === impl Told ===

impl Told<'_> {
    fn named(&self, key: &PolicyKey) -> Named {
        Named::of(self.known, key, self.end, self.enforcer)
    }

    /// The verdict in a sentence, and what it rests on.
    fn verdict(&self, explanation: &Explanation, verdict: &Verdict) -> (String, Vec<String>) {
        let is_tried = *verdict != explanation.verdict;
        let by = |key: &PolicyKey| {
            let named = self.named(key);
            let traced = explanation.policies.iter().find(|one| one.policy == *key);
            let turns: Vec<Turn> = traced.map_or(Vec::new(), |traced| named.holds(traced));
            let title = named.title(turns.first());
            let mut reasons: Vec<String> = named.meaning.iter().cloned().collect();
            reasons.extend(named.causes);
            reasons.extend(turns.into_iter().map(|turn| turn.text));
            (title, reasons)
        };
        match verdict {
            Verdict::AllowedByDefault => (
                "allowed: no policy applies that only lets some in".to_owned(),
                Vec::new(),
            ),
            Verdict::AllowedBy(key) => {
                let (title, reasons) = by(key);
                (format!("allowed by {title}"), reasons)
            }
            Verdict::AdmittedWaypoint(identity) => (
                format!(
                    "allowed: it comes from the waypoint {identity}, which has evaluated policies"
                ),
                Vec::new(),
            ),
            Verdict::DeniedBy(key) => {
                let (title, reasons) = by(key);
                (format!("denied by {title}"), reasons)
            }
            Verdict::NoAllowMatched => {
                let allow = explanation
                    .policies
                    .iter()
                    .filter(|one| one.action == Action::Allow && (is_tried || !one.dry_run));
                let reasons = allow.flat_map(|policy| {
                    let named = self.named(&policy.policy);
                    if policy.rules.is_empty() {
                        let text = format!("{} {}", named.title(None), self.no_rule(policy));
                        return vec![text];
                    }
                    let misses = named.misses(policy).into_iter();
                    misses
                        .map(|turn| format!("{}: {}", named.title(Some(&turn)), turn.text))
                        .collect()
                });
                let verdict = "denied: none of the ALLOW policies that apply matches";
                (verdict.to_owned(), reasons.collect())
            }
            Verdict::PolicyUnknown(key) => (
                format!("denied: policy {key} is named and is not there"),
                Vec::new(),
            ),
        }
    }

    fn no_rule(&self, policy: &PolicyTrace) -> &'static str {
        let object = self
            .known
            .index
            .object(&authorization_policy(&policy.policy));
        match object.and_then(|object| object.get::<AuthorizationPolicy>()) {
            Some(written) if !written.spec.rules.is_empty() => {
                "has no rule that a node can judge: it allows nobody"
            }
            _ => "has no rule: it allows nobody",
        }
    }

    fn step(&self, policy: &PolicyTrace, verdict: &Verdict) -> (u8, Step) {
        let named = self.named(&policy.policy);
        let decides = match verdict {
            Verdict::DeniedBy(key) | Verdict::AllowedBy(key) => *key == policy.policy,
            Verdict::NoAllowMatched => policy.action == Action::Allow,
            Verdict::AllowedByDefault
            | Verdict::AdmittedWaypoint(_)
            | Verdict::PolicyUnknown(_) => false,
        } && !policy.dry_run;
        let action = match policy.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
            Action::Audit => "AUDIT",
        };
        let trial = if policy.dry_run { ", dry run" } else { "" };
        let held = if policy.held {
            "matches"
        } else {
            "does not match"
        };
        let outcome = match (decides, policy.action) {
            (true, Action::Deny) => Outcome::Refuse,
            (true, Action::Allow) if policy.held => Outcome::Pass,
            (true, Action::Allow) => Outcome::Refuse,
            (true, Action::Audit) | (false, _) => Outcome::Neutral,
        };
        let text = format!("{} ({action}{trial}) {held}", named.name);
        let turns = match policy.held {
            true => named.holds(policy),
            false => named.misses(policy),
        };
        let place = turns.first().and_then(|turn| turn.place.clone());
        let place = place.or_else(|| named.place.clone());
        let mut details: Vec<String> = named.meaning.iter().cloned().collect();
        if turns.is_empty() && named.meaning.is_none() && self.enforcer == Enforcer::Node {
            details
                .push("what it says is about requests, of which a node knows nothing".to_owned());
        }
        details.extend(named.causes);
        details.extend(turns.into_iter().map(|turn| match turn.place {
            // The first one stands beside the policy.
            Some(at) if Some(&at) != place.as_ref() => format!("{}, {at}", turn.text),
            Some(_) | None => turn.text,
        }));
        let rank = match (decides, policy.held, policy.dry_run) {
            (true, _, _) => 0,
            (false, true, false) => 1,
            (false, false, false) => 2,
            (false, _, true) => 3,
        };
        let step = Step::new(Stage::Policy, outcome, text)
            .at(place)
            .with(details);
        (rank, step)
    }
}

/// Whether a connection is refused whatever is sent on it.
pub(super) fn refuses_every_request(explanation: &Explanation) -> bool {
    let enforced = || explanation.policies.iter().filter(|one| !one.dry_run);
    let open = |attribute: &AttributeTrace| attribute.seen == Seen::NoRequest;
    let certain = |rule: &RuleTrace| {
        let mut attributes = rule.clauses.iter().flat_map(|one| &one.matches);
        rule.held && !attributes.any(|one| one.attributes.iter().any(open))
    };
    let fails = |clause: &ClauseTrace| {
        !clause.held
            && clause.matches.iter().all(|one| {
                let mut attributes = one.attributes.iter();
                one.unparsable.is_some() || attributes.any(|one| !one.held && !open(one))
            })
    };
    match &explanation.verdict {
        Verdict::DeniedBy(_) => enforced()
            .filter(|one| one.action == Action::Deny)
            .any(|one| one.rules.iter().any(certain)),
        Verdict::NoAllowMatched => enforced()
            .filter(|one| one.action == Action::Allow)
            .flat_map(|one| &one.rules)
            .all(|rule| rule.clauses.iter().any(fails)),
        Verdict::PolicyUnknown(_) => true,
        Verdict::AllowedByDefault | Verdict::AllowedBy(_) | Verdict::AdmittedWaypoint(_) => false,
    }
}

/// The reasons of a binding, each with its place.
pub(super) fn causes_of(known: &Known, binding: &Binding) -> Vec<String> {
    causes_among(known, binding, |_| true)
}

fn causes_among(known: &Known, binding: &Binding, counts: impl Fn(&Need) -> bool) -> Vec<String> {
    let placed = |text: String, place: Option<Place>| match place {
        Some(place) => format!("{text}, {place}"),
        None => text,
    };
    match &binding.cause {
        Cause::Label(source) => {
            let text = format!("{source} says istio.io/use-waypoint");
            vec![placed(text, known.place(source))]
        }
        Cause::Demand(reasons) => {
            let reasons = reasons.iter().filter(|one| counts(&one.need));
            reasons
                .map(|one| {
                    let place = known.place_in(&one.object, |object| one.line(object));
                    placed(one.to_string(), place)
                })
                .collect()
        }
    }
}

// === impl Named ===

impl Named {
    fn of(known: &Known, key: &PolicyKey, end: Option<End<'_>>, enforcer: Enforcer) -> Self {
        let name = &*key.name;
        if let Some(waypoint) = name.strip_prefix(REQUIRED) {
            return Self::required(known, waypoint, end.map(|(workload, _)| workload));
        }
        if name == STATIC_STRICT || name.starts_with(CONVERTED) {
            return Self::strict(known, key, end);
        }
        let object = authorization_policy(key);
        let written = known.index.object(&object);
        let policy = written.and_then(|written| written.get::<AuthorizationPolicy>());
        let numbers = policy.map_or(Vec::new(), |policy| match enforcer {
            Enforcer::Node => rules_at_nodes(policy),
            Enforcer::Waypoint | Enforcer::Nobody => (0..policy.spec.rules.len()).collect(),
        });
        Self {
            name: object.to_string(),
            place: known.place(&object),
            rules: numbers
                .into_iter()
                .map(|index| (index + 1, known.rule_place(&object, index)))
                .collect(),
            meaning: None,
            causes: Vec::new(),
        }
    }

    /// What made the first rule that holds hold.
    fn holds(&self, policy: &PolicyTrace) -> Vec<Turn> {
        let mut rules = policy.rules.iter().enumerate();
        let held = rules.find(|(_, rule)| rule.held);
        let Some((index, rule)) = held.filter(|_| self.meaning.is_none()) else {
            return Vec::new();
        };
        let (number, place) = self.rule(index);
        let turn = |text: String| Turn {
            text: format!("rule {number} matches {text}"),
            place: place.clone(),
        };
        if rule.clauses.is_empty() {
            return vec![turn("everything".to_owned())];
        }
        let matches = rule.clauses.iter().flat_map(|clause| &clause.matches);
        matches
            .filter(|one| one.held)
            .flat_map(|one| {
                let unparsable = one.unparsable.iter().map(ToString::to_string);
                let attributes = one.attributes.iter().filter(|one| one.held);
                attributes.map(ToString::to_string).chain(unparsable)
            })
            .map(turn)
            .collect()
    }

    /// What kept each rule from holding.
    fn misses(&self, policy: &PolicyTrace) -> Vec<Turn> {
        if self.meaning.is_some() {
            return Vec::new();
        }
        if policy.rules.is_empty() {
            let place = self.place.clone();
            let text = "it has no rule".to_owned();
            return vec![Turn { text, place }];
        }
        let rules = policy.rules.iter().enumerate();
        rules
            .filter(|(_, rule)| !rule.held)
            .flat_map(|(index, rule)| {
                let (number, place) = self.rule(index);
                let failed = rule.clauses.iter().filter(|clause| !clause.held);
                let matches = failed.flat_map(|clause| &clause.matches);
                matches.flat_map(move |one| {
                    let unparsable = one.unparsable.iter().map(ToString::to_string);
                    let attributes = one.attributes.iter().filter(|one| !one.held);
                    let place = place.clone();
                    attributes
                        .map(ToString::to_string)
                        .chain(unparsable)
                        .map(move |text| Turn {
                            text: format!("rule {number} fails on {text}"),
                            place: place.clone(),
                        })
                })
            })
            .collect()
    }

    fn rule(&self, index: usize) -> (usize, Option<Place>) {
        let rule = self.rules.get(index).cloned();
        rule.unwrap_or_else(|| (index + 1, self.place.clone()))
    }

    fn required(known: &Known, waypoint: &str, workload: Option<&Workload>) -> Self {
        let waypoint = waypoint.replacen('_', "/", 1);
        let waypoint = waypoint.split('_').next().unwrap_or(&waypoint).to_owned();
        let objects = workload.into_iter().flat_map(|workload| {
            let services = workload.services.keys().filter_map(|key| {
                let entry = known.snapshot.service(key)?;
                Some(known.service_object(key, &entry.service.name))
            });
            std::iter::once(known.workload_object(workload)).chain(services)
        });
        let bindings = objects.filter_map(|object| known.binding(&object));
        let mut causes: Vec<String> = bindings
            .filter(|binding| binding.waypoint.to_string() == waypoint)
            // A route needs the waypoint, and forbids no way around it.
            .flat_map(|binding| causes_among(known, binding, |need| *need != Need::Route))
            .collect();
        causes.sort();
        causes.dedup();
        Self {
            name: format!("weft's rule that waypoint {waypoint} is not bypassed"),
            place: None,
            rules: Vec::new(),
            meaning: Some(format!(
                "only waypoint {waypoint} may connect here, because policies need it"
            )),
            causes,
        }
    }

    /// The mode that holds for the port, and not the object that the policy is made of: that one
    /// may leave it to its parents.
    fn strict(known: &Known, key: &PolicyKey, end: Option<End<'_>>) -> Self {
        let source = end.and_then(|end| mode_source(known, end));
        let name = source.as_ref();
        let name = name.map_or_else(|| key.to_string(), |source| source.policy.to_string());
        Self {
            name,
            place: source.and_then(|ModeSource { policy, port }| {
                known.place_in(&policy, |object| object.mode_line(port))
            }),
            rules: Vec::new(),
            meaning: Some("mutual TLS is STRICT: plaintext is refused".to_owned()),
            causes: Vec::new(),
        }
    }

    /// With the place of the rule that turned the verdict.
    fn title(&self, turn: Option<&Turn>) -> String {
        let at = turn.and_then(|turn| turn.place.as_ref());
        match at.or(self.place.as_ref()) {
            Some(place) => format!("{}, {place}", self.name),
            None => self.name.clone(),
        }
    }
}

fn authorization_policy(key: &PolicyKey) -> ObjectKey {
    let kind = Kind::AuthorizationPolicy;
    ObjectKey::new(kind, key.namespace.clone(), key.name.clone())
}

fn mode_source(known: &Known, (workload, port): End<'_>) -> Option<ModeSource> {
    let object = known.index.object(&known.workload_object(workload));
    let pod = object.and_then(|object| object.get::<Pod>());
    let entry = object.and_then(|object| object.get::<WorkloadEntry>());
    let labels = pod.map(|pod| pod.metadata.labels.clone());
    let labels = labels.or_else(|| Some(entry?.labels())).unwrap_or_default();
    let view = known.index.view();
    view.mode_source(&workload.namespace, &labels, port)
}
