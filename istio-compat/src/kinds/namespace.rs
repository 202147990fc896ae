//! A namespace and the labels that opt its pods in.

use serde::{Deserialize, Serialize};

use crate::kinds::metadata::ObjectMeta;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    pub metadata: ObjectMeta,
}
