//! A command on a terminal of its own, shown in the user's.
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::pty::openpty;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{finish, start};
use crate::control::Exec;
use crate::control::client::Client;
use crate::exit::Result;
use crate::system;

/// Puts the user's terminal back as it was.
struct Raw(Termios);

pub(super) fn run(mut client: Client, request: Exec) -> Result<ExitCode> {
    let pair = openpty(None, None)?;
    system::copy_window_size(std::io::stdin().as_fd(), pair.master.as_fd());
    let slave = pair.slave;
    start(
        &mut client,
        request,
        [slave.as_fd(), slave.as_fd(), slave.as_fd()],
    )?;
    // The output ends when the last process of the other side has let go.
    drop(slave);
    let raw = Raw::set()?;
    follow_size(pair.master.try_clone()?)?;
    let mut typed = File::from(pair.master.try_clone()?);
    std::thread::spawn(move || copy(std::io::stdin(), &mut typed));
    let shown = File::from(pair.master);
    let output = std::thread::spawn(move || copy(shown, &mut std::io::stdout()));
    let code = finish(client);
    let _ = output.join();
    drop(raw);
    code
}

fn copy(mut from: impl Read, to: &mut impl Write) {
    let mut bytes = [0; 8 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to
            .write_all(&bytes[..length])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}

fn follow_size(master: OwnedFd) -> Result {
    let changes = SigSet::from_iter([Signal::SIGWINCH]);
    changes.thread_block()?;
    std::thread::spawn(move || {
        while changes.wait().is_ok() {
            system::copy_window_size(std::io::stdin().as_fd(), master.as_fd());
        }
    });
    Ok(())
}

// === impl Raw ===

impl Raw {
    fn set() -> Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
