//! RequestAuthentication: the tokens of a request, as far as they can be verified here.

use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use mesh::json_web_token::{KeySet, Token, TokenError, location};
use mesh::local_reply::Reason;
use mesh::request::Claims;
use mesh::request_authentication::{
    AuthenticationSet, JwtKeys, JwtRule, RequestAuthentication, TokenLocation,
};

use super::answer::{Enforcer, Outcome, Ruling, Stage, Step};
use super::known::Known;
use super::message::Canonical;

/// How far a signature was looked at.
enum Signature {
    Verified,
    /// Its keys are somewhere else.
    Believed,
}

/// A token that no rule accepts, and the rule that came closest.
struct Failed<'a> {
    error: TokenError,
    rule: Option<&'a JwtRule>,
}

/// What the tokens say, or that the request is refused for one.
pub(super) fn authenticate(
    known: &Known,
    set: &AuthenticationSet,
    canonical: &Canonical,
    now: f64,
) -> Result<(Option<Claims>, Vec<Step>), Box<Ruling>> {
    if let Some(refusal) = set.refusal() {
        let status = Reason::AuthorizationDenied(None).reply().status.as_u16();
        let text = format!("denied: {refusal}");
        let ruling = Ruling::new(false, Enforcer::Waypoint, text).status(status);
        return Err(Box::new(ruling));
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut accepted = None;
    let refused = |Failed { error, rule }: Failed<'_>| {
        // A token for somebody else is a good token.
        let reason = match error == TokenError::Audience {
            true => Reason::AuthorizationDenied(None),
            false => Reason::InvalidToken(error.to_string().into()),
        };
        let status = reason.reply().status;
        let policies = set.policies.iter().map(|policy| {
            let object = object_of(policy);
            let place = match rule.and_then(|rule| index_in(policy, rule)) {
                Some(rule) => known.rule_place(&object, rule),
                None => known.place(&object),
            };
            match place {
                Some(place) => format!("{object} accepts no such token, {place}"),
                None => format!("{object} accepts no such token"),
            }
        });
        let step = Step::new(Stage::Token, Outcome::Refuse, error.to_string());
        let ruling = Ruling::new(false, Enforcer::Waypoint, format!("denied: {error}"))
            .status(status.as_u16())
            .because(policies)
            .after(vec![step]);
        Box::new(ruling)
    };
    let presented = presented(set, canonical).map_err(|error| refused(error.into()))?;
    for (text, at) in &presented {
        let token = Token::parse(text).map_err(|error| refused(error.into()))?;
        let (rule, signature) = accept(set, &token, at, now).map_err(&refused)?;
        let claims = token.claims(rule);
        let how = match signature {
            Signature::Verified => "verified with the inline keys",
            Signature::Believed => "taken as if verified: its keys are not at hand",
        };
        let text = format!("token of {}, {how}", claims.principal());
        let mut policies = set.policies.iter();
        let place = policies.find_map(|policy| {
            let index = index_in(policy, rule)?;
            known.rule_place(&object_of(policy), index)
        });
        steps.push(Step::new(Stage::Token, Outcome::Pass, text).at(place));
        accepted.get_or_insert(claims);
    }
    if presented.is_empty() {
        steps.extend(set.policies.iter().map(|policy| {
            let object = object_of(policy);
            let text = format!("{object} applies, and the request brings no token");
            Step::new(Stage::Token, Outcome::Neutral, text).at(known.place(&object))
        }));
    }
    Ok((accepted, steps))
}

/// Every different token, with where it was.
fn presented<'a, 's>(
    set: &'s AuthenticationSet,
    canonical: &'a Canonical,
) -> Result<Vec<(&'a str, &'s TokenLocation)>, TokenError> {
    let mut presented: Vec<(&str, &TokenLocation)> = Vec::new();
    for at in set.rules().flat_map(|rule| &rule.locations) {
        for token in location::tokens(at, &canonical.headers, canonical.query.as_deref())? {
            if !presented.contains(&(token, at)) {
                presented.push((token, at));
            }
        }
    }
    Ok(presented)
}

/// The first rule that the token satisfies, of those that look where it was; else the last one
/// that it doesn't.
fn accept<'s>(
    set: &'s AuthenticationSet,
    token: &Token<'_>,
    at: &TokenLocation,
    now: f64,
) -> Result<(&'s JwtRule, Signature), Failed<'s>> {
    let mut failed = Failed::from(TokenError::UnknownIssuer);
    let rules = set
        .rules()
        .filter(|rule| token.is_of(rule) && rule.locations.contains(at));
    for rule in rules {
        let verified = token
            .check_claims(rule, now)
            .and_then(|()| match &rule.keys {
                JwtKeys::Inline(document) => {
                    let keys = KeySet::parse(document.as_bytes());
                    let keys = keys.map_err(|_| TokenError::KeysUnavailable)?;
                    token.verify(&keys).map(|()| Signature::Verified)
                }
                JwtKeys::Uri(_) | JwtKeys::Discovery => Ok(Signature::Believed),
            });
        match verified {
            Ok(signature) => return Ok((rule, signature)),
            Err(error) => {
                let rule = Some(rule);
                failed = Failed { error, rule };
            }
        }
    }
    Err(failed)
}

fn object_of(policy: &RequestAuthentication) -> ObjectKey {
    let key = policy.key();
    ObjectKey::new(Kind::RequestAuthentication, key.namespace, key.name)
}

fn index_in(policy: &RequestAuthentication, rule: &JwtRule) -> Option<usize> {
    let mut rules = policy.rules.iter();
    rules.position(|one| std::ptr::eq(one, rule))
}

// === impl Failed ===

impl From<TokenError> for Failed<'_> {
    fn from(error: TokenError) -> Self {
        Self { error, rule: None }
    }
}
