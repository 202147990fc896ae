//! Why the control plane can't run: one clear message and a documented exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// What kind of failure it is; the exit code is its number in sysexits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrong arguments.
    Usage,
    /// A file or folder that was given is not what it has to be.
    BadInput,
    /// Something that is needed is not there: a port, space on the disk.
    Unavailable,
    /// The system does not allow it.
    NotPermitted,
}

/// A failure of the program as a whole.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    message: String,
}

// === impl Kind ===

impl Kind {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::Unavailable => 69,
            Self::NotPermitted => 77,
        }
    }

    /// The kind of an error of the system, where nothing is known but the error.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof => Self::BadInput,
            _ => Self::Unavailable,
        }
    }
}

// === impl Failure ===

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A failure of the system while doing `what`.
    pub fn system(what: impl fmt::Display, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
            io::ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => error.to_string(),
        };
        Self::new(Kind::of(error), format!("{what}: {reason}"))
    }

    pub fn exit_code(&self) -> ExitCode {
        self.kind.exit_code().into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
