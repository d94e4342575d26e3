//! The map over a pool of threads.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::ordered::Ordered;
use super::{Finished, Map};
use crate::cpus;
use crate::error::Error;
use crate::executor::threads::{ThreadPool, call, rest};
use crate::outcome::Outcome;
use crate::task::Job;

impl ThreadPool {
    /// Calls `f` on each item, on the workers, and gives the results in the order of the items.
    ///
    /// It reads only so far ahead of the results that are asked for (see [`Map::window`]), so it takes an endless iterator
    /// too. In a task of this same pool it runs in place, item by item: a worker that waited for its own pool could wait
    /// for ever.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::new(4)?;
    /// for result in pool.map(["one", "two"], str::len) {
    ///     assert_eq!(result?, 3);
    /// }
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn map<I, F, R>(&self, items: I, f: F) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        let results = Arc::new(Ordered::new());
        let core = Arc::clone(self.core());
        let workers = core.max_workers();
        let sink = Arc::clone(&results);
        let f = Arc::new(f);
        let feed = move |item, index| {
            let job = Box::new(Apply {
                item,
                index,
                f: Arc::clone(&f),
                results: Arc::clone(&sink),
            });
            if core.on_worker() {
                job.run();
                return Ok(());
            }
            core.execute(job).map_err(|rejected| rejected.error)
        };
        Map::new(items.into_iter(), Box::new(feed), results, workers)
    }
}

/// Calls `f` on each item, on as many threads as there are cores, and gives the results in the order of the items.
///
/// The threads are shared by the whole program and end when nobody has used them for a while. For tasks that wait more
/// than they compute, make a [`ThreadPool`] with as many workers as should wait at a time, and use [`ThreadPool::map`].
///
/// ```
/// let lengths: Result<Vec<usize>, fanmap::Error> = fanmap::map(["a", "bc", "def"], str::len).collect();
/// assert_eq!(lengths?, [1, 2, 3]);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn map<I, F, R>(items: I, f: F) -> Map<I::IntoIter, R>
where
    I: IntoIterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
    R: Send + 'static,
{
    WARM.map(items, f)
}

/// How long the shared threads live without work. Much shorter, and a program that maps now and then starts them anew each
/// time (tens of microseconds a thread); much longer, and one that mapped once keeps their stacks for nothing.
const WARM_TIME: Duration = Duration::from_secs(10);

static WARM: LazyLock<ThreadPool> = LazyLock::new(|| {
    ThreadPool::builder()
        .workers(cpus::available())
        .idle(WARM_TIME)
        .build()
        .expect("there is at least one core, and the idle time is not zero")
});

/// One item's task.
struct Apply<T, F, R> {
    item: T,
    index: u64,
    f: Arc<F>,
    results: Arc<Ordered<Result<Finished<R>, Error>>>,
}

impl<T, F, R> Apply<T, F, R> {
    fn put(results: &Ordered<Result<Finished<R>, Error>>, index: u64, outcome: Outcome<R>, took: Option<Duration>) {
        results.put(index, 1, Ok(Finished { outcome, took }));
    }
}

impl<T, F, R> Job for Apply<T, F, R>
where
    T: Send,
    F: Fn(T) -> R + Send + Sync,
    R: Send,
{
    fn run(self: Box<Self>) {
        let Apply {
            item,
            index,
            f,
            results,
        } = *self;
        if results.is_closed() {
            return;
        }
        let started = Instant::now();
        let outcome = call(|| f(item));
        let took = started.elapsed();
        // Before the result is out: who has the last result and drops the map holds what the function captured alone.
        drop(f);
        rest();
        Self::put(&results, index, outcome, Some(took));
    }

    fn discard(self: Box<Self>) {
        Self::put(&self.results, self.index, Outcome::Cancelled, None);
    }

    fn fail(self: Box<Self>, why: &Error) {
        self.results.put(self.index, 1, Err(why.clone()));
    }
}
