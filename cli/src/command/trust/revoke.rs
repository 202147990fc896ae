//! `weft trust revoke`: which certificates are meant, and having the authority take them back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use identity::certificate::CertificateSummary;
use identity::serial::Serial;
use serde_json::Value;

use super::{EXAMPLES, dumps};
use crate::command::block_on;
use crate::exit::{Exit, OrExit, Result};
use crate::http;
use crate::state::State;

/// Take certificates back: connections made with them are cut, and no others can be made
///
/// Of an identity, those that proxies use now are meant. Its pods get others when these are renewed, in less
/// than half their life, or when their ztunnel is started anew: delete what must stay out. One that has
/// been replaced already is named by its number, which is in the log of the control plane, or by its file.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct RevokeArguments {
    /// Whose certificates: NAMESPACE/SERVICEACCOUNT, or a whole SPIFFE identity
    #[arg(value_name = "IDENTITY", required_unless_present_any = ["serials", "files"])]
    identities: Vec<Whose>,
    /// The certificate of this number, in decimal, as `weft zc certificates` shows it
    #[arg(long = "serial", value_name = "NUMBER")]
    serials: Vec<Serial>,
    /// The certificate in this file, in PEM
    #[arg(long = "certificate", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Part of an identity, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Account(String),
    Identity(String),
}

// === impl RevokeArguments ===

impl RevokeArguments {
    pub(crate) fn run(self, state: &State) -> Result {
        let mut silent = Vec::new();
        // Who has each is told where it is known.
        let mut revoked: BTreeMap<Serial, String> = BTreeMap::new();
        for serial in self.serials {
            revoked.insert(serial, String::new());
        }
        for file in &self.files {
            revoked.insert(of_file(file)?, format!(" of {}", file.display()));
        }
        if !self.identities.is_empty() {
            let dumps = dumps(state)?;
            for whose in &self.identities {
                let known = dumps.values().flatten();
                let certificates: Vec<_> =
                    known.flat_map(|dump| whose.certificates(dump)).collect();
                if certificates.is_empty() {
                    let message = format!("no proxy has a certificate of {whose}");
                    return Err(Exit::NotFound.because(message));
                }
                revoked.extend(certificates);
            }
            let answers = dumps.into_iter().filter(|(_, dump)| dump.is_none());
            silent.extend(answers.map(|(name, _)| name));
        }
        let numbers: Vec<_> = revoked.keys().map(ToString::to_string).collect();
        let path = format!("/api/v1/trust/revoke/{}", numbers.join(","));
        block_on(http::post_to_control_plane(state, &path))?;
        for (serial, whose) in &revoked {
            anstream::println!("revoked {serial}{whose}");
        }
        match silent.is_empty() {
            true => Ok(()),
            false => Err(Exit::TryAgain.because(format!(
                "these do not answer, and what certificates they have is not known: {}",
                silent.join(", ")
            ))),
        }
    }
}

fn of_file(path: &Path) -> Result<Serial> {
    let read = || -> anyhow::Result<Serial> {
        let pem = std::fs::read_to_string(path)?;
        // What follows in a chain is of its issuers.
        let certificates = CertificateSummary::read_all(&pem)?;
        let leaf = certificates
            .first()
            .context("holds no certificate in PEM")?;
        Ok(leaf.serial.parse()?)
    };
    read()
        .with_context(|| path.display().to_string())
        .or_exit(Exit::BadInput)
}

// === impl Whose ===

impl Whose {
    /// Those of a proxy that are in use, and whose each is.
    fn certificates(&self, dump: &Value) -> Vec<(Serial, String)> {
        let all = dump["certificates"].as_array().into_iter().flatten();
        let of_it = all.filter_map(|certificate| {
            let identity = certificate["identity"].as_str()?;
            let serial = certificate["certChain"][0]["serialNumber"].as_str()?;
            let serial = serial.parse().ok()?;
            self.is(identity)
                .then(|| (serial, format!(" of {identity}")))
        });
        of_it.collect()
    }

    fn is(&self, identity: &str) -> bool {
        match self {
            Self::Identity(whole) => identity == whole,
            Self::Account(part) => identity.ends_with(part.as_str()),
        }
    }
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("spiffe://") {
            return Ok(Self::Identity(text.to_owned()));
        }
        match text.split_once('/') {
            Some((namespace, account))
                if !namespace.is_empty() && !account.is_empty() && !account.contains('/') =>
            {
                Ok(Self::Account(format!("/ns/{namespace}/sa/{account}")))
            }
            _ => Err("neither NAMESPACE/SERVICEACCOUNT nor a SPIFFE identity".to_owned()),
        }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(part) => write!(f, "spiffe://…{part}"),
            Self::Identity(whole) => f.write_str(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_is_that_of_one_namespace() {
        let of = |identity: &str, serials: &[&str]| {
            let chain: Vec<_> = serials
                .iter()
                .map(|serial| json!({"serialNumber": serial}))
                .collect();
            json!({"identity": identity, "certChain": chain})
        };
        let dump = json!({"certificates": [
            of("spiffe://cluster.local/ns/shop/sa/web", &["7", "1"]),
            of("spiffe://cluster.local/ns/workshop/sa/web", &["8", "1"]),
            of("spiffe://cluster.local/ns/shop/sa/web-2", &["9", "1"]),
            of("spiffe://other/ns/shop/sa/web", &[]),
        ]});
        for (text, expected) in [
            ("shop/web", &["7"][..]),
            ("spiffe://cluster.local/ns/shop/sa/web-2", &["9"]),
            ("shop/api", &[]),
        ] {
            let whose: Whose = text.parse().expect(text);
            let found = whose.certificates(&dump).into_iter();
            let found: Vec<_> = found.map(|(serial, _)| serial.to_string()).collect();
            assert_eq!(found, expected, "{text}");
        }
        for text in ["web", "/web", "shop/", "a/b/c", ""] {
            assert!(text.parse::<Whose>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_file_holds_must_be_a_certificate() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let failure = of_file(file.path()).expect_err("nothing in it");
        assert_eq!(failure.exit, Exit::BadInput);
    }
}
