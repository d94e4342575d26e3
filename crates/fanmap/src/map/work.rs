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
//! The consumer that finds no result in the next place leaves a note there, and sleeps on an [`Event`] whose epoch it read
//! before; who fills a place with a note wakes it. Both happen under the place's mutex, so nothing is missed; any other
//! result wakes nobody. A chunk that nobody but the consumer has any more is read without locks.
//!
//! Where results leave as they come, they are not put in their places but into one queue, with the indices of their items;
//! the note is left there, and any result wakes the consumer. Chunks then are the helpers' alone.
//!
//! No lock is held while an item, a result or a function of the caller's is dropped or run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::vec::IntoIter;

use fanmap_shm::event::{Event, Wake};

use super::ordered::Popped;

/// The items and results of one map over threads.
#[derive(Debug)]
pub struct Work<T, R> {
    open: Mutex<Open<T, R>>,
    head: Mutex<Head<T, R>>,
    head_ready: Event,
    /// What came, if results leave as they come.
    arrived: Option<Mutex<Arrived<R>>>,
    closed: AtomicBool,
    pushed: AtomicU64,
    popped: AtomicU64,
}

/// Results, in the order in which they came.
#[derive(Debug)]
struct Arrived<R> {
    /// By the indices of their items.
    results: VecDeque<(u64, R)>,
    /// The consumer waits for one.
    awaited: bool,
}

/// What helpers look at.
#[derive(Debug)]
struct Open<T, R> {
    /// Chunks that may have unclaimed items.
    chunks: VecDeque<Arc<Chunk<T, R>>>,
    helpers: usize,
}

/// What the consumer looks at.
#[derive(Debug)]
struct Head<T, R> {
    /// What is left of a chunk that the consumer has alone, which comes first.
    own: IntoIter<Mutex<Place<T, R>>>,
    /// The chunks whose results were not all popped.
    chunks: VecDeque<Arc<Chunk<T, R>>>,
    /// The place of the next result in the first of them.
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
    /// The consumer waits for the result of an item that nobody has claimed.
    AwaitedItem(T),
    /// The consumer waits for the result.
    Awaited,
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
    /// Nothing to do. Results leave in order.
    #[must_use]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Nothing to do. Results leave as they come.
    #[must_use]
    pub fn as_they_come() -> Self {
        Self::with(Some(Mutex::new(Arrived {
            results: VecDeque::new(),
            awaited: false,
        })))
    }

