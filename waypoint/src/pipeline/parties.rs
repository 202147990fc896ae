//! Who talks to what on a connection: found once, and asked by each of its requests.

use std::cell::RefCell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as ArcWeak};

use mesh::waypoint::Destination;
use mesh::workload::Workload;

/// The client's workload, by its address, and what it dialled.
#[derive(Clone, Default)]
pub(crate) struct Parties {
    pub(crate) source: Option<Arc<Workload>>,
    pub(crate) destination: Option<Rc<Destination>>,
}

/// What was found for a connection, good as long as the mesh is the same. It keeps nothing of an
/// older mesh alive.
#[derive(Default)]
pub struct Remembered(RefCell<Option<Found>>);

struct Found {
    /// Goes with what was made of one snapshot.
    life: Weak<()>,
    source: Option<ArcWeak<Workload>>,
    destination: Weak<Destination>,
}

// === impl Remembered ===

impl Remembered {
    pub(crate) fn get(&self) -> Option<Parties> {
        let found = self.0.borrow();
        let found = found
            .as_ref()
            .filter(|found| found.life.strong_count() > 0)?;
        let source = match &found.source {
            Some(source) => Some(source.upgrade()?),
            None => None,
        };
        Some(Parties {
            source,
            destination: Some(found.destination.upgrade()?),
        })
    }

    pub(crate) fn set(&self, life: &Rc<()>, parties: &Parties) {
        *self.0.borrow_mut() = parties.destination.as_ref().map(|destination| Found {
            life: Rc::downgrade(life),
            source: parties.source.as_ref().map(Arc::downgrade),
            destination: Rc::downgrade(destination),
        });
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}
