//! The roots a control plane's certificate must chain to: a file, an inline text, or the system's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use crate::certificate::read_pem;

/// Where distributions keep the roots they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where roots come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    File(PathBuf),
    Inline(String),
    System,
}

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("roots can't be read from {path}: {error}")]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{0} holds no usable certificate")]
    Empty(String),
    #[error("the system's roots are in none of the known places")]
    NoSystemBundle,
}

// === impl Roots ===

impl Roots {
    /// As `CA_ROOT_CA` and `XDS_ROOT_CA` say it: `SYSTEM`, a PEM text, or else a path.
    pub fn parse(text: &str) -> Self {
        match text {
            "SYSTEM" => Self::System,
            _ if text.trim_start().starts_with("-----BEGIN") => Self::Inline(text.to_owned()),
            _ => Self::File(text.into()),
        }
    }

    /// Fails for what can't become right later. A file may still be on its way.
    pub(super) fn check(&self) -> Result<(), RootsError> {
        match self {
            Self::File(_) | Self::System => Ok(()),
            Self::Inline(_) => self.load().map(drop),
        }
    }

    /// Reads the roots as they are now.
    pub(super) fn load(&self) -> Result<Arc<RootCertStore>, RootsError> {
        let (pem, origin) = match self {
            Self::File(path) => (read(path)?, path.display().to_string()),
            Self::Inline(pem) => (pem.clone(), "the inline root text".to_owned()),
            Self::System => {
                let path = SYSTEM_BUNDLES
                    .iter()
                    .map(Path::new)
                    .find(|path| path.exists())
                    .ok_or(RootsError::NoSystemBundle)?;
                (read(path)?, path.display().to_string())
            }
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(read_pem(&pem).unwrap_or_default());
        match store.is_empty() {
            true => Err(RootsError::Empty(origin)),
            false => Ok(Arc::new(store)),
        }
    }
}

fn read(path: &Path) -> Result<String, RootsError> {
    fs::read_to_string(path).map_err(|error| RootsError::Read {
        path: path.to_owned(),
        error,
    })
}
