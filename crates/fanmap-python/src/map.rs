//! The ordered results of a map, over threads or over processes.
//!
//! The package's `MapResult` reads the input, pushes items and pops outcomes; this holds what lies between. A pop decodes
//! nothing: over processes the outcome is bytes, which the thread that asked for it decodes.
//!
//! # What is shared
//! [`Shared`] is what workers (threads) or the supervisor (processes) see: they put outcomes in and never touch the
//! interpreter's state but through a value they own. `closed` is only ever set, so a task that looks at it too early
//! merely runs for nobody. `running` counts the thread tasks that are between their look at `closed` and their put: who
//! closes a run and then sees none running knows that none will run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use fanmap::Job;
use fanmap::bytes::{self, End, Sink};
use fanmap::map::ordered::{Ordered, Popped};
use fanmap::map::window::{Window, items_for, run_for};

use crate::convert::{self, Kind};
use crate::processes::{Function, ProcessPool};
use crate::threads::ThreadPool;
use crate::wait;

/// How many encoded bytes of items and results may be under way at a time. Less would make maps over large arrays wait for
/// each other; more is memory that the user never asked to spend.
const WINDOW_BYTES: usize = 64 << 20;

/// What became of one item.
enum Put {
    /// Over threads.
    Value(Py<PyAny>),
    /// Over threads.
    Raised(PyErr),
    /// Over processes: the end, and the bytes that it and its item count for.
    End(End, usize),
    /// The pool took no more.
    Refused(PyErr),
    /// The pool closed before the item was started.
    Discarded,
    /// The pool of threads broke.
    Failed(String),
}

struct Shared {
    results: Ordered<Put>,
    closed: AtomicBool,
    running: AtomicUsize,
    /// Moves on when a task has stopped running.
    quiet: fanmap::Event,
    /// The mean time of a task in nanoseconds, or 0 before the first.
    mean: AtomicU64,
    /// Encoded bytes under way.
    bytes: AtomicUsize,
}

/// A map under way.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct MapRun {
    shared: Arc<Shared>,
    kind: Workers,
    workers: usize,
    /// How many items were sent.
    sent: AtomicUsize,
    /// Set by the user, or worked out from the mean time.
    window: Option<Window>,
}

enum Workers {
    Threads {
        pool: Py<ThreadPool>,
        function: Arc<Py<PyAny>>,
        context: Py<PyAny>,
        star: bool,
    },
    Processes {
        pool: Py<ProcessPool>,
        function: Arc<bytes::Function>,
        /// Where all the map's ends go; tasks that have not ended are known by it.
        sink: Arc<PutEnds>,
    },
}

#[pymethods]
impl MapRun {
    /// A map of `function` over threads. Each call runs in a copy of `context`; with `star` an item is a tuple of
    /// arguments. `window` bounds the items under way; 0 is no bound, `None` as many as keep the workers busy.
    #[staticmethod]
    fn over_threads(
        pool: Py<ThreadPool>,
        function: Py<PyAny>,
        context: Py<PyAny>,
        star: bool,
        window: Option<usize>,
    ) -> Self {
        let workers = pool.get().pool().max_workers();
        let kind = Workers::Threads {
            pool,
            function: Arc::new(function),
            context,
            star,
        };
        Self::new(Arc::new(Shared::new()), kind, workers, window)
    }

    /// A map of `function` over processes. Each task holds `keeper` until it has ended.
    #[staticmethod]
    fn over_processes(pool: Py<ProcessPool>, function: &Function, window: Option<usize>, keeper: Py<PyAny>) -> Self {
        let workers = pool.get().pool().max_workers();
        let shared = Arc::new(Shared::new());
        let kind = Workers::Processes {
            pool,
            sink: Arc::new(PutEnds {
                sizes: Mutex::default(),
                shared: Arc::clone(&shared),
                function: Arc::clone(&function.function),
                _keeper: keeper,
            }),
            function: Arc::clone(&function.function),
        };
        Self::new(shared, kind, workers, window)
    }

    /// How many items to read and send next; 0 is none before an outcome was popped.
    fn room(&self) -> usize {
        let mean = self.mean_task();
        let window = self.window.unwrap_or_else(|| Window {
            max_items: items_for(self.workers, mean),
            max_bytes: WINDOW_BYTES,
        });
        let (items, bytes) = (
            self.shared.results.outstanding(),
            self.shared.bytes.load(Ordering::Relaxed),
        );
        let sent = self.sent.load(Ordering::Relaxed);
        window.next_run(items, bytes, run_for(sent, mean))
    }

