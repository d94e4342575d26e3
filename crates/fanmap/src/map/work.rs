//! The meeting point of a map over threads: the reader puts items in, helpers work on them, the consumer takes results out
//! in order.
//!
//! # Protocol
//! Items come in chunks, but each is claimed on its own: a chunk has a cursor, and whoever adds one to it has the item
//! that it stood at. So no item waits behind another that takes long, whoever claimed that; and a chunk costs the reader
//! one lock, however many items it has. Each place of a chunk has a mutex that is held for a moment by at most two threads,
//! and holds an item, then nothing while it is worked on, then a result.
//!
//! A *helper* is a job on a pool of threads that claims one item after another ([`Hand`]). [`Work::push`] tells how many
//! more helpers to bring, and counts them; a helper is counted off under the same lock under which it finds nothing open.
//! So an item that was pushed always has a helper that will look again. Who cannot bring a helper, or has one that will
//! never run, says so ([`Work::lose_helper`]).
//!
//! The consumer notes the index that it waits for (`awaited`), looks once more, and sleeps on an [`Event`]; who has put a
//! result looks at the note. Both sides have a sequentially consistent fence between their write and their look, so at
//! least one sees the other. Any other result wakes nobody.
//!
//! No lock is held while an item, a result or a function of the caller's is dropped or run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fanmap_shm::event::{Event, Wake};

use super::ordered::Popped;

/// Nobody waits.
const NOBODY: u64 = u64::MAX;

/// The items and results of one map over threads.
#[derive(Debug)]
pub struct Work<T, R> {
    open: Mutex<Open<T, R>>,
    head: Mutex<Head<T, R>>,
    awaited: AtomicU64,
    head_ready: Event,
    closed: AtomicBool,
    pushed: AtomicU64,
    popped: AtomicU64,
}

/// What helpers look at.
#[derive(Debug)]
struct Open<T, R> {
    /// Chunks that may have unclaimed items.
    chunks: VecDeque<Arc<Chunk<T, R>>>,
    helpers: usize,
}

/// What the consumer looks at: the chunks whose results were not all popped, and the place of the next in the first.
#[derive(Debug)]
struct Head<T, R> {
    chunks: VecDeque<Arc<Chunk<T, R>>>,
    at: usize,
}

#[derive(Debug)]
struct Chunk<T, R> {
    /// The index of its first item.
    first: u64,
    cursor: AtomicUsize,
    places: Vec<Mutex<Place<T, R>>>,
}

#[derive(Debug)]
enum Place<T, R> {
    Item(T),
    /// It is worked on, or was popped.
    Empty,
    Result(R),
}

/// An item, and its place.
type Claimed<T, R> = (Arc<Chunk<T, R>>, usize, T);

/// A helper's hold on the work: the item that it has claimed, by its place.
#[derive(Debug)]
pub struct Hand<T, R> {
    work: Arc<Work<T, R>>,
    chunk: Arc<Chunk<T, R>>,
    at: usize,
}

