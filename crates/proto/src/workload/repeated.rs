//! What many resources repeat word for word, kept once for all that are read on this thread.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use mesh::workload::{Locality, Template};

/// Values of a kind that are known before it is looked for some that nobody uses any more.
const FEW: usize = 1024;

thread_local! {
    static TEXTS: RefCell<Pool<str>> = RefCell::default();
    static LOCALITIES: RefCell<Pool<Locality>> = RefCell::default();
    static TEMPLATES: RefCell<Pool<Template>> = RefCell::default();
}

/// The text as resources before had it.
pub(super) fn text(text: impl AsRef<str> + Into<Arc<str>>) -> Arc<str> {
    TEXTS.with_borrow_mut(|known| match known.find(text.as_ref()) {
        Some(known) => known,
        None => known.add(text.into()),
    })
}

/// The template as the workloads before had it.
pub(super) fn template(template: Template) -> Arc<Template> {
    TEMPLATES.with_borrow_mut(|known| match known.find(&template) {
        Some(known) => known,
        None => known.add(Arc::new(template)),
    })
}

/// The locality as the workloads before had it.
pub(super) fn locality(locality: Locality) -> Arc<Locality> {
    LOCALITIES.with_borrow_mut(|known| match known.find(&locality) {
        Some(known) => known,
        None => known.add(Arc::new(locality)),
    })
}

/// Values that are in use, or were a while ago.
struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// How many there may be before the unused ones are dropped.
    enough: usize,
}

// === impl Pool ===

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            enough: FEW,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    fn find(&self, value: &T) -> Option<Arc<T>> {
        self.values.get(value).cloned()
    }

    fn add(&mut self, value: Arc<T>) -> Arc<T> {
        if self.values.len() >= self.enough {
            self.values.retain(|known| Arc::strong_count(known) > 1);
            self.enough = FEW.max(2 * self.values.len());
        }
        self.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_kept_once() {
        let (one, other) = (text("node-1"), text("node-1"));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &text("node-2")));
    }

    #[test]
    fn what_nobody_uses_any_more_is_let_go() {
        let mut pool = Pool::<str>::default();
        let used = pool.add("used".into());
        for number in 0..10 * FEW {
            pool.add(number.to_string().into());
            assert!(pool.values.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&used, &pool.find("used").expect("in use")));
    }
}
