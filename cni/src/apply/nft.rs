//! Runs the `nft` program inside a namespace.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use super::Error;
use crate::netns;

/// Applies `ruleset` inside `netns` as one transaction.
pub async fn load(netns: impl AsFd, ruleset: String) -> Result<(), Error> {
    nft(netns, &["-f", "-"], ruleset).await.map(drop)
}

/// The ruleset of `netns` as nft prints it, without counters.
pub(super) async fn list(netns: impl AsFd) -> Result<String, Error> {
    nft(netns, &["-s", "list", "ruleset", "inet"], String::new()).await
}

async fn nft(
    netns: impl AsFd,
    arguments: &'static [&'static str],
    input: String,
) -> Result<String, Error> {
    let output = netns::run(netns, move || execute(arguments, &input))
        .await
        .map_err(Error::Namespace)?
        .map_err(Error::RunNft)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let message = String::from_utf8_lossy(&output.stderr);
        Err(Error::Nft(message.trim().to_owned()))
    }
}

/// The child belongs to the namespace of the thread that starts it.
fn execute(arguments: &[&str], input: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // nft that stops reading says why on its standard error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    child.wait_with_output()
}
