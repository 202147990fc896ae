//! A pod's log: a file with a line per line written, when and by which container, bounded in size.
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::machine::file::older;

/// The file and its predecessor together hold at most twice that.
const LONGEST: u64 = 10 << 20;
/// Longer lines are cut, as container runtimes do.
const LONGEST_LINE: usize = 16 << 10;

#[derive(Clone)]
pub(super) struct Log(Rc<RefCell<Inner>>);

struct Inner {
    path: PathBuf,
    file: File,
    length: u64,
}

// === impl Log ===

impl Log {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = create(&path)?;
        let length = file.metadata()?.len();
        Ok(Self(Rc::new(RefCell::new(Inner { path, file, length }))))
    }

    /// Reads what a container writes until it stops.
    pub(super) async fn follow(self, container: String, mut output: impl AsyncRead + Unpin) {
        let mut pending = Vec::new();
        let mut bytes = vec![0; 8 << 10];
        loop {
            let length = match output.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            pending.extend_from_slice(&bytes[..length]);
            let consumed = self.write_lines(&container, &pending);
            pending.drain(..consumed);
        }
        if !pending.is_empty() {
            self.0.borrow_mut().write(&line(&container, &pending));
        }
    }

    /// Writes the whole lines at the front and says how many bytes that were.
    fn write_lines(&self, container: &str, pending: &[u8]) -> usize {
        let mut lines = Vec::new();
        let mut consumed = 0;
        loop {
            let rest = &pending[consumed..];
            let (length, skip) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) if end <= LONGEST_LINE => (end, end + 1),
                Some(_) => (LONGEST_LINE, LONGEST_LINE),
                None if rest.len() > LONGEST_LINE => (LONGEST_LINE, LONGEST_LINE),
                None => break,
            };
            lines.extend(line(container, &rest[..length]));
            consumed += skip;
        }
        if !lines.is_empty() {
            self.0.borrow_mut().write(&lines);
        }
        consumed
    }
}

// === impl Inner ===

impl Inner {
    /// A full disk costs lines, never the container.
    fn write(&mut self, lines: &[u8]) {
        if self.length > LONGEST {
            let _ = std::fs::rename(&self.path, older(&self.path));
            if let Ok(file) = create(&self.path) {
                self.file = file;
                self.length = 0;
            }
        }
        if self.file.write_all(lines).is_ok() {
            self.length += lines.len() as u64;
        }
    }
}

fn create(path: &std::path::Path) -> io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// `2026-01-02T03:04:05.678901Z container text`
fn line(container: &str, text: &[u8]) -> Vec<u8> {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let mut line = format!("{now} {container} ").into_bytes();
    line.extend_from_slice(text);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &std::path::Path) -> Vec<String> {
        let log = std::fs::read_to_string(path).unwrap();
        log.lines()
            .map(|line| line.splitn(3, ' ').skip(1).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[tokio::test]
    async fn lines_carry_their_container_and_an_unfinished_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        Log::open(path.clone())
            .unwrap()
            .follow("web".into(), &b"one\ntwo\n\nrest"[..])
            .await;
        assert_eq!(texts(&path), ["web one", "web two", "web ", "web rest"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let long = vec![b'x'; LONGEST_LINE * 2 + 1];
        Log::open(path.clone())
            .unwrap()
            .follow("web".into(), &long[..])
            .await;
        assert_eq!(texts(&path).len(), 3);
    }
}
