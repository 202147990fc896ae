//! What one tunnelled connection is served with.

use std::rc::Rc;

use crate::drain::Drain;
use crate::limits::Limits;
use crate::message::Downstream;

/// A client's connection, its worker's pipeline and limits. Clones share them.
pub(crate) struct Session<P> {
    pub(crate) pipeline: Rc<P>,
    pub(crate) downstream: Rc<Downstream>,
    pub(crate) limits: Rc<Limits>,
    pub(crate) drain: Drain,
}

impl<P> Clone for Session<P> {
    fn clone(&self) -> Self {
        Self {
            pipeline: self.pipeline.clone(),
            downstream: self.downstream.clone(),
            limits: self.limits.clone(),
            drain: self.drain.clone(),
        }
    }
}