    fn with(arrived: Option<Mutex<Arrived<R>>>) -> Self {
        Self {
            arrived,
            open: Mutex::new(Open {
                chunks: VecDeque::new(),
                helpers: 0,
            }),
            head: Mutex::new(Head {
                own: Vec::new().into_iter(),
                chunks: VecDeque::new(),
                at: 0,
            }),
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
        let chunk = self.chunk(items.into_iter().map(Place::Item));
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

    fn chunk(&self, places: impl ExactSizeIterator<Item = Place<T, R>>) -> Arc<Chunk<T, R>> {
        let mut head = lock(&self.head);
        let chunk = Arc::new(Chunk {
            first: self.pushed.fetch_add(places.len() as u64, Ordering::Relaxed),
            cursor: AtomicUsize::new(0),
            places: places.map(Mutex::new).collect(),
        });
        // After `close` nobody would ever take it out.
        if self.arrived.is_none() && !self.is_closed() {
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
        if let Some(arrived) = &self.arrived {
            return self.arrive(arrived, chunk.first + at as u64, result);
        }
        let before = std::mem::replace(&mut *lock(&chunk.places[at]), Place::Result(result));
        if matches!(before, Place::Awaited) {
            self.head_ready.notify();
        }
    }

    fn arrive(&self, arrived: &Mutex<Arrived<R>>, index: u64, result: R) {
        let mut arrived = lock(arrived);
        // Looked at under the lock, before `close` takes what is there.
        let refused = if self.is_closed() {
            Some(result)
        } else {
            arrived.results.push_back((index, result));
            None
        };
        let awaited = std::mem::take(&mut arrived.awaited);
        drop(arrived);
        drop(refused);
        if awaited {
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

    /// The next result if it is there, and the index of its item.
    pub fn try_pop(&self) -> Option<(u64, R)> {
        let (index, result) = if let Some(arrived) = &self.arrived {
            let popped = lock(arrived).results.pop_front()?;
            self.popped.fetch_add(1, Ordering::Relaxed);
            popped
        } else {
            let mut head = lock(&self.head);
            let result = head.pop(&|_| true)?;
            (self.popped.fetch_add(1, Ordering::Relaxed), result)
        };
        Some((index, result))
    }

    /// Those of the next `most` results that are there, as long as they are such that `wanted` says yes; and the index of the
    /// first one's item. (In order, the others' follow.)
    pub fn pop_while(&self, most: usize, wanted: impl Fn(&R) -> bool) -> (u64, Vec<R>) {
        if let Some(arrived) = &self.arrived {
            let mut arrived = lock(arrived);
            let first = arrived.results.front().map_or(0, |(index, _)| *index);
            let some = arrived.results.iter().take(most);
            let count = some.take_while(|(_, result)| wanted(result)).count();
            let results: Vec<R> = arrived.results.drain(..count).map(|(_, result)| result).collect();
            self.popped.fetch_add(count as u64, Ordering::Relaxed);
            return (first, results);
        }
        let mut head = lock(&self.head);
        let results: Vec<R> = std::iter::from_fn(|| head.pop(&wanted)).take(most).collect();
        (self.popped.fetch_add(results.len() as u64, Ordering::Relaxed), results)
    }

    /// The next result, waiting for it until `deadline` (`None`: however long it takes).
    pub fn pop(&self, deadline: Option<Instant>) -> Popped<R> {
        let mut woke = Wake::Notified;
        loop {
            let epoch = self.head_ready.epoch();
            if let Some((index, result)) = self.try_pop() {
                return Popped::Items(index..index + 1, result);
            }
            if self.outstanding() == 0 {
                return Popped::Empty;
            }
            if !self.leave_note() {
                continue;
            }
            match woke {
                Wake::Notified => woke = self.head_ready.wait(epoch, deadline),
                // Only after a last look: what came meanwhile is not lost to the time or the signal.
                Wake::TimedOut => return Popped::TimedOut,
                Wake::Interrupted => return Popped::Interrupted,
            }
        }
    }

    /// That the consumer waits for the next result. False if it is there.
    fn leave_note(&self) -> bool {
        let Some(arrived) = &self.arrived else {
            return lock(&self.head).leave_note();
        };
        let mut arrived = lock(arrived);
        arrived.awaited = arrived.results.is_empty();
        arrived.awaited
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
        let arrived = self
            .arrived
            .as_ref()
            .map(|arrived| std::mem::take(&mut lock(arrived).results));
        let unread = {
            let mut head = lock(&self.head);
            head.at = 0;
            (
                std::mem::take(&mut head.chunks),
                std::mem::replace(&mut head.own, Vec::new().into_iter()),
            )
        };
        self.head_ready.notify();
        for chunk in &chunks {
            while let Some((_, item)) = chunk.claim() {
                drop(item);
            }
        }
        drop((unread, arrived));
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
    fn pop(&mut self, wanted: &impl Fn(&R) -> bool) -> Option<R> {
        if self.own.len() == 0 {
            self.take_first();
        }
        if let Some(place) = self.own.as_mut_slice().first_mut() {
            let place = place.get_mut().unwrap_or_else(PoisonError::into_inner);
            if !matches!(place, Place::Result(result) if wanted(result)) {
                return None;
            }
            return match self.own.next()?.into_inner() {
                Ok(Place::Result(result)) => Some(result),
                _ => None,
            };
        }
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

    /// Makes the first chunk the consumer's own, if nobody else has it any more: then all that it holds are results.
    fn take_first(&mut self) {
        let Some(first) = self.chunks.pop_front() else {
            return;
        };
        match Arc::try_unwrap(first) {
            Ok(chunk) => {
                self.own = chunk.places.into_iter();
                self.own.by_ref().take(std::mem::take(&mut self.at)).for_each(drop);
            }
            Err(shared) => self.chunks.push_front(shared),
        }
    }

    /// In the place of the next result, that the consumer waits for it. False if it is there.
    fn leave_note(&self) -> bool {
        let Some(chunk) = self.chunks.front().filter(|_| self.own.len() == 0) else {
            // Only `close` leaves nothing here while something is outstanding, and it wakes who waits.
            return self.own.len() == 0;
        };
        let mut place = lock(&chunk.places[self.at]);
        *place = match std::mem::replace(&mut *place, Place::Awaited) {
            Place::Item(item) | Place::AwaitedItem(item) => Place::AwaitedItem(item),
            Place::Empty | Place::Awaited => Place::Awaited,
            Place::Result(result) => Place::Result(result),
        };
        !matches!(&*place, Place::Result(_))
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
        let mut place = lock(self.places.get(at)?);
        match std::mem::replace(&mut *place, Place::Empty) {
            Place::Item(item) => Some((at, item)),
            Place::AwaitedItem(item) => {
                *place = Place::Awaited;
                Some((at, item))
            }
            Place::Empty | Place::Awaited | Place::Result(_) => None,
        }
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
        assert_eq!(work.pop_while(9, |result| *result < 2), (0, vec![1]));
        assert_eq!(work.pop(None), Popped::Items(1..2, 2));
        two.pause(3);
        assert_eq!(work.pop(None), Popped::Items(2..3, 3));
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
        assert_eq!(work.pop_while(usize::MAX, |_| true), (0, vec![9; 7]));
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
    fn as_they_come_results_leave_with_the_indices_of_their_items() {
        let work = Arc::new(Work::as_they_come());
        assert_eq!(work.push(vec!['a', 'b', 'c'], 3), 3);
        let (mut one, _) = Hand::start(&work).unwrap();
        let (mut two, _) = Hand::start(&work).unwrap();
        let (three, _) = Hand::start(&work).unwrap();
        assert_eq!(two.step('B', || ()), None);
        assert_eq!((work.outstanding(), work.try_pop()), (3, Some((1, 'B'))));
        assert_eq!(work.pop(Some(Instant::now())), Popped::TimedOut);
        let consumer = thread::spawn({
            let work = Arc::clone(&work);
            move || work.pop(None)
        });
        three.pause('C');
        assert_eq!(consumer.join().unwrap(), Popped::Items(2..3, 'C'));
        assert_eq!(one.step('A', || ()), None);
        assert_eq!(work.pop_while(9, |result| *result == 'A'), (0, vec!['A']));
        assert_eq!((work.pop(None), work.outstanding()), (Popped::Empty, 0));
    }

    #[test]
    fn as_they_come_nothing_that_comes_after_the_end_is_kept() {
        let work = Arc::new(Work::as_they_come());
        let item = Arc::new(());
        let _ = work.push(vec![Arc::clone(&item), Arc::clone(&item), Arc::clone(&item)], 2);
        let (mut one, first) = Hand::start(&work).unwrap();
        let (two, second) = Hand::start(&work).unwrap();
        assert!(one.step(first, || ()).is_some());
        work.close();
        two.pause(second);
        assert_eq!((work.try_pop(), work.pop(None)), (None, Popped::Empty));
        drop(one);
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
            for result in work.pop_while(usize::MAX, |_| true).1 {
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
