//! The chunked transfer coding (RFC 9112 §7.1), decoded at any split and with bounds.

use std::mem;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::head;
use crate::limits::HeadLimits;

/// Bytes of chunk extensions in one body; nobody uses them, and each costs a look.
const MOST_EXTENSIONS: usize = 16 << 10;

/// Why a body is not chunked as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("malformed chunk size")]
    Size,
    #[error("a chunk of more bytes than can be counted")]
    TooLarge,
    #[error("malformed or too long chunk extension")]
    Extension,
    #[error("chunk without its line end")]
    LineEnd,
    #[error("malformed or too large trailer section")]
    Trailers,
}

/// What the next bytes were.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    Data(Bytes),
    /// All input is used up.
    More,
    /// The end, with the trailer section if it had fields.
    End(Option<HeaderMap>),
}

/// The decoder of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
    trailers: BytesMut,
}

/// ```text
/// Size -> (Extension ->) SizeEnd -> Data -> DataEnd -> DataEndLf -> Size
///                             `-> Trailers -> Done          (size 0)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    DataEndLf,
    Trailers,
    Done,
}

const START: State = State::Size { digits: 0, size: 0 };

// === impl Decoder ===

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: START,
            extensions: 0,
            trailers: BytesMut::new(),
        }
    }
}

impl Decoder {
    /// Takes from the front of `input`.
    pub fn decode(
        &mut self,
        input: &mut Bytes,
        limits: &HeadLimits,
    ) -> Result<Decoded, ChunkError> {
        loop {
            match self.state {
                State::Data { left } if !input.is_empty() => {
                    let amount = usize::try_from(left).map_or(input.len(), |n| n.min(input.len()));
                    let data = input.split_to(amount);
                    let left = left - amount as u64;
                    self.state = match left {
                        0 => State::DataEnd,
                        left => State::Data { left },
                    };
                    return Ok(Decoded::Data(data));
                }
                State::Trailers => {
                    let Some(trailers) = self.trailers(input, limits)? else {
                        return Ok(Decoded::More);
                    };
                    self.state = State::Done;
                    return Ok(Decoded::End((!trailers.is_empty()).then_some(trailers)));
                }
                State::Done => return Ok(Decoded::End(None)),
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::Data { .. }
                | State::DataEnd
                | State::DataEndLf => {
                    let Some((byte, used)) = input.first().map(|byte| (*byte, 1)) else {
                        return Ok(Decoded::More);
                    };
                    bytes::Buf::advance(input, used);
                    self.state = self.step(byte)?;
                }
            }
        }
    }

    /// One byte outside of data and trailers.
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                // 15 digits can't overflow what is counted here.
                if digits == 15 {
                    return Err(ChunkError::TooLarge);
                }
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError::Size)?;
                Ok(State::Size {
                    digits: digits + 1,
                    size: (size << 4) | u64::from(digit),
                })
            }
            (State::Size { digits: 0, .. }, _) => Err(ChunkError::Size),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size }),
            (State::Size { .. }, _) => Err(ChunkError::Size),
            (State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { size }, _) => {
                self.extensions += 1;
                let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
                if is_text && self.extensions <= MOST_EXTENSIONS {
                    Ok(State::Extension { size })
                } else {
                    Err(ChunkError::Extension)
                }
            }
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::SizeEnd { .. }, _) => Err(ChunkError::Size),
            (State::DataEnd, b'\r') => Ok(State::DataEndLf),
            (State::DataEndLf, b'\n') => Ok(START),
            (State::DataEnd | State::DataEndLf, _) => Err(ChunkError::LineEnd),
            (State::Data { .. } | State::Trailers | State::Done, _) => Err(ChunkError::Size),
        }
    }

    /// Gathers the trailer section; whole once its empty line is there.
    fn trailers(
        &mut self,
        input: &mut Bytes,
        limits: &HeadLimits,
    ) -> Result<Option<HeaderMap>, ChunkError> {
        if self.trailers.is_empty() && input.starts_with(b"\r\n") {
            bytes::Buf::advance(input, 2);
            return Ok(Some(HeaderMap::new()));
        }
        while !input.is_empty() {
            let line = input.iter().position(|byte| *byte == b'\n');
            let taken = input.split_to(line.map_or(input.len(), |end| end + 1));
            self.trailers.extend_from_slice(&taken);
            if self.trailers.len() > limits.bytes {
                return Err(ChunkError::Trailers);
            }
            if self.trailers[..] == *b"\r\n" {
                self.trailers = BytesMut::new();
                return Ok(Some(HeaderMap::new()));
            }
            if self.trailers.ends_with(b"\n\r\n") {
                let section = mem::take(&mut self.trailers).freeze();
                let trailers = head::parse_trailers(&section, limits);
                return trailers.ok_or(ChunkError::Trailers).map(Some);
            }
        }
        Ok(None)
    }
}

/// The line in front of a chunk of `size` bytes.
pub(crate) fn encode_size(out: &mut BytesMut, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = size;
    loop {
        at -= 1;
        digits[at] = HEX[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
