//! A map over threads: Python's side of the engine's [`Work`].
//!
//! The package's `MapResult` reads the input, pushes items and pops outcomes. Helpers are jobs on the pool that work on one
//! item after another, each in a context of its own.
//!
//! # What is shared
//! [`Run`] is what helpers see. `running` counts the helpers that are between their first look for an item and their last
//! result: who closes the work and then sees none running knows that none will run. `mean` is a guide, not an account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use fanmap::Job;
use fanmap::map::ordered::Popped;
use fanmap::map::window::{Window, items_for, items_together, run_for};
use fanmap::map::work::{Hand, Work};

use crate::calls;
use crate::context::in_copy_of;
use crate::convert::{self, Kind};
use crate::stash::Stash;
use crate::threads::{BREATH, ThreadPool};
use crate::wait;

/// The most items pushed, and values popped, together. More, and the threads could run out of items before the next are read;
/// fewer would make each pay more for the Python code between.
const TOGETHER: usize = 1024;

/// After tasks that took less, together, the clock is read half as often; after longer ones for each. Much longer, and the
/// mean would lag behind what the tasks are; much shorter, and tiny tasks would pay for the clock.
const SHORT: Duration = Duration::from_micros(10);

/// The most tasks between two looks at the clock.
const LONGEST_STRIDE: u32 = 32;

/// What became of one item.
pub(crate) enum Put {
    Value(Py<PyAny>),
    Raised(Box<PyErr>),
    /// The pool closed before the item was started.
    Discarded,
    /// The pool broke.
    #[expect(
        clippy::box_collection,
        reason = "one word, like the others: there is one of these for each item"
    )]
    Failed(Box<String>),
}

/// The items and outcomes of a map.
pub(crate) type Items = Work<Py<PyAny>, Put>;

struct Run {
    work: Arc<Items>,
    pool: Py<ThreadPool>,
    function: Py<PyAny>,
    /// What each item's context is a copy of.
    context: Py<PyAny>,
    /// An item is a tuple of arguments.
    star: bool,
    /// The most helpers at a time, if fewer than the pool has threads.
    most: AtomicUsize,
    /// How many jobs the pool had ever queued when items were last sent.
    stamp: AtomicU64,
    running: AtomicUsize,
    /// Moves on when no helper is running any more.
    quiet: fanmap::Event,
    /// The mean time of a task in nanoseconds, or 0 before the first.
    mean: AtomicU64,
    /// How long threads were at it, in nanoseconds, as far as the clock was read.
    busy: AtomicU64,
}

/// A map under way.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct ThreadRun {
    run: Arc<Run>,
    /// How many items were sent.
    sent: AtomicUsize,
    /// Set by the user, or worked out from the mean time.
    window: Option<Window>,
    /// How many items to read together, at least.
    together: usize,
}

