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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use fanmap::Job;
use fanmap::bytes::{self, End, Sink};
use fanmap::map::ordered::{Ordered, Popped};
use fanmap::map::window::{Window, items_for};

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
        keeper: Arc<Py<PyAny>>,
        /// The tasks that may not have ended.
        tickets: Mutex<VecDeque<bytes::Ticket>>,
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
        Self::new(kind, workers, window)
    }

    /// A map of `function` over processes. Each task holds `keeper` until it has ended.
    #[staticmethod]
    fn over_processes(pool: Py<ProcessPool>, function: &Function, window: Option<usize>, keeper: Py<PyAny>) -> Self {
        let workers = pool.get().pool().max_workers();
        let kind = Workers::Processes {
            pool,
            function: Arc::clone(&function.function),
            keeper: Arc::new(keeper),
            tickets: Mutex::default(),
        };
        Self::new(kind, workers, window)
    }

    /// Whether the window has room for another item.
    fn has_room(&self) -> bool {
        let window = self.window.unwrap_or_else(|| {
            let max_items = items_for(self.workers, self.mean_task());
            Window {
                max_items,
                max_bytes: WINDOW_BYTES,
            }
        });
        window.has_room(
            self.shared.results.outstanding(),
            self.shared.bytes.load(Ordering::Relaxed),
        )
    }

    /// Sends an item: an object over threads, bytes over processes. If the pool takes no more, that is the item's outcome.
    fn push(&self, py: Python<'_>, item: Bound<'_, PyAny>) -> PyResult<()> {
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
                    index: self.shared.results.reserve(),
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
            Workers::Processes {
                pool,
                function,
                keeper,
                tickets,
            } => {
                let argument = item.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes().to_vec();
                let size = argument.len();
                let index = self.shared.results.reserve();
                self.shared.bytes.fetch_add(size, Ordering::Relaxed);
                let sink = Arc::new(PutEnd {
                    size,
                    shared: Arc::clone(&self.shared),
                    function: Arc::clone(function),
                    _keeper: Arc::clone(keeper),
                });
                match pool.get().pool().submit(function, argument, sink, index) {
                    Ok(ticket) => {
                        let mut tickets = lock(tickets);
                        while tickets.front().is_some_and(bytes::Ticket::has_ended) {
                            tickets.pop_front();
                        }
                        tickets.push_back(ticket);
                    }
                    Err(error) => {
                        self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
                        self.shared.results.put(index, Put::Refused(convert::error(&error)));
                        return Err(convert::error(&error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts an error in the place of the next item: one that could not be sent.
    fn push_error(&self, error: Bound<'_, PyAny>) {
        let index = self.shared.results.reserve();
        self.shared.results.put(index, Put::Raised(PyErr::from_value(error)));
    }

    /// The outcome of the next item, as `(kind, payload)`, if it is there now.
    fn try_pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.shared.results.try_pop().map(|put| self.tell(py, put)).transpose()
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
            Popped::Item(put) => self.tell(py, put).map(Some),
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
        if let Workers::Processes { tickets, .. } = &self.kind {
            let tickets = std::mem::take(&mut *lock(tickets));
            py.detach(|| {
                // From the back: or each one cancelled would make room for the next to start.
                for ticket in tickets.iter().rev() {
                    if kill {
                        ticket.kill();
                    } else {
                        ticket.cancel();
                    }
                }
            });
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
    fn new(kind: Workers, workers: usize, window: Option<usize>) -> Self {
        Self {
            shared: Arc::new(Shared {
                results: Ordered::new(),
                closed: AtomicBool::new(false),
                running: AtomicUsize::new(0),
                quiet: fanmap::Event::new(),
                mean: AtomicU64::new(0),
                bytes: AtomicUsize::new(0),
            }),
            kind,
            workers,
            window: window.map(|items| Window::of_items(if items == 0 { usize::MAX } else { items })),
        }
    }

    fn mean_task(&self) -> Option<Duration> {
        match self.shared.mean.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn tell<'py>(&self, py: Python<'py>, put: Put) -> PyResult<Bound<'py, PyTuple>> {
        match put {
            Put::Value(value) => convert::pair(py, Kind::Value, value.into_bound(py)),
            Put::Raised(error) => convert::pair(py, Kind::Raised, error.into_value(py).into_bound(py).into_any()),
            Put::End(end, size) => {
                self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
                convert::end(py, end)
            }
            Put::Refused(error) => Err(error),
            Put::Discarded => convert::pair(py, Kind::Cancelled, py.None().into_bound(py)),
            Put::Failed(reason) => convert::pair(py, Kind::Broken, (reason, py.None()).into_pyobject(py)?.into_any()),
        }
    }
}

impl Shared {
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
            self.shared.results.put(self.index, Put::Discarded);
            drop(self);
        });
    }

    fn fail(self: Box<Self>, why: &fanmap::Error) {
        Python::attach(|_| {
            self.shared
                .results
                .put(self.index, Put::Failed(why.message().to_owned()));
            drop(self);
        });
    }
}

/// Puts the end of a task over processes in its place. It never touches the interpreter.
struct PutEnd {
    size: usize,
    shared: Arc<Shared>,
    function: Arc<bytes::Function>,
    /// Dropped, perhaps as the last one, where the interpreter is not at hand: PyO3 then lets go of it later.
    _keeper: Arc<Py<PyAny>>,
}

impl Sink for PutEnd {
    fn finished(&self, key: u64, end: End) {
        let size = match &end {
            End::Outcome(fanmap::Outcome::Value(bytes) | fanmap::Outcome::Raised(bytes)) => bytes.len(),
            _ => 0,
        };
        // The item has been used up; the result takes its place in the account.
        self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        self.shared.bytes.fetch_sub(self.size, Ordering::Relaxed);
        if let Some(mean) = self.function.mean_task() {
            self.shared.mean.store(
                u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX).max(1),
                Ordering::Relaxed,
            );
        }
        self.shared.results.put(key, Put::End(end, size));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
