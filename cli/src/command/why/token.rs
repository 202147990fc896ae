//! RequestAuthentication: the tokens of a request, as far as they can be verified here.

use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use mesh::json_web_token::{KeySet, Token, TokenError, location};
use mesh::local_reply::Reason;
use mesh::request::Claims;
use mesh::request_authentication::{AuthenticationSet, JwtKeys, JwtRule, TokenLocation};

use super::answer::{Enforcer, Outcome, Ruling, Stage, Step};
use super::known::Known;
use super::message::Canonical;

/// How far a signature was looked at.
enum Signature {
    Verified,
    /// Its keys are somewhere else.
    Believed,
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
    let refused = |error: &TokenError| {
        // A token for somebody else is a good token.
        let reason = match *error == TokenError::Audience {
            true => Reason::AuthorizationDenied(None),
            false => Reason::InvalidToken(error.to_string().into()),
        };
        let status = reason.reply().status;
        let policies = set.policies.iter().map(|policy| {
            let key = policy.key();
            let object = ObjectKey::new(Kind::RequestAuthentication, key.namespace, key.name);
            match known.place(&object) {
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
    let presented = presented(set, canonical).map_err(|error| refused(&error))?;
    for (text, at) in &presented {
        let token = Token::parse(text).map_err(|error| refused(&error))?;
        let (rule, signature) = accept(set, &token, at, now).map_err(|error| refused(&error))?;
        let claims = token.claims(rule);
        let how = match signature {
            Signature::Verified => "verified with the inline keys",
            Signature::Believed => "taken as if verified: its keys are not at hand",
        };
        let text = format!("token of {}, {how}", claims.principal());
        let object = accepting(set, rule);
        let place = object.as_ref().and_then(|object| known.place(object));
        steps.push(Step::new(Stage::Token, Outcome::Pass, text).at(place));
        accepted.get_or_insert(claims);
    }
    if presented.is_empty() {
        steps.extend(set.policies.iter().map(|policy| {
            let key = policy.key();
            let object = ObjectKey::new(Kind::RequestAuthentication, key.namespace, key.name);
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

/// The first rule that the token satisfies, of those that look where it was.
fn accept<'s>(
    set: &'s AuthenticationSet,
    token: &Token<'_>,
    at: &TokenLocation,
    now: f64,
) -> Result<(&'s JwtRule, Signature), TokenError> {
    let mut error = TokenError::UnknownIssuer;
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
            Err(refused) => error = refused,
        }
    }
    Err(error)
}

fn accepting(set: &AuthenticationSet, rule: &JwtRule) -> Option<ObjectKey> {
    let policy = set
        .policies
        .iter()
        .find(|policy| policy.rules.iter().any(|one| std::ptr::eq(one, rule)))?;
    let key = policy.key();
    Some(ObjectKey::new(
        Kind::RequestAuthentication,
        key.namespace,
        key.name,
    ))
}
