//! `weft logs`: what a pod or a piece of the mesh wrote.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{Global, named_pod};
use crate::exit::{Exit, Result};
use crate::machine::file::older;
use crate::state::State;

const EXAMPLES: &str = "\
Examples:
  weft logs web -n shop
  weft logs web -f --tail 20
  weft logs deploy/web -n shop
  weft logs control-plane
  weft logs ztunnel/node-1 -f
";

/// Show what a pod or a piece of the mesh wrote
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, deploy/NAME, svc/NAME, control-plane, ztunnel/NODE or machine
    target: String,
    /// Only this container's lines
    #[arg(short, long)]
    container: Option<String>,
    /// Keep showing what is added
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// With the time and the container of each line
    #[arg(long)]
    timestamps: bool,
}

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(150);

/// A log file, and how its lines are shown.
struct Log {
    path: PathBuf,
    /// A pod's lines carry a time and a container.
    of_pod: bool,
    container: Option<String>,
    timestamps: bool,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let log = self.find(&global.state()?, global.namespace())?;
        let mut out = std::io::stdout().lock();
        let mut content = std::fs::read(older(&log.path)).unwrap_or_default();
        let current = std::fs::read(&log.path).unwrap_or_default();
        let position = current.len() as u64;
        content.extend(current);
        let lines: Vec<_> = log.lines(&content).collect();
        let first = lines.len() - self.tail.unwrap_or(lines.len()).min(lines.len());
        for line in &lines[first..] {
            out.write_all(line)?;
        }
        out.flush()?;
        if self.follow {
            log.follow(out, position)
        } else {
            Ok(())
        }
    }

    fn find(&self, state: &State, namespace: &str) -> Result<Log> {
        if !state.run().exists() {
            return Err(Exit::Unreachable
                .because(format!("no mesh is running at {}", state.root().display())));
        }
        let piece = |path: PathBuf| Log {
            path,
            of_pod: false,
            container: None,
            timestamps: true,
        };
        let target = named_pod::resolve(state, &self.target, namespace)?;
        let log = match target.split_once('/') {
            Some(("ztunnel", node)) => piece(state.ztunnel_log(node)),
            _ if target == "control-plane" => piece(state.control_plane_log()),
            _ if target == "machine" => piece(state.machine_log()),
            Some((kind, _)) if !["pod", "pods", "po"].contains(&kind) => {
                return Err(Exit::Usage.because(format!(
                    "there are no logs of {:?}: give a pod's name, deploy/NAME, svc/NAME, ztunnel/NODE, control-plane or machine",
                    self.target
                )));
            }
            other => {
                let name = other.map_or(&*target, |(_, name)| name);
                if !state.pod_object(namespace, name).exists() {
                    return Err(
                        Exit::NotFound.because(format!("there is no pod {namespace}/{name}"))
                    );
                }
                let path = state.pod_log(namespace, name);
                return Ok(Log {
                    path,
                    of_pod: true,
                    container: self.container.clone(),
                    timestamps: self.timestamps,
                });
            }
        };
        if !log.path.exists() {
            return Err(Exit::Failed.because(format!("{} has written nothing", self.target)));
        }
        Ok(log)
    }
}

// === impl Log ===

impl Log {
    /// The lines to show of what was written.
    fn lines<'a>(&'a self, content: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        content
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| self.line(line))
    }

    fn line<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        if !self.of_pod {
            return Some(line);
        }
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (_, container, text) = (parts.next()?, parts.next()?, parts.next()?);
        if self
            .container
            .as_ref()
            .is_some_and(|wanted| wanted.as_bytes() != container)
        {
            return None;
        }
        Some(if self.timestamps { line } else { text })
    }

    /// Shows what is added behind `position`, until the log is gone.
    fn follow(&self, mut out: impl Write, position: u64) -> Result {
        let mut file = File::open(&self.path).ok();
        if let Some(file) = &mut file {
            file.seek(SeekFrom::Start(position))?;
        }
        let mut pending = Vec::new();
        loop {
            if let Some(file) = &mut file {
                file.read_to_end(&mut pending)?;
                let whole = pending
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1);
                for line in self.lines(&pending[..whole]) {
                    out.write_all(line)?;
                }
                out.flush()?;
                pending.drain(..whole);
            }
            std::thread::sleep(LOOK);
            let Ok(now) = std::fs::metadata(&self.path) else {
                // A pod that has not started has no log yet; one that is gone has no folder.
                if file.is_some() || !self.path.parent().is_some_and(std::path::Path::exists) {
                    return Ok(());
                }
                continue;
            };
            let same = match &mut file {
                Some(file) => {
                    file.metadata()?.ino() == now.ino() && file.stream_position()? <= now.len()
                }
                None => false,
            };
            if !same {
                file = Some(File::open(&self.path)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_lines_are_shown_without_what_the_log_adds() {
        let log = |container: Option<&str>| Log {
            path: PathBuf::new(),
            of_pod: true,
            container: container.map(str::to_owned),
            timestamps: false,
        };
        let content = b"2026-01-01T00:00:00Z web hello world\n2026-01-01T00:00:01Z side x\n";
        let show =
            |log: &Log| String::from_utf8(log.lines(content).flatten().copied().collect()).unwrap();
        assert_eq!(show(&log(None)), "hello world\nx\n");
        assert_eq!(show(&log(Some("web"))), "hello world\n");
    }
}
