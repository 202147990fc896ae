//! The access log: one line per request or connection, in Istio's two forms.

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Istio's default text.
    Text,
    /// One object, with Istio's keys.
    Json,
}
