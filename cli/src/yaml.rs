//! YAML as the commands print it.

use serde::Serialize;

pub(crate) fn to_string(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}
