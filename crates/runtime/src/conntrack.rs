//! How full a network namespace's table of tracked connections is. What finds no place in it is told
//! nothing: the kernel drops its first packet, and whoever connects waits in vain.

use std::fmt;
use std::fs;

const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// From here on people are told, in percent: there is time to raise the limit.
const NEARLY_FULL: u64 = 80;
/// As good as full, in percent: places come free and are taken again while somebody waits for one.
const FULL: u64 = 98;

/// What one namespace tracks, and how much it may: the limit is the same for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    entries: u64,
    limit: u64,
}

// === impl Usage ===

impl Usage {
    /// Of the namespace that the calling thread is in; none where the kernel tracks nothing.
    pub fn here() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        Self::parse(&read(ENTRIES)?, &read(LIMIT)?)
    }

    fn parse(entries: &str, limit: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse().ok();
        let (entries, limit) = (number(entries)?, number(limit)?);
        // To the kernel, no limit at all.
        (limit > 0).then_some(Self { entries, limit })
    }

    pub fn percent(self) -> u64 {
        self.entries.saturating_mul(100) / self.limit
    }

    pub fn is_nearly_full(self) -> bool {
        self.percent() >= NEARLY_FULL
    }

    pub fn is_full(self) -> bool {
        self.percent() >= FULL
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_full() {
            true => f.write_str("full")?,
            false => write!(f, "{} % full", self.percent())?,
        }
        write!(f, " ({} of {} entries)", self.entries, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_by_how_full_it_is() {
        for (entries, said, is_nearly_full, is_full) in [
            ("0\n", "0 % full (0 of 1000 entries)", false, false),
            ("799\n", "79 % full (799 of 1000 entries)", false, false),
            ("800\n", "80 % full (800 of 1000 entries)", true, false),
            ("979\n", "97 % full (979 of 1000 entries)", true, false),
            ("980\n", "full (980 of 1000 entries)", true, true),
            // The limit was lowered since.
            ("2000\n", "full (2000 of 1000 entries)", true, true),
        ] {
            let usage = Usage::parse(entries, "1000\n").expect("numbers");
            assert_eq!(usage.to_string(), said);
            assert_eq!(usage.is_nearly_full(), is_nearly_full, "{usage}");
            assert_eq!(usage.is_full(), is_full, "{usage}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_limit_or_does_not_tell_is_never_full() {
        for (entries, limit) in [("7\n", "0\n"), ("", "1000\n"), ("7\n", "many\n")] {
            assert_eq!(Usage::parse(entries, limit), None, "{entries:?} {limit:?}");
        }
    }
}
