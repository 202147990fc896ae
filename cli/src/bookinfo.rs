//! The demo application, bookinfo-shaped: a page that calls details and reviews (v1, v2, v3),
//! and reviews that call ratings, all in this one binary.

pub(crate) mod reviews;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::ValueEnum;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use runtime::causes;
use serde_json::{Value, json};

/// How long one service waits for another.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

/// Serves one of the services until killed.
pub(crate) async fn serve(service: Service, version: String, port: u16) -> anyhow::Result<()> {
    let application = match service {
        Service::Productpage => Router::new().route("/productpage", get(productpage)),
        Service::Details => Router::new().route("/details/{book}", get(details)),
        Service::Reviews => Router::new().route(
            "/reviews/{book}",
            get(move || reviews::answer(version.clone())),
        ),
        Service::Ratings => Router::new().route("/ratings/{book}", get(ratings)),
    }
    .route("/health", get(|| async { "ok\n" }));
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await?;
    axum::serve(listener, application).await?;
    Ok(())
}

async fn productpage() -> Response {
    let (details, reviews) = tokio::join!(
        fetch("http://details:9080/details/0"),
        fetch("http://reviews:9080/reviews/0"),
    );
    let failed = details.is_err() && reviews.is_err();
    let page = json!({
        "title": "The Comedy of Errors",
        "details": details.unwrap_or_else(|error| json!({ "error": error })),
        "reviews": reviews.unwrap_or_else(|error| json!({ "error": error })),
    });
    let status = if failed {
        StatusCode::BAD_GATEWAY
    } else {
        StatusCode::OK
    };
    (status, format!("{page:#}\n")).into_response()
}

async fn details() -> String {
    json!({ "author": "William Shakespeare", "year": 1595, "pages": 200 }).to_string()
}

async fn ratings() -> String {
    json!({ "Reviewer1": 5, "Reviewer2": 4 }).to_string()
}

/// Asks another service; the error says what went wrong, for the page to show.
pub(crate) async fn fetch(url: &str) -> Result<Value, String> {
    ask(Method::GET, url).await
}

/// The same by any method.
pub(crate) async fn ask(method: Method, url: &str) -> Result<Value, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Empty::new())
        .map_err(|error| format!("{url}: {error}"))?;
    let exchange = async {
        let response = client
            .request(request)
            .await
            .map_err(|error| causes::told(error.to_string(), &error))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| causes::told(error.to_string(), &error))?
            .to_bytes();
        if !status.is_success() {
            return Err(format!("{status}"));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(result) => result.map_err(|error| format!("{url}: {error}")),
        Err(_) => Err(format!("{url}: no answer in {TIMEOUT:?}")),
    }
}
