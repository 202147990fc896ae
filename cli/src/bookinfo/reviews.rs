//! Reviews of the demo: v1 has no stars, v2 black ones, v3 red ones.

use serde_json::{Value, json};

use super::fetch;

pub(crate) async fn answer(version: String) -> String {
    let color = match version.as_str() {
        "v2" => Some("black"),
        "v3" => Some("red"),
        _ => None,
    };
    let ratings = match color {
        Some(_) => Some(fetch("http://ratings:9080/ratings/0").await),
        None => None,
    };
    let review = |reviewer: &str, text: &str| {
        let mut review = json!({ "reviewer": reviewer, "text": text });
        if let (Some(color), Some(ratings)) = (color, &ratings) {
            review["rating"] = match ratings {
                Ok(ratings) => json!({ "stars": ratings[reviewer], "color": color }),
                Err(error) => json!({ "error": error }),
            };
        }
        review
    };
    let reviews: Vec<Value> = vec![
        review(
            "Reviewer1",
            "An extremely entertaining play by Shakespeare.",
        ),
        review("Reviewer2", "Absolutely fun and entertaining."),
    ];
    json!({ "version": version, "reviews": reviews }).to_string()
}
