//! A request's host and path, changed on the way.

use mesh::route as model;

use super::super::UrlRewrite;
use crate::error::ConversionError;

impl TryFrom<UrlRewrite> for model::UrlRewrite {
    type Error = ConversionError;

    fn try_from(wire: UrlRewrite) -> Result<Self, Self::Error> {
        Ok(Self {
            hostname: wire.hostname.map(Into::into),
            path: wire.path.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&model::UrlRewrite> for UrlRewrite {
    fn from(rewrite: &model::UrlRewrite) -> Self {
        Self {
            hostname: rewrite.hostname.as_ref().map(ToString::to_string),
            path: rewrite.path.as_ref().map(Into::into),
        }
    }
}
