//! Tasks that borrow: a call that lends what is alive around it, and returns when every task has ended.

use std::fmt;
use std::sync::Arc;

use super::Map;
use super::threads::{WARM, over_threads};
use crate::error::Error;
use crate::executor::threads::{Core, ThreadPool, submission};
use crate::future::Future;
use crate::lend::{Lender, lending};

/// Calls `f` with a [`Scope`], whose tasks may borrow what is alive around the call, and returns when all of them have ended.
///
/// They run on as many threads as there are cores, which the whole program shares, as those of [`map`](crate::map()) do.
/// Tasks that nobody waited for are run all the same; a panic in one is its future's error, and no error if the future was
/// dropped. If `f` panics, so does `scope`, after all tasks have ended.
///
/// ```
/// let words = vec!["borrowed".to_owned(), "words".to_owned()];
/// let longest = fanmap::scope(|s| {
///     let total = s.submit(|| words.iter().map(String::len).sum::<usize>())?;
///     let lengths: Vec<usize> = s.map(&words, |word| word.len()).collect::<Result<_, _>>()?;
///     assert_eq!(total.wait()?, 13);
///     Ok::<_, fanmap::Error>(lengths.into_iter().max())
/// });
/// assert_eq!(longest?, Some(8));
/// # Ok::<(), fanmap::Error>(())
/// ```
///
/// What is lent must live longer than the call:
///
/// ```compile_fail
/// fanmap::scope(|s| {
///     let inside = vec![1, 2, 3];
///     let _ = s.submit(|| inside.len());
/// });
/// ```
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(Scope<'scope, 'env>) -> T,
{
    WARM.scope(f)
}

impl ThreadPool {
    /// As [`scope`], on this pool.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::new(2)?;
    /// let names = ["a", "b"];
    /// let first = pool.scope(|s| s.submit(|| names[0])?.wait())?;
    /// assert_eq!(first, "a");
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn scope<'env, F, T>(&'env self, f: F) -> T
    where
        F: for<'scope> FnOnce(Scope<'scope, 'env>) -> T,
    {
        let core = self.core();
        lending(|lender| f(Scope { lender, core }))
    }
}

/// Where tasks that borrow are submitted: see [`scope`].
///
/// `'scope` is how long tasks may run, `'env` how long what they borrow lives. Tasks may submit others.
///
/// ```
/// use fanmap::Scope;
///
/// /// The sum, each pair of numbers in a task of its own.
/// fn sum<'scope>(s: Scope<'scope, '_>, numbers: &'scope [u64]) -> Result<u64, fanmap::Error> {
///     let parts = numbers.chunks(2).map(|part| s.submit(move || part.iter().sum::<u64>()));
///     let parts = parts.collect::<Result<Vec<_>, _>>()?;
///     parts.into_iter().map(|part| part.wait()).sum()
/// }
///
/// let numbers = [1, 2, 3, 4, 5];
/// assert_eq!(fanmap::scope(|s| sum(s, &numbers))?, 15);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env: 'scope> {
    lender: &'scope Lender<'scope, 'env>,
    core: &'env Arc<Core>,
}

impl<'scope> Scope<'scope, '_> {
    /// As [`ThreadPool::submit`], for a function that may borrow.
    ///
    /// In a task of the same pool it is called in place: a worker that waited for its own pool could wait for ever.
    ///
    /// ```
    /// let numbers = [1, 2, 3];
    /// let sum = fanmap::scope(|s| s.submit(|| numbers.iter().sum::<i32>())?.wait())?;
    /// assert_eq!(sum, 6);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ThreadPool::submit`].
    pub fn submit<F, T>(&self, f: F) -> Result<Future<T>, Error>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let (job, future) = submission(f);
        let job = self.lender.lend(job);
        if self.core.on_worker() {
            job.run();
        } else {
            self.core.execute(job).map_err(|rejected| rejected.error)?;
        }
        Ok(future)
    }

    /// As [`ThreadPool::map`], for a function and items that may borrow.
    ///
    /// ```
    /// let offset = 10;
    /// let numbers = [1, 2, 3];
    /// let sums: Result<Vec<i32>, fanmap::Error> =
    ///     fanmap::scope(|s| s.map(&numbers, |n| n + offset).collect());
    /// assert_eq!(sums?, [11, 12, 13]);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn map<I, F, R>(&self, items: I, f: F) -> Map<'scope, I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'scope,
        F: Fn(I::Item) -> R + Send + Sync + 'scope,
        R: Send + 'scope,
    {
        let lender = self.lender;
        over_threads(self.core, Box::new(move |job| lender.lend(job)), items.into_iter(), f)
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