impl<T, R> Work<T, R> {
    /// Nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self {
            open: Mutex::new(Open {
                chunks: VecDeque::new(),
                helpers: 0,
            }),
            head: Mutex::new(Head {
                chunks: VecDeque::new(),
                at: 0,
            }),
            awaited: AtomicU64::new(NOBODY),
            head_ready: Event::new(),
            closed: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
            popped: AtomicU64::new(0),
        }
    }

    /// Adds items at the end of the order. How many helpers to bring, so that there are as many as items, up to `most`;
    /// they count from now on.
    #[must_use]
    pub fn push(&self, items: Vec<T>, most: usize) -> usize {
        let count = items.len();
        let chunk = self.chunk(items.into_iter().map(Place::Item), 0);
        let mut open = lock(&self.open);
        if self.is_closed() {
            return 0; // `close` may have been here before: the items are dropped with the chunk
        }
        open.chunks.push_back(chunk);
        let helpers = open.helpers.max(most.min(open.helpers + count));
        let wanted = helpers - open.helpers;
        open.helpers = helpers;
        wanted
    }

    /// Adds a result at the end of the order, of an item that nobody need work on.
    pub fn push_result(&self, result: R) {
        drop(self.chunk(std::iter::once(Place::Result(result)), 1));
    }

    fn chunk(&self, places: impl ExactSizeIterator<Item = Place<T, R>>, cursor: usize) -> Arc<Chunk<T, R>> {
        let mut head = lock(&self.head);
        let chunk = Arc::new(Chunk {
            first: self.pushed.fetch_add(places.len() as u64, Ordering::Relaxed),
            cursor: AtomicUsize::new(cursor),
            places: places.map(Mutex::new).collect(),
        });
        // After `close` nobody would ever take it out.
        if !self.is_closed() {
            head.chunks.push_back(Arc::clone(&chunk));
        }
        chunk
    }

    /// A helper that was counted will never work: true if it was the last, so that what is open has nobody.
    #[must_use]
    pub fn lose_helper(&self) -> bool {
        let mut open = lock(&self.open);
        open.helpers -= 1;
        open.helpers == 0
    }

    /// Gives every item that was not claimed the result of `why`.
    pub fn abandon(&self, mut why: impl FnMut() -> R) {
        let chunks = std::mem::take(&mut lock(&self.open).chunks);
        for chunk in chunks {
            while let Some((at, item)) = chunk.claim() {
                drop(item);
                self.put(&chunk, at, why());
            }
        }
    }

    /// Puts a claimed item's result in its place, and wakes the consumer if it waits for that one.
    fn put(&self, chunk: &Chunk<T, R>, at: usize, result: R) {
        let before = chunk.change(at, Place::Result(result));
        debug_assert!(matches!(before, Place::Empty));
        fence(Ordering::SeqCst);
        if self.awaited.load(Ordering::Relaxed) == chunk.first + at as u64 {
            self.head_ready.notify();
        }
    }

    /// The next chunk with an unclaimed item, and that item, claimed. `None`: nothing is open, and the helper that asks
    /// counts no more.
    fn claim_elsewhere(&self, used_up: Option<&Arc<Chunk<T, R>>>) -> Option<Claimed<T, R>> {
        let mut used_up = used_up.cloned();
        loop {
            let mut open = lock(&self.open);
            if let (Some(used_up), Some(first)) = (&used_up, open.chunks.front()) {
                if Arc::ptr_eq(used_up, first) {
                    open.chunks.pop_front();
                }
            }
            let Some(chunk) = open.chunks.front().cloned() else {
                open.helpers -= 1;
                return None;
            };
            drop(open);
            if let Some((at, item)) = chunk.claim() {
                return Some((chunk, at, item));
            }
            used_up = Some(chunk);
        }
    }

    /// The next result if it is there.
    pub fn try_pop(&self) -> Option<R> {
        let mut head = lock(&self.head);
        let result = head.pop(|_| true)?;
        self.popped.fetch_add(1, Ordering::Relaxed);
        Some(result)
    }

    /// Those of the next `most` results that are there, as long as they are such that `wanted` says yes.
    pub fn pop_while(&self, most: usize, wanted: impl Fn(&R) -> bool) -> Vec<R> {
        let mut head = lock(&self.head);
        let results: Vec<R> = std::iter::from_fn(|| head.pop(&wanted)).take(most).collect();
        self.popped.fetch_add(results.len() as u64, Ordering::Relaxed);
        results
    }

    /// The next result, waiting for it until `deadline` (`None`: however long it takes).
    pub fn pop(&self, deadline: Option<Instant>) -> Popped<R> {
        let mut woke = Wake::Notified;
        loop {
            let epoch = self.head_ready.epoch();
            self.awaited
                .store(self.popped.load(Ordering::Relaxed), Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let found = self.try_pop();
            if found.is_some() || self.outstanding() == 0 {
                self.awaited.store(NOBODY, Ordering::Relaxed);
                return found.map_or(Popped::Empty, |result| Popped::Items(1, result));
            }
            match woke {
                Wake::Notified => woke = self.head_ready.wait(epoch, deadline),
                // Only after a last look: what came meanwhile is not lost to the time or the signal.
                Wake::TimedOut => return Popped::TimedOut,
                Wake::Interrupted => return Popped::Interrupted,
            }
        }
    }

    /// How many items were pushed whose results were not popped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        if self.is_closed() {
            return 0;
        }
        let popped = self.popped.load(Ordering::Relaxed);
        usize::try_from(self.pushed.load(Ordering::Relaxed).saturating_sub(popped)).unwrap_or(usize::MAX)
    }

    /// How many items nobody has claimed.
    #[must_use]
    pub fn unclaimed(&self) -> usize {
        let open = lock(&self.open);
        let left = |chunk: &Arc<Chunk<T, R>>| chunk.places.len().saturating_sub(chunk.cursor.load(Ordering::Relaxed));
        open.chunks.iter().map(left).sum()
    }

    /// Drops what is there and what comes. Items that were not claimed never will be; a consumer that waits is told that
    /// there is nothing to come.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let chunks = std::mem::take(&mut lock(&self.open).chunks);
        let unread = std::mem::take(&mut lock(&self.head).chunks);
        self.head_ready.notify();
        for chunk in &chunks {
            while let Some((_, item)) = chunk.claim() {
                drop(item);
            }
        }
        drop(unread);
    }

    /// Whether it was closed: an item's result would go nowhere.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl<T, R> Default for Work<T, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, R> Hand<T, R> {
    /// The first item of a helper that was counted by [`Work::push`]. `None`: nothing is open, and it counts no more.
    #[must_use]
    pub fn start(work: &Arc<Work<T, R>>) -> Option<(Self, T)> {
        let (chunk, at, item) = work.claim_elsewhere(None)?;
        let work = Arc::clone(work);
        Some((Self { work, chunk, at }, item))
    }

    /// Puts the item's result in its place, and claims the next item. `None`: nothing is open, and the helper counts no
    /// more; then `last` was called before the result was out.
    pub fn step(&mut self, result: R, last: impl FnOnce()) -> Option<T> {
        if let Some((at, item)) = self.chunk.claim() {
            self.work.put(&self.chunk, self.at, result);
            self.at = at;
            return Some(item);
        }
        let next = self.work.claim_elsewhere(Some(&self.chunk));
        if next.is_none() {
            last();
        }
        self.work.put(&self.chunk, self.at, result);
        let (chunk, at, item) = next?;
        (self.chunk, self.at) = (chunk, at);
        Some(item)
    }

    /// Puts the item's result in its place, and claims no other: the helper goes on counting, and will be back.
    pub fn pause(self, result: R) {
        self.work.put(&self.chunk, self.at, result);
    }
}

