//! Exit codes, stable and documented in the help, and the failure that carries one.
use std::fmt;

/// After `sysexits.h` where it has a word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    /// A check or a test ran and found failures.
    Findings = 2,
    Usage = 64,
    BadInput = 65,
    /// What was asked about is not there.
    NotFound = 66,
    /// The mesh, or the control plane, doesn't answer.
    Unreachable = 69,
    TryAgain = 75,
    NotPermitted = 77,
    /// Findings at or above the asked threshold.
    Threshold = 79,
    /// As a shell says it: the program is there, and can't be run.
    NotExecutable = 126,
    /// As a shell says it: there is no such program.
    NoProgram = 127,
}

/// The table shown at the end of `weft --help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0   ok
  1   failed
  2   a check ran and found failures
  64  wrong usage
  65  bad input
  66  what was asked about is not there
  69  the mesh or its control plane can't be reached
  75  timed out, or busy: try again
  77  not permitted
  79  findings at or above the threshold
A command run by `weft exec` gives its own code; 127 where there is no such
program, 126 where it can't be run.";

/// Why a command failed and the code the process ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

// === impl Exit ===

impl Exit {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The code of another of our processes.
    pub(crate) fn from_code(code: u8) -> Self {
        [
            Self::Ok,
            Self::Findings,
            Self::Usage,
            Self::BadInput,
            Self::NotFound,
            Self::Unreachable,
            Self::TryAgain,
            Self::NotPermitted,
            Self::Threshold,
            Self::NotExecutable,
            Self::NoProgram,
        ]
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Self::Failed)
    }

    pub(crate) fn because(self, reason: impl fmt::Display) -> Failure {
        Failure {
            exit: self,
            error: anyhow::anyhow!("{reason}"),
        }
    }
}

// === impl Failure ===

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
        }
    }
}

/// Gives an ordinary error its exit code.
pub(crate) trait OrExit<T> {
    fn or_exit(self, exit: Exit) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T> {
        self.map_err(|error| Failure {
            exit,
            error: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Failed,
            Exit::Findings,
            Exit::Usage,
            Exit::BadInput,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::TryAgain,
            Exit::NotPermitted,
            Exit::Threshold,
        ] {
            assert!(
                TABLE.contains(&format!("\n  {:<4}", exit.code())),
                "{exit:?} is missing"
            );
        }
    }
}
