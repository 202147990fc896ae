//! Looks for a secret in what this process has in memory.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

const CHUNK: usize = 1 << 20;
/// What a needle is kept under, so that it doesn't find itself.
const MASK: u8 = 0x5a;

/// The second half of some bytes that are to be found nowhere: an allocator writes over the beginning
/// of what it gets back.
pub(crate) struct Needle(Vec<u8>);

// === impl Needle ===

impl Needle {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let half = &secret[secret.len() / 2..];
        Self(half.iter().map(|byte| byte ^ MASK).collect())
    }

    /// Whether any memory that is of no file holds it: heaps, stacks, whatever was mapped.
    pub(crate) fn is_in_memory(&self) -> bool {
        let memory = File::open("/proc/self/mem").expect("readable");
        // What was read is not there to be read.
        let mut buffer = Zeroizing::new(vec![0; CHUNK]);
        let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + CHUNK;
        anonymous().into_iter().any(|region| {
            let before = region.start..region.end.min(own.start.max(region.start));
            let after = region.start.max(own.end.min(region.end))..region.end;
            let parts = [before, after];
            parts
                .into_iter()
                .any(|part| self.is_in(&memory, part, &mut buffer))
        })
    }

    fn is_in(&self, memory: &File, part: Range<usize>, buffer: &mut [u8]) -> bool {
        let mut start = part.start;
        while start < part.end {
            let end = part.end.min(start + buffer.len());
            let chunk = &mut buffer[..end - start];
            // What another thread has unmapped meanwhile holds nothing.
            let is_found = memory.read_exact_at(chunk, start as u64).is_ok()
                && chunk.windows(self.0.len()).any(|window| self.is(window));
            chunk.fill(0);
            if is_found {
                return true;
            }
            // It may lie across two chunks.
            start = if end == part.end {
                end
            } else {
                end - self.0.len()
            };
        }
        false
    }

    fn is(&self, window: &[u8]) -> bool {
        window
            .iter()
            .zip(&self.0)
            .all(|(byte, masked)| byte ^ MASK == *masked)
    }
}

fn anonymous() -> Vec<Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").expect("readable");
    let region = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_of_no_file = fields.get(5).is_none_or(|name| name.starts_with('['));
        let (start, end) = fields[0].split_once('-').expect("a range");
        let address = |text| usize::from_str_radix(text, 16).expect("an address");
        (fields[1].starts_with("rw") && is_of_no_file).then(|| address(start)..address(end))
    };
    maps.lines().filter_map(region).collect()
}