#[pymethods]
impl ThreadRun {
    /// A map of `function`. Each call runs in a copy of `context`; with `star` an item is a tuple of arguments. `window`
    /// bounds the items under way; 0 is no bound, `None` as many as keep the workers busy. At least `together` items are
    /// read at a time. Outcomes leave in the order of their items, or as they come. At most `workers` threads of the pool
    /// are at it, if that is given.
    #[new]
    #[pyo3(signature = (pool, function, context, star, window, together=1, ordered=true, workers=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the keyword arguments of one call in the package"
    )]
    fn new(
        pool: Py<ThreadPool>,
        function: Py<PyAny>,
        context: Py<PyAny>,
        star: bool,
        window: Option<usize>,
        together: usize,
        ordered: bool,
        workers: Option<usize>,
    ) -> Self {
        let work = Arc::new(if ordered { Work::new() } else { Work::as_they_come() });
        pool.get().note(&work);
        Self {
            run: Arc::new(Run {
                work,
                pool,
                function,
                context,
                star,
                most: AtomicUsize::new(workers.unwrap_or(usize::MAX)),
                stamp: AtomicU64::new(0),
                running: AtomicUsize::new(0),
                quiet: fanmap::Event::new(),
                mean: AtomicU64::new(0),
                busy: AtomicU64::new(0),
            }),
            sent: AtomicUsize::new(0),
            window: window.map(Window::of_user),
            together,
        }
    }

    /// How many items to read and send next; 0 is none before an outcome was popped.
    fn room(&self) -> usize {
        let mean = self.run.mean_task();
        let workers = self.run.max_workers();
        let window = self
            .window
            .unwrap_or_else(|| Window::of_items(items_together(items_for(workers, mean), workers, self.together)));
        let run = run_for(self.sent.load(Ordering::Relaxed), mean).min(TOGETHER);
        window.next_run(self.run.work.outstanding(), 0, run.max(self.together))
    }

    /// From the next items on, so many threads may be at it.
    fn widen(&self, workers: usize) {
        self.run.most.store(workers, Ordering::Relaxed);
    }

    /// Sends items. If the pool takes no more, that is their outcome.
    fn push(&self, py: Python<'_>, items: Vec<Py<PyAny>>) -> PyResult<()> {
        self.sent.fetch_add(items.len(), Ordering::Relaxed);
        let run = &self.run;
        let pool = run.pool.get();
        run.stamp.store(pool.pool().jobs_queued(), Ordering::Relaxed);
        if pool.pool().on_worker() {
            // A worker that waited for its own pool could wait for ever.
            if run.work.push(items, 1) > 0 {
                run.help(py, false);
            }
            return Ok(());
        }
        let wanted = run.work.push(items, run.max_workers());
        for sent in 0..wanted {
            if let Err(error) = Helper::new(run).send() {
                // Those after it are counted as well, and will not come either.
                for _ in sent + 1..wanted {
                    run.lose_helper(|| Put::Failed(Box::new(error.message().to_owned())));
                }
                return Err(convert::error(&error));
            }
        }
        Ok(())
    }

    /// The next outcome, as `(kind, payload, index, count)`, if it is there now. If more values are there they come along,
    /// `count` in all: those after the first are kept in `stash`; without one each comes alone, with its item's index.
    #[pyo3(signature = (stash, /))]
    fn try_pop<'py>(&self, py: Python<'py>, stash: Option<&Stash>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let most = if stash.is_some() { TOGETHER } else { 1 };
        let (index, mut puts) = self.run.work.pop_while(most, |put| matches!(put, Put::Value(_)));
        let Some(stash) = stash.filter(|_| puts.len() > 1) else {
            let put = puts.pop().map(|put| (index, put)).or_else(|| self.run.work.try_pop());
            return put.map(|(index, put)| tell(py, put, index)).transpose();
        };
        let count = puts.len();
        let reversed = puts.into_iter().rev().filter_map(|put| match put {
            Put::Value(value) => Some(value),
            Put::Raised(_) | Put::Discarded | Put::Failed(_) => None,
        });
        let mut values: Vec<_> = reversed.collect();
        let first = values.pop();
        stash.keep_reversed(values);
        (Kind::Value as u8, first, index, count).into_pyobject(py).map(Some)
    }

    /// The next outcome, waiting for it; `None` if nothing is under way.
    ///
    /// Raises TimeoutError after `timeout` seconds, and what a signal handler raises.
    #[pyo3(signature = (timeout=None))]
    fn pop<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let deadline = wait::deadline(timeout)?;
        let popped = wait::interruptible(py, || match self.run.work.pop(deadline) {
            Popped::Interrupted => None,
            other => Some(other),
        })?;
        match popped {
            Popped::Items(items, put) => tell(py, put, items.start).map(Some),
            Popped::TimedOut => Err(pyo3::exceptions::PyTimeoutError::new_err(())),
            Popped::Empty | Popped::Interrupted => Ok(None),
        }
    }

    /// How long threads were at it so far, in seconds; and how many bytes were sent and received: none.
    fn spent(&self) -> (f64, u64, u64) {
        let busy = Duration::from_nanos(self.run.busy.load(Ordering::Relaxed));
        (busy.as_secs_f64(), 0, 0)
    }

    /// How many items are under way or done and not popped.
    fn outstanding(&self) -> usize {
        self.run.work.outstanding()
    }

    /// Cancels what has not started.
    fn close(&self) {
        self.run.work.close();
    }

    /// After `close`: waits until no task of the map runs. Raises what a signal handler raises.
    fn wait_quiet(&self, py: Python<'_>) -> PyResult<()> {
        let (running, quiet) = (&self.run.running, &self.run.quiet);
        wait::interruptible(py, || {
            loop {
                let epoch = quiet.epoch();
                if running.load(Ordering::SeqCst) == 0 {
                    return Some(());
                }
                if quiet.wait(epoch, None) == fanmap::Wake::Interrupted {
                    return None;
                }
            }
        })
    }
}

