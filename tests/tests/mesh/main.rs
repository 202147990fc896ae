//! The mesh as its users run it: `weft up` over YAML, real processes in real namespaces.

mod shop;

mod addressing;
mod authorization_policy;
mod certificates;
mod encryption;
mod enrolment;
mod errors;
mod forged;
mod outage;
mod peer_authentication;
mod teardown;
mod transfer;
