//! RequestAuthentication: whether the tokens a request brings are good, and what they say.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header};
use mesh::local_reply::{LocalReply, Reason};
use mesh::request::Claims;
use mesh::request_authentication::{AuthenticationSet, JwtRule, TokenLocation};
use tokio::time::Instant;

use super::Worker;
use super::canonical::Canonical;
use crate::jwks::Source;
use crate::jwks::fetch::Fetcher;
use crate::jwks::schedule::Step;
use crate::jwt::{Edits, KeySet, Token, TokenError, location};
use crate::message::Upstream;

/// What the tokens of a request came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authenticated {
    pub(crate) claims: Option<Rc<Claims>>,
    pub(crate) edits: Rc<Edits>,
}

/// Why a request is refused for its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    error: TokenError,
    realm: String,
}

// === impl Worker ===

impl<U: Upstream + Clone + 'static> Worker<U> {
    /// No token is no error: whether one is needed is for authorization to say.
    pub(crate) async fn authenticate(
        self: &Rc<Self>,
        set: &AuthenticationSet,
        canonical: &Canonical,
        headers: &HeaderMap,
    ) -> Result<Authenticated, LocalReply> {
        if set.policies.is_empty() && set.unknown.is_none() {
            return Ok(Authenticated::default());
        }
        if let Some(refusal) = set.refusal() {
            tracing::warn!(%refusal, "request refused");
            return Err(Reason::AuthorizationDenied(None).reply());
        }
        let rejected = |error| {
            Rejection {
                error,
                realm: format!(
                    "http://{}{}",
                    canonical.authority(),
                    canonical.target.path()
                ),
            }
            .reply()
        };
        let mut edits = Edits::default();
        edits.sanitize(set.rules());
        let mut accepted: Option<Rc<Claims>> = None;
        for (text, location) in
            presented(set, headers, canonical.target.query()).map_err(&rejected)?
        {
            let token = Token::parse(text).map_err(&rejected)?;
            // What only a token needs does not stay with every request.
            let (rule, claims) = Box::pin(self.accept(set, &token, location))
                .await
                .map_err(&rejected)?;
            edits.accept(&token, rule, location, &claims);
            accepted.get_or_insert_with(|| Rc::new(claims));
        }
        Ok(Authenticated {
            claims: accepted,
            edits: Rc::new(edits),
        })
    }

    /// The first rule that the token satisfies, of those that look where it was.
    async fn accept<'a>(
        self: &Rc<Self>,
        set: &'a AuthenticationSet,
        token: &Token<'_>,
        location: &TokenLocation,
    ) -> Result<(&'a JwtRule, Claims), TokenError> {
        let mut error = TokenError::UnknownIssuer;
        let rules = set
            .rules()
            .filter(|rule| token.is_of(rule) && rule.locations.contains(location));
        for rule in rules {
            let verified = match token.check_claims(rule, now()) {
                Ok(()) => self.verify(token, rule).await,
                Err(error) => Err(error),
            };
            match verified {
                Ok(()) => return Ok((rule, token.claims(rule))),
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }

    async fn verify(self: &Rc<Self>, token: &Token<'_>, rule: &JwtRule) -> Result<(), TokenError> {
        let source = self.shared.jwks.source(rule);
        let keys = self.keys(&source, rule.timeout, false).await?;
        match self.verify_once(token, &keys) {
            Err(TokenError::UnknownKey) => {
                // Perhaps keys were rotated.
                let newer = self.keys(&source, rule.timeout, true).await?;
                if Arc::ptr_eq(&newer, &keys) {
                    return Err(TokenError::UnknownKey);
                }
                self.verify_once(token, &newer)
            }
            verified => verified,
        }
    }

    fn verify_once(&self, token: &Token<'_>, keys: &Arc<KeySet>) -> Result<(), TokenError> {
        if self.verified.borrow_mut().contains(token.text(), keys) {
            metrics::counter!("waypoint_jwt_verifications_saved_total").increment(1);
            return Ok(());
        }
        token.verify(keys)?;
        self.verified.borrow_mut().insert(token.text(), keys);
        Ok(())
    }

    async fn keys(
        self: &Rc<Self>,
        source: &Arc<Source>,
        limit: Duration,
        unknown_key: bool,
    ) -> Result<Arc<KeySet>, TokenError> {
        match source.step(Instant::now(), unknown_key) {
            Step::UseWhatIsThere => {}
            Step::FetchInBackground => self.fetch_keys(source),
            Step::FetchAndWait => {
                self.fetch_keys(source);
                // What came too late may be here for the next one.
                let _ = source.wait(limit).await;
            }
            Step::Wait => {
                let _ = source.wait(limit).await;
            }
        }
        source.keys().ok_or_else(|| {
            tracing::debug!(reason = %source.failure(), "no keys to verify a token with");
            TokenError::KeysUnavailable
        })
    }

    /// On its own, so that no request that goes away takes it along.
    fn fetch_keys(self: &Rc<Self>, source: &Arc<Source>) {
        let (worker, source) = (self.clone(), source.clone());
        tokio::task::spawn_local(async move {
            let fetcher = Fetcher {
                config: &worker.shared.config.jwks,
                upstream: &worker.upstream,
                in_mesh: |host: &str, port| worker.endpoint_in_mesh(host, port),
            };
            let result = fetcher.fetch(&source.origin).await;
            let result = result.map_err(|error| error.to_string());
            source.finish(result, Instant::now());
        });
    }
}

/// Every different token of the request, with where it was.
fn presented<'a, 's>(
    set: &'s AuthenticationSet,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Result<Vec<(&'a str, &'s TokenLocation)>, TokenError> {
    let mut presented: Vec<(&str, &TokenLocation)> = Vec::new();
    for location in set.rules().flat_map(|rule| &rule.locations) {
        for token in location::tokens(location, headers, query)? {
            let known = presented
                .iter()
                .any(|(text, at)| *text == token && *at == location);
            if !known {
                presented.push((token, location));
            }
        }
    }
    Ok(presented)
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

// === impl Rejection ===

impl Rejection {
    /// A token for somebody else is a good token: 403, as Envoy has it.
    fn reply(&self) -> LocalReply {
        let mut reply = Reason::InvalidToken(self.error.to_string().into()).reply();
        if self.error == TokenError::Audience {
            reply.status = http::StatusCode::FORBIDDEN;
            reply.header = None;
            return reply;
        }
        let realm = self.realm.replace(['"', '\\'], "");
        let challenge = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            reply.header = Some((header::WWW_AUTHENTICATE, value));
        }
        reply
    }
}
