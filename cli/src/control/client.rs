//! The commands' side of the control socket: blocking, one connection per command.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::{Reply, Request, Status, wire};
use crate::exit::{Exit, Result};
use crate::state::State;

pub(crate) struct Client {
    socket: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Client {
    /// Fails with [`Exit::Unreachable`] when no mesh runs here.
    pub(crate) fn connect(state: &State) -> Result<Self> {
        let path = state.control_socket();
        match UnixStream::connect(&path) {
            Ok(socket) => Ok(Self {
                socket,
                buffer: Vec::new(),
                descriptors: Vec::new(),
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Exit::NotPermitted.because(format!(
                    "the mesh at {} is another user's",
                    state.root().display()
                )))
            }
            Err(_) => Err(Exit::Unreachable.because(format!(
                "no mesh is running at {}: start one with `weft up`",
                state.root().display()
            ))),
        }
    }

    pub(crate) fn status(&mut self) -> Result<Status> {
        match self.call(&Request::Status, &[])? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) fn call(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply> {
        self.send(request, descriptors)?;
        self.receive()
    }

    pub(crate) fn send(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result {
        let frame = wire::encode(request)?;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = wire::send(self.socket.as_raw_fd(), &frame, &raw).map_err(gone)?;
        while sent < frame.len() {
            sent += wire::send(self.socket.as_raw_fd(), &frame[sent..], &[]).map_err(gone)?;
        }
        Ok(())
    }

    pub(crate) fn receive(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = wire::decode(&mut self.buffer)? {
                return Ok(reply);
            }
            match wire::receive(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                &mut self.descriptors,
            ) {
                Ok(0) => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// What came along with the last reply.
    pub(crate) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop()
    }

    pub(crate) fn try_clone(&self) -> Result<UnixStream> {
        Ok(self.socket.try_clone()?)
    }
}

/// An answer that can't be one to what was asked.
pub(crate) fn unexpected(reply: Reply) -> crate::exit::Failure {
    match reply {
        Reply::NotFound(what) => Exit::NotFound.because(what),
        Reply::NotStarted { why, no_program } => match no_program {
            true => Exit::NoProgram.because(why),
            false => Exit::NotExecutable.because(why),
        },
        Reply::Failed(why) => Exit::Failed.because(why),
        other => Exit::Failed.because(format!("unexpected answer from the machine: {other:?}")),
    }
}

fn gone(error: io::Error) -> crate::exit::Failure {
    Exit::Unreachable.because(format!("the mesh went away: {error}"))
}
