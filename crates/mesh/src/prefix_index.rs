//! Finds the prefixes of a text by their lengths: one look-up for each length that any has, however
//! many there are.

use std::collections::HashMap;

/// Positions by the prefix they stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixIndex {
    /// Ascending, each once.
    lengths: Vec<usize>,
    positions: HashMap<Box<str>, Vec<usize>>,
}

// === impl PrefixIndex ===

impl PrefixIndex {
    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn insert(&mut self, prefix: &str, at: usize) {
        if let Err(place) = self.lengths.binary_search(&prefix.len()) {
            self.lengths.insert(place, prefix.len());
        }
        self.positions.entry(prefix.into()).or_default().push(at);
    }

    /// The positions of those prefixes of the text that may end where they end, in the order in
    /// which they were inserted.
    pub(crate) fn of<'a>(
        &'a self,
        text: &str,
        may_end: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = &'a [usize]> {
        let lengths = self.lengths.iter().copied();
        lengths
            .take_while(|length| *length <= text.len())
            .filter(move |length| may_end(*length))
            .filter_map(|length| self.positions.get(text.get(..length)?))
            .map(Vec::as_slice)
    }
}
