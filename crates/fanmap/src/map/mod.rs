//! The plain `map`, made parallel: same results, same order, a bounded number of items in flight.
//!
//! [`Map`] is the loop that every kind of worker shares; it reads, sends, and hands out in order. What it needs to know of
//! the workers is a function that sends them one item (`Feed`).
//!
//! # The order of things in `next`
//! The head of the order is handed out if it is ready. Otherwise an item is read and sent at once, as long as the
//! window has room, and the head is looked at again after each. Only when nothing can be read does it wait. So a
//! result is never withheld because the input is slow, and no item waits for another to be read.
//!
//! # Results as they come
//! Whoever wants results in the order in which they come gets any that is there; the window counts them as ever, so as much is
//! in flight as in order. A binding has meeting points of its own (`ordered`, and `work` over threads), which then give out
//! the index of its item with each result.
//!
//! The caller's thread reads the input: its panics are the caller's, and an iterator need not be [`Send`].

// Parts, for a binding that makes a map of its own; no promise to anybody else.
#[doc(hidden)]
pub mod ordered;
mod processes;
#[doc(hidden)]
pub mod reorder;
mod scope;
mod threads;
mod vec;
#[doc(hidden)]
pub mod window;
#[doc(hidden)]
pub mod work;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::flow::{GATHER, Results, SMALL};
use fanmap_shm::event::Wake;
use window::{Window, items_for, items_of_size};

#[doc(hidden)]
pub use crate::brake::Brake;
pub use scope::{Scope, scope};
pub use threads::{FanMap, map};
pub use vec::{Split, map_vec};

/// How the items of a map are sent to its workers.
pub(crate) trait Feed<T>: Send {
    /// Sends an item. If it returns `Ok`, a result is put under `index`, sooner or later, once.
    fn send(&mut self, item: T, index: u64) -> Result<(), Error>;

    /// Before a wait for a result: looks for what has come. False if there was nothing.
    fn look(&self) -> bool {
        false
    }

    /// What a task has taken lately.
    fn mean_task(&self) -> Option<Duration>;

    /// How many encoded bytes an item and its result have had lately.
    fn bytes_each(&self) -> usize;
}

/// The results of a parallel map, in the order of the items, as an iterator of `Result`.
///
/// Nothing is read and nothing runs before the first `next`. A task that fails is an `Err` in its place, which tells its
/// [`item`](Error::item), and the rest goes on. Dropping the map cancels what has not started; what runs is not waited for.
///
/// `'f` is how long the function lives: `'static`, but for the maps of a [`Scope`].
///
/// ```
/// let pool = fanmap::ThreadPool::new(4)?;
/// let squares: Result<Vec<u64>, fanmap::Error> = pool.map(1..=5u64, |n| n * n).collect();
/// assert_eq!(squares?, [1, 4, 9, 16, 25]);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[must_use = "a map is lazy: it does nothing until it is consumed"]
pub struct Map<'f, I: Iterator, R> {
    /// `None` once the input has ended.
    items: Option<I>,
    feed: Box<dyn Feed<I::Item> + 'f>,
    results: Arc<Results<Result<R, Error>>>,
    /// Taken from `results`, and next to be handed out.
    taken: std::vec::IntoIter<Result<R, Error>>,
    sent: u64,
    handed_out: u64,
    workers: usize,
    window: Option<Window>,
    limit: Option<Duration>,
    /// From the first `next` on.
    deadline: Option<Instant>,
}

impl<'f, I: Iterator, R> Map<'f, I, R> {
    /// A map that sends by `feed` what it reads from `items`, to so many `workers`.
    pub(crate) fn new(
        items: I,
        feed: Box<dyn Feed<I::Item> + 'f>,
        results: Arc<Results<Result<R, Error>>>,
        workers: usize,
    ) -> Self {
        Self {
            items: Some(items),
            feed,
            results,
            taken: Vec::new().into_iter(),
            sent: 0,
            handed_out: 0,
            workers,
            window: None,
            limit: None,
            deadline: None,
        }
    }

