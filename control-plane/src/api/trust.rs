//! The mesh's roots, and the steps by which one replaces another.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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
    // Keys are made and files synced.
    let taken = tokio::task::spawn_blocking(move || authority.rotate(step)).await;
    match taken {
        Ok(Ok(trust)) => Json(json_of(&trust)).into_response(),
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
