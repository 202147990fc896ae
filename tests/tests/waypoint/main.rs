//! The waypoint in a real mesh: routes, policies and what goes wrong, on live traffic.

mod authorization_policy;
mod conformance;
mod resilience;
mod shop;
mod smuggling;
