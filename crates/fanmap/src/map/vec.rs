//! A map of a slice or a range into a `Vec`: no queue, and nothing of an item is kept but its result.
//!
//! The calling thread works, too, and what helpers have not begun when it is done is taken back from them. So nobody waits for
//! a thread that is busy otherwise, and a map inside a map, on however few threads, goes on. Whoever has nothing to do claims the
//! next run of places ([`Places`]), some microseconds of work by what the last one took.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::threads::WARM;
use crate::error::Error;
use crate::executor::threads::{Core, ThreadPool};
use crate::lend::{Lender, Places, lending};
use crate::outcome::Panic;
use crate::task::Job;

/// Items that are there all at once and can be reached by number: slices, and ranges of integers.
///
/// ```
/// use fanmap::Split;
///
/// let words = ["a", "b", "c"];
/// assert_eq!((&words).len(), 3);
/// assert!((&words).part(1..3).eq(["b", "c"].iter()));
/// assert!((10..20u64).part(0..2).eq([10, 11]));
/// ```
pub trait Split: Sync {
    /// One of them.
    type Item;

    /// How many there are. The answer is always the same.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those whose numbers are in `range`, which is within `0..len`, in order.
    fn part(&self, range: Range<usize>) -> impl Iterator<Item = Self::Item>;
}

impl<'a, T: Sync> Split for &'a [T] {
    type Item = &'a T;

    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    fn part(&self, range: Range<usize>) -> impl Iterator<Item = &'a T> {
        self[range].iter()
    }
}

impl<'a, T: Sync, const N: usize> Split for &'a [T; N] {
    type Item = &'a T;

    fn len(&self) -> usize {
        N
    }

    fn part(&self, range: Range<usize>) -> impl Iterator<Item = &'a T> {
        self[range].iter()
    }
}

impl<'a, T: Sync> Split for &'a Vec<T> {
    type Item = &'a T;

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn part(&self, range: Range<usize>) -> impl Iterator<Item = &'a T> {
        self[range].iter()
    }
}

macro_rules! split_range {
    ($($int:ty),+) => {
        $(
            impl Split for Range<$int> {
                type Item = $int;

                fn len(&self) -> usize {
                    // One that is longer than a `usize` can say has no room in memory either.
                    self.clone().size_hint().0
                }

                fn part(&self, range: Range<usize>) -> impl Iterator<Item = $int> {
                    let start = self.start;
                    range.map(move |at| start.wrapping_add(at as $int))
                }
            }
        )+
    };
}

split_range!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

/// Calls `f` on each of the items of a slice or range, on all cores, and returns the results in order.
///
/// Functions and items may borrow, since the call returns only when it is done. It is for work that computes, however
/// little of it: items that take nanoseconds cost no more than their own time. The calling thread takes part; the other
/// threads are those of [`map`](crate::map()).
///
/// # Errors
/// If the function panics, the error of the first item (in their order) that it panicked for; items after that one may not
/// have been run. [`Os`](crate::ErrorKind::Os) if there is no memory for so many results.
///
/// ```
/// let words = vec!["some".to_owned(), "words".to_owned()];
/// let lengths = fanmap::map_vec(&words, |word| word.len())?;
/// assert_eq!(lengths, [4, 5]);
/// assert_eq!(fanmap::map_vec(0..5u64, |n| n * n)?, [0, 1, 4, 9, 16]);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn map_vec<S, F, R>(items: S, f: F) -> Result<Vec<R>, Error>
where
    S: Split,
    F: Fn(S::Item) -> R + Sync,
    R: Send,
{
    WARM.map_vec(items, f)
}

impl ThreadPool {
    /// As [`map_vec`](crate::map_vec()), on this pool: in as many threads as it may have, the calling one among them.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::new(4)?;
    /// assert_eq!(pool.map_vec(&[1, 2, 3], |n| n + 1)?, [2, 3, 4]);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`map_vec`](crate::map_vec()); a pool that takes no more tasks leaves all the work to the calling thread.
    pub fn map_vec<S, F, R>(&self, items: S, f: F) -> Result<Vec<R>, Error>
    where
        S: Split,
        F: Fn(S::Item) -> R + Sync,
        R: Send,
    {
        let filling = Filling {
            places: Places::new(items.len())?,
            items,
            f,
            panicked: Mutex::new(None),
        };
        let helpers = filling.items.len().min(self.max_workers()).saturating_sub(1);
        lending(|lender| {
            let helping: Vec<_> = (0..helpers)
                .map_while(|_| Recallable::send(self.core(), lender, || filling.work()))
                .collect();
            filling.work();
            helping.iter().for_each(Recallable::recall);
        });
        filling.finish()
    }
}

