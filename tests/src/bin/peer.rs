//! `peer`: the application in the tests' pods, both ends of it.
//!
//! `peer serve` answers on a handful of ports, each a protocol shape that meshes are known to
//! get wrong; the other commands are clients that say what they saw, as text or JSON.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::peer::{client, rate, serve, stubborn};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers on every port of `tests::peer`.
    Serve {
        /// Name that replies carry.
        #[arg(long, default_value = "peer")]
        name: String,
        /// Address to bind.
        #[arg(long, default_value = "::")]
        bind: std::net::IpAddr,
    },
    /// One request; prints the reply (`NAME PEER_ADDRESS`).
    Get { target: String },
    /// Sends datagrams until one is echoed.
    Udp { target: String },
    /// Prints the addresses a name resolves to, one a line.
    Resolve { name: String },
    /// Waits for the server to speak first, then echoes one line.
    Banner { target: String },
    /// Uploads bytes, closes the sending half, checks the server's checksum of them.
    Upload { target: String, bytes: u64 },
    /// Downloads bytes and checks them.
    Download { target: String, bytes: u64 },
    /// Echoes lines over one connection until it breaks or the line "stop" is read on stdin.
    Hold { target: String },
    /// Requests in a closed loop on new connections; prints counts as JSON.
    Load {
        target: String,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long, default_value = "5")]
        seconds: f64,
        /// One connection per client instead of one per request.
        #[arg(long)]
        keep_alive: bool,
    },
    /// Opens connections, half-closes each, waits until they are cut.
    HalfClose { target: String, count: usize },
    /// Opens connections that the server ends, ends its own direction when the input ends.
    LateClose { target: String, count: usize },
    /// Opens connections that echo once, holds them until the input ends.
    Crowd { target: String, count: usize },
    /// Writes to connections until none takes more, holds them until the input ends.
    Pour {
        target: String,
        count: usize,
        /// Bytes that are enough.
        #[arg(long, default_value_t = u64::MAX)]
        each: u64,
    },
    /// Sends a byte on each of many connections from time to time.
    Dribble { target: String, count: usize },
    /// Opens connections to a port that echoes, and writes until none takes any more.
    Flood { target: String, count: usize },
    /// Opens connections that say only this much, waits until all are closed.
    Silent {
        target: String,
        count: usize,
        #[arg(long, default_value = "")]
        start: String,
        /// The first connection's own port; the others' follow.
        #[arg(long)]
        from: Option<u16>,
    },
    /// New connections at a fixed rate to a server of bytes; prints counts and times as JSON.
    Rate {
        target: String,
        #[command(flatten)]
        schedule: rate::Schedule,
    },
    /// DNS questions at a fixed rate; prints counts and times as JSON.
    Questions {
        name: String,
        #[command(flatten)]
        schedule: rate::Schedule,
    },
    /// One HTTP/1.1 GET; prints the body.
    Http { target: String, path: String },
    /// Listens on one address and prints what connects; for servers that must not be reached.
    Watch { bind: SocketAddr },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve { name, bind } => serve::run(&name, bind),
        Command::Get { target } => client::get(&target),
        Command::Udp { target } => client::udp(&target),
        Command::Resolve { name } => client::resolve(&name),
        Command::Banner { target } => client::banner(&target),
        Command::Upload { target, bytes } => client::upload(&target, bytes),
        Command::Download { target, bytes } => client::download(&target, bytes),
        Command::Hold { target } => client::hold(&target),
        Command::Load {
            target,
            connections,
            seconds,
            keep_alive,
        } => client::load(&target, connections, seconds, keep_alive),
        Command::HalfClose { target, count } => stubborn::half_close(&target, count),
        Command::LateClose { target, count } => stubborn::late_close(&target, count),
        Command::Crowd { target, count } => stubborn::crowd(&target, count),
        Command::Pour {
            target,
            count,
            each,
        } => stubborn::pour(&target, count, each),
        Command::Dribble { target, count } => stubborn::dribble(&target, count),
        Command::Flood { target, count } => stubborn::flood(&target, count),
        Command::Silent {
            target,
            count,
            start,
            from,
        } => stubborn::silent(&target, count, start.as_bytes(), from),
        Command::Rate { target, schedule } => run(rate::connections(&target, schedule)),
        Command::Questions { name, schedule } => run(rate::questions(&name, schedule)),
        Command::Http { target, path } => client::http(&target, &path),
        Command::Watch { bind } => serve::watch(bind),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(load: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(load)
}
