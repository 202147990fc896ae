//! Logs: `tracing` events and structured records, formatted and written by one thread of their own.
//!
//! - [`levels`]: which targets log at which level (the language of `RUST_LOG`), changed at run time.
//! - [`record`]: a line as data, and its fields in both formats.
//! - `layer`: turns `tracing` events into records.
//! - `writer`: the bounded queue and the thread behind it; full means dropped and counted.

pub mod levels;

pub mod record;

mod layer;

mod writer;

use std::io;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use self::layer::RecordLayer;
pub use self::levels::{Levels, LevelsError};
pub use self::record::{Fields, Record};
use self::writer::Queue;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, level, target with spans, message, key=value; separated by tabs.
    #[default]
    Plain,
    /// One object per line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error(transparent)]
    Levels(#[from] LevelsError),
    #[error("logging is already set up")]
    Twice,
    #[error("logging is not set up")]
    NotSetUp,
    #[error("cannot start the log writer: {0}")]
    Thread(#[from] io::Error),
}

struct Installed {
    queue: Queue,
    reload: reload::Handle<Targets, Registry>,
    initial: Levels,
    current: Mutex<Levels>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Writes what is still queued when dropped; keep it until `main` returns.
#[must_use = "dropping the guard flushes the log"]
#[derive(Debug)]
pub struct FlushGuard(());

/// Sets up logging to standard output for the whole process.
pub fn install(format: Format, levels: Levels) -> Result<FlushGuard, LogsError> {
    install_to(format, levels, Box::new(io::stdout()))
}

/// Sets up logging to `output`, for programs whose standard output is for their user.
pub fn install_to(
    format: Format,
    levels: Levels,
    output: Box<dyn io::Write + Send>,
) -> Result<FlushGuard, LogsError> {
    if INSTALLED.get().is_some() {
        return Err(LogsError::Twice);
    }
    let queue = Queue::start(format, output)?;
    let (filter, reload) = reload::Layer::new(levels.to_targets());
    let subscriber = Registry::default()
        .with(filter)
        .with(RecordLayer::new(queue.clone()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::Twice)?;
    let installed = Installed {
        queue,
        reload,
        initial: levels.clone(),
        current: Mutex::new(levels),
    };
    INSTALLED.set(installed).map_err(|_| LogsError::Twice)?;
    Ok(FlushGuard(()))
}

/// Queues a record for the writer. The caller asks [`enabled!`](tracing::enabled) first.
pub fn write(record: Box<dyn Record>) {
    if let Some(installed) = INSTALLED.get() {
        installed.queue.record(record);
    }
}

/// Waits until all queued lines are written, at most a second.
pub fn flush() {
    if let Some(installed) = INSTALLED.get() {
        installed.queue.flush();
    }
}

/// The levels in force.
pub fn levels() -> Levels {
    INSTALLED.get().map_or_else(Levels::default, |installed| {
        installed
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    })
}

/// Changes levels: `directives` are laid over those in force.
pub fn change_levels(directives: &str) -> Result<Levels, LogsError> {
    let change = Levels::from_str(directives)?;
    swap_levels(|current, _| current.overlaid(&change))
}

/// Goes back to the levels the process started with.
pub fn reset_levels() -> Result<Levels, LogsError> {
    swap_levels(|_, initial| initial.clone())
}

fn swap_levels(next: impl FnOnce(&Levels, &Levels) -> Levels) -> Result<Levels, LogsError> {
    let installed = INSTALLED.get().ok_or(LogsError::NotSetUp)?;
    let mut current = installed
        .current
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let next = next(&current, &installed.initial);
    installed
        .reload
        .reload(next.to_targets())
        .map_err(|_| LogsError::NotSetUp)?;
    *current = next.clone();
    Ok(next)
}

// === impl Format ===

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "plain" | "" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err(format!("log format {text:?} is neither plain nor json")),
        }
    }
}

// === impl FlushGuard ===

impl Drop for FlushGuard {
    fn drop(&mut self) {
        flush();
    }
}

#[cfg(test)]
mod tests;
