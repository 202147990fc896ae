//! The mesh's roots, the steps by which one replaces another, and taking certificates back.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use identity::serial::Serial;
use serde_json::{Value, json};

use super::{Api, refusal};
use crate::ca::{Step, StoreError, Trust};

pub(super) async fn show(State(api): State<Api>) -> Json<Value> {
    Json(json_of(&api.authority.trust()))
}

pub(super) async fn take(State(api): State<Api>, Path(step): Path<String>) -> Response {
    let Ok(step) = step.parse::<Step>() else {
        let message = format!("{step:?} is no step: add, switch or remove");
        return refusal(StatusCode::NOT_FOUND, message);
    };
    let authority = api.authority.clone();
    answer(move || authority.rotate(step).map(|trust| json_of(&trust))).await
}

/// By their numbers in decimal, with commas between them.
pub(super) async fn revoke(State(api): State<Api>, Path(serials): Path<String>) -> Response {
    let read: Result<Vec<Serial>, _> = serials.split(',').map(str::parse).collect();
    let revoked = match read {
        Ok(revoked) => revoked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let authority = api.authority.clone();
    answer(move || {
        authority
            .revoke(&revoked)
            .map(|()| json!({ "revoked": serials }))
    })
    .await
}

/// Keys are made and files synced meanwhile.
async fn answer(work: impl FnOnce() -> Result<Value, StoreError> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(error @ (StoreError::OutOfTurn { .. } | StoreError::NotOurs))) => {
            refusal(StatusCode::CONFLICT, error.to_string())
        }
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn json_of(trust: &Trust) -> Value {
    json!({ "phase": trust.phase, "roots": trust.roots })
}