    /// Sends an item: an object over threads, bytes over processes. If the pool takes no more, that is the item's outcome.
    /// Over processes it may be a run of `count` items encoded together.
    #[pyo3(signature = (item, count=1))]
    fn push(&self, py: Python<'_>, item: Bound<'_, PyAny>, count: u32) -> PyResult<()> {
        self.sent.fetch_add(count as usize, Ordering::Relaxed);
        match &self.kind {
            Workers::Threads {
                pool,
                function,
                context,
                star,
            } => {
                let context = context.call_method0(py, "copy")?;
                let pool = pool.get();
                let job = Box::new(Apply {
                    function: Arc::clone(function),
                    context,
                    star: *star,
                    item: item.unbind(),
                    index: self.shared.results.reserve(1),
                    shared: Arc::clone(&self.shared),
                });
                if pool.pool().on_worker() {
                    // A worker that waited for its own pool could wait for ever.
                    job.run_here(|| ());
                } else if let Err(rejected) = pool.pool().execute(job) {
                    let error = convert::error(&rejected.error);
                    rejected.job.fail(&rejected.error);
                    return Err(error);
                }
            }
            Workers::Processes { pool, function, sink } => {
                let arguments = item.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes().to_vec();
                let size = arguments.len();
                let first = self.shared.results.reserve(u64::from(count));
                sink.sent(first, count, size);
                let pool = pool.get().pool();
                let submitted = pool.submit_run(function, arguments, count, Arc::clone(sink) as Arc<dyn Sink>, first);
                if let Err(error) = submitted {
                    sink.answered(first, count);
                    let refused = Put::Refused(convert::error(&error));
                    self.shared.results.put(first, u64::from(count), refused);
                    return Err(convert::error(&error));
                }
            }
        }
        Ok(())
    }

    /// Puts an error in the place of the next item: one that could not be sent.
    fn push_error(&self, error: Bound<'_, PyAny>) {
        let index = self.shared.results.reserve(1);
        self.shared.results.put(index, 1, Put::Raised(PyErr::from_value(error)));
    }

    /// The outcome of the next item, as `(kind, payload, count)`, if it is there now. Values over processes may be of
    /// `count` items, encoded together.
    fn try_pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let popped = self.shared.results.try_pop();
        popped.map(|(count, put)| self.tell(py, put, count)).transpose()
    }

    /// The outcome of the next item, waiting for it; `None` if nothing is under way.
    ///
    /// Raises TimeoutError after `timeout` seconds, and what a signal handler raises.
    #[pyo3(signature = (timeout=None))]
    fn pop<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let deadline = wait::deadline(timeout)?;
        let popped = wait::interruptible(py, || match self.shared.results.pop(deadline) {
            Popped::Interrupted => None,
            other => Some(other),
        })?;
        match popped {
            Popped::Items(count, put) => self.tell(py, put, count).map(Some),
            Popped::TimedOut => Err(pyo3::exceptions::PyTimeoutError::new_err(())),
            Popped::Empty | Popped::Interrupted => Ok(None),
        }
    }

    /// How many items are under way or done and not popped.
    fn outstanding(&self) -> usize {
        self.shared.results.outstanding()
    }

    /// Cancels what has not started; with `kill`, workers (processes) that run one of the map's tasks are ended.
    fn close(&self, py: Python<'_>, kill: bool) {
        self.shared.closed.store(true, Ordering::SeqCst);
        if let Workers::Processes { pool, sink, .. } = &self.kind {
            let sink = Arc::clone(sink) as Arc<dyn Sink>;
            let pool = pool.get().pool();
            py.detach(|| pool.cancel(&sink, kill));
        }
        self.shared.results.close();
    }

    /// After `close`, over threads: waits until no task of the map runs. Raises what a signal handler raises.
    fn wait_quiet(&self, py: Python<'_>) -> PyResult<()> {
        let quiet = &self.shared.quiet;
        wait::interruptible(py, || {
            loop {
                let epoch = quiet.epoch();
                if self.shared.running.load(Ordering::SeqCst) == 0 {
                    return Some(());
                }
                if quiet.wait(epoch, None) == fanmap::Wake::Interrupted {
                    return None;
                }
            }
        })
    }
}

impl MapRun {
    fn new(shared: Arc<Shared>, kind: Workers, workers: usize, window: Option<usize>) -> Self {
        Self {
            shared,
            kind,
            workers,
            sent: AtomicUsize::new(0),
            window: window.map(|items| Window::of_items(if items == 0 { usize::MAX } else { items })),
        }
    }

