//! One `when` of a policy's rule.

use mesh::authorization as model;

use super::{Claim, Condition};
use crate::authorization::r#match::encode_strings;
use crate::authorization::{StringMatch, string_match};
use crate::error::ConversionError;
use crate::generated::weft::l7::condition::Key;

impl TryFrom<Condition> for model::Condition {
    type Error = ConversionError;

    fn try_from(wire: Condition) -> Result<Self, Self::Error> {
        let key = match wire.key {
            Some(Key::Header(name)) => model::ConditionKey::Header(name.into()),
            Some(Key::Audiences(())) => model::ConditionKey::Audiences,
            Some(Key::Presenter(())) => model::ConditionKey::Presenter,
            Some(Key::Claim(claim)) => {
                model::ConditionKey::Claim(claim.path.into_iter().map(Into::into).collect())
            }
            Some(Key::TrustDomain(())) => model::ConditionKey::TrustDomain,
            Some(Key::Sni(())) => model::ConditionKey::Sni,
            None => return Err(ConversionError::Missing("conditions.key")),
        };
        Ok(Self {
            key,
            values: decode_strings("conditions.values", wire.values)?,
            not_values: decode_strings("conditions.not_values", wire.not_values)?,
        })
    }
}

pub(super) fn decode_strings(
    field: &'static str,
    wire: Vec<StringMatch>,
) -> Result<Vec<model::StringMatch>, ConversionError> {
    let one = |one| string_match::decode(field, one);
    wire.into_iter().map(one).collect()
}

impl From<&model::Condition> for Condition {
    fn from(condition: &model::Condition) -> Self {
        let key = match &condition.key {
            model::ConditionKey::Header(name) => Key::Header(name.to_string()),
            model::ConditionKey::Audiences => Key::Audiences(()),
            model::ConditionKey::Presenter => Key::Presenter(()),
            model::ConditionKey::Claim(path) => Key::Claim(Claim {
                path: path.iter().map(ToString::to_string).collect(),
            }),
            model::ConditionKey::TrustDomain => Key::TrustDomain(()),
            model::ConditionKey::Sni => Key::Sni(()),
        };
        Self {
            key: Some(key),
            values: encode_strings(&condition.values),
            not_values: encode_strings(&condition.not_values),
        }
    }
}
