//! Gateway API's conformance tests for meshes, re-told under their own names.

mod extended;
mod grpc_route;
mod http_route;
mod mesh;
mod redirect;
