//! A pipe between two threads: one puts items in, one by one, the other takes them out, by the run.
//!
//! # Protocol
//! Items lie in *stretches* of memory, each of which leads to the next. The [`Inlet`] has the last one: it writes an item to the
//! next place, or makes a stretch, and counts it in `pushed` afterwards. The [`Outlet`] has the first one, and looks only at places
//! that are counted. So each place is written once and read once, in this order, and no lock is needed at either end. A
//! stretch belongs to who has an end in it, and what was not taken out of it is dropped with it.
//!
//! [`Inlet::push`] ends with a fence: what the thread looks at next, it looks at after the item could be seen. Who makes a
//! note that it will not come to look any more, has a fence of its own and then looks once more ([`Outlet::len`]), misses no item
//! whose thread missed the note.
//!
//! The two promises that this rests on are kept by the types: an end has one owner, who lends it mutably.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::sync::{AtomicU64, AtomicUsize, Ordering, UnsafeCell, fence};

/// How many bytes a stretch has, if items are not very large. Smaller, and more of them are made than a stream of tiny items can
/// afford; larger, and a map of a few items pays for what it does not use.
const STRETCH: usize = 4096;

/// The end that items go in at.
pub(crate) struct Inlet<T> {
    last: Arc<Stretch<T>>,
    pushed: Arc<AtomicU64>,
    /// The same, which this end alone writes.
    count: u64,
    /// How many places of the last stretch are filled.
    filled: usize,
}

/// The end that items come out at.
pub(crate) struct Outlet<T> {
    first: Arc<Stretch<T>>,
    pushed: Arc<AtomicU64>,
    taken: u64,
    /// How many of them were in the first stretch.
    at: usize,
}

struct Stretch<T> {
    places: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Written before the first item of the next one is counted.
    next: UnsafeCell<Option<Arc<Stretch<T>>>>,
    /// How many places were ever filled, and how many emptied: for the drop.
    filled: AtomicUsize,
    emptied: AtomicUsize,
}

// SAFETY: of the cells, the inlet writes those that are not counted, and the outlet reads those that are: see the protocol. Items
// are sent from one thread to the other, and never looked at by both.
unsafe impl<T: Send> Sync for Stretch<T> {}

/// A pipe with nothing in it.
pub(crate) fn pipe<T>() -> (Inlet<T>, Outlet<T>) {
    let (first, pushed) = (Arc::new(Stretch::new()), Arc::new(AtomicU64::new(0)));
    let inlet = Inlet {
        last: Arc::clone(&first),
        pushed: Arc::clone(&pushed),
        count: 0,
        filled: 0,
    };
    let outlet = Outlet {
        first,
        pushed,
        taken: 0,
        at: 0,
    };
    (inlet, outlet)
}

