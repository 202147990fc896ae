//! A route object.

use mesh::route as model;
use prost::Message;

use super::http_rule;
use super::tcp_rule;
use super::{Decoded, HttpRules, Route, TcpRules};
use crate::error::ConversionError;
use crate::generated::weft::l7::route::Rules;

impl Decoded<model::Route> {
    /// Reads a resource.
    ///
    /// # Errors
    ///
    /// It does not say what it is or what it is attached to, so that there is nothing to refuse.
    pub fn read(key: &model::RouteKey, bytes: &[u8]) -> Result<Self, String> {
        let wire = Route::decode(bytes).map_err(|error| error.to_string())?;
        let decoded = Self::try_from(wire).map_err(|error| error.to_string())?;
        let own = &decoded.resource.key;
        match own == key {
            true => Ok(decoded),
            // It would be removed under another name than it was added.
            false => Err(format!("calls itself {own}")),
        }
    }
}

impl TryFrom<Route> for Decoded<model::Route> {
    type Error = ConversionError;

    fn try_from(wire: Route) -> Result<Self, Self::Error> {
        let Some(kind) = model::RouteKind::named(&wire.kind) else {
            return Err(ConversionError::value("kind", format!("{:?}", wire.kind)));
        };
        let mut problems = Vec::new();
        let mut parents = Vec::new();
        for parent in wire.parents {
            match model::RouteParent::try_from(parent) {
                Ok(parent) => parents.push(parent),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let rules = match wire.rules {
            Some(Rules::Http(HttpRules { rules })) => {
                let rules = rules.into_iter();
                let rules = rules.map(|rule| http_rule::decode(rule, &mut problems));
                model::RouteRules::Http(rules.collect())
            }
            Some(Rules::Tcp(TcpRules { rules })) => {
                let rules = rules.into_iter();
                let rules = rules.map(|rule| tcp_rule::decode(rule, &mut problems));
                model::RouteRules::Tcp(rules.collect())
            }
            None => {
                let error = ConversionError::Missing("rules").to_string();
                let rules = refusing(kind, &error);
                problems.push(error);
                rules
            }
        };
        let resource = model::Route {
            key: model::RouteKey::new(kind, wire.namespace, wire.name),
            parents,
            created: wire.created,
            rules,
        };
        Ok(Self { resource, problems })
    }
}

/// Refuses everything.
fn refusing(kind: model::RouteKind, reason: &str) -> model::RouteRules {
    match kind {
        model::RouteKind::Grpc | model::RouteKind::Http | model::RouteKind::VirtualService => {
            model::RouteRules::Http(vec![http_rule::refusing(None, Vec::new(), reason)])
        }
        model::RouteKind::Tls | model::RouteKind::Tcp => {
            model::RouteRules::Tcp(vec![tcp_rule::refusing(None, reason)])
        }
    }
}

impl From<&model::Route> for Route {
    fn from(route: &model::Route) -> Self {
        let rules = match &route.rules {
            model::RouteRules::Http(rules) => Rules::Http(HttpRules {
                rules: rules.iter().map(Into::into).collect(),
            }),
            model::RouteRules::Tcp(rules) => Rules::Tcp(TcpRules {
                rules: rules.iter().map(Into::into).collect(),
            }),
        };
        Self {
            kind: route.key.kind.name().to_owned(),
            namespace: route.key.namespace.to_string(),
            name: route.key.name.to_string(),
            parents: route.parents.iter().map(Into::into).collect(),
            created: route.created,
            rules: Some(rules),
        }
    }
}
