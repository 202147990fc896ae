//! Errors with what caused them, on one line.

use std::error::Error;

/// `text`, which says what `error` is, and behind it each cause that says something new: libraries that wrap
/// an error like to repeat it.
pub fn told(text: impl Into<String>, error: &dyn Error) -> String {
    let mut text = text.into();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Option<Box<Layer>> {
        let (text, inner) = texts.split_first()?;
        let source = layers(inner);
        Some(Box::new(Layer { text, source }))
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        for (texts, line) in [
            (&["alone"][..], "alone"),
            (&["http", "refused"], "http: refused"),
            (&["http: refused", "http", "refused"], "http: refused"),
            (&["http", "io", "http", "refused"], "http: io: refused"),
        ] {
            let error = layers(texts).expect("an error");
            assert_eq!(told(error.to_string(), &*error), line);
        }
    }
}
