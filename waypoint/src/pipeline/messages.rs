//! Counts gRPC's length-prefixed messages in a body's bytes.

/// Where in the framing the next byte is.
#[derive(Debug)]
pub(crate) struct Messages {
    is_grpc: bool,
    /// Of the five bytes before a message: a flag and its length.
    prefix: [u8; 5],
    prefix_read: usize,
    /// Bytes of the message still to come.
    left: u32,
}

// === impl Messages ===

impl Messages {
    pub(crate) fn new(is_grpc: bool) -> Self {
        Self {
            is_grpc,
            prefix: [0; 5],
            prefix_read: 0,
            left: 0,
        }
    }

    /// How many begin in these bytes.
    pub(crate) fn read(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        if !self.is_grpc {
            return begun;
        }
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = data.len().min(self.left as usize);
                // No more than `left`, which is of this size.
                self.left -= skipped as u32;
                data = &data[skipped..];
                continue;
            }
            let wanted = self.prefix.len() - self.prefix_read;
            let (read, rest) = data.split_at(wanted.min(data.len()));
            self.prefix[self.prefix_read..][..read.len()].copy_from_slice(read);
            self.prefix_read += read.len();
            data = rest;
            if self.prefix_read == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length);
                self.prefix_read = 0;
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0u32, 3, 300] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![7; length as usize]);
        }
        for size in [1, 2, 4, 5, 7, 400] {
            let mut messages = Messages::new(true);
            let counts = bytes.chunks(size).map(|chunk| messages.read(chunk));
            assert_eq!(counts.sum::<u64>(), 3, "by {size}");
        }
        assert_eq!(Messages::new(false).read(&bytes), 0);
    }
}
