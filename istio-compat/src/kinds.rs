//! The kinds of Kubernetes and Istio that Weft reads, as their YAML has them.
//!
//! Only what is honoured is a field; [`unused_fields`] lists what is known and left out.

pub mod metadata;
pub mod selector;

pub mod config_map;
pub mod namespace;
pub mod node;
pub mod service_account;

pub mod container;
pub mod deployment;
pub mod pod;
pub mod probe;

pub mod service;

pub mod authorization_policy;
pub mod peer_authentication;
pub mod request_authentication;
pub mod service_entry;
pub mod workload_entry;

pub mod gateway;
pub mod gateway_class;
pub mod reference_grant;

pub mod gateway_duration;
pub mod grpc_route;
pub mod http_route;
pub mod route;
pub mod route_filter;
pub mod tcp_route;

pub(crate) mod unused_fields;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::kinds::metadata::Condition;

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

/// The status of the kinds that carry nothing but conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionsStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// For `skip_serializing_if`: what is unset is not written.
pub(crate) fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// === impl IntOrString ===

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<IntOrString, E> {
                i32::try_from(value)
                    .map(IntOrString::Int)
                    .map_err(|_| E::custom(format_args!("{value} is out of range")))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<IntOrString, E> {
                i32::try_from(value)
                    .map(IntOrString::Int)
                    .map_err(|_| E::custom(format_args!("{value} is out of range")))
            }

            fn visit_str<E>(self, value: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(name) => name.fmt(f),
        }
    }
}
