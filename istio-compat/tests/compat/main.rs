//! Tests over whole files: golden pairs, incremental translation, hostile input.

mod golden;
mod hostile;
mod incremental;
mod shown;
