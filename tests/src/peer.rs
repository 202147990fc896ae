//! The tests' application: its ports, and the bytes of its transfers.

pub mod client;

pub mod rate;

pub mod serve;

pub mod stubborn;

/// Answers each line `GET …` with `NAME PEER_ADDRESS` and keeps the connection.
pub const REQUEST_PORT: u16 = 8080;
/// Echoes bytes.
pub const ECHO_PORT: u16 = 9000;
/// Speaks first: `220 NAME`, then echoes lines.
pub const BANNER_PORT: u16 = 9001;
/// Reads to the end, then answers `LENGTH CHECKSUM` and closes.
pub const SINK_PORT: u16 = 9002;
/// Reads a length, sends that many bytes of [`Pattern`] and closes.
pub const SOURCE_PORT: u16 = 9003;
/// Echoes datagrams.
pub const UDP_PORT: u16 = 9004;
/// Neither reads nor closes.
pub const DEAF_PORT: u16 = 9005;
/// Reads to the end and never ends its own direction.
pub const ENDLESS_PORT: u16 = 9006;

/// A reproducible stream of bytes that no compressor or coincidence imitates, with a
/// checksum over all of it: xorshift64* from a fixed seed, checked by FNV-1a over its words.
pub struct Pattern {
    state: u64,
    checksum: u64,
}

// === impl Pattern ===

impl Default for Pattern {
    fn default() -> Self {
        Self {
            state: 0x9E37_79B9_7F4A_7C15,
            checksum: FNV_OFFSET,
        }
    }
}

impl Pattern {
    /// Fills a buffer whose length is a multiple of eight, but for the last one.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let bytes = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
        self.checksum = checksum(self.checksum, buffer);
    }

    pub fn checksum(&self) -> u64 {
        self.checksum
    }
}

pub const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

/// FNV-1a, eight bytes at a time (the last word padded with zeros); chunks must be
/// multiples of eight but for the last.
pub fn checksum(mut state: u64, bytes: &[u8]) -> u64 {
    for word in bytes.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        state = (state ^ u64::from_le_bytes(padded)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    state
}
