//! `forge`: an attacker in the tests' pods, who speaks HBONE and asks the CA by hand.
//!
//! It holds the CA's own key (the test gives it), so that each forgery is wrong in one
//! respect only. It prints what the other side answered.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::forge::flood::{self, Flood};
use tests::forge::{self, Tunnel, held};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends one request to an HBONE port; prints `status N`, or `refused: WHY`.
    Request {
        to: SocketAddr,
        /// The CA's folder.
        #[arg(long)]
        ca: PathBuf,
        /// Whose certificate to show; none shows none.
        #[arg(long)]
        identity: Option<String>,
        /// The identity the server is expected to hold.
        #[arg(long)]
        server: String,
        #[arg(long)]
        authority: String,
        #[arg(long, default_value = "CONNECT")]
        method: String,
        /// Extra headers, `name=value`.
        #[arg(long)]
        header: Vec<String>,
    },
    /// Floods an HBONE port; prints what it came to, as JSON.
    Flood(Flood),
    /// Holds a tunnel until its server takes no more streams; prints `open`, and then `goaway CODE,
    /// and the stream goes on`.
    Hold(Tunnel),
    /// Asks the CA for an identity; prints `issued IDENTITY`, or `refused: CODE`.
    Certificate {
        to: SocketAddr,
        #[arg(long)]
        root: PathBuf,
        #[arg(long)]
        token: PathBuf,
        #[arg(long)]
        identity: String,
    },
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let result = runtime.block_on(async {
        match Arguments::parse().command {
            Command::Request {
                to,
                ca,
                identity,
                server,
                authority,
                method,
                header,
            } => {
                forge::request(forge::Request {
                    to,
                    ca,
                    identity,
                    server,
                    authority,
                    method,
                    headers: header,
                })
                .await
            }
            Command::Flood(flood) => {
                let outcome = flood::flood(&flood).await;
                outcome.and_then(|outcome| Ok(serde_json::to_string(&outcome)?))
            }
            Command::Hold(tunnel) => held::hold(&tunnel).await,
            Command::Certificate {
                to,
                root,
                token,
                identity,
            } => forge::certificate(to, &root, &token, &identity).await,
        }
    });
    match result {
        Ok(answer) => println!("{answer}"),
        Err(error) => println!("refused: {error:#}"),
    }
    ExitCode::SUCCESS
}
