//! Istio and Gateway API kinds: types, parsing, validation, translation. Pure: no I/O, no
//! clock; the only crate that knows Istio's YAML.
//!
//! - [`parse`]: the text of one file to [`object::Object`]s, or [`diagnostic::Diagnostic`]s.
//! - [`kind`], [`kinds`], [`labels`]: the closed list of kinds, their types, and the keys
//!   of labels and annotations.
//! - [`view`]: all objects, indexed; a change names what must be translated again.
//! - [`translate`]: one object, given all others, to what the data plane is told.
//! - [`enablement`]: whether a pod is captured.
//! - [`waypoint`]: why a service needs a waypoint, which one it has, and the objects that run it.
//!
//! # Where Istio leaves a gap, and what is done here
//!
//! | Istio | Here |
//! |---|---|
//! | a waypoint that is missing is bypassed | it is named to the data plane, which refuses, and the status says so |
//! | routes and policies about requests have no effect without a waypoint | the service asks for one, so that connections are refused until it is there; not where the namespace says `weft.dev/waypoint: off` |
//! | dialling a pod goes around the policies of its services' waypoint | the node denies all but that waypoint what a policy about requests covers |
//! | `trustDomains` are ignored at the node, which widens an ALLOW | an ALLOW rule with them is left out; a DENY match with nothing else matches everyone |
//! | invalid ports and ranges in policies are dropped one by one | the file is refused; a match built without validation never allows and always denies |
//! | unknown fields in policies are ignored, empty lists match everything | both are errors in AuthorizationPolicy and PeerAuthentication |
//! | a DENY match of HTTP attributes alone never matches | the same, for the verdict must be Istio's; the status says that it denies nothing |
//! | a port in DISABLE under an inherited STRICT is not exempted | the same: it stays STRICT |
//! | a PeerAuthentication with a selector in the root namespace is ignored | it applies to the workloads of the root namespace |
//! | an unhealthy WorkloadEntry is used | it is unhealthy when its status has `Healthy` or `Ready` not True |
//! | two ServiceEntries of one namespace with the same host both add endpoints | the older owns the host; the other's status says so |
//! | action CUSTOM without its provider denies everything at a waypoint, and nothing at a node | it is not honoured yet: it asks for a waypoint, which denies what the policy covers |
//! | a waypoint leaves consumer routes out | a route on a Service of another namespace is for the clients of its own (GEP-1294) |
//! | a filter that is not known is reported and left out | its requests are answered with 500 |
//! | EndpointSlices place any address behind a service | they are not read |
//! | addresses of ServiceEntries depend on the order of arrival | they start from a hash of owner and host |
//! | UDP ports of services appear beside TCP ones | the mesh carries TCP: others are left out |

pub mod diagnostic;

pub mod labels;

pub mod kind;
pub mod kinds;
pub mod object;

pub mod parse;

pub mod view;

pub mod translate;

pub mod enablement;

pub mod exclusions;

pub mod waypoint;

mod allocate;
mod node;
mod reader;
mod validate;
