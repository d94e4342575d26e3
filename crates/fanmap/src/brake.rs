//! What keeps a map's tasks from running while too many bytes of its results wait for the consumer.
//!
//! # Protocol
//! Results are counted as they come ([`Brake::came`]) and as the consumer takes them ([`Brake::taken`]). Before the
//! supervisor sends a task on it asks [`Brake::holds`], under the pool's lock; a task that is held stays in the queue.
//! Whoever takes a result learns whether the queue must be looked at again.
//!
//! No look is lost: the supervisor notes that it held something and then looks once more at the counts and at the head of
//! the order; the consumer moves the head and the counts and then looks whether something is noted. Both do so by a swap of
//! one word, so the second of the two sees all that the first did before its own.
//!
//! It cannot hang: the task that the consumer waits for is never held, and of results that leave as they come there is one
//! to take whenever anything is held. A pool that was closed holds nothing.
//!
//! What workers have been sent runs, so there may be some more than the bound: as many results as that is tasks.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Brake {
    /// Of results that came and were not taken.
    items: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether something may have been held since a result was last taken.
    held: AtomicBool,
    least_items: usize,
    most_bytes: usize,
}

impl Brake {
    /// Holds tasks while results of `most_bytes` or more wait, if those are of `least_items` or more items.
    #[must_use]
    pub fn new(least_items: usize, most_bytes: usize) -> Self {
        Self {
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            least_items,
            most_bytes,
        }
    }

    /// A result came, of so many items.
    pub fn came(&self, items: usize, bytes: usize) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A result was taken, or something in the place of one. Whether the pool must look at its queue again.
    #[must_use]
    pub fn taken(&self, items: usize, bytes: usize) -> bool {
        self.items.fetch_sub(items, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.held.swap(false, Ordering::AcqRel)
    }

    /// Whether tasks are to wait; `awaited` tells whether the consumer waits for one of them.
    pub fn holds(&self, awaited: impl FnOnce() -> bool) -> bool {
        if !self.is_full() {
            return false;
        }
        self.held.swap(true, Ordering::AcqRel);
        self.is_full() && !awaited()
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.most_bytes && self.items.load(Ordering::Relaxed) >= self.least_items
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_held_while_many_bytes_wait() {
        let brake = Brake::new(2, 100);
        assert!(!brake.holds(|| false));
        brake.came(1, 100);
        assert!(
            !brake.holds(|| false),
            "one result, however large, does not stop the other workers"
        );
        brake.came(1, 1);
        assert!(brake.holds(|| false));
        assert!(!brake.holds(|| true), "the consumer waits for it");
        assert!(brake.taken(1, 100), "something was held");
        assert!(!brake.holds(|| false));
        assert!(!brake.taken(1, 1), "nothing was held since");
    }
}
