//! Istio and Gateway API kinds: types, parsing, validation, translation. Pure: no I/O, no
//! clock; the only crate that knows Istio's YAML.
//!
//! - [`parse`]: the text of one file to [`object::Object`]s, or [`diagnostic::Diagnostic`]s.
//! - [`kind`], [`kinds`]: the closed list of kinds and their types.

pub mod diagnostic;

pub mod labels;

pub mod kind;
pub mod kinds;
pub mod object;

pub mod parse;

mod node;
mod reader;
mod validate;
