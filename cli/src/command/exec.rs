//! `weft exec`: runs a command inside a pod.
mod terminal;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use crate::command::{Global, named_pod};
use crate::control::client::{Client, unexpected};
use crate::control::{Exec, Reply, Request, Target, wire};
use crate::exit::Result;

const EXAMPLES: &str = "\
Examples:
  weft exec web -n shop -- curl -s http://reviews:9080/
  weft exec -t web -- bash
  weft exec deploy/web -- env
  weft exec node/node-1 -- nft list ruleset
  weft exec switch -- tcpdump -ni weft0
";

/// Run a command inside a pod; or, to look at the mesh itself, inside node/NAME or switch
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, deploy/NAME, svc/NAME, node/NAME, switch or control-plane
    target: String,
    /// The container whose environment and folder to use [default: the first]
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input (always done; here for kubectl's users)
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    tty: bool,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode> {
        let (state, namespace) = (global.state()?, global.namespace());
        let mut client = Client::connect(&state)?;
        let target = named_pod::resolve(&state, &self.target, namespace)?;
        let mut request = Exec {
            target: Some(Target::parse(&target, namespace)),
            container: self.container,
            command: self.command,
            env: BTreeMap::new(),
            tty: self.tty && std::io::stdin().is_terminal(),
        };
        if request.tty {
            request
                .env
                .extend(std::env::var("TERM").map(|term| ("TERM".to_owned(), term)));
            return terminal::run(client, request);
        }
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        start(
            &mut client,
            request,
            [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        )?;
        pass_signals_on(&client)?;
        finish(client)
    }
}

/// Fails when the command can't be started.
fn start(client: &mut Client, request: Exec, descriptors: [BorrowedFd<'_>; 3]) -> Result {
    match client.call(&Request::Exec(request), &descriptors)? {
        Reply::Started => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// The command's own exit code.
fn finish(mut client: Client) -> Result<ExitCode> {
    match client.receive()? {
        Reply::Exited(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        other => Err(unexpected(other)),
    }
}

/// What would end this process goes to the command instead.
fn pass_signals_on(client: &Client) -> Result {
    let signals = SigSet::from_iter([
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ]);
    signals.thread_block()?;
    let mut socket = client.try_clone()?;
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let Ok(frame) = wire::encode(&Request::Signal(signal as i32)) else {
                return;
            };
            if socket.write_all(&frame).is_err() {
                return;
            }
        }
    });
    Ok(())
}
