//! `weft down`: stops the mesh.
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anstream::println;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::command::Global;
use crate::control::Request;
use crate::control::client::Client;
use crate::exit::{Exit, Result};
use crate::machine::launch;
use crate::machine::record::Record;
use crate::state::State;
use crate::system;

const EXAMPLES: &str = "\
Examples:
  weft down
  weft down --state /tmp/try
";

/// A graceful end takes at most the pods' five seconds and the pieces'.
const PATIENCE: Duration = Duration::from_secs(15);
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Stop the mesh and leave the machine as it was
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        if !state.root().exists() {
            println!("No mesh is running at {}.", state.root().display());
            return Ok(());
        }
        if let Ok(lock) = launch::lock(&state) {
            return clean_up(&state, &lock, state.run().exists());
        }
        let record = Record::read(&state.machine_json());
        // Opened before anything is asked to end: a pid is only good while its process lives.
        let processes: Vec<OwnedFd> = record
            .iter()
            .flat_map(|record| [record.machine, record.launcher])
            .filter_map(|process| process.open())
            .collect();
        if let Ok(mut client) = Client::connect(&state) {
            let _ = client.call(&Request::Shutdown, &[]);
        } else if let Some(launcher) = processes.last() {
            let _ = system::kill_by_pidfd(launcher, Signal::SIGTERM as i32);
        }
        if !gone(&processes, PATIENCE) {
            for process in &processes {
                let _ = system::kill_by_pidfd(process, Signal::SIGKILL as i32);
            }
            gone(&processes, LAST_PATIENCE);
        }
        let end = Instant::now() + LAST_PATIENCE;
        loop {
            match launch::lock(&state) {
                Ok(lock) => return clean_up(&state, &lock, true),
                Err(failure) if failure.exit != Exit::TryAgain => return Err(failure),
                Err(_) if Instant::now() > end => {
                    return Err(Exit::TryAgain.because(format!(
                        "a process still holds {}, and it can't be told which: find it with `fuser {}`",
                        state.lock().display(),
                        state.lock().display()
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Under the lock nothing of a mesh lives any more: namespaces went with their processes.
fn clean_up(state: &State, _lock: &File, ran: bool) -> Result {
    launch::remove_run(state)?;
    if ran {
        println!("The mesh at {} is down.", state.root().display());
    } else {
        println!("No mesh is running at {}.", state.root().display());
    }
    Ok(())
}

/// Waits until every one of the processes has ended.
fn gone(processes: &[OwnedFd], patience: Duration) -> bool {
    let end = Instant::now() + patience;
    processes.iter().all(|process| {
        let left = end.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::new(
            std::os::fd::AsFd::as_fd(process),
            PollFlags::POLLIN,
        )];
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut watched, left).is_ok_and(|ready| ready > 0)
    })
}
