//! What the demo shows of its waypoint: the canary, and a request that is refused, explained.

use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::{Demo, pod_of, run};
use crate::control::Status;
use crate::exit::{Exit, Result};

const PAGE: &str = "bookinfo/productpage-v1";
const REVIEWS: &str = "reviews.bookinfo:9080";

/// How long a policy may take to arrive.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// How many pages had reviews of which version.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pub(super) first: usize,
    pub(super) canary: usize,
}

/// What `weft why` says of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Explanation {
    pub(super) request: String,
    pub(super) verdict: String,
    pub(super) status: Option<u16>,
    pub(super) reasons: Vec<String>,
    trace: Vec<Step>,
}

/// One thing that it looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    stage: String,
    pub(super) text: String,
    #[serde(default)]
    pub(super) details: Vec<String>,
}

// === impl Versions ===

impl Versions {
    pub(super) fn count(&mut self, page: &str) {
        let page: Value = serde_json::from_str(page).unwrap_or_default();
        match page["reviews"]["version"].as_str() {
            Some("v1") => self.first += 1,
            Some("v2") => self.canary += 1,
            Some(_) | None => {}
        }
    }
}

// === impl Explanation ===

impl Explanation {
    /// Which waypoint there is, and why.
    pub(super) fn waypoint(&self) -> Option<&Step> {
        self.trace.iter().find(|step| step.stage == "waypoint")
    }
}

// === impl Demo ===

impl Demo {
    /// The page may read reviews, not delete them: the waypoint refuses it, and `weft why` says
    /// why.
    pub(super) fn refused_request(&self, status: &Status) -> Result<Explanation> {
        let url = "http://reviews:9080/reviews/0";
        let command = ["weft", "fetch", "-X", "DELETE", url];
        let deadline = Instant::now() + REFUSED_WITHIN;
        loop {
            let (_, output) = run(&self.state, pod_of(status, "productpage-v1")?, &command)?;
            if output.contains("403") {
                break;
            }
            if Instant::now() > deadline {
                return Err(
                    Exit::Failed.because(format!("the page deleted a review, or failed: {output}"))
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = Command::new(std::env::current_exe()?)
            .arg("--state")
            .arg(self.state.root())
            .args(["why", PAGE, REVIEWS, "DELETE", "/reviews/0", "-o", "json"])
            .output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Exit::Failed.because(format!("weft why does not explain it: {said}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_by_the_version_of_their_reviews() {
        let mut versions = Versions::default();
        for page in [
            r#"{"reviews":{"version":"v1"}}"#,
            r#"{"reviews":{"version":"v2"}}"#,
            r#"{"reviews":{"version":"v1"}}"#,
            "error",
        ] {
            versions.count(page);
        }
        assert_eq!((versions.first, versions.canary), (2, 1));
    }
}