    fn mean_task(&self) -> Option<Duration> {
        match self.shared.mean.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn tell<'py>(&self, py: Python<'py>, put: Put, count: u64) -> PyResult<Bound<'py, PyTuple>> {
        let (kind, payload) = match put {
            Put::Value(value) => (Kind::Value, value.into_bound(py)),
            Put::Raised(error) => (Kind::Raised, error.into_value(py).into_bound(py).into_any()),
            Put::End(end, size) => {
                self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
                convert::end(py, end)?
            }
            Put::Refused(error) => return Err(error),
            Put::Discarded => (Kind::Cancelled, py.None().into_bound(py)),
            Put::Failed(reason) => (Kind::Broken, (reason, py.None()).into_pyobject(py)?.into_any()),
        };
        (kind as u8, payload, count).into_pyobject(py)
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            results: Ordered::new(),
            closed: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            quiet: fanmap::Event::new(),
            mean: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    fn took(&self, nanos: u64) {
        // Two threads may race and one sample be lost: the mean is a guide, not an account.
        let before = self.mean.load(Ordering::Relaxed);
        let mean = if before == 0 {
            nanos
        } else {
            before - before / 8 + nanos / 8
        };
        self.mean.store(mean.max(1), Ordering::Relaxed);
    }
}

/// The task of one item over threads.
struct Apply {
    function: Arc<Py<PyAny>>,
    context: Py<PyAny>,
    star: bool,
    item: Py<PyAny>,
    index: u64,
    shared: Arc<Shared>,
}

impl Apply {
    fn call(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if !self.star {
            return self.context.call_method1(py, "run", (&*self.function, &self.item));
        }
        let arguments = self.item.bind(py).cast::<PyTuple>().map_err(PyErr::from)?;
        let function = PyTuple::new(py, [&*self.function])?;
        let all = function.as_sequence().concat(arguments.as_sequence())?.to_tuple()?;
        self.context.call_method1(py, "run", all)
    }
}

impl Apply {
    /// Runs on this thread; `before` is called before the outcome is out.
    fn run_here(self: Box<Self>, before: impl FnOnce()) {
        // Counted before looking: whoever sets `closed` and then sees nobody running knows that nobody will.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let index = self.index;
        Python::attach(|py| {
            if shared.closed.load(Ordering::SeqCst) {
                drop(self);
                return;
            }
            let started = Instant::now();
            let result = self.call(py);
            shared.took(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
            // What the task held goes before its result is out: the consumer may be waiting to see it gone.
            drop(self);
            before();
            shared.results.put(
                index,
                1,
                match result {
                    Ok(value) => Put::Value(value),
                    Err(error) => Put::Raised(error),
                },
            );
        });
        if shared.running.fetch_sub(1, Ordering::SeqCst) == 1 && shared.closed.load(Ordering::SeqCst) {
            shared.quiet.notify();
        }
    }
}

impl Job for Apply {
    fn run(self: Box<Self>) {
        // Nobody is called when an item's outcome is put.
        self.run_here(fanmap::rest);
    }

    fn discard(self: Box<Self>) {
        Python::attach(|_| {
            self.shared.results.put(self.index, 1, Put::Discarded);
            drop(self);
        });
    }

    fn fail(self: Box<Self>, why: &fanmap::Error) {
        Python::attach(|_| {
            self.shared
                .results
                .put(self.index, 1, Put::Failed(why.message().to_owned()));
            drop(self);
        });
    }
}

/// Puts the ends of tasks over processes in their places. It never touches the interpreter.
struct PutEnds {
    /// Of the runs that have not ended: by the first item, how many have not, and the bytes of their arguments.
    sizes: Mutex<BTreeMap<u64, (u32, usize)>>,
    shared: Arc<Shared>,
    function: Arc<bytes::Function>,
    /// Dropped, perhaps as the last one, where the interpreter is not at hand: PyO3 then lets go of it later.
    _keeper: Py<PyAny>,
}

impl PutEnds {
    /// A run is under way.
    fn sent(&self, first: u64, count: u32, size: usize) {
        self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        lock(&self.sizes).insert(first, (count, size));
    }

    /// Some of a run's tasks have ended: with the last of them, its arguments count no more.
    fn answered(&self, first: u64, count: u32) {
        let mut sizes = lock(&self.sizes);
        let Some((run, (left, size))) = sizes.range_mut(..=first).next_back() else {
            return;
        };
        *left = left.saturating_sub(count);
        let (run, left, size) = (*run, *left, *size);
        if left == 0 {
            sizes.remove(&run);
            self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

impl Sink for PutEnds {
    fn finished(&self, first: u64, count: u32, end: End) {
        let size = match &end {
            End::Outcome(fanmap::Outcome::Value(bytes) | fanmap::Outcome::Raised(bytes)) => bytes.len(),
            _ => 0,
        };
        self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        self.answered(first, count);
        if let Some(mean) = self.function.mean_task() {
            self.shared.mean.store(
                u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX).max(1),
                Ordering::Relaxed,
            );
        }
        self.shared.results.put(first, u64::from(count), Put::End(end, size));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
