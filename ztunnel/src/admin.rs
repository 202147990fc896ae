//! What is served to people and tools on this machine: index, configuration dump, log levels, exit.
//!
//! - [`config_dump`]: the dump, in the shape Istio's tools read.

pub mod config_dump;

use std::fmt::Write;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use runtime::logs;
use runtime::signals::Shutdown;
use serde::Deserialize;
use tokio_util::io::{ReaderStream, SyncIoBridge};

pub use self::config_dump::Dumped;

/// What of a dump waits for whoever reads it, in bytes.
const PIPE: usize = 64 << 10;

/// Paths and what they do, for the index.
const PATHS: &[(&str, &str)] = &[
    ("config_dump", "what this tunnel holds, as JSON"),
    ("logging", "log levels; POST ?level=LEVELS or ?reset"),
    ("quitquitquit", "POST: stop as after SIGTERM"),
    ("debug/pprof/profile", "CPU profile; not built in"),
    ("debug/pprof/heap", "heap profile; not built in"),
];

#[derive(Clone)]
struct Admin {
    dumped: Dumped,
    shutdown: Shutdown,
}

#[derive(Debug, Deserialize)]
struct Logging {
    level: Option<String>,
    reset: Option<String>,
}

/// All of the admin server's paths.
pub fn router(dumped: Dumped, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/config_dump", get(dump))
        .route("/logging", post(change_logging).get(use_post))
        .route("/quitquitquit", post(quit).get(use_post))
        .route("/debug/pprof/profile", get(no_profile))
        .route("/debug/pprof/heap", get(no_profile))
        .route("/debug/pprof/heap/profiling", get(no_profile))
        .with_state(Admin { dumped, shutdown })
}

async fn index() -> Html<String> {
    let mut page = "<!doctype html><title>ztunnel</title><h1>ztunnel</h1><dl>".to_owned();
    for (path, text) in PATHS {
        let _ = write!(page, "<dt><a href=\"{path}\">/{path}</a><dd>{text}");
    }
    page.push_str("</dl>\n");
    Html(page)
}

async fn dump(State(admin): State<Admin>) -> impl IntoResponse {
    let (reader, writer) = tokio::io::duplex(PIPE);
    // Serialising a large mesh takes long enough to hold up everybody else on this thread.
    tokio::task::spawn_blocking(move || {
        // Whoever asked may be gone.
        if let Err(error) = admin.dumped.write(SyncIoBridge::new(writer)) {
            tracing::debug!(%error, "a dump has ended early");
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(ReaderStream::new(reader)))
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
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!(
                "{error}\nusage: POST /logging?level=LEVEL\n       \
                 POST /logging?level=TARGET:LEVEL,...\n       POST /logging?reset\n"
            ),
        ),
    }
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    admin.shutdown.request("quitquitquit");
    "shutting down\n"
}

async fn use_post() -> (StatusCode, &'static str) {
    (StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
}

async fn no_profile() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_IMPLEMENTED,
        "no profiler is built in: one would unwind in a signal handler; perf does it from outside, \
         and the binary carries line tables\n",
    )
}

#[cfg(test)]
mod tests;
