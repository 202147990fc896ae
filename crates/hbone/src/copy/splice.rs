//! Bulk from one socket to another without copying it through this process: the kernel
//! moves the pages through a pipe.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use runtime::descriptors;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{CopyError, room};

/// What one pipe holds.
const PIPE_SIZE: usize = 512 << 10;
/// Empty pipes a thread keeps for the next bulk.
const KEPT: usize = 16;

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe that is empty between uses.
pub(super) struct Pipe {
    reader: File,
    writer: File,
}

/// What one turn has moved.
pub(super) enum Spliced {
    Moved(usize),
    /// The source has nothing now.
    Idle,
    End,
}

// === impl Pipe ===

impl Pipe {
    pub(super) fn take() -> io::Result<Self> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let (reader, writer) = (
            descriptors::unreserved(reader)?,
            descriptors::unreserved(writer)?,
        );
        // Beyond the user's quota the pipe keeps its ordinary size.
        let size = i32::try_from(PIPE_SIZE).unwrap_or(i32::MAX);
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(size));
        Ok(Self {
            reader: reader.into(),
            writer: writer.into(),
        })
    }

    /// Keeps the pipe for the next bulk. It must be empty: after an error it is dropped.
    pub(super) fn give_back(self) {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.len() < KEPT {
                pipes.push(self);
            }
        });
    }

    /// Moves once what the source has, and waits until the target has taken all of it.
    pub(super) async fn splice(
        &self,
        from: &TcpStream,
        to: &TcpStream,
        half_closed: Duration,
    ) -> Result<Spliced, CopyError> {
        let filled = from.try_io(Interest::READABLE, || {
            transfer(from, &self.writer, PIPE_SIZE)
        });
        let filled = match filled {
            Ok(0) => return Ok(Spliced::End),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Spliced::Idle),
            Err(error) => return Err(error.into()),
        };
        let mut left = filled;
        while left > 0 {
            let emptied = to.try_io(Interest::WRITABLE, || transfer(&self.reader, to, left));
            match emptied {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(amount) => left -= amount,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Box::pin(room(from, half_closed, left, |cx| to.poll_write_ready(cx))).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Spliced::Moved(filled))
    }
}

fn transfer(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match splice(from, None, to, None, most, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}
