//! The process's own servers: metrics, readiness, admin. In one namespace there is one process at
//! a time that people and machines ask: a successor inherits the sockets, and answers once it
//! has taken over.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use axum::Router;
use runtime::admin::Listeners;
use tokio::task::JoinSet;
use tokio::time;

use super::succession::Predecessor;
use crate::handover::inherited::Gate;
use crate::handover::{Owner, Port};
use crate::inpod::NetnsId;

/// How often a port is tried that a process without handover still has.
const RETRY: Duration = Duration::from_millis(200);

/// Running servers; dropping it ends them.
pub(super) struct Servers {
    predecessor: Predecessor,
    tasks: JoinSet<()>,
    sockets: Vec<(u16, OwnedFd)>,
}

// === impl Servers ===

impl Servers {
    pub(super) fn new(predecessor: Predecessor) -> Self {
        Self {
            predecessor,
            tasks: JoinSet::new(),
            sockets: Vec::new(),
        }
    }

    /// Serves on a port: the predecessor's sockets, or what `listen` makes.
    pub(super) async fn serve(
        &mut self,
        name: &'static str,
        port: u16,
        listen: impl Fn() -> io::Result<Listeners> + Send + 'static,
        router: Router,
    ) -> io::Result<()> {
        if let Some((listeners, mut gate)) = self.inherit(port).await? {
            self.lend(port, &listeners)?;
            self.tasks.spawn(async move {
                gate.opened().await;
                listeners.serve(name, router).await;
            });
            return Ok(());
        }
        match listen() {
            Ok(listeners) => {
                self.lend(port, &listeners)?;
                self.tasks.spawn(listeners.serve(name, router));
                Ok(())
            }
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && self.predecessor.is_there() =>
            {
                tracing::warn!(server = name, port, "waiting for the former process's port");
                self.tasks.spawn(async move {
                    let listeners = loop {
                        time::sleep(RETRY).await;
                        if let Ok(listeners) = listen() {
                            break listeners;
                        }
                    };
                    listeners.serve(name, router).await;
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Duplicates of all sockets, for a successor.
    pub(super) fn sockets(&self) -> io::Result<Vec<(u16, OwnedFd)>> {
        let sockets = self.sockets.iter();
        sockets
            .map(|(port, fd)| Ok((*port, fd.try_clone()?)))
            .collect()
    }

    fn lend(&mut self, port: u16, listeners: &Listeners) -> io::Result<()> {
        let duplicates = listeners.duplicates()?;
        self.sockets
            .extend(duplicates.into_iter().map(|fd| (port, fd)));
        Ok(())
    }

    async fn inherit(&self, port: u16) -> io::Result<Option<(Listeners, Gate)>> {
        let Some(succession) = self.predecessor.succession() else {
            return Ok(None);
        };
        let netns = NetnsId::of(None)?;
        let owner = Owner::Process { netns };
        let mut inherited = succession.inherit(&owner, &[Port::Tcp(port)]).await;
        let listeners = inherited.tcp(port);
        match listeners.is_empty() {
            true => Ok(None),
            false => Ok(Some((Listeners::inherited(listeners)?, inherited.gate()))),
        }
    }
}
