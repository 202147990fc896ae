//! What every object carries: name, namespace, labels, annotations, owners; and conditions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kinds::unset;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// Filled in when an object is read: `default` where a namespaced kind has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "unset")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339; set while the object is going away.
    #[serde(skip_serializing_if = "unset")]
    pub deletion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "unset")]
    pub controller: bool,
}

/// The type of condition of a route of which a part is not in force.
pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";

/// One condition of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "unset")]
    pub last_transition_time: Option<String>,
    /// The `metadata.generation` of the object that this was said of.
    #[serde(skip_serializing_if = "unset")]
    pub observed_generation: Option<i64>,
}

// === impl ObjectMeta ===

impl ObjectMeta {
    /// Of two objects that contend, the lesser is the older and wins. Objects of a folder
    /// have no age, so that the name decides among them.
    pub(crate) fn age(&self) -> (Option<&str>, &str, &str) {
        (
            self.creation_timestamp.as_deref(),
            &self.namespace,
            &self.name,
        )
    }

    /// Seconds since the Unix epoch; 0 where it is not told, which is the oldest.
    pub(crate) fn created(&self) -> i64 {
        let written = self.creation_timestamp.as_deref();
        let time = written.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
        time.map_or(0, |time| time.timestamp())
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

// === impl Condition ===

impl Condition {
    pub fn new(type_: &str, status: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: None,
            observed_generation: None,
        }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Whether something is not as it was asked for: most types say so where they don't hold, one where it does.
    pub fn is_amiss(&self) -> bool {
        match self.type_.as_str() {
            PARTIALLY_INVALID => self.is_true(),
            _ => !self.is_true(),
        }
    }
}
