//! What is done to a request or its response on the way.

mod header_modifier;

mod request_redirect;

mod url_rewrite;

mod path_modifier;

mod request_mirror;

mod cors;

use mesh::route as model;

use super::Filter;
use crate::error::ConversionError;
use crate::generated::weft::l7::filter::Filter as Kind;

impl TryFrom<Filter> for model::Filter {
    type Error = ConversionError;

    fn try_from(wire: Filter) -> Result<Self, Self::Error> {
        Ok(match wire.filter {
            Some(Kind::RequestHeaderModifier(modifier)) => {
                Self::RequestHeaderModifier(modifier.try_into()?)
            }
            Some(Kind::ResponseHeaderModifier(modifier)) => {
                Self::ResponseHeaderModifier(modifier.try_into()?)
            }
            Some(Kind::RequestRedirect(redirect)) => Self::RequestRedirect(redirect.try_into()?),
            Some(Kind::UrlRewrite(rewrite)) => Self::UrlRewrite(rewrite.try_into()?),
            Some(Kind::RequestMirror(mirror)) => Self::RequestMirror(mirror.try_into()?),
            Some(Kind::Cors(cors)) => Self::Cors(cors.try_into()?),
            None => return Err(ConversionError::Missing("filter")),
        })
    }
}

impl From<&model::Filter> for Filter {
    fn from(filter: &model::Filter) -> Self {
        let filter = match filter {
            model::Filter::RequestHeaderModifier(modifier) => {
                Kind::RequestHeaderModifier(modifier.into())
            }
            model::Filter::ResponseHeaderModifier(modifier) => {
                Kind::ResponseHeaderModifier(modifier.into())
            }
            model::Filter::RequestRedirect(redirect) => Kind::RequestRedirect(redirect.into()),
            model::Filter::UrlRewrite(rewrite) => Kind::UrlRewrite(rewrite.into()),
            model::Filter::RequestMirror(mirror) => Kind::RequestMirror(mirror.into()),
            model::Filter::Cors(cors) => Kind::Cors(cors.into()),
        };
        Self {
            filter: Some(filter),
        }
    }
}
