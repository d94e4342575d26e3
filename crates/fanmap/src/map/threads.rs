//! The map over a pool of threads.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::{Feed, Map};
use crate::cpus;
use crate::error::Error;
use crate::executor::threads::{Core, ThreadPool, call, rest};
use crate::flow::{Items, Results};
use crate::outcome::cancelled;
use crate::pipe::Inlet;
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
    pub fn map<I, F, R>(&self, items: I, f: F) -> Map<'static, I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        over_threads(self.core(), Box::new(|job| job), items.into_iter(), f)
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
pub fn map<I, F, R>(items: I, f: F) -> Map<'static, I::IntoIter, R>
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

pub(super) static WARM: LazyLock<ThreadPool> = LazyLock::new(|| {
    ThreadPool::builder()
        .workers(cpus::available())
        .idle(WARM_TIME)
        .build()
        .expect("there is at least one core, and the idle time is not zero")
});

/// An iterator whose items can be mapped in parallel.
///
/// ```
/// use fanmap::FanMap;
///
/// let input = "1 2 3\n4 5 6\n";
/// let sums: Result<Vec<u32>, fanmap::Error> = input
///     .lines()
///     .fan_map(|line| line.split(' ').filter_map(|word| word.parse::<u32>().ok()).sum())
///     .collect();
/// assert_eq!(sums?, [6, 15]);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub trait FanMap: Iterator + Sized {
    /// The same as [`map`](crate::map()) on this iterator.
    fn fan_map<F, R>(self, f: F) -> Map<'static, Self, R>
    where
        Self::Item: Send + 'static,
        F: Fn(Self::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        map(self, f)
    }
}

impl<I: Iterator> FanMap for I {}

/// Makes a job that borrows into one that anybody takes: see [`Lender::lend`](crate::lend::Lender::lend).
type Lend<'f> = Box<dyn Fn(Box<dyn Job + 'f>) -> Box<dyn Job> + Send + Sync + 'f>;

/// The map of `f` over `items` on a pool. What lives only as long as `'f` goes to it by `lend`.
pub(crate) fn over_threads<'f, I, F, R>(core: &Arc<Core>, lend: Lend<'f>, items: I, f: F) -> Map<'f, I, R>
where
    I: Iterator,
    I::Item: Send + 'f,
    F: Fn(I::Item) -> R + Send + Sync + 'f,
    R: Send + 'f,
{
    let results = Arc::new(Results::new());
    let (inlet, read) = Items::new();
    let crew = Crew {
        items: read,
        f,
        core: Arc::clone(core),
        lend,
    };
    let feed = Threads {
        crew: Arc::new(crew),
        inlet,
        results: Arc::clone(&results),
    };
    Map::new(items, Box::new(feed), results, core.max_workers())
}

/// What the reader and the helpers of a map share.
struct Crew<'f, T, F> {
    items: Items<T>,
    f: F,
    core: Arc<Core>,
    lend: Lend<'f>,
}

/// The reader's end.
struct Threads<'f, T, F, R> {
    crew: Arc<Crew<'f, T, F>>,
    inlet: Inlet<T>,
    results: Arc<Results<Result<R, Error>>>,
}

impl<'f, T, F, R> Feed<T> for Threads<'f, T, F, R>
where
    T: Send + 'f,
    F: Fn(T) -> R + Send + Sync + 'f,
    R: Send + 'f,
{
    fn send(&mut self, item: T, index: u64) -> Result<(), Error> {
        let crew = &self.crew;
        if crew.core.on_worker() {
            let result = call(|| (crew.f)(item)).into_result();
            let result = result.map_err(|error| error.at_item(index));
            self.results.put(index, vec![result], true);
            return Ok(());
        }
        if let Some(error) = crew.core.refusal() {
            return Err(error);
        }
        if crew.items.push(&mut self.inlet, item, crew.core.max_workers()) {
            let helper = Box::new(Helper {
                crew: Some(Arc::clone(crew)),
                results: Arc::clone(&self.results),
            });
            if let Err(rejected) = crew.core.execute((crew.lend)(helper)) {
                rejected.job.fail(&rejected.error);
            }
        }
        Ok(())
    }

    fn bytes_each(&self) -> usize {
        0 // nothing is encoded
    }

    fn mean_task(&self) -> Option<Duration> {
        self.crew.items.mean_task()
    }
}

