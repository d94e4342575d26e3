//! The plain `map`, made parallel: same results, same order, a bounded number of items in flight.
//!
//! [`Map`] is the loop that every kind of worker shares; it reads, sends, and hands out in order. What it needs to know of
//! the workers is a function that sends them one item (`Feed`).
//!
//! # The order of things in `next`
//! The head of the order is handed out if it is ready. Otherwise an item is read and sent at once, as long as the
//! [`window`] has room, and the head is looked at again after each. Only when nothing can be read does it wait. So a
//! result is never withheld because the input is slow, and no item waits for another to be read.
//!
//! # Results as they come
//! A binding may want results in the order in which they come. The meeting points ([`ordered`], and [`work`] over threads)
//! then give out any result that is there, with the index of its item: places are reserved and the window counts them as
//! ever, so as much is in flight as in order. What is lost with the order is only that the index of a result follows from
//! how many came before it.
//!
//! The caller's thread reads the input: its panics are the caller's, and an iterator need not be [`Send`].

pub mod ordered;
mod processes;
pub mod reorder;
mod threads;
pub mod window;
pub mod work;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::outcome::Outcome;
use ordered::{Ordered, Popped};
use window::{Window, items_for};

pub use threads::map;

/// What a worker puts back for an item.
#[derive(Debug)]
pub(crate) struct Finished<R> {
    /// What became of the item's task.
    pub(crate) outcome: Outcome<R>,
    /// How long the function ran, where it did.
    pub(crate) took: Option<Duration>,
}

/// Sends one item, with its index, to the workers.
///
/// If it returns `Ok`, a [`Finished`] is put under that index, sooner or later, once.
pub(crate) type Feed<T> = Box<dyn FnMut(T, u64) -> Result<(), Error> + Send>;

/// The ordered results of a parallel map, as an iterator of `Result`.
///
/// Nothing is read and nothing runs before the first `next`. A task that fails is an `Err` in its place, which tells its
/// [`item`](Error::item), and the rest goes on. Dropping the map cancels what has not started; what runs is not waited for.
///
/// ```
/// let pool = fanmap::ThreadPool::new(4)?;
/// let squares: Result<Vec<u64>, fanmap::Error> = pool.map(1..=5u64, |n| n * n).collect();
/// assert_eq!(squares?, [1, 4, 9, 16, 25]);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[must_use = "a map is lazy: it does nothing until it is consumed"]
pub struct Map<I: Iterator, R> {
    /// `None` once the input has ended.
    items: Option<I>,
    feed: Feed<I::Item>,
    results: Arc<Ordered<Result<Finished<R>, Error>>>,
    workers: usize,
    window: Option<Window>,
    mean_task: Option<Duration>,
}

impl<I: Iterator, R> Map<I, R> {
    /// A map that sends with `feed` what it reads from `items`, to so many `workers`.
    pub(crate) fn new(
        items: I,
        feed: Feed<I::Item>,
        results: Arc<Ordered<Result<Finished<R>, Error>>>,
        workers: usize,
    ) -> Self {
        Self {
            items: Some(items),
            feed,
            results,
            workers,
            window: None,
            mean_task: None,
        }
    }

    /// Reads at most `items` ahead of the results handed out.
    ///
    /// If not given, as many as keep the workers busy: see [`window::items_for`]. Fewer than there are workers leaves
    /// some of them idle.
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

    fn has_room(&self) -> bool {
        let window = match self.window {
            Some(window) => window,
            None => Window::of_items(items_for(self.workers, self.mean_task)),
        };
        window.has_room(self.results.outstanding(), 0)
    }

    /// Reads an item and sends it. `false` if there was none.
    fn read_one(&mut self) -> bool {
        let Some(item) = self.items.as_mut().and_then(Iterator::next) else {
            self.items = None;
            return false;
        };
        // Reserved only now: an input that panics leaves no gap in the order.
        let index = self.results.reserve(1);
        if let Err(error) = (self.feed)(item, index) {
            self.items = None;
            self.results.put(index, 1, Err(error));
        }
        true
    }

    fn hand_out(&mut self, index: u64, finished: Result<Finished<R>, Error>) -> Result<R, Error> {
        let result = finished.and_then(|finished| {
            if let Some(took) = finished.took {
                self.mean_task = Some(moving_mean(self.mean_task, took));
            }
            finished.outcome.into_result()
        });
        result.map_err(|error| error.at_item(index))
    }
}

/// The mean of the durations seen so far, where the last dozen or so count most: inputs change as they go.
fn moving_mean(mean: Option<Duration>, latest: Duration) -> Duration {
    match mean {
        None => latest,
        Some(mean) => mean - mean / 8 + latest / 8,
    }
}

impl<I: Iterator, R> Iterator for Map<I, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        loop {
            if let Some((items, finished)) = self.results.try_pop() {
                return Some(self.hand_out(items.start, finished));
            }
            if self.items.is_some() && self.has_room() && self.read_one() {
                continue;
            }
            match self.results.pop(None) {
                Popped::Items(items, finished) => return Some(self.hand_out(items.start, finished)),
                Popped::Empty => return None,
                // In a Rust program the signal's handler has done what there was to do.
                Popped::Interrupted | Popped::TimedOut => {}
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let sent = self.results.outstanding();
        let most = self.items.as_ref().map_or(Some(0), |items| items.size_hint().1);
        // An item that cannot be sent ends the map, so only what was sent is sure to come.
        (sent, most.and_then(|most| most.checked_add(sent)))
    }
}

impl<I: Iterator, R> FusedIterator for Map<I, R> {}

impl<I: Iterator, R> Drop for Map<I, R> {
    fn drop(&mut self) {
        self.results.close();
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("outstanding", &self.results.outstanding())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_comes() {
        let ms = Duration::from_millis;
        assert_eq!(moving_mean(None, ms(8)), ms(8));
        assert_eq!(moving_mean(Some(ms(8)), ms(8)), ms(8));
        let late = (0..64).fold(ms(800), |mean, _| moving_mean(Some(mean), ms(8)));
        assert!(late < ms(9), "{late:?}");
    }
}