    /// Reads at most `items` ahead of the results handed out.
    ///
    /// If not given, as many as are 50 ms of work for each worker: at least two for each and one more, at most 32768. Over
    /// processes also no more than have 32 MiB for each worker, with their results, as the last ones had; but one for each
    /// and one more. Fewer than there are workers leaves some of them idle.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `items` is 0.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::new(2)?;
    /// let first = pool.map(0u64.., |n| n + 1).window(8)?.next();
    /// assert_eq!(first, Some(Ok(1)));
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn window(mut self, items: usize) -> Result<Self, Error> {
        if items == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the window must be at least 1 item, not 0",
            ));
        }
        self.window = Some(Window::of_items(items));
        Ok(self)
    }

    /// Gives the results as they come, whatever the order of the items. To be said before the first `next`.
    ///
    /// Errors still tell their [`item`](Error::item). Of values, have the function return what they belong to.
    ///
    /// # Panics
    /// If the map has begun.
    ///
    /// ```
    /// let mut squares: Vec<u64> = fanmap::map(1..=5u64, |n| n * n).unordered().collect::<Result<_, _>>()?;
    /// squares.sort();
    /// assert_eq!(squares, [1, 4, 9, 16, 25]);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn unordered(self) -> Self {
        assert_eq!(
            self.sent, 0,
            "the map has begun: say `unordered` before the first `next`"
        );
        self.results.as_they_come();
        self
    }

    /// Waits for results no longer than so much time altogether, from the first `next` on.
    ///
    /// A result that has not come when it is over is an `Err` of kind [`Timeout`](ErrorKind::Timeout), and the map's last: it
    /// is cancelled as if it were dropped. Results that are there are handed out also after the time.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (release, held) = std::sync::mpsc::channel::<()>();
    /// let held = std::sync::Mutex::new(held);
    /// let mut map = fanmap::map([1], move |_| held.lock().map(|held| held.recv().is_ok()).is_ok())
    ///     .timeout(Duration::from_millis(1));
    /// let late = map.next().unwrap().unwrap_err();
    /// assert_eq!(late.kind(), fanmap::ErrorKind::Timeout);
    /// assert_eq!(map.next(), None);
    /// drop(release);
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How many items were sent whose results were not handed out.
    fn outstanding(&self) -> usize {
        usize::try_from(self.sent - self.handed_out).unwrap_or(usize::MAX)
    }

    /// Reads as long as nothing is ready and there is room. False if there is nothing left to read, or no room.
    fn read(&mut self) -> bool {
        let Some(items) = &mut self.items else {
            return false;
        };
        let window = match self.window {
            Some(window) => window,
            None => {
                let items = items_for(self.workers, self.feed.mean_task());
                Window::of_items(items_of_size(items, self.workers, self.feed.bytes_each()))
            }
        };
        let mut outstanding = usize::try_from(self.sent - self.handed_out).unwrap_or(usize::MAX);
        let mut read = false;
        while window.has_room(outstanding, 0) && !self.results.is_ready() {
            // Counted only now: an input that panics leaves no gap in the order.
            let Some(item) = items.next() else {
                self.items = None;
                return read;
            };
            let index = self.sent;
            self.sent += 1;
            outstanding += 1;
            read = true;
            if let Err(error) = self.feed.send(item, index) {
                self.items = None;
                self.results.put(index, vec![Err(error.at_item(index))], true);
                return true;
            }
        }
        read
    }

    /// Waits for a result. False if the time was over before.
    fn wait(&self) -> bool {
        while self.deadline.is_none_or(|at| Instant::now() < at) && self.feed.look() {
            if self.results.is_ready() {
                return true;
            }
        }
        let mut together = self.together();
        loop {
            let gathered = (together > 1).then(|| Instant::now() + GATHER);
            let until = match (gathered, self.deadline) {
                (Some(gathered), Some(deadline)) => Some(gathered.min(deadline)),
                (gathered, deadline) => gathered.or(deadline),
            };
            let woken = self.results.wait(together, until);
            if self.results.is_ready() {
                return true;
            }
            if woken == Wake::TimedOut {
                if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return false;
                }
                together = 1;
            }
            // Else a signal: in a Rust program its handler has done what there was to do.
        }
    }

    /// How many results to wait for together: those of [`GATHER`], but so that the workers still have as many to go.
    fn together(&self) -> usize {
        match self.feed.mean_task() {
            Some(mean) if mean < SMALL => {
                let fit = GATHER.as_nanos() / mean.as_nanos().max(1);
                let fit = usize::try_from(fit).unwrap_or(usize::MAX).saturating_mul(self.workers);
                fit.min(self.outstanding() / 2).max(1)
            }
            _ => 1,
        }
    }

    /// The end, before its time.
    fn time_out(&mut self) -> Error {
        let waited_for = self.handed_out;
        self.items = None;
        self.results.close();
        self.handed_out = self.sent;
        Error::new(
            ErrorKind::Timeout,
            "the result did not come within the map's time limit; what had not started is cancelled",
        )
        .at_item(waited_for)
    }
}

impl<I: Iterator, R> Iterator for Map<'_, I, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        if let (Some(limit), None) = (self.limit, self.deadline) {
            self.deadline = Instant::now().checked_add(limit);
        }
        loop {
            if let Some(result) = self.taken.next() {
                self.handed_out += 1;
                return Some(result);
            }
            if self.results.is_ready() {
                self.taken = self.results.take().into_iter();
            } else if self.read() {
            } else if self.sent == self.handed_out {
                return None;
            } else if !self.wait() {
                return Some(Err(self.time_out()));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let sent = self.outstanding();
        let most = self.items.as_ref().map_or(Some(0), |items| items.size_hint().1);
        // An item that cannot be sent ends the map, so only what was sent is sure to come (and not even that in time).
        let least = if self.limit.is_some() { sent.min(1) } else { sent };
        (least, most.and_then(|most| most.checked_add(sent)))
    }
}

impl<I: Iterator, R> FusedIterator for Map<'_, I, R> {}

impl<I: Iterator, R> Drop for Map<'_, I, R> {
    fn drop(&mut self) {
        self.results.close();
    }
}

impl<I: Iterator, R> fmt::Debug for Map<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}
