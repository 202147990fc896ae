//! What people and their tools ask the control plane, as JSON over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use istio_compat::kind::Kind;
use istio_compat::object::{Object, ObjectKey, set_gateway, set_generation, set_parents};
use serde_json::{Value, json};
use xds::server::Peers;

mod status;
mod trust;
mod waypoints;

use crate::ca::Authority;
use crate::controller::Knowledge;
use crate::index::Resource;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) knowledge: Knowledge,
    pub(crate) peers: Peers,
    pub(crate) authority: Arc<Authority>,
}

// === impl Api ===

impl Api {
    /// Everything; only the owner of the socket may see it.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/api/v1/status", get(status))
            .route("/api/v1/objects/{kind}", get(objects))
            .route(
                "/api/v1/objects/{kind}/{namespace}",
                get(objects_of_namespace),
            )
            .route("/api/v1/objects/{kind}/{namespace}/{name}", get(object))
            .route("/api/v1/waypoints", get(waypoints))
            .route("/api/v1/trust", get(trust::show))
            .route("/api/v1/trust/{step}", post(trust::take))
            .route("/api/v1/trust/revoke/{serials}", post(trust::revoke))
            .route("/api/v1/debug/snapshot", get(snapshot))
            .route("/ready", get(ready))
            .with_state(self)
    }

    /// What anyone may know.
    pub(crate) fn public_router(self) -> Router {
        Router::new().route("/ready", get(ready)).with_state(self)
    }
}

async fn ready(State(api): State<Api>) -> Response {
    if api.knowledge.is_synced() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the objects are being read\n",
        )
            .into_response()
    }
}

async fn status(State(api): State<Api>) -> Json<Value> {
    Json(status::of(&api.knowledge.read(), &api.peers.connected()))
}

async fn waypoints(State(api): State<Api>) -> Json<Value> {
    Json(waypoints::of(&api.knowledge.read().index))
}

async fn objects(State(api): State<Api>, Path(kind): Path<String>) -> Response {
    list(&api, &kind, None)
}

/// Kinds outside namespaces have their name in the place of the namespace.
async fn objects_of_namespace(
    State(api): State<Api>,
    Path((kind, second)): Path<(String, String)>,
) -> Response {
    match Kind::named(&kind) {
        Some(known) if !known.is_namespaced() => one(&api, ObjectKey::new(known, "", second)),
        _ => list(&api, &kind, Some(&second)),
    }
}

async fn object(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Response {
    match Kind::named(&kind) {
        Some(kind) => one(&api, ObjectKey::new(kind, namespace, name)),
        None => unknown_kind(&kind),
    }
}

fn list(api: &Api, kind: &str, namespace: Option<&str>) -> Response {
    let Some(kind) = Kind::named(kind) else {
        return unknown_kind(kind);
    };
    let state = api.knowledge.read();
    let items: Vec<Value> = state
        .index
        .objects_of(kind, namespace)
        .map(|object| with_conditions(&state.index, object))
        .collect();
    Json(json!({
        "apiVersion": kind.api_version(),
        "kind": format!("{kind}List"),
        "items": items,
    }))
    .into_response()
}

fn one(api: &Api, key: ObjectKey) -> Response {
    let state = api.knowledge.read();
    match state.index.object(&key) {
        Some(object) => Json(with_conditions(&state.index, object)).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no {key}")),
    }
}

fn with_conditions(index: &crate::index::Index, object: &Object) -> Value {
    let key = object.key();
    let mut json = object.to_json(index.conditions(&key));
    set_parents(&mut json, index.parents(&key));
    if let Some(generation) = index.generation(&key) {
        set_generation(&mut json, generation);
    }
    if let Some(status) = index.gateway(&key) {
        set_gateway(&mut json, status);
    }
    json
}

fn unknown_kind(kind: &str) -> Response {
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
    let message = format!("there is no kind {kind:?}; there are {}", known.join(", "));
    refusal(StatusCode::NOT_FOUND, message)
}

fn refusal(code: StatusCode, message: String) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}

/// Every resource in force, in the shape of a ztunnel's dump of its state.
async fn snapshot(State(api): State<Api>) -> Json<Value> {
    let state = api.knowledge.read();
    let (mut workloads, mut services, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut routes, mut whole, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (_, resource) in state.index.resources() {
        match resource {
            Resource::Workload(workload) => workloads.push(json!(**workload)),
            Resource::Service(service) => services.push(json!(**service)),
            Resource::Authorization(policy) => policies.push(json!(**policy)),
            Resource::Route(route) => routes.push(json!(route.key.to_string())),
            Resource::AuthorizationPolicy(policy) => whole.push(json!(**policy)),
            Resource::RequestAuthentication(policy) => {
                tokens.push(json!(policy.key().to_string()));
            }
        }
    }
    Json(json!({
        "workloads": workloads,
        "services": services,
        "policies": policies,
        "routes": routes,
        "authorizationPolicies": whole,
        "requestAuthentications": tokens,
    }))
}
