//! `weft why` on the mesh that runs: its verdict is the live one.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;
use tests::web::Answer;

/// What the mesh itself answers; the tests' application does so with none of these.
const OF_THE_MESH: [u16; 4] = [401, 403, 404, 500];

/// Asks about a request, given as the arguments of `web ask`.
pub(crate) fn ask(lab: &Lab, from: &str, arguments: &[&str]) -> Result<Value> {
    let (mut url, mut method, mut rest) = ("", "GET", Vec::new());
    let mut arguments = arguments.iter().copied();
    while let Some(argument) = arguments.next() {
        match argument {
            "-X" => method = arguments.next().context("a method")?,
            "-H" => rest.extend(["-H", arguments.next().context("a header")?]),
            "-d" => drop(arguments.next()),
            "--grpc" => method = "POST",
            "--http2" => {}
            other => url = other,
        }
    }
    let url = url.strip_prefix("http://").context("a URL")?;
    let (host, path) = url.split_once('/').context("a path")?;
    let (path, host) = (format!("/{path}"), with_port(host));
    let mut command = vec!["why", from, &host, method, &path];
    command.extend(rest);
    command.extend(["-o", "json"]);
    let output = lab.weft_output(&command)?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?}: {output:?}"))
}

fn with_port(host: &str) -> String {
    match host.contains(':') {
        true => host.to_owned(),
        false => format!("{host}:80"),
    }
}

/// An answer that the mesh gives itself is told with its status; where the application is let
/// answer, it is told to be. What becomes of a request there is not for `weft why` to say.
pub(crate) fn check(lab: &Lab, from: &str, arguments: &[&str], answer: &Answer) -> Result<()> {
    let told = ask(lab, from, arguments)?;
    let allowed = told["allowed"].as_bool().context("a verdict")?;
    if arguments.contains(&"--grpc") {
        let of_mesh = answer.header("grpc-status").is_some();
        ensure!(allowed != of_mesh, "{answer:?} is told as {told:#}");
        return Ok(());
    }
    match told["status"].as_u64() {
        Some(status) => ensure!(
            u64::from(answer.status) == status,
            "{answer:?} is told as {told:#}"
        ),
        None => ensure!(
            allowed && !OF_THE_MESH.contains(&answer.status),
            "{answer:?} is told as {told:#}"
        ),
    }
    Ok(())
}
