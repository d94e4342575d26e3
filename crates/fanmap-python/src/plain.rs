//! A plain iterator, such as the built-in `map`'s, that gives a map's results for a while, one by one as they are asked for.
//!
//! # What threads share
//! The iterator is in one place, and who asks it for a value takes it out, so that others see that it is out; it is put back
//! with the value. That is two exchanges an item, and no lock. Only who has it counts its values. Who closes the map says so
//! before it empties the place, and who puts the iterator back looks after it has. Should both see nothing of each other, the
//! iterator stays where nobody looks, until the map is dropped: what it gives is not handed out once the map is closed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyIterator;

use fanmap_shm::clock::coarse_nanos;

#[derive(Default)]
pub(crate) struct Plain {
    /// Python's None is in the place of an iterator that is out.
    place: AtomicCell<Option<Py<PyAny>>>,
    /// Whether it may be worth a look: a map that is no plain one never pays for an exchange.
    is_on: AtomicBool,
    /// By the coarse clock.
    until: AtomicU64,
    /// How many values it gave. Written by who has it out.
    count: AtomicUsize,
    /// How many of these somebody was told of.
    told: AtomicUsize,
    /// Whether the map is closed.
    closed: AtomicBool,
}

/// What is in the place.
pub(crate) enum Found<'py> {
    /// Nothing.
    Nothing,
    /// The iterator, whose time is over. It is dropped.
    Over,
    /// The iterator, which is out from now on: to be put back, or ended.
    Ours(Bound<'py, PyIterator>),
    /// Another thread has it.
    Out,
}

impl Plain {
    /// Takes the iterator out.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> Found<'py> {
        if !self.is_on.load(Ordering::Relaxed) {
            return Found::Nothing;
        }
        // What is left in an empty place does no harm: nobody looks there before there is an iterator again.
        let Some(found) = self.place.swap(Some(py.None())) else {
            return Found::Nothing;
        };
        let Ok(iterator) = found.into_bound(py).cast_into::<PyIterator>() else {
            return Found::Out;
        };
        if coarse_nanos() < self.until.load(Ordering::Relaxed) {
            return Found::Ours(iterator);
        }
        self.end();
        Found::Over
    }

    /// As if it were taken out, though it is yet to be put there for the first time.
    pub(crate) fn take_out(&self, py: Python<'_>) {
        self.place.store(Some(py.None()));
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Puts it in its place, for that time (some milliseconds more, perhaps).
    pub(crate) fn put_for(&self, iterator: Bound<'_, PyIterator>, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.until
            .store(coarse_nanos().saturating_add(nanos), Ordering::Relaxed);
        if self.put(iterator) {
            self.is_on.store(true, Ordering::Relaxed);
        }
    }

    /// Puts it back. False, and it is dropped, if the map is closed.
    pub(crate) fn put(&self, iterator: Bound<'_, PyIterator>) -> bool {
        self.place.store(Some(iterator.into_any().unbind()));
        let closed = self.is_closed();
        if closed {
            self.end();
        }
        !closed
    }

    /// It gave one more value, which nobody else can say: it is out.
    pub(crate) fn gave(&self) {
        self.count
            .store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It is of no use any more.
    pub(crate) fn end(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        drop(self.place.take());
    }

    /// How many values were given so; with `take` the count begins anew.
    pub(crate) fn count(&self, take: bool) -> usize {
        let count = self.count.load(Ordering::Relaxed);
        let told = if take {
            self.told.swap(count, Ordering::Relaxed)
        } else {
            self.told.load(Ordering::Relaxed)
        };
        count.saturating_sub(told)
    }

    /// There is to be none from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.end();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// For the collector, which runs while nobody else does.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let found = self.place.take();
        let visited = visit.call(&found);
        self.place.store(found);
        visited
    }
}
