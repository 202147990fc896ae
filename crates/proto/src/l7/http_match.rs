//! Which requests a rule is about.

use http::{HeaderName, Method};
use mesh::route as model;

use super::{HttpCondition, HttpMatch, NamedValueMatch};
use crate::error::ConversionError;
use crate::generated::weft::l7::http_condition::Condition;

/// Leaves out what is not understood: the match then holds for all requests it may be about.
pub(super) fn decode(wire: &HttpMatch, problems: &mut Vec<String>) -> model::HttpMatch {
    let mut decoded = model::HttpMatch::default();
    for condition in &wire.conditions {
        if let Err(error) = add(&mut decoded, condition) {
            problems.push(error.to_string());
        }
    }
    decoded
}

fn add(to: &mut model::HttpMatch, wire: &HttpCondition) -> Result<(), ConversionError> {
    match &wire.condition {
        Some(Condition::Path(path)) => {
            once("path", &mut to.path, path.try_into()?)?;
        }
        Some(Condition::Method(method)) => {
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|error| ConversionError::value("method", error))?;
            once("method", &mut to.method, method)?;
        }
        Some(Condition::Header(header)) => to.headers.push(header.try_into()?),
        Some(Condition::QueryParam(param)) => to.query_params.push(param.try_into()?),
        None => return Err(ConversionError::Missing("condition")),
    }
    Ok(())
}

fn once<T>(field: &'static str, to: &mut Option<T>, value: T) -> Result<(), ConversionError> {
    match to {
        Some(_) => Err(ConversionError::value(field, "is given twice")),
        None => {
            *to = Some(value);
            Ok(())
        }
    }
}

impl TryFrom<&NamedValueMatch> for model::HeaderMatch {
    type Error = ConversionError;

    fn try_from(wire: &NamedValueMatch) -> Result<Self, Self::Error> {
        let name = HeaderName::from_bytes(wire.name.as_bytes())
            .map_err(|error| ConversionError::value("header", error))?;
        Ok(Self {
            name,
            value: wire.try_into()?,
        })
    }
}

impl TryFrom<&NamedValueMatch> for model::QueryParamMatch {
    type Error = ConversionError;

    fn try_from(wire: &NamedValueMatch) -> Result<Self, Self::Error> {
        Ok(Self {
            name: wire.name.as_str().into(),
            value: wire.try_into()?,
        })
    }
}

impl From<&model::HttpMatch> for HttpMatch {
    fn from(one: &model::HttpMatch) -> Self {
        let path = one.path.iter().map(|path| Condition::Path(path.into()));
        let method = one.method.iter();
        let method = method.map(|method| Condition::Method(method.to_string()));
        let headers = one.headers.iter().map(|header| {
            Condition::Header(NamedValueMatch {
                name: header.name.to_string(),
                value: Some((&header.value).into()),
            })
        });
        let query_params = one.query_params.iter().map(|param| {
            Condition::QueryParam(NamedValueMatch {
                name: param.name.to_string(),
                value: Some((&param.value).into()),
            })
        });
        let conditions = path.chain(method).chain(headers).chain(query_params);
        Self {
            conditions: conditions
                .map(|condition| HttpCondition {
                    condition: Some(condition),
                })
                .collect(),
        }
    }
}
