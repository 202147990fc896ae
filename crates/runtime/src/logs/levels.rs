//! Which targets log at which level, in the language of `RUST_LOG`: `info,access=off,xds::client=debug`.
//!
//! `target:level`, as istioctl sends it, means the same as `target=level`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// A default level and exceptions by target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    default: Option<LevelFilter>,
    targets: BTreeMap<String, LevelFilter>,
}

/// Why a text is not a list of levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelsError {
    #[error("{level:?} is not a level (off, error, warn, info, debug, trace) in {directive:?}")]
    Level { level: String, directive: String },
    #[error("{0:?} names no target before the level")]
    Target(String),
}

// === impl Levels ===

impl Levels {
    /// These levels where `other` says nothing. A default in `other` without targets
    /// replaces everything, as setting one level for all should.
    pub fn overlaid(&self, other: &Self) -> Self {
        if other.default.is_some() && other.targets.is_empty() {
            return other.clone();
        }
        let mut targets = self.targets.clone();
        targets.extend(other.targets.clone());
        Self {
            default: other.default.or(self.default),
            targets,
        }
    }

    pub(super) fn to_targets(&self) -> Targets {
        Targets::new()
            .with_default(self.default.unwrap_or(LevelFilter::INFO))
            .with_targets(
                self.targets
                    .iter()
                    .map(|(target, level)| (target.clone(), *level)),
            )
    }
}

impl FromStr for Levels {
    type Err = LevelsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut levels = Self::default();
        for directive in text.split(',').map(str::trim).filter(|d| !d.is_empty()) {
            match target_and_level(directive) {
                Some(("", _)) => return Err(LevelsError::Target(directive.to_owned())),
                Some((target, level)) => {
                    let level = parse_level(level, directive)?;
                    // The program's own modules log under their names within it.
                    let target = target.strip_prefix("ztunnel::").unwrap_or(target);
                    levels.targets.insert(target.to_owned(), level);
                }
                None => match parse_level(directive, directive) {
                    Ok(level) => levels.default = Some(level),
                    Err(error) if !is_target(directive) => return Err(error),
                    // `RUST_LOG=module` alone means everything of that module.
                    Err(_) => {
                        let all = LevelFilter::TRACE;
                        levels.targets.insert(directive.to_owned(), all);
                    }
                },
            }
        }
        Ok(levels)
    }
}

/// A lone word counts as a target only when it can't be a misspelt level.
fn is_target(directive: &str) -> bool {
    directive.contains("::")
}

fn target_and_level(directive: &str) -> Option<(&str, &str)> {
    if let Some(parts) = directive.split_once('=') {
        return Some(parts);
    }
    let (target, level) = directive.rsplit_once(':')?;
    (!target.ends_with(':')).then_some((target, level))
}

fn parse_level(level: &str, directive: &str) -> Result<LevelFilter, LevelsError> {
    let error = || LevelsError::Level {
        level: level.to_owned(),
        directive: directive.to_owned(),
    };
    match level.to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(error()),
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (target, level) in &self.targets {
            write!(f, "{target}={level},")?;
        }
        write!(f, "{}", self.default.unwrap_or(LevelFilter::INFO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let levels: Levels = text.parse().expect("parses");
        assert_eq!(levels.to_string(), shown, "{text:?}");
    }

    #[test]
    fn directives_read_as_rust_log_and_as_istioctl_writes_them() {
        check("", "info");
        check("debug", "debug");
        check("info,access=off", "access=off,info");
        check(
            "access:debug, xds::client:trace",
            "access=debug,xds::client=trace,info",
        );
        check("WARN,hickory_proto=ERROR", "hickory_proto=error,warn");
        check("xds::client", "xds::client=trace,info");
    }

    #[test]
    fn mistakes_are_named() {
        let error = "info,access=loud".parse::<Levels>().expect_err("no level");
        assert!(error.to_string().contains("\"loud\""), "{error}");
        assert!("dbug".parse::<Levels>().is_err());
        assert!("=info".parse::<Levels>().is_err());
    }

    #[test]
    fn a_change_lies_over_what_is_in_force() {
        let current: Levels = "info,access=off".parse().expect("parses");
        let overlay = |text: &str| {
            let change = text.parse().expect("parses");
            current.overlaid(&change).to_string()
        };
        assert_eq!(overlay("dns=debug"), "access=off,dns=debug,info");
        assert_eq!(overlay("access=debug"), "access=debug,info");
        assert_eq!(overlay("trace"), "trace");
    }
}
