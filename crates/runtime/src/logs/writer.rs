//! The bounded queue of log records and the thread that formats and writes them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::Format;
use super::record::{Fields, Record, write_line};

/// Lines waiting at most; those beyond are dropped and counted.
const QUEUE: usize = 4096;

/// Lines formatted into one write at most.
const BATCH: usize = 256;

/// After a batch the writer rests, so that a busy data thread doesn't pay a wake-up per line.
const REST: Duration = Duration::from_millis(1);

/// How long the process's end is held up by lines that are still waiting.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Queue {
    entries: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

enum Entry {
    Line(SystemTime, Box<dyn Record>),
    Flush(SyncSender<()>),
}

struct Dropped(u64);

// === impl Queue ===

impl Queue {
    pub(super) fn start(format: Format, output: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (entries, receiver) = sync_channel(QUEUE);
        let queue = Self {
            entries,
            dropped: Arc::default(),
        };
        let dropped = queue.dropped.clone();
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || run(&receiver, &dropped, format, output))?;
        Ok(queue)
    }

    /// Never waits.
    pub(super) fn record(&self, record: Box<dyn Record>) {
        let entry = Entry::Line(SystemTime::now(), record);
        if let Err(TrySendError::Full(_)) = self.entries.try_send(entry) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for [`PATIENCE`] at most, also where the queue is full because nobody reads what is written.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let (done, wait) = sync_channel(1);
        let mut flush = Entry::Flush(done);
        while let Err(refused) = self.entries.try_send(flush) {
            match refused {
                TrySendError::Full(back) if Instant::now() < deadline => flush = back,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return,
            }
            std::thread::sleep(REST);
        }
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn run(
    entries: &Receiver<Entry>,
    dropped: &AtomicU64,
    format: Format,
    mut output: Box<dyn Write + Send>,
) {
    let mut text = String::new();
    while let Ok(first) = entries.recv() {
        let mut lines = 0;
        let mut flushed = None;
        let mut next = Some(first);
        while let Some(entry) = next.take() {
            match entry {
                Entry::Line(time, record) => {
                    write_line(&mut text, format, time, &*record);
                    lines += 1;
                }
                Entry::Flush(done) => {
                    flushed = Some(done);
                    break;
                }
            }
            if lines < BATCH {
                next = entries.try_recv().ok();
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            metrics::counter!("log_lines_dropped_total").increment(lost);
            write_line(&mut text, format, SystemTime::now(), &Dropped(lost));
        }
        // A log that can't be written has nowhere to say so.
        let _ = output.write_all(text.as_bytes());
        let _ = output.flush();
        text.clear();
        text.shrink_to(64 * 1024);
        if let Some(done) = flushed {
            let _ = done.send(());
        } else if lines > 1 {
            std::thread::sleep(REST);
        }
    }
}

// === impl Dropped ===

impl Record for Dropped {
    fn level(&self) -> Level {
        Level::WARN
    }

    fn target(&self) -> &str {
        "logs"
    }

    fn message(&self) -> &str {
        "log lines dropped, the queue was full"
    }

    fn fields(&self, fields: &mut Fields<'_>) {
        fields.number("lines", self.0);
    }
}
