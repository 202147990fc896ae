//! What is served to people and tools on this machine: configuration dump and log levels.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use runtime::logs;
use runtime::signals::Shutdown;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::{OwnCertificate, Shared};

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    certificates: OwnCertificate,
    shutdown: Shutdown,
}

#[derive(Debug, Deserialize)]
struct Logging {
    level: Option<String>,
    reset: Option<String>,
}

/// All of the admin server's paths.
pub fn router(shared: Arc<Shared>, certificates: OwnCertificate, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/config_dump", get(dump))
        .route("/logging", post(change_logging))
        .route("/quitquitquit", post(quit))
        .with_state(Admin {
            shared,
            certificates,
            shutdown,
        })
}

async fn dump(State(admin): State<Admin>) -> impl IntoResponse {
    // Serialising a large mesh takes long enough to hold up everybody else on this thread.
    let dump = tokio::task::spawn_blocking(move || config_dump(&admin).to_string()).await;
    match dump {
        Ok(json) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::OK, kind, json)
        }
        Err(error) => {
            let kind = [(header::CONTENT_TYPE, "text/plain")];
            (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string())
        }
    }
}

/// What the waypoint holds.
fn config_dump(admin: &Admin) -> Value {
    let shared = &admin.shared;
    let snapshot = shared.state.snapshot();
    let services: Vec<Value> = snapshot
        .services()
        .map(|entry| {
            let endpoints = entry.endpoints.iter();
            let endpoints: Vec<&str> = endpoints.map(|one| &*one.workload.uid.0).collect();
            json!({"service": &*entry.service, "endpoints": endpoints})
        })
        .collect();
    let routes: Vec<Value> = snapshot
        .routes()
        .map(|route| json!({"name": route.key.to_string(), "route": format!("{route:?}")}))
        .collect();
    let request_authentications: Vec<Value> = snapshot
        .request_authentications()
        .map(|policy| json!({"name": policy.key().to_string(), "policy": format!("{policy:?}")}))
        .collect();
    json!({
        "config": shared.config,
        "version": env!("CARGO_PKG_VERSION"),
        "workloads": snapshot.workloads().map(|workload| &**workload).collect::<Vec<_>>(),
        "services": services,
        "routes": routes,
        "policies": snapshot.authorization_policies().map(|policy| &**policy).collect::<Vec<_>>(),
        "requestAuthentications": request_authentications,
        "jwks": shared.jwks.dump(),
        "certificates": admin.certificates.manager().dump(),
    })
}

async fn change_logging(Query(change): Query<Logging>) -> (StatusCode, String) {
    let mut result = Ok(logs::levels());
    if change.reset.is_some() {
        result = logs::reset_levels();
    }
    if let (Ok(_), Some(level)) = (&result, &change.level) {
        result = logs::change_levels(level);
    }
    match result {
        Ok(levels) => (StatusCode::OK, format!("current log level is {levels}\n")),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    admin.shutdown.request("quitquitquit");
    "shutting down\n"
}
