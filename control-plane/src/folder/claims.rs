//! Which of several files that define one object is in force: the machine's folder
//! before the user's, the user's before what was made for want of it, then the first by path
//! and place in the file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use istio_compat::diagnostic::{Diagnostic, Origin, Severity};
use istio_compat::object::{Object, ObjectKey};

use crate::source::Event;

/// Where a folder lies in the pile.
pub(super) type Rank = usize;

/// A place that defines an object. The order is the precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Higher ones overlay lower ones.
    rank: Reverse<Rank>,
    path: Arc<Path>,
    /// Position of the document in its file.
    ordinal: usize,
}

/// Every definition of every object.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_key: BTreeMap<ObjectKey, BTreeMap<Place, Object>>,
    announced: BTreeMap<ObjectKey, Object>,
    contested: BTreeSet<ObjectKey>,
    touched: BTreeSet<ObjectKey>,
}

// === impl Place ===

impl Place {
    pub(super) fn new(rank: Rank, path: Arc<Path>, ordinal: usize) -> Self {
        Self {
            rank: Reverse(rank),
            path,
            ordinal,
        }
    }
}

// === impl Claims ===

impl Claims {
    pub(super) fn add(&mut self, key: ObjectKey, place: Place, object: Object) {
        let places = self.by_key.entry(key.clone()).or_default();
        places.insert(place, object);
        self.touched.insert(key);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, place: &Place) {
        if let Some(places) = self.by_key.get_mut(key) {
            places.remove(place);
            if places.is_empty() {
                self.by_key.remove(key);
            }
            self.touched.insert(key.clone());
        }
    }

    /// What changed in force since the last call.
    pub(super) fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some(places) = self.by_key.get(&key) else {
                self.contested.remove(&key);
                if self.announced.remove(&key).is_some() {
                    events.push(Event::Deleted(key));
                }
                continue;
            };
            if places.len() > 1 {
                self.contested.insert(key.clone());
            } else {
                self.contested.remove(&key);
            }
            let Some(object) = in_force(places) else {
                continue;
            };
            let known = self.announced.get(&key);
            if known.is_some_and(|known| same(known, &object)) {
                continue;
            }
            events.push(Event::Applied(object.clone()));
            self.announced.insert(key, object);
        }
        events
    }

    /// Objects that are defined twice in one folder. An overlay is not a conflict.
    pub(super) fn conflicts(&self) -> Vec<Diagnostic> {
        let mut conflicts = Vec::new();
        for key in &self.contested {
            let Some(places) = self.by_key.get(key) else {
                continue;
            };
            let mut first_of_root: BTreeMap<Reverse<Rank>, &Origin> = BTreeMap::new();
            for (place, object) in places {
                match first_of_root.get(&place.rank) {
                    None => {
                        first_of_root.insert(place.rank, &object.origin);
                    }
                    Some(first) => conflicts.push(Diagnostic {
                        severity: Severity::Error,
                        file: object.origin.file.clone(),
                        line: object.origin.line,
                        column: 0,
                        object: key.to_string(),
                        field: String::new(),
                        message: format!("is already defined at {first}, which is in force"),
                    }),
                }
            }
        }
        conflicts
    }
}

/// The winner's object, under the place where its author wrote it: what the machine
/// lays over a user's object is not where the user would look for it.
fn in_force(places: &BTreeMap<Place, Object>) -> Option<Object> {
    let (_, winner) = places.first_key_value()?;
    let (_, author) = places
        .iter()
        .max_by_key(|(place, _)| (place.rank, Reverse((&place.path, place.ordinal))))?;
    let mut object = winner.clone();
    object.origin = author.origin.clone();
    Some(object)
}

fn same(one: &Object, other: &Object) -> bool {
    one.origin == other.origin && one.body == other.body && one.raw == other.raw
}
