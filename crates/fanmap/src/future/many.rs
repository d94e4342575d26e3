//! Waiting for many futures at once.
//!
//! A [`Watch`] is told by each future it is registered with, in the order they end; whoever waits reads its list. A wait
//! that ends early takes the watch out of the futures that are still pending.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fanmap_shm::event::{Event, Wake};

use super::Future;

/// When [`wait`] returns, unless all futures are done or the deadline passes before.
///
/// ```
/// use fanmap::{Outcome, When, future::promise, wait};
///
/// let (first, one) = promise();
/// let (_second, two) = promise::<u32>();
/// first.complete(Outcome::Value(1));
/// let (done, pending) = wait([one, two], When::FirstCompleted, None);
/// assert_eq!((done.len(), pending.len()), (1, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as one is done or cancelled.
    FirstCompleted,
    /// As soon as one fails. A cancelled one has not failed.
    FirstError,
    /// When all are done or cancelled.
    All,
}

/// What a set of futures tells: which one ended, and whether it failed.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ended: Mutex<VecDeque<(usize, bool)>>,
    told: Event,
}

impl Watch {
    pub(super) fn tell(&self, index: usize, failed: bool) {
        self.ended
            .lock()
            .expect("nothing panics under this lock")
            .push_back((index, failed));
        self.told.notify();
    }

    /// The next future that ended: its index, and whether it failed. `None` if the deadline passed.
    fn next(&self, deadline: Option<Instant>) -> Option<(usize, bool)> {
        let mut timed_out = false;
        loop {
            let epoch = self.told.epoch();
            let ended = self.ended.lock().expect("nothing panics under this lock").pop_front();
            if ended.is_some() || timed_out {
                return ended;
            }
            timed_out = self.told.wait(epoch, deadline) == Wake::TimedOut;
        }
    }
}

/// Waits until the futures are as far as `when` says, or `deadline` has passed (`None`: however long it takes).
///
/// Returns those that are done and those that are not, each in the order given.
///
/// ```
/// use fanmap::{ThreadPool, When, wait};
///
/// let pool = ThreadPool::new(2)?;
/// let futures = (1..=3).map(|n| pool.submit(move || n * n)).collect::<Result<Vec<_>, _>>()?;
/// let (done, pending) = wait(futures, When::All, None);
/// assert!(pending.is_empty());
/// let squares = done.into_iter().map(|future| future.wait()).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn wait<T>(
    futures: impl IntoIterator<Item = Future<T>>,
    when: When,
    deadline: Option<Instant>,
) -> (Vec<Future<T>>, Vec<Future<T>>) {
    let futures: Vec<_> = futures.into_iter().collect();
    let watch = watch_all(&futures);
    for _ in 0..futures.len() {
        let Some((_, failed)) = watch.next(deadline) else {
            break;
        };
        match when {
            When::FirstCompleted => break,
            When::FirstError if failed => break,
            When::FirstError | When::All => {}
        }
    }
    for future in &futures {
        future.unwatch(&watch);
    }
    futures.into_iter().partition(Future::is_done)
}

/// The futures as they end: those that have ended already first.
///
/// Dropping the iterator leaves the tasks running.
///
/// ```
/// use fanmap::{ThreadPool, as_completed};
///
/// let pool = ThreadPool::new(2)?;
/// let futures = (1..=3).map(|n| pool.submit(move || n * n)).collect::<Result<Vec<_>, _>>()?;
/// let mut squares = as_completed(futures).map(|future| future.wait()).collect::<Result<Vec<_>, _>>()?;
/// squares.sort();
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn as_completed<T>(futures: impl IntoIterator<Item = Future<T>>) -> AsCompleted<T> {
    let futures: Vec<_> = futures.into_iter().collect();
    let watch = watch_all(&futures);
    AsCompleted {
        left: futures.len(),
        futures: futures.into_iter().map(Some).collect(),
        watch,
    }
}

fn watch_all<T>(futures: &[Future<T>]) -> Arc<Watch> {
    let watch = Arc::new(Watch::default());
    for (index, future) in futures.iter().enumerate() {
        future.watch(&watch, index);
    }
    watch
}

/// The iterator of [`as_completed`].
///
/// ```
/// use fanmap::{Outcome, as_completed, future::promise};
///
/// let (first, one) = promise();
/// let (second, two) = promise();
/// let mut futures = as_completed([one, two]);
/// second.complete(Outcome::Value(2));
/// assert_eq!(futures.len(), 2);
/// assert_eq!(futures.next().map(|future| future.wait()), Some(Ok(2)));
/// first.complete(Outcome::Value(1));
/// assert_eq!(futures.next().map(|future| future.wait()), Some(Ok(1)));
/// ```
#[must_use = "iterators do nothing until they are consumed"]
pub struct AsCompleted<T> {
    futures: Vec<Option<Future<T>>>,
    left: usize,
    watch: Arc<Watch>,
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Future<T>;

    fn next(&mut self) -> Option<Future<T>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (index, _) = self
            .watch
            .next(None)
            .expect("a wait without a deadline ends with an answer");
        self.futures[index].take()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for AsCompleted<T> {}

impl<T> FusedIterator for AsCompleted<T> {}

impl<T> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        for future in self.futures.iter().flatten() {
            future.unwatch(&self.watch);
        }
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::promise;
    use super::*;
    use crate::outcome::{Outcome, Panic};

    #[test]
    fn a_wait_for_the_first_ends_with_the_first_and_leaves_nothing_in_the_others() {
        let (first, one) = promise();
        let (_second, two) = promise::<u32>();
        first.complete(Outcome::Value(1));
        let (done, pending) = wait([two, one], When::FirstCompleted, None);
        assert_eq!((done.len(), pending.len()), (1, 1));
        let deadline = Some(Instant::now());
        let (done, pending) = wait(pending, When::All, deadline);
        assert_eq!((done.len(), pending.len()), (0, 1));
        let watch = Arc::new(Watch::default());
        pending[0].watch(&watch, 0);
        assert_eq!(Arc::strong_count(&watch), 2);
        pending[0].unwatch(&watch);
        assert_eq!(Arc::strong_count(&watch), 1);
    }

    #[test]
    fn a_cancelled_future_does_not_end_a_wait_for_the_first_error() {
        let (_pending, one) = promise::<()>();
        let (_cancelled, two) = promise::<()>();
        let (failed, three) = promise::<()>();
        assert!(two.cancel());
        let teller = std::thread::spawn(move || failed.complete(Outcome::Raised(Panic::new("no"))));
        let (done, pending) = wait([one, two, three], When::FirstError, None);
        assert_eq!((done.len(), pending.len()), (2, 1));
        teller.join().expect("the teller panicked");
    }

    #[test]
    fn futures_come_in_the_order_they_end() {
        let (promises, futures): (Vec<_>, Vec<_>) = (0..3).map(|_| promise::<usize>()).unzip();
        let completed = as_completed(futures);
        for (index, promise) in promises.into_iter().enumerate().rev() {
            promise.complete(Outcome::Value(index));
        }
        let order: Vec<_> = completed.map(|future| future.wait()).collect();
        assert_eq!(order, [Ok(2), Ok(1), Ok(0)]);
    }
}