fn tell(py: Python<'_>, put: Put, index: u64) -> PyResult<Bound<'_, PyTuple>> {
    let (kind, payload) = match put {
        Put::Value(value) => (Kind::Value, value.into_bound(py)),
        Put::Raised(error) => (Kind::Raised, error.into_value(py).into_bound(py).into_any()),
        Put::Discarded => (Kind::Cancelled, py.None().into_bound(py)),
        Put::Failed(reason) => (Kind::Broken, (*reason, py.None()).into_pyobject(py)?.into_any()),
    };
    (kind as u8, payload, index, 1).into_pyobject(py)
}

impl Run {
    fn max_workers(&self) -> usize {
        let most = self.most.load(Ordering::Relaxed);
        self.pool.get().pool().max_workers().min(most)
    }

    fn mean_task(&self) -> Option<Duration> {
        match self.mean.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// `count` tasks took that long together.
    fn took(&self, time: Duration, count: u32) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.busy.fetch_add(nanos, Ordering::Relaxed);
        let nanos = nanos / u64::from(count);
        // Two threads may race and one sample be lost.
        let before = self.mean.load(Ordering::Relaxed);
        let mean = if before == 0 {
            nanos
        } else {
            before - before / 8 + nanos / 8
        };
        self.mean.store(mean.max(1), Ordering::Relaxed);
    }

    /// Calls the function on an item, which is dropped before the result is out: the consumer may wait to see it gone.
    fn call(&self, py: Python<'_>, item: Py<PyAny>) -> Put {
        let called = in_copy_of(self.context.bind(py), || {
            let function = self.function.bind(py);
            if self.star {
                return calls::call(function, item.bind(py).cast()?, None);
            }
            calls::call1(function, item.bind(py))
        });
        drop(item);
        match called {
            Ok(value) => Put::Value(value.unbind()),
            Err(error) => Put::Raised(Box::new(error)),
        }
    }

    /// Whether a job waits that came before the map's last items. One that came after them may wait for their results.
    fn is_overtaking(&self) -> bool {
        self.pool.get().pool().waits_before(self.stamp.load(Ordering::Relaxed))
    }

    /// What has not started never will: for the pool was closed so, or broke.
    fn abandon(&self) {
        match self.pool.get().pool().broken() {
            Some(why) => self.work.abandon(|| Put::Failed(Box::new(why.message().to_owned()))),
            None => self.work.abandon(|| Put::Discarded),
        }
    }
}

/// A job that works on the items of a map, as long as there are any.
struct Helper {
    run: Arc<Run>,
}

impl Helper {
    fn new(run: &Arc<Run>) -> Box<Self> {
        Box::new(Self { run: Arc::clone(run) })
    }

    /// Gives it to the pool. If that takes it no more, and no other helper is there, the items have the error as outcome.
    fn send(self: Box<Self>) -> Result<(), fanmap::Error> {
        let run = Arc::clone(&self.run);
        self.offer().map_err(|rejected| {
            run.lose_helper(|| Put::Failed(Box::new(rejected.error.message().to_owned())));
            rejected.error
        })
    }

    /// Gives it to the pool, or back.
    fn offer(self: Box<Self>) -> Result<(), fanmap::Rejected> {
        let run = Arc::clone(&self.run);
        let waiting = &run.pool.get().helpers;
        waiting.fetch_add(1, Ordering::Relaxed);
        run.pool.get().pool().execute(self).inspect_err(|_| {
            waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

impl Run {
    /// A helper's work, until nothing is open, or (`may_yield`) somebody else's job waits for a thread.
    fn help(self: &Arc<Self>, py: Python<'_>, may_yield: bool) {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.work_on(py, may_yield);
        if self.running.fetch_sub(1, Ordering::SeqCst) == 1 && self.work.is_closed() {
            self.quiet.notify();
        }
    }

    fn work_on(self: &Arc<Self>, py: Python<'_>, may_yield: bool) {
        let Some((mut hand, mut item)) = Hand::start(&self.work) else {
            return;
        };
        let pool = self.pool.get();
        let (mut mark, mut breathed) = {
            let now = Instant::now();
            (now, now)
        };
        // Reading the clock costs as much as a tiny task: it is read after `stride` of them.
        let (mut stride, mut timed) = (1, 0);
        loop {
            let put = self.call(py, item);
            timed += 1;
            if timed >= stride {
                let now = Instant::now();
                let took = now - mark;
                self.took(took, timed);
                stride = if took < SHORT {
                    (2 * stride).min(LONGEST_STRIDE)
                } else {
                    1
                };
                (mark, timed) = (now, 0);
                if now - breathed >= BREATH {
                    pool.breathe(py);
                    mark = Instant::now();
                    breathed = mark;
                    if may_yield && self.is_overtaking() && Helper::new(self).offer().is_ok() {
                        // It stays counted: it will be back.
                        return hand.pause(put);
                    }
                }
            }
            if pool.pool().is_stopped() {
                self.abandon();
            }
            let last = || {
                if may_yield {
                    // Nobody is called when an item's outcome is put.
                    fanmap::rest();
                }
            };
            match hand.step(put, last) {
                Some(next) => item = next,
                None => return,
            }
        }
    }

    /// A helper will not run: with the last of them, neither will what is open.
    fn lose_helper(&self, why: impl FnMut() -> Put) {
        if self.work.lose_helper() {
            self.work.abandon(why);
        }
    }
}

impl Job for Helper {
    fn run(self: Box<Self>) {
        self.run.pool.get().helpers.fetch_sub(1, Ordering::Relaxed);
        Python::attach(|py| self.run.help(py, true));
    }

    fn discard(self: Box<Self>) {
        self.run.pool.get().helpers.fetch_sub(1, Ordering::Relaxed);
        Python::attach(|_| {
            self.run.lose_helper(|| Put::Discarded);
            drop(self);
        });
    }

    fn fail(self: Box<Self>, why: &fanmap::Error) {
        self.run.pool.get().helpers.fetch_sub(1, Ordering::Relaxed);
        Python::attach(|_| {
            self.run.lose_helper(|| Put::Failed(Box::new(why.message().to_owned())));
            drop(self);
        });
    }
}
