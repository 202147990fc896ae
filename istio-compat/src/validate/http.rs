//! The grammar of HTTP's parts in routes and policies: header names and values, methods, paths,
//! regular expressions, URLs.

use mesh::route::Pattern;

type Check = Result<(), String>;

/// Of HTTPRouteMatch; CONNECT and TRACE are there too.
pub(super) const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 4096;
const MAX_PATH: usize = 1024;

/// RFC 9110 §5.6.2: a token.
pub(super) fn header_name(name: &str) -> Check {
    let symbols = "!#$%&'*+-.^_`|~";
    let token = |c: char| c.is_ascii_alphanumeric() || symbols.contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(token) {
        return Err(format!(
            "{name:?} is not a header's name: use at most {MAX_NAME} letters, digits and {symbols}"
        ));
    }
    Ok(())
}

pub(super) fn header_value(value: &str) -> Check {
    if value.is_empty() || value.len() > MAX_VALUE {
        return Err(format!(
            "has {} characters: use from 1 to {MAX_VALUE}",
            value.len()
        ));
    }
    if http::HeaderValue::from_str(value).is_err() {
        return Err(format!("{value:?} is not a header's value"));
    }
    Ok(())
}

/// A path that requests can have once they are normalized.
pub(super) fn path(path: &str) -> Check {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not a path: it starts with /"));
    }
    if path.len() > MAX_PATH {
        return Err(format!(
            "has {} characters, more than {MAX_PATH}",
            path.len()
        ));
    }
    let never = ["//", "/./", "/../", "%2f", "%2F", "#"];
    let end = ["/..", "/."];
    let found = never
        .into_iter()
        .find(|part| path.contains(part))
        .or_else(|| end.into_iter().find(|part| path.ends_with(part)));
    match found {
        Some(part) => Err(format!(
            "{path:?} would match nothing: no request's path has {part:?} in it"
        )),
        None => Ok(()),
    }
}

pub(super) fn pattern(text: &str) -> Check {
    Pattern::new(text)
        .map(|_| ())
        .map_err(|error| format!("is no regular expression that is taken: {error}"))
}

/// Where something is fetched from.
pub(super) fn url(text: &str) -> Check {
    let uri: Option<http::Uri> = text.parse().ok();
    let fine = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri
                .authority()
                .is_some_and(|one| !one.as_str().contains('@'))
    });
    if !fine {
        return Err(format!(
            "{text:?} is not a URL: write https://host/path, without a user in it"
        ));
    }
    Ok(())
}
