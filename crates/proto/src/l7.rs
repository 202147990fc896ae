//! Routes, whole policies and accepted tokens, as they travel over xDS to waypoints.
//!
//! What cannot be understood is applied in a form that refuses whatever it may be about, and
//! reported: a rule of a route that answers 500, a policy that denies all it selects.

mod route;

mod backend;
mod filter;
mod http_match;
mod http_rule;
mod named_value_match;
mod path_match;
mod retry;
mod route_parent;
mod tcp_rule;
mod timeouts;

mod authorization_policy;
mod condition;
mod path_pattern;
mod policy_target;
mod request_match;
mod scope;

mod jwt_rule;
mod request_authentication;
mod token_location;

mod duration;

pub use crate::generated::weft::l7::{
    Action, AuthorizationPolicy, Backend, BackendRef, Claim, ClaimToHeader, Clause, Condition,
    Cors, Filter, Gateway, Header, HeaderModifier, HttpCondition, HttpMatch, HttpRule, HttpRules,
    JwtRule, Match, NamedValueMatch, PathMatch, PathModifier, PathPattern, PolicyTarget,
    RequestAuthentication, RequestMatch, RequestMirror, RequestRedirect, Retry, RetryOn, Route,
    RouteParent, Rule, Scope, ServicePort, TcpRule, TcpRules, Timeouts, TokenHeader, TokenLocation,
    UrlRewrite,
};

/// Resource type of [`Route`].
pub const ROUTE_TYPE_URL: &str = "type.googleapis.com/weft.l7.Route";
/// Resource type of [`AuthorizationPolicy`].
pub const AUTHORIZATION_POLICY_TYPE_URL: &str = "type.googleapis.com/weft.l7.AuthorizationPolicy";
/// Resource type of [`RequestAuthentication`].
pub const REQUEST_AUTHENTICATION_TYPE_URL: &str =
    "type.googleapis.com/weft.l7.RequestAuthentication";

/// A resource that is safe to apply, and what of its message was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    pub resource: T,
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests;
