//! The mesh as its users run it: `weft up` over YAML, real processes in real namespaces.

mod load;
mod shop;

mod addressing;
mod authorization_policy;
mod certificates;
mod crash;
mod deletion;
mod demo;
mod deployments;
mod encryption;
mod enrolment;
mod errors;
mod exclusions;
mod external;
mod forged;
mod locality;
mod outage;
mod peer_authentication;
mod revocation;
mod rootless;
mod scraping;
mod teardown;
mod transfer;
mod trust;
mod upgrade;
mod waypoint;
