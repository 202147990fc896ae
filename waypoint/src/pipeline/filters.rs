//! A rule's filters and its backend's, applied where their turn comes.

use http::{HeaderMap, HeaderValue, Response};
use mesh::local_reply::Reason;
use mesh::path::PathNormalization;
use mesh::request::Request;
use mesh::route::{Cors, Filter, PathMatch, RequestMirror};
use mesh::waypoint::RuleAnswer;

use super::canonical::Canonical;
use crate::message::Body;

/// The filters of a rule.
#[derive(Clone, Copy)]
pub(crate) struct Filters<'a>(pub(crate) &'a [Filter]);

/// What a rule answers in place of a backend: a preflight, or where to go instead.
pub(crate) fn direct_answer(
    answer: RuleAnswer<'_>,
    request: &Request<'_>,
    port: u16,
    matched: Option<&PathMatch>,
) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    match answer {
        RuleAnswer::Preflight(headers) => {
            *response.status_mut() = Cors::PREFLIGHT_STATUS;
            *response.headers_mut() = headers;
        }
        RuleAnswer::Redirect(redirect) => {
            *response.status_mut() = redirect.status;
            if let Some(location) = redirect.location(request, "http", port, matched) {
                response
                    .headers_mut()
                    .insert(http::header::LOCATION, location);
            }
        }
    }
    response
}

// === impl Filters ===

impl<'a> Filters<'a> {
    pub(crate) fn mirrors(self) -> impl Iterator<Item = &'a RequestMirror> {
        self.0.iter().filter_map(|filter| match filter {
            Filter::RequestMirror(mirror) => Some(mirror),
            Filter::RequestHeaderModifier(_)
            | Filter::ResponseHeaderModifier(_)
            | Filter::Cors(_)
            | Filter::UrlRewrite(_)
            | Filter::RequestRedirect(_) => None,
        })
    }

    /// Headers and address of the request, as the backend gets them.
    pub(crate) fn modify_request(
        self,
        canonical: &mut Canonical,
        headers: &mut HeaderMap,
        matched: Option<&PathMatch>,
        normalization: PathNormalization,
    ) -> Result<(), Reason> {
        for filter in self.0 {
            match filter {
                Filter::RequestHeaderModifier(modifier) => modifier.apply(headers),
                Filter::UrlRewrite(rewrite) => {
                    let path = canonical.target.path().to_owned();
                    let rewritten = rewrite
                        .rewrite_path(&path, matched, normalization)
                        .map_err(|error| Reason::BadRequest(error.to_string().into()))?;
                    if rewritten != path {
                        canonical.set_path(&rewritten)?;
                    }
                    if let Some(hostname) = &rewrite.hostname {
                        canonical.set_host(hostname)?;
                    }
                }
                Filter::ResponseHeaderModifier(_)
                | Filter::RequestRedirect(_)
                | Filter::Cors(_)
                | Filter::RequestMirror(_) => {}
            }
        }
        Ok(())
    }

    pub(crate) fn modify_response(self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        for filter in self.0 {
            match filter {
                Filter::ResponseHeaderModifier(modifier) => modifier.apply(headers),
                Filter::Cors(cors) => cors.apply(origin, headers),
                Filter::RequestHeaderModifier(_)
                | Filter::RequestRedirect(_)
                | Filter::UrlRewrite(_)
                | Filter::RequestMirror(_) => {}
            }
        }
    }
}