/// A map under way.
struct Filling<S, F, R> {
    items: S,
    f: F,
    places: Places<R>,
    /// The first item that the function panicked for, and with what.
    panicked: Mutex<Option<(usize, Panic)>>,
}

/// How much work to claim at a time. Less, and the claim and the look at the clock show; more, and the end is less even.
const RUN: Duration = Duration::from_micros(10);

/// The most that a run grows from one to the next: a clock that has just been looked at says little.
const GROWTH: usize = 8;

impl<S: Split, F: Fn(S::Item) -> R, R> Filling<S, F, R> {
    /// Works until nothing is left to claim.
    fn work(&self) {
        let mut most = 1;
        let mut since = Instant::now();
        while let Some(mut run) = self.places.claim(most) {
            let range = run.range();
            let count = range.end - range.start;
            let filled = catch_unwind(AssertUnwindSafe(|| run.fill(self.items.part(range).map(&self.f))));
            if let Err(payload) = filled {
                return self.stop(run.next(), Panic::from_payload(&*payload));
            }
            drop(run);
            let now = Instant::now();
            most = next_run(count, (now - since).as_nanos());
            since = now;
        }
    }

    /// Every item before `item` is claimed, and whoever has it goes on: so the first panic is always found.
    fn stop(&self, item: usize, panic: Panic) {
        self.places.stop();
        let mut panicked = self.panicked.lock().unwrap_or_else(PoisonError::into_inner);
        if panicked.as_ref().is_none_or(|(first, _)| item < *first) {
            *panicked = Some((item, panic));
        }
    }

    fn finish(self) -> Result<Vec<R>, Error> {
        match self.panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((item, panic)) => Err(Error::from(panic).at_item(item as u64)),
            None => Ok(self
                .places
                .finish()
                .expect("`part` gives as many items as it is asked for")),
        }
    }
}

/// How many items to claim after so many took so long: [`RUN`] of work.
fn next_run(count: usize, nanos: u128) -> usize {
    let fit = RUN.as_nanos() * count as u128 / nanos.max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, count * GROWTH)
}

/// A job with the pool that can be had back as long as it has not begun.
struct Recallable(Arc<Mutex<Option<Box<dyn Job>>>>);

impl Recallable {
    /// `None` if the pool does not take it.
    fn send<'scope>(
        core: &Arc<Core>,
        lender: &'scope Lender<'scope, '_>,
        work: impl FnOnce() + Send + 'scope,
    ) -> Option<Self> {
        let job = Arc::new(Mutex::new(Some(lender.lend(Box::new(Work(work))))));
        core.execute(Box::new(Recallable(Arc::clone(&job)))).ok()?;
        Some(Self(job))
    }

    fn take(&self) -> Option<Box<dyn Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn recall(&self) {
        drop(self.take());
    }
}

impl Job for Recallable {
    fn run(self: Box<Self>) {
        if let Some(job) = self.take() {
            job.run();
        }
    }

    fn discard(self: Box<Self>) {
        self.recall();
    }
}

/// A function as a job.
struct Work<W>(W);

impl<W: FnOnce() + Send> Job for Work<W> {
    fn run(self: Box<Self>) {
        (self.0)();
    }

    fn discard(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_splits_whatever_its_bounds() {
        let wide = i8::MIN..i8::MAX;
        assert_eq!(Split::len(&wide), 255);
        assert!(Split::part(&wide, 250..255).eq(122..127));
        assert!(Split::is_empty(&(5..5u64)));
    }

    #[test]
    fn a_run_is_some_microseconds_of_work_and_grows_in_steps() {
        assert_eq!(next_run(1, 50), GROWTH);
        assert_eq!(next_run(1000, 10_000), 1000);
        assert_eq!(next_run(1000, 10_000_000), 1);
        assert_eq!(next_run(4, u128::MAX), 1);
    }
}
