//! What passes on the link between the nodes while pages are asked for.

use std::time::{Duration, Instant};

use super::canary::Versions;
use super::{Demo, TELLTALE, run};
use crate::control::Target;
use crate::exit::Result;

/// What the screen shows of the link between the nodes.
pub(super) struct Link {
    /// Packets to or from an HBONE port.
    pub(super) hbone: usize,
    /// Lines of the capture with application text in them.
    pub(super) clear: usize,
}

// === impl Demo ===

impl Demo {
    /// Captures between the nodes while pages are asked for.
    pub(super) fn watch_link(&self, versions: &mut Versions) -> Result<Option<Link>> {
        let state = self.state.clone();
        let command = [
            "timeout", "3", "tcpdump", "-i", "any", "-nn", "-l", "-A", "-s", "0", "tcp",
        ];
        let watcher = std::thread::spawn(move || run(&state, Target::Switch, &command));
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            versions.count(&self.page()?);
        }
        let Ok(Ok((_, captured))) = watcher.join() else {
            return Ok(None);
        };
        let link = Link {
            hbone: captured
                .lines()
                .filter(|line| line.contains(".15008"))
                .count(),
            clear: captured
                .lines()
                .filter(|line| line.contains(TELLTALE))
                .count(),
        };
        Ok((link.hbone > 0).then_some(link))
    }
}