impl<T> Inlet<T> {
    /// Puts an item in.
    pub(crate) fn push(&mut self, item: T) {
        if self.filled == self.last.places.len() {
            let next = Arc::new(Stretch::new());
            let led_to = Some(Arc::clone(&next));
            // SAFETY: the outlet looks here only once an item of the next stretch is counted, which comes after.
            self.last.next.with_mut(|place| unsafe { *place = led_to });
            self.last = next;
            self.filled = 0;
        }
        // SAFETY: the place is not counted, so nobody else looks at it.
        self.last.places[self.filled].with_mut(|place| unsafe { (*place).write(item) });
        self.filled += 1;
        self.count += 1;
        self.last.filled.store(self.filled, Ordering::Relaxed);
        self.pushed.store(self.count, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

impl<T> Outlet<T> {
    /// How many items are in it, or more by now.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.pushed.load(Ordering::Acquire) - self.taken).unwrap_or(usize::MAX)
    }

    /// How many items came out.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes up to `most` items out, those that were put in first.
    pub(crate) fn take(&mut self, most: usize, run: &mut Vec<T>) {
        let mut left = most.min(self.len());
        run.reserve(left);
        while left > 0 {
            if self.at == self.first.places.len() {
                // SAFETY: more items are counted than were taken, so one of the next stretch is.
                let next = self.first.next.with(|place| unsafe { (*place).clone() });
                self.first = next.expect("a full stretch leads to the next before that is used");
                self.at = 0;
            }
            let end = self.first.places.len().min(self.at + left);
            run.extend(self.first.places[self.at..end].iter().map(|place| {
                // SAFETY: so many items are counted, so their places are filled, and none is read again: `at` moves on.
                place.with(|place| unsafe { (*place).assume_init_read() })
            }));
            left -= end - self.at;
            self.taken += (end - self.at) as u64;
            self.at = end;
            self.first.emptied.store(end, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        // Stretch by stretch: left to themselves, each would drop the next within its own drop.
        while self.len() > 0 {
            let mut some = Vec::new();
            self.take(self.first.places.len(), &mut some);
        }
    }
}

impl<T> Stretch<T> {
    fn new() -> Self {
        let empty = || UnsafeCell::new(MaybeUninit::uninit());
        Self {
            places: (0..Self::room()).map(|_| empty()).collect(),
            next: UnsafeCell::new(None),
            filled: AtomicUsize::new(0),
            emptied: AtomicUsize::new(0),
        }
    }

    const fn room() -> usize {
        if cfg!(loom) {
            return 1;
        }
        let fit = match size_of::<T>() {
            0 => STRETCH,
            size => STRETCH / size,
        };
        if fit < 8 { 8 } else { fit }
    }
}

impl<T> Drop for Stretch<T> {
    fn drop(&mut self) {
        let (filled, emptied) = (
            self.filled.load(Ordering::Relaxed),
            self.emptied.load(Ordering::Relaxed),
        );
        for place in &self.places[emptied..filled] {
            // SAFETY: nobody has an end here any more; these were filled, and not read.
            place.with_mut(|place| unsafe { (*place).assume_init_drop() });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn items_come_out_in_order_over_many_stretches() {
        let (mut inlet, mut outlet) = pipe();
        let many = 3 * Stretch::<usize>::room() + 1;
        (0..many).for_each(|item| inlet.push(item));
        let mut run = Vec::new();
        outlet.take(5, &mut run);
        assert_eq!((outlet.len(), outlet.taken()), (many - 5, 5));
        outlet.take(usize::MAX, &mut run);
        assert!(run.into_iter().eq(0..many));
        assert_eq!((outlet.len(), outlet.taken()), (0, many as u64));
    }

    #[test]
    fn items_without_a_size_and_items_that_are_large_pass_as_well() {
        let (mut inlet, mut outlet) = pipe();
        inlet.push(());
        let (mut large, mut end) = pipe();
        (0..20).for_each(|k| large.push([k; 2000]));
        let (mut nothing, mut run) = (Vec::new(), Vec::new());
        outlet.take(9, &mut nothing);
        end.take(99, &mut run);
        assert_eq!((nothing.len(), run.len(), run[19][1999]), (1, 20, 19));
    }

    #[test]
    fn what_nobody_takes_out_is_dropped_with_either_end_last() {
        for inlet_first in [true, false] {
            let item = Arc::new(());
            let (mut inlet, mut outlet) = pipe();
            for _ in 0..2 * Stretch::<Arc<()>>::room() {
                inlet.push(Arc::clone(&item));
            }
            outlet.take(3, &mut Vec::new());
            if inlet_first {
                drop(inlet);
                drop(outlet);
            } else {
                drop(outlet);
                inlet.push(Arc::clone(&item));
                drop(inlet);
            }
            assert_eq!(Arc::strong_count(&item), 1);
        }
    }

    #[test]
    fn every_item_comes_out_once_while_others_go_in() {
        const N: u64 = 100_000;
        let (mut inlet, mut outlet) = pipe();
        let other = thread::spawn(move || (0..N).for_each(|item| inlet.push(item)));
        let mut run = Vec::new();
        while outlet.taken() < N {
            outlet.take(77, &mut run);
        }
        other.join().unwrap();
        assert!(run.into_iter().eq(0..N));
    }
}
