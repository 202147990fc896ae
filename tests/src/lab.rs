//! A real mesh.
