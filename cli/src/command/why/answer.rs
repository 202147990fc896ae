//! The answer: a verdict, who gives it, what it rests on, and each step that led to it.

use serde::Serialize;

/// What becomes of a connection or a request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) allowed: bool,
    pub(super) enforced_by: Enforcer,
    /// One sentence.
    pub(super) verdict: String,
    /// What the client is answered, where that is not for the service to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// What decided, most important first.
    pub(super) reasons: Vec<String>,
    /// Whether only a request could be judged further.
    pub(super) needs_request: bool,
    pub(super) source: String,
    pub(super) destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<String>,
    pub(super) route: Option<RouteSeen>,
    pub(super) trace: Vec<Step>,
    /// What to know about the answer itself.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Enforcer {
    Node,
    Waypoint,
    /// The mesh has no part in it.
    Nobody,
}

/// The rule that a request, or a connection, goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteSeen {
    /// None: no route is attached, and the service's own endpoints serve.
    pub(super) route: Option<String>,
    /// Counted from 1, as every rule here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<usize>,
    pub(super) backends: Vec<String>,
    #[serde(flatten)]
    pub(super) place: Option<Place>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) stage: Stage,
    pub(super) outcome: Outcome,
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) place: Option<Place>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) details: Vec<String>,
}

/// In the order in which a connection meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    Source,
    Destination,
    Waypoint,
    Request,
    Token,
    Policy,
    Route,
    Backend,
    Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It lets the connection pass.
    Pass,
    /// It ends it.
    Refuse,
    /// It has no say.
    Neutral,
}

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: u32,
}

/// What becomes of a connection at one of its possible ends.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    pub(super) allowed: bool,
    pub(super) enforced_by: Enforcer,
    pub(super) verdict: String,
    pub(super) status: Option<u16>,
    pub(super) reasons: Vec<String>,
    pub(super) needs_request: bool,
    pub(super) route: Option<RouteSeen>,
    pub(super) steps: Vec<Step>,
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

// === impl Stage ===

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
            Self::Request => "request",
            Self::Token => "token",
            Self::Policy => "policy",
            Self::Route => "route",
            Self::Backend => "backend",
            Self::Node => "node",
        }
    }
}

// === impl Step ===

impl Step {
    pub(super) fn new(stage: Stage, outcome: Outcome, text: impl Into<String>) -> Self {
        Self {
            stage,
            outcome,
            text: text.into(),
            place: None,
            details: Vec::new(),
        }
    }

    pub(super) fn at(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }

    pub(super) fn with(self, details: impl IntoIterator<Item = String>) -> Self {
        Self {
            details: details.into_iter().collect(),
            ..self
        }
    }
}

// === impl Ruling ===

impl Ruling {
    pub(super) fn new(allowed: bool, enforced_by: Enforcer, verdict: impl Into<String>) -> Self {
        Self {
            allowed,
            enforced_by,
            verdict: verdict.into(),
            status: None,
            reasons: Vec::new(),
            needs_request: false,
            route: None,
            steps: Vec::new(),
        }
    }

    pub(super) fn because(self, reasons: impl IntoIterator<Item = String>) -> Self {
        Self {
            reasons: reasons.into_iter().collect(),
            ..self
        }
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    /// What was seen before the end was reached.
    pub(super) fn after(mut self, steps: Vec<Step>) -> Self {
        self.steps.splice(0..0, steps);
        self
    }

    /// Of several possible ends. Where they differ, what is refused at some is refused.
    pub(super) fn together(mut rulings: Vec<(String, Self)>) -> Option<Self> {
        let of = |ruling: &Self| (ruling.allowed, ruling.verdict.clone());
        let first = of(&rulings.first()?.1);
        if rulings.iter().all(|(_, ruling)| of(ruling) == first) {
            return Some(rulings.swap_remove(0).1);
        }
        let total = rulings.len();
        let refused = rulings.iter().filter(|(_, ruling)| !ruling.allowed);
        let refused = refused.count();
        let others: Vec<String> = rulings
            .iter()
            .map(|(end, ruling)| format!("{end}: {}", ruling.verdict))
            .collect();
        // One that is refused tells more.
        let at = rulings.iter().position(|(_, ruling)| !ruling.allowed);
        let (_, mut ruling) = rulings.swap_remove(at.unwrap_or(0));
        if refused > 0 && refused < total {
            ruling.verdict = format!("{}, at {refused} of {total} ends", ruling.verdict);
        }
        ruling.reasons.extend(others);
        Some(ruling)
    }
}
