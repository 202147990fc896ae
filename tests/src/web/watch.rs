//! One request after another, each on a connection of its own; tells when the answers change.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::client;

#[derive(Clone, Debug, clap::Args)]
#[group(id = "watch")]
pub struct Arguments {
    #[command(flatten)]
    pub ask: client::Arguments,
    /// The response header that is looked at.
    #[arg(long)]
    pub name: String,
    /// Milliseconds between two requests.
    #[arg(long, default_value_t = 2)]
    pub pause: u64,
}

/// Asks until it is ended. A line for each change: nanoseconds since the Unix epoch, and the
/// header's value, `-` without one and `!` without an answer.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let mut last = String::new();
    loop {
        let seen = match client::ask(&arguments.ask).await {
            Ok(answer) => answer.header(&arguments.name).unwrap_or("-").to_owned(),
            Err(_) => "!".to_owned(),
        };
        if seen != last {
            let mut out = std::io::stdout();
            writeln!(out, "{} {seen}", now().as_nanos())?;
            out.flush()?;
            last = seen;
        }
        tokio::time::sleep(Duration::from_millis(arguments.pause)).await;
    }
}

/// Since the Unix epoch, which two processes have in common.
pub fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}
