//! The waypoint in a real mesh: routes, policies and what goes wrong, on live traffic.

mod authorization_policy;
mod confinement;
mod conformance;
mod dashboards;
mod external;
mod request_authentication;
mod resilience;
mod shop;
mod smuggling;
mod tcp_route;
mod why;
