//! Reading environment variables, with every mistake collected instead of the first one returned.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Variables as they were given, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

// === impl Environment ===

impl Environment {
    /// The process's environment; a value that is not text is a mistake if it could matter.
    pub fn of_process(matters: impl Fn(&str) -> bool) -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) if matters(&name) => {
                    environment.mistake(format!("{name}: not valid UTF-8"));
                }
                Err(_) => {}
            }
        }
        environment
    }

    /// Everything that was wrong, one line each.
    pub fn finish(self) -> Result<(), Vec<String>> {
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(self.mistakes)
        }
    }

    pub fn mistake(&mut self, text: impl Into<String>) {
        let text = text.into();
        // Some settings are asked for more than once.
        if !self.mistakes.contains(&text) {
            self.mistakes.push(text);
        }
    }

    /// A variable that is set and not empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.set_text(name).filter(|text| !text.is_empty())
    }

    /// A variable that is set, perhaps to nothing.
    pub fn set_text(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|text| text.trim().to_owned())
    }

    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(format!("{name}: {text:?}: {error}"));
                None
            }
        }
    }

    pub fn truth(&mut self, name: &str, default: bool) -> bool {
        match self.text(name).map(|text| text.to_ascii_lowercase()) {
            None => default,
            Some(text) if text == "true" || text == "1" => true,
            Some(text) if text == "false" || text == "0" => false,
            Some(text) => {
                self.mistake(format!("{name}: {text:?} is neither true nor false"));
                default
            }
        }
    }

    /// `5s`, `10m`, `1h30m`; seconds where there is no unit.
    pub fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else {
            return default;
        };
        if let Ok(seconds) = text.parse() {
            return Duration::from_secs(seconds);
        }
        match humantime::parse_duration(&text) {
            Ok(duration) => duration,
            Err(error) => {
                self.mistake(format!("{name}: {text:?} is not a duration: {error}"));
                default
            }
        }
    }

    /// Every `PREFIXname=value`, as (name, value).
    pub fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        self.variables
            .iter()
            .filter_map(|(name, value)| {
                let name = name.strip_prefix(prefix).filter(|name| !name.is_empty())?;
                Some((name.to_owned(), value.clone()))
            })
            .collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            mistakes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_without_a_unit_is_in_seconds() {
        let variables = [("A", "180"), ("B", "1m30s"), ("C", "-1"), ("D", "1.5")];
        let mut environment: Environment = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let mut read = |name| environment.duration(name, Duration::MAX).as_secs();
        assert_eq!((read("A"), read("B")), (180, 90));
        read("C");
        read("D");
        assert_eq!(environment.finish().expect_err("mistakes").len(), 2);
    }

    #[test]
    fn all_mistakes_are_kept_and_each_once() {
        let variables = [("A", "x"), ("B", "soon"), ("C", "maybe"), ("D", " 7 ")];
        let mut environment: Environment = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        assert_eq!(environment.parsed::<u16>("D"), Some(7));
        for _ in 0..2 {
            assert_eq!(environment.parsed::<u16>("A"), None);
            assert!(environment.truth("C", true));
            assert_eq!(environment.duration("B", Duration::ZERO), Duration::ZERO);
        }
        assert_eq!(environment.finish().expect_err("mistakes").len(), 3);
    }
}