impl<T, R> Head<T, R> {
    /// The next result if it is there and is such that `wanted` says yes.
    fn pop(&mut self, wanted: impl FnOnce(&R) -> bool) -> Option<R> {
        let chunk = self.chunks.front()?;
        let mut place = lock(&chunk.places[self.at]);
        if !matches!(&*place, Place::Result(result) if wanted(result)) {
            return None;
        }
        let Place::Result(result) = std::mem::replace(&mut *place, Place::Empty) else {
            return None;
        };
        drop(place);
        self.at += 1;
        if self.at == chunk.places.len() {
            // It holds nothing any more, so dropping it under the lock runs nothing.
            self.at = 0;
            self.chunks.pop_front();
        }
        Some(result)
    }
}

impl<T, R> Chunk<T, R> {
    /// The next unclaimed item, and its place.
    fn claim(&self) -> Option<(usize, T)> {
        // Looked at first, so that a chunk that is used up costs others no write.
        if self.cursor.load(Ordering::Relaxed) >= self.places.len() {
            return None;
        }
        let at = self.cursor.fetch_add(1, Ordering::Relaxed);
        if at >= self.places.len() {
            return None;
        }
        match self.change(at, Place::Empty) {
            Place::Item(item) => Some((at, item)),
            Place::Empty | Place::Result(_) => None,
        }
    }

