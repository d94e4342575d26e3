//! The meeting point of a map: workers put results in as they come, the consumer takes them out in order, or as they come.
//!
//! # Protocol
//! The order is under a mutex that is held for a moment at a time, and no value is dropped under it (a value may be a Python
//! object, whose destructor may run anything). The consumer waits on an [`Event`], since its wait must see signals. It looks
//! at the head after reading the event's epoch, and [`Ordered::put`] moves the epoch after filling the head, so a wake-up
//! is not lost; a put anywhere else changes nothing for the consumer and wakes nobody. (Where results leave as they come,
//! any of them is the head.) [`Ordered::close`] moves it too: a
//! consumer that waits is told that there is nothing to come.
//!
//! One thread at a time is the consumer. Several may be, and each gets other values; but then only one of those who wait for
//! the same head gets it, and the others go on waiting.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use fanmap_shm::event::{Event, Wake};

use super::reorder::Reorder;

/// What [`Ordered::pop`] found.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Popped<T> {
    /// The head, and the indices of the items that it is the value of.
    Items(Range<u64>, T),
    /// Nothing is outstanding: it would wait for ever.
    Empty,
    /// The deadline passed first. Everything is as before.
    TimedOut,
    /// A signal arrived. Look at the signals, then pop again or give up.
    Interrupted,
}

/// Results of a map, put in in any order and popped in the order they were reserved in, or as they come.
#[derive(Debug)]
pub struct Ordered<T> {
    order: Mutex<Reorder<T>>,
    head_ready: Event,
    /// Written under the mutex.
    closed: AtomicBool,
}

impl<T> Ordered<T> {
    /// Nothing reserved, nothing there. Results leave in order.
    #[must_use]
    pub const fn new() -> Self {
        Self::over(Reorder::new())
    }

    /// Nothing reserved, nothing there. Results leave as they come.
    #[must_use]
    pub const fn as_they_come() -> Self {
        Self::over(Reorder::as_they_come())
    }

    const fn over(order: Reorder<T>) -> Self {
        Self {
            order: Mutex::new(order),
            head_ready: Event::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Makes `count` places at the end of the order, and gives the first's index.
    pub fn reserve(&self, count: u64) -> u64 {
        let mut order = self.order();
        let index = order.reserve(count);
        if self.is_closed() {
            // There was nothing in it but the new places, so no value is dropped here.
            order.clear();
        }
        index
    }

    /// Puts the value of `count` items from `first` on in its place, and wakes the consumer if it is the one waited for.
    ///
    /// A value that nobody will ask for is dropped: after [`close`](Ordered::close), or if the place has a value already.
    pub fn put(&self, first: u64, count: u64, value: T) {
        let mut order = self.order();
        let is_head = order.is_awaited(first);
        let refused = order.put(first, count, value);
        drop(order);
        if is_head && refused.is_none() {
            self.head_ready.notify();
        }
    }

    /// The head, if it is there, and the indices of the items that it is the value of.
    pub fn try_pop(&self) -> Option<(Range<u64>, T)> {
        self.order().pop_head()
    }

    /// The head, waiting for it until `deadline` (`None`: however long it takes).
    pub fn pop(&self, deadline: Option<Instant>) -> Popped<T> {
        let mut woke = Wake::Notified;
        loop {
            let epoch = self.head_ready.epoch();
            let mut order = self.order();
            if let Some((items, value)) = order.pop_head() {
                return Popped::Items(items, value);
            }
            if order.outstanding() == 0 {
                return Popped::Empty;
            }
            drop(order);
            match woke {
                Wake::Notified => woke = self.head_ready.wait(epoch, deadline),
                // Only after a last look: what came meanwhile is not lost to the time or the signal.
                Wake::TimedOut => return Popped::TimedOut,
                Wake::Interrupted => return Popped::Interrupted,
            }
        }
    }

    /// Whether the consumer can get nothing before one of `count` items from `first` on.
    #[must_use]
    pub fn needs(&self, first: u64, count: u64) -> bool {
        self.order().needs(first, count)
    }

    /// How many places are reserved and not popped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.order().outstanding()
    }

    /// How many values are there and not popped.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.order().ready()
    }

    /// Drops what is there and what comes, and tells a consumer that waits that nothing is outstanding.
    pub fn close(&self) {
        let mut order = self.order();
        self.closed.store(true, Ordering::Release);
        let values = order.clear();
        drop(order);
        self.head_ready.notify();
        drop(values);
    }

    /// Whether it was closed: a task whose result would go here need not run.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn order(&self) -> MutexGuard<'_, Reorder<T>> {
        self.order.lock().expect("nothing panics under this lock")
    }
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn values_leave_in_the_order_of_their_places() {
        let results = Ordered::new();
        assert_eq!(results.pop(None), Popped::Empty);
        assert_eq!((results.reserve(1), results.reserve(1)), (0, 1));
        results.put(1, 1, 'b');
        assert_eq!((results.outstanding(), results.ready()), (2, 1));
        assert_eq!(results.try_pop(), None);
        assert_eq!(results.pop(Some(Instant::now())), Popped::TimedOut);
        results.put(0, 1, 'a');
        assert_eq!(results.pop(None), Popped::Items(0..1, 'a'));
        assert_eq!(results.try_pop(), Some((1..2, 'b')));
        assert_eq!(results.pop(None), Popped::Empty);
    }

    #[test]
    fn a_waiting_consumer_gets_every_value_from_other_threads() {
        const N: u64 = 500;
        let results = Arc::new(Ordered::new());
        for _ in 0..N {
            results.reserve(1);
        }
        let putters: Vec<_> = (0..4)
            .map(|which| {
                let results = Arc::clone(&results);
                thread::spawn(move || (which..N).step_by(4).for_each(|index| results.put(index, 1, index)))
            })
            .collect();
        for index in 0..N {
            loop {
                match results.pop(None) {
                    Popped::Items(_, value) => break assert_eq!(value, index),
                    Popped::Interrupted => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        for putter in putters {
            putter.join().expect("a putter panicked");
        }
    }

    #[test]
    fn a_waiting_consumer_is_woken_by_whatever_comes_if_order_does_not_matter() {
        let results = Arc::new(Ordered::as_they_come());
        results.reserve(3);
        let consumer = thread::spawn({
            let results = Arc::clone(&results);
            move || results.pop(None)
        });
        results.put(2, 1, 'c');
        assert_eq!(
            consumer.join().expect("the consumer panicked"),
            Popped::Items(2..3, 'c')
        );
        assert_eq!(results.pop(Some(Instant::now())), Popped::TimedOut);
        results.close();
        results.put(1, 1, 'b');
        assert_eq!(results.pop(None), Popped::Empty);
    }

    #[test]
    fn closing_drops_every_value_and_wakes_the_consumer() {
        let results = Arc::new(Ordered::new());
        let value = Arc::new(());
        results.reserve(1);
        results.reserve(1);
        results.put(1, 1, Arc::clone(&value));
        let consumer = thread::spawn({
            let results = Arc::clone(&results);
            move || results.pop(None)
        });
        results.close();
        assert_eq!(consumer.join().expect("the consumer panicked"), Popped::Empty);
        results.put(0, 1, Arc::clone(&value));
        assert_eq!(results.reserve(1), 2);
        results.put(2, 1, Arc::clone(&value));
        assert_eq!(Arc::strong_count(&value), 1);
        assert_eq!(results.outstanding(), 0);
    }
}
