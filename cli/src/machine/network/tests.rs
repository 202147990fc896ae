//! The whole network in real namespaces. Needs the right to make them, and fails without it.
