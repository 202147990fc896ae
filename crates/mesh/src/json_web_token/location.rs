//! Where a request carries tokens: headers, query parameters, cookies.

use http::HeaderMap;
use http::header::COOKIE;

use super::TokenError;
use crate::request_authentication::TokenLocation;

/// The tokens at one location. More than one value of a header that names a token leaves open
/// which one the service would take, so that all must be accepted.
pub fn tokens<'a>(
    location: &TokenLocation,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Result<Vec<&'a str>, TokenError> {
    match location {
        TokenLocation::Header { name, prefix } => {
            let mut tokens = Vec::new();
            for value in headers.get_all(&**name) {
                let Ok(text) = value.to_str() else {
                    // Something is there that may be a token to somebody else.
                    return Err(TokenError::Form);
                };
                if let Some(token) = after_prefix(text, prefix) {
                    tokens.push(token);
                }
            }
            Ok(tokens)
        }
        TokenLocation::Param(name) => Ok(parameters(query)
            .filter(|(parameter, _)| parameter == &&**name)
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
            .collect()),
        TokenLocation::Cookie(name) => {
            let cookies = headers.get_all(COOKIE).iter();
            Ok(cookies
                .filter_map(|value| value.to_str().ok())
                .flat_map(|text| text.split(';'))
                .filter_map(|cookie| cookie.trim().split_once('='))
                .filter(|(cookie, _)| cookie == &&**name)
                .map(|(_, value)| value.trim_matches('"'))
                .filter(|value| !value.is_empty())
                .collect())
        }
    }
}

/// Schemes have any letter case (RFC 9110 §11.1).
fn after_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, token) = text.split_at_checked(prefix.len())?;
    let token = token.trim();
    (start.eq_ignore_ascii_case(prefix) && !token.is_empty()).then_some(token)
}

/// Names and values, as they are written.
pub fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let parameters = query.unwrap_or_default().split('&');
    parameters.filter_map(|parameter| parameter.split_once('='))
}