    fn change(&self, at: usize, place: Place<T, R>) -> Place<T, R> {
        std::mem::replace(&mut *lock(&self.places[at]), place)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn items_are_claimed_in_order_and_results_popped_in_order() {
        let work = Arc::new(Work::new());
        assert_eq!(work.push(vec!['a', 'b', 'c'], 2), 2);
        let (mut one, a) = Hand::start(&work).unwrap();
        let (mut two, b) = Hand::start(&work).unwrap();
        assert_eq!((a, b, work.unclaimed()), ('a', 'b', 1));
        assert_eq!(two.step(2, || panic!("there is one more")), Some('c'));
        assert_eq!(work.try_pop(), None);
        assert_eq!(work.pop(Some(Instant::now())), Popped::TimedOut);
        let mut last = false;
        assert_eq!(one.step(1, || last = true), None);
        assert!(last);
        assert_eq!(work.pop_while(9, |result| *result < 2), [1]);
        assert_eq!(work.pop(None), Popped::Items(1, 2));
        two.pause(3);
        assert_eq!(work.pop(None), Popped::Items(1, 3));
        assert_eq!(work.pop(None), Popped::Empty);
        assert_eq!(work.push(vec!['d'], 1), 0, "the second is still counted");
        assert!(Hand::start(&work).is_some());
    }

    #[test]
    fn helpers_are_wanted_only_as_far_as_there_are_items() {
        let work = Arc::new(Work::<u32, u32>::new());
        assert_eq!(work.push(vec![1], 4), 1);
        assert_eq!(work.push(vec![2, 3], 4), 2);
        assert_eq!(work.push(vec![4, 5, 6], 4), 1);
        assert_eq!(work.push(vec![7], 4), 0);
        for left in (0..4).rev() {
            assert_eq!(work.lose_helper(), left == 0);
        }
        work.abandon(|| 9);
        assert_eq!(work.outstanding(), 7);
        assert_eq!(work.pop_while(usize::MAX, |_| true), [9; 7]);
    }

    #[test]
    fn closing_drops_what_is_there_and_wakes_the_consumer() {
        let work = Arc::new(Work::new());
        let item = Arc::new(());
        let _ = work.push(vec![Arc::clone(&item), Arc::clone(&item)], 1);
        let (mut hand, claimed) = Hand::start(&work).unwrap();
        let consumer = thread::spawn({
            let work = Arc::clone(&work);
            move || work.pop(None)
        });
        work.close();
        assert_eq!(consumer.join().unwrap(), Popped::Empty);
        assert_eq!(hand.step(claimed, || ()), None);
        drop(hand);
        assert_eq!(work.push(vec![Arc::clone(&item)], 1), 0);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn every_result_comes_in_order_from_many_helpers() {
        const N: u64 = 5000;
        let work = Arc::new(Work::new());
        let mut helpers = Vec::new();
        let mut popped = 0;
        for first in (0..N).step_by(50) {
            for _ in 0..work.push((first..first + 50).collect(), 4) {
                let work = Arc::clone(&work);
                helpers.push(thread::spawn(move || {
                    let Some((mut hand, mut item)) = Hand::start(&work) else {
                        return;
                    };
                    while let Some(next) = hand.step(item * 2, || ()) {
                        item = next;
                    }
                }));
            }
            for result in work.pop_while(usize::MAX, |_| true) {
                assert_eq!(result, popped * 2);
                popped += 1;
            }
        }
        while popped < N {
            match work.pop(None) {
                Popped::Items(_, result) => assert_eq!(result, popped * 2),
                Popped::Interrupted => continue,
                other => panic!("{other:?}"),
            }
            popped += 1;
        }
        for helper in helpers {
            helper.join().unwrap();
        }
    }
}
