//! Answers scrapes: in the format and, where the scraper takes it, compressed. A node's series can be
//! megabytes: they are rendered beside the thread that asks, one scrape at a time.

use std::fmt::Display;
use std::io::{self, Write};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Metrics, TEXT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
}

pub(super) async fn answer(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let turn = metrics.turns.clone().acquire_owned().await;
    let rendering = tokio::task::spawn_blocking(move || {
        // Held to the end of the work, also where the scraper has gone meanwhile.
        let _turn = turn;
        let text = match format {
            Format::Text => metrics.text(),
            Format::OpenMetrics => metrics.open_metrics(),
        };
        match coding {
            Coding::Identity => Ok(text.into_bytes()),
            Coding::Gzip => gzip(text.as_bytes()),
        }
    });
    match rendering.await {
        Ok(Ok(rendered)) => {
            let about = [
                (header::CONTENT_TYPE, format.content_type()),
                (header::VARY, "accept, accept-encoding"),
            ];
            (about, coding.header(), rendered).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Display) -> Response {
    tracing::error!(%error, "metrics can't be rendered");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

// === impl Format ===

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let open_metrics = elements(headers, &header::ACCEPT)
            .any(|accepted| accepted.contains("application/openmetrics-text"));
        match open_metrics {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

// === impl Coding ===

impl Coding {
    fn of(headers: &HeaderMap) -> Self {
        match elements(headers, &header::ACCEPT_ENCODING).any(is_gzip) {
            true => Self::Gzip,
            false => Self::Identity,
        }
    }

    fn header(self) -> Option<[(HeaderName, &'static str); 1]> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some([(header::CONTENT_ENCODING, "gzip")]),
        }
    }
}

fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
}

/// A weight of nothing means that it is not accepted (RFC 9110 §12.4.2).
fn is_gzip(accepted: &str) -> bool {
    let mut parts = accepted.split(';').map(str::trim);
    let coding = parts.next().unwrap_or_default();
    let refused = parts.any(|part| {
        let weight = part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
        weight == Some(0.0)
    });
    coding.eq_ignore_ascii_case("gzip") && !refused
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use flate2::read::GzDecoder;
    use tower::ServiceExt;

    use super::super::{Settings, builder};
    use super::*;

    #[tokio::test]
    async fn a_scraper_is_answered_in_the_coding_and_format_that_it_takes() {
        let settings = Settings {
            component: "test",
            version: "1.2.3",
            buckets: &[],
            idle: Duration::from_secs(60),
        };
        let recorder = builder(&settings).expect("valid").build_recorder();
        let metrics = Metrics::over(recorder.handle(), &settings);
        let open = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5";
        for (accept, codings, coding, end) in [
            ("*/*", "", None, ""),
            ("*/*", "deflate, br", None, ""),
            ("*/*", "gzip;q=0, *", None, ""),
            ("*/*", "deflate, GZIP ; q=0.5", Some("gzip"), ""),
            (open, "gzip", Some("gzip"), "# EOF\n"),
            (open, "identity", None, "# EOF\n"),
        ] {
            let request = Request::get("/metrics")
                .header(header::ACCEPT, accept)
                .header(header::ACCEPT_ENCODING, codings)
                .body(Body::empty());
            let request = request.expect("a request");
            let answer = metrics.router().oneshot(request).await.expect("answers");
            let told = answer.headers().get(header::CONTENT_ENCODING);
            let told = told.and_then(|value| value.to_str().ok());
            assert_eq!(told, coding, "{codings}");
            let body = to_bytes(answer.into_body(), usize::MAX).await;
            let body = body.expect("a body").to_vec();
            let text = match coding {
                None => String::from_utf8(body).expect("text"),
                Some(_) => {
                    let mut text = String::new();
                    let read = GzDecoder::new(&*body).read_to_string(&mut text);
                    read.expect("compressed");
                    text
                }
            };
            assert!(text.contains("istio_build{component=\"test\""), "{text}");
            assert!(text.ends_with(end), "{text}");
        }
    }
}