impl<T, F, R> Drop for Threads<'_, T, F, R> {
    fn drop(&mut self) {
        drop(self.crew.items.clear());
    }
}

/// How long a helper works before it lets other jobs of the pool go first. Less, and two maps on one pool take turns all the
/// time; more, and a job waits longer for a map that has all the threads.
const SHIFT: Duration = Duration::from_millis(1);

/// A job that works for a map until nothing is left to do.
struct Helper<'f, T, F, R> {
    /// `None` once it counts no more.
    crew: Option<Arc<Crew<'f, T, F>>>,
    results: Arc<Results<Result<R, Error>>>,
}

impl<T, F, R> Helper<'_, T, F, R> {
    /// It will do no more. If it was the last helper, items that nobody will take now have failed, for this reason.
    fn leave(&mut self, why: impl Fn() -> Error) {
        let Some(crew) = self.crew.take() else {
            return;
        };
        let (first, items) = crew.items.lose_helper();
        let results = (first..).zip(items).map(|(index, item)| {
            drop(item);
            Err(why().at_item(index))
        });
        self.results.put(first, results.collect::<Vec<_>>(), true);
    }
}

impl<T, F: Fn(T) -> R, R> Helper<'_, T, F, R> {
    /// The results of a run of items, which is empty then. Fewer, if nobody will ask for them.
    fn run_through(&self, crew: &Crew<'_, T, F>, first: u64, run: &mut Vec<T>) -> Vec<Result<R, Error>> {
        let mut done = Vec::with_capacity(run.len());
        let mut items = run.drain(..);
        // A panic is caught around all of them that are left, not around each: that would cost as much as a tiny task.
        while items.len() > 0 && !self.results.is_closed() {
            let ended = call(|| {
                while !self.results.is_closed() {
                    let Some(item) = items.next() else { break };
                    done.push(match crew.core.stopped() {
                        None => Ok((crew.f)(item)),
                        Some(error) => Err(error.at_item(first + done.len() as u64)),
                    });
                }
            });
            if let Err(error) = ended.into_result() {
                done.push(Err(error.at_item(first + done.len() as u64)));
            }
        }
        done
    }
}

impl<'f, T, F, R> Job for Helper<'f, T, F, R>
where
    T: Send + 'f,
    F: Fn(T) -> R + Send + Sync + 'f,
    R: Send + 'f,
{
    fn run(mut self: Box<Self>) {
        let Some(crew) = self.crew.clone() else {
            return;
        };
        let begun = Instant::now();
        let mut since = begun;
        let mut run = Vec::new();
        let Some(mut first) = crew.items.claim(&mut run) else {
            self.crew = None;
            return;
        };
        loop {
            let count = run.len();
            let done = self.run_through(&crew, first, &mut run);
            let now = Instant::now();
            crew.items.took(now - since, count);
            since = now;
            if now - begun > SHIFT && crew.core.has_waiting() && crew.core.refusal().is_none() {
                // Others first. A pool that was closed meanwhile takes no job any more: then the work is ended here.
                let results = Arc::clone(&self.results);
                let core = Arc::clone(&crew.core);
                let job = (crew.lend)(Box::new(Helper {
                    crew: self.crew.take(),
                    results: Arc::clone(&results),
                }));
                drop(crew);
                results.put(first, done, false);
                if let Err(rejected) = core.execute(job) {
                    rejected.job.run();
                }
                return;
            }
            let next = crew.items.claim(&mut run);
            let Some(next) = next else {
                // Before the last result is out: who has it and drops the map holds what the function captured alone.
                self.crew = None;
                drop(crew);
                rest();
                return self.results.put(first, done, true);
            };
            self.results.put(first, done, false);
            first = next;
        }
    }

    fn discard(mut self: Box<Self>) {
        self.leave(cancelled);
    }

    fn fail(mut self: Box<Self>, why: &Error) {
        self.leave(|| why.clone());
    }
}

impl<T, F, R> Drop for Helper<'_, T, F, R> {
    /// Also where something panicked that is no task: nobody is to wait for this helper.
    fn drop(&mut self) {
        self.leave(cancelled);
    }
}
