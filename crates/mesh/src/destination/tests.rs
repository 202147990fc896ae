//! Tests of the destination tables.
