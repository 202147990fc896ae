//! Counts the frames by which a peer keeps this end busy and moves nothing.
//!
//! RFC 9113 §10.5 lists them: settings, pings, priorities, unknown frames, windows opened byte by
//! byte. Each is legal; a peer that floods them would hold a worker's thread, which reads on while
//! there is something to read. Requests that are reset, small data frames and long header blocks are
//! h2's to count.

use std::time::{Duration, Instant};

/// RFC 9113 §3.4: what a client says before its first frame.
const PREFACE: usize = 24;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

/// Bytes sent that are reason enough for a window to be opened.
const PER_WINDOW_UPDATE: usize = 256;

/// A peer floods.
#[derive(Debug, thiserror::Error)]
#[error("the peer floods the tunnel with control frames")]
pub(crate) struct Flood;

/// Which end of the tunnel the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Server,
}

/// Follows the frames of one peer.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    sent: usize,
    control: Budget,
    windows: Budget,
}

/// Frames a peer may send at once, and how many more with time.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    since: Option<Instant>,
}

// === impl Guard ===

impl Guard {
    pub(crate) fn new(peer: Peer) -> Self {
        Self {
            skip: match peer {
                Peer::Client => PREFACE,
                Peer::Server => 0,
            },
            header: [0; HEADER],
            filled: 0,
            sent: 0,
            control: Budget::new(1_000, 100),
            windows: Budget::new(10_000, 1_000),
        }
    }

    /// Sees what the peer says.
    pub(crate) fn observe(
        &mut self,
        mut bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.count(kind, flags, &now)?;
            }
        }
        Ok(())
    }

    /// A peer that is sent much opens its windows often.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let updates = self.sent / PER_WINDOW_UPDATE;
        self.sent %= PER_WINDOW_UPDATE;
        self.windows
            .give(u32::try_from(updates).unwrap_or(u32::MAX));
    }

    fn count(&mut self, kind: u8, flags: u8, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let budget = match kind {
            DATA if self.skip > 0 || flags & END_STREAM != 0 => return Ok(()),
            HEADERS | RST_STREAM => return Ok(()),
            WINDOW_UPDATE => &mut self.windows,
            _ => &mut self.control,
        };
        match budget.take(now()) {
            true => Ok(()),
            false => Err(Flood),
        }
    }
}

// === impl Budget ===

impl Budget {
    fn new(most: u32, per_second: u32) -> Self {
        Self {
            left: most,
            most,
            per_second,
            since: None,
        }
    }

    fn give(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let second = Duration::from_secs(1);
        let passed = now.saturating_duration_since(since);
        if passed >= second {
            let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
            self.give(seconds.saturating_mul(self.per_second));
            self.since = Some(now);
        }
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, PING);
        frame
    }

    /// How many of a frame are let through, without time passing.
    fn admitted(guard: &mut Guard, frame: &[u8], now: Instant) -> usize {
        (0..50_000)
            .take_while(|_| guard.observe(frame, || now).is_ok())
            .count()
    }

    #[test]
    fn control_frames_are_budgeted_and_work_is_not() {
        let now = Instant::now();
        for (kind, flags, payload, most) in [
            (PING, 0, 8, 1_000),
            (SETTINGS, 0, 6, 1_000),
            (DATA, 0, 0, 1_000),
            (0xFA, 0, 3, 1_000),
            (WINDOW_UPDATE, 0, 4, 10_000),
            (DATA, 0, 1, 50_000),
            (DATA, END_STREAM, 0, 50_000),
            (HEADERS, 4, 20, 50_000),
            (RST_STREAM, 0, 4, 50_000),
        ] {
            let mut guard = Guard::new(Peer::Server);
            let frame = frame(kind, flags, payload);
            assert_eq!(admitted(&mut guard, &frame, now), most, "{kind}");
        }
    }

    #[test]
    fn budgets_grow_with_time_and_with_what_is_sent() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3);
        let all = |guard: &mut Guard, frame: &[u8], count, now| {
            assert!((0..count).all(|_| guard.observe(frame, || now).is_ok()));
        };
        let mut guard = Guard::new(Peer::Server);
        let ping = frame(PING, 0, 8);
        all(&mut guard, &ping, 1_000, now);
        assert_eq!(admitted(&mut guard, &ping, later), 300);
        let mut guard = Guard::new(Peer::Server);
        let window = frame(WINDOW_UPDATE, 0, 4);
        all(&mut guard, &window, 10_000, now);
        guard.sent(700);
        guard.sent(100);
        assert_eq!(admitted(&mut guard, &window, now), 3);
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let now = Instant::now();
        let mut stream = vec![PING; PREFACE];
        for _ in 0..700 {
            stream.extend(frame(DATA, 0, 100));
            stream.extend(frame(PING, 0, 8));
            stream.extend(frame(PING, 1, 8));
        }
        for piece in [1, 2, 7, 9, 10, 117, 4096] {
            let mut guard = Guard::new(Peer::Client);
            let mut seen = 0;
            for bytes in stream.chunks(piece) {
                if guard.observe(bytes, || now).is_err() {
                    break;
                }
                seen += bytes.len();
            }
            // The five hundred and first pair holds the frame too many.
            let whole = PREFACE + 500 * (109 + 17 + 17) + 109;
            assert!(
                (whole - piece..=whole + 17).contains(&seen),
                "{piece}: {seen}"
            );
        }
    }
}
