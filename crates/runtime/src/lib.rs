//! What every program of the mesh does besides its work: start, say how it is, and stop.
//!
//! - [`environment`]: settings, with all mistakes at once.
//! - [`allocator`]: what happens to freed memory.
//! - [`program`]: what is mapped of its file.
//! - [`descriptors`]: how many may be open.
//! - [`conntrack`]: how many connections the kernel tracks.
//! - [`confinement`]: what the process gives up for good.
//! - [`memory`]: how near its limit is.
//! - [`tasks`]: those of threads of their own, counted.
//! - [`vital`]: threads and tasks that the process ends with.
//! - [`readiness`]: which startup tasks are still open.
//! - [`signals`]: what asks the process to stop.
//! - [`notify`]: what a service manager is told.
//! - [`drain`]: stopping work in progress, within a deadline.
//! - [`admin`]: HTTP servers for people and machines that look after the process.
//! - [`metrics`]: the recorder and its rendering.
//! - [`logs`]: records, levels, the writer.
//! - [`causes`]: errors with what caused them.
//! - [`wall_clock`]: waiting for a time of day.

pub mod environment;

pub mod allocator;

pub mod program;

pub mod descriptors;

pub mod conntrack;

pub mod confinement;

pub mod memory;

pub mod tasks;

pub mod vital;

pub mod readiness;

pub mod signals;

pub mod notify;

pub mod drain;

pub mod admin;

pub mod metrics;

pub mod logs;

pub mod causes;

pub mod wall_clock;
