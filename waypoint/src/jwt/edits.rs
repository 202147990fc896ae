//! What tokens change of a request: claims become headers, tokens that stay here are taken out.

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use mesh::request::Claims;
use mesh::request_authentication::{JwtRule, TokenLocation};
use serde_json::Value;

use super::Token;

/// Changes to apply once it is known where the request goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    remove_cookies: Vec<String>,
    remove_parameters: Vec<String>,
    set: Vec<(HeaderName, HeaderValue)>,
}

// === impl Edits ===

impl Edits {
    /// No client says for itself what a header tells that carries a claim.
    pub(crate) fn sanitize<'a>(&mut self, rules: impl Iterator<Item = &'a JwtRule>) {
        for rule in rules {
            let payload = rule.output_payload_to_header.iter();
            let claims = rule.output_claim_to_headers.iter().map(|one| &one.header);
            for name in payload.chain(claims) {
                if let Ok(name) = name.parse::<HeaderName>()
                    && !self.remove.contains(&name)
                {
                    self.remove.push(name);
                }
            }
        }
    }

    /// What an accepted token brings with it.
    pub(crate) fn accept(
        &mut self,
        token: &Token<'_>,
        rule: &JwtRule,
        location: &TokenLocation,
        claims: &Claims,
    ) {
        if !rule.forward_original_token {
            match location {
                TokenLocation::Header { name, .. } => {
                    if let Ok(name) = name.parse() {
                        self.remove.push(name);
                    }
                }
                TokenLocation::Param(name) => self.remove_parameters.push(name.to_string()),
                TokenLocation::Cookie(name) => self.remove_cookies.push(name.to_string()),
            }
        }
        if let Some(name) = &rule.output_payload_to_header {
            self.set(name, token.payload);
        }
        for output in &rule.output_claim_to_headers {
            let path = output.claim.split('.');
            let mut value = Some(Lookup::Object(&claims.all));
            for name in path {
                value = value.and_then(|value| value.member(name));
            }
            if let Some(text) = value.and_then(Lookup::text) {
                self.set(&output.header, &text);
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        // A claim that is no header's value is left out; its header stays removed.
        if let (Ok(name), Ok(value)) = (name.parse(), HeaderValue::from_str(value)) {
            self.set.push((name, value));
        }
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        if !self.remove_cookies.is_empty() {
            self.strip_cookies(headers);
        }
    }

    /// The query without its tokens, where it had some: none in place of an empty one.
    pub(crate) fn query(&self, query: Option<&str>) -> Option<Option<String>> {
        if self.remove_parameters.is_empty() {
            return None;
        }
        let is_token = |parameter: &&str| {
            let name = parameter.split('=').next().unwrap_or_default();
            self.remove_parameters.iter().any(|token| token == name)
        };
        let parameters = query?.split('&').filter(|parameter| !is_token(parameter));
        let kept: Vec<&str> = parameters.collect();
        Some((!kept.is_empty()).then(|| kept.join("&")))
    }

    fn strip_cookies(&self, headers: &mut HeaderMap) {
        let is_token = |cookie: &&str| {
            let name = cookie.trim().split('=').next().unwrap_or_default();
            self.remove_cookies.iter().any(|token| token == name)
        };
        let stripped: Vec<HeaderValue> = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| match value.to_str() {
                Ok(text) => {
                    let kept: Vec<&str> =
                        text.split(';').filter(|cookie| !is_token(cookie)).collect();
                    let kept = kept.join(";");
                    let kept = kept.trim();
                    (!kept.is_empty()).then(|| HeaderValue::from_str(kept).ok())?
                }
                Err(_) => Some(value.clone()),
            })
            .collect();
        headers.remove(COOKIE);
        for value in stripped {
            headers.append(COOKIE, value);
        }
    }
}

/// A place in the claims.
enum Lookup<'a> {
    Object(&'a serde_json::Map<String, Value>),
    Value(&'a Value),
}

// === impl Lookup ===

impl<'a> Lookup<'a> {
    fn member(self, name: &str) -> Option<Self> {
        let object = match self {
            Self::Object(object) => object,
            Self::Value(value) => value.as_object()?,
        };
        object.get(name).map(Self::Value)
    }

    /// Strings as they are, numbers and truth values in JSON; what is made of several is its JSON in
    /// base64, as Istio has it.
    fn text(self) -> Option<String> {
        match self {
            Self::Object(_) => None,
            Self::Value(Value::String(text)) => Some(text.clone()),
            Self::Value(value @ (Value::Number(_) | Value::Bool(_))) => Some(value.to_string()),
            Self::Value(Value::Null) => None,
            Self::Value(value @ (Value::Array(_) | Value::Object(_))) => {
                use base64::Engine;
                let json = value.to_string();
                Some(base64::engine::general_purpose::STANDARD.encode(json))
            }
        }
    }
}
