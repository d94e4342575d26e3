//! The ordered results of a map over processes.
//!
//! The package's `MapResult` reads the input, pushes items and pops outcomes; this holds what lies between. A pop decodes
//! nothing: an outcome is bytes, which the thread that asked for it decodes.
//!
//! # What is shared
//! [`Shared`] is what the supervisor sees: it puts outcomes in and never touches the interpreter's state but through a value
//! it owns. Everything in it has a lock of its own or is an atomic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use fanmap::bytes::{self, End, Retries, Sink, Wanted};
use fanmap::map::Brake;
use fanmap::map::ordered::{Ordered, Popped};
use fanmap::map::window::{Window, bytes_for, items_for_encoded, items_together, run_for};

use crate::convert::{self, Kind};
use crate::processes::{self, Function, ProcessPool, Terms, TermsOfTasks};
use crate::stash::Stash;
use crate::wait;

/// What became of items.
enum Put {
    /// Their end, and the bytes that it counts for.
    End(End, usize),
    /// They were not sent, or failed in the calling thread.
    Error(PyErr),
    /// One that was worked on in the calling thread, and what came of it.
    Here(Py<PyAny>),
}

struct Shared {
    results: Ordered<Put>,
    /// Encoded bytes under way.
    bytes: AtomicUsize,
    /// How long workers were in the function, in nanoseconds.
    busy: AtomicU64,
    /// Encoded bytes that were sent, and that came back.
    sent: AtomicU64,
    received: AtomicU64,
    /// How many items a worker is sent at a time, at least.
    together: u32,
    /// Where the user set no bound: it holds what was sent while too much of what came was not popped.
    brake: Option<Brake>,
}

/// A map under way.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct ProcessRun {
    shared: Arc<Shared>,
    pool: Py<ProcessPool>,
    function: Arc<bytes::Function>,
    /// Where all the map's ends go; tasks that have not ended are known by it.
    sink: Arc<PutEnds>,
    /// Whether it was closed. Locked while items are submitted: those before `close` are cancelled, and none come after.
    closed: Mutex<bool>,
    workers: usize,
    /// How many items were sent.
    sent: AtomicUsize,
    /// Set by the user, or worked out from the mean time.
    window: Option<Window>,
    /// What a task is thought to take as long as no worker has told.
    expected: Option<Duration>,
}

#[pymethods]
impl ProcessRun {
    /// A map of `function`. Each task holds `keeper` until it has ended. `window` bounds the items under way; 0 is no bound,
    /// `None` as many as keep the workers busy. At least `together` items go to a worker at a time. Outcomes leave in the
    /// order of their items, or as they come. `expected` is what a task is thought to take, in seconds.
    #[new]
    #[pyo3(signature = (pool, function, window, keeper, together=1, ordered=true, terms=None, expected=None))]
    #[expect(clippy::too_many_arguments, reason = "it has them by name")]
    fn new(
        pool: Py<ProcessPool>,
        function: &Function,
        window: Option<usize>,
        keeper: Py<PyAny>,
        together: u32,
        ordered: bool,
        terms: Option<&Terms>,
        expected: Option<f64>,
    ) -> Self {
        let workers = pool.get().pool().max_workers();
        let shared = Arc::new(Shared {
            results: if ordered {
                Ordered::new()
            } else {
                Ordered::as_they_come()
            },
            bytes: AtomicUsize::new(0),
            busy: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            together,
            brake: window.is_none().then(|| Brake::new(workers, bytes_for(workers))),
        });
        let function = Arc::clone(&function.function);
        Self {
            workers,
            pool,
            sink: Arc::new(PutEnds {
                sizes: Mutex::default(),
                shared: Arc::clone(&shared),
                terms: terms.map(Terms::shared),
                _keeper: keeper,
            }),
            closed: Mutex::new(false),
            function,
            shared,
            sent: AtomicUsize::new(0),
            window: window.map(Window::of_user),
            expected: expected.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }

    /// How many items to read and send next; 0 is none before an outcome was popped.
    fn room(&self) -> usize {
        let mean = self.function.mean_task().or(self.expected);
        let together = self.shared.together as usize;
        let window = self.window.unwrap_or_else(|| Window {
            max_items: items_together(items_for_encoded(self.workers, mean), self.workers, together),
            max_bytes: bytes_for(self.workers),
            // One for each, and one that is read: a worker that waits for nothing but room for large items is wasted.
            least_items: self.workers + 1,
        });
        let (items, bytes) = (
            self.shared.results.outstanding(),
            self.shared.bytes.load(Ordering::Relaxed),
        );
        let sent = self.sent.load(Ordering::Relaxed);
        window.next_run(items, bytes, run_for(sent, mean).max(together))
    }

    /// Sends a run of `count` items, encoded together, with the buffers that were left out. If the pool takes no more, that
    /// is their outcome. False, and nothing is sent, if there is no memory for the buffers. Once closed it sends nothing.
    #[pyo3(signature = (arguments, count, buffers=None))]
    fn push(&self, arguments: &Bound<'_, PyBytes>, count: u32, buffers: Option<&Bound<'_, PyList>>) -> PyResult<bool> {
        let pool = self.pool.get().pool();
        let Some(load) = processes::load(pool, arguments, buffers)? else {
            return Ok(false);
        };
        let closed = lock(&self.closed);
        if *closed {
            return Ok(true);
        }
        self.sent.fetch_add(count as usize, Ordering::Relaxed);
        let first = self.shared.results.reserve(u64::from(count));
        self.sink.sent(first, count, load.size());
        let sink = Arc::clone(&self.sink) as Arc<dyn Sink>;
        let submitted = pool.submit_run(&self.function, load, count, sink, first);
        submitted.map(|()| true).map_err(|error| {
            self.sink.answered(first, count);
            let refused = Put::Error(convert::error(&error));
            self.shared.results.put(first, u64::from(count), refused);
            convert::error(&error)
        })
    }

    /// Puts an error in the place of the next item: one that could not be sent.
    fn push_error(&self, error: Bound<'_, PyAny>) {
        let index = self.shared.results.reserve(1);
        self.shared.results.put(index, 1, Put::Error(PyErr::from_value(error)));
    }

    /// Takes back the first item that waits, if no worker is there that could have it: its index. Its outcome is to be told
    /// by [`put_here`](Self::put_here) or [`put_failed_here`](Self::put_failed_here).
    fn reclaim(&self) -> Option<u64> {
        let sink = Arc::clone(&self.sink) as Arc<dyn Sink>;
        let index = self.pool.get().pool().reclaim(&sink)?;
        self.sink.answered(index, 1);
        Some(index)
    }

    /// What came of an item that was taken back. A list of it is the payload of its outcome.
    fn put_here(&self, index: u64, value: Bound<'_, PyAny>) {
        self.shared.results.put(index, 1, Put::Here(value.unbind()));
    }

    /// What an item failed with that was taken back.
    fn put_failed_here(&self, index: u64, error: Bound<'_, PyAny>) {
        self.shared.results.put(index, 1, Put::Error(PyErr::from_value(error)));
    }

    /// The next outcome, as `(kind, payload, index, count)`, if it is there now. Values over processes may be of `count`
    /// items from `index` on, encoded together.
    #[pyo3(signature = (_stash, /))]
    fn try_pop<'py>(&self, py: Python<'py>, _stash: Option<&Stash>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let popped = self.shared.results.try_pop();
        popped.map(|(items, put)| self.tell(py, put, items)).transpose()
    }

    /// The next outcome, waiting for it; `None` if nothing is under way.
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
            Popped::Items(items, put) => self.tell(py, put, items).map(Some),
            Popped::TimedOut => Err(pyo3::exceptions::PyTimeoutError::new_err(())),
            Popped::Empty | Popped::Interrupted => Ok(None),
        }
    }

    /// How long workers were in the function so far, in seconds; and how many encoded bytes were sent and received.
    fn spent(&self) -> (f64, u64, u64) {
        let told = |what: &AtomicU64| what.load(Ordering::Relaxed);
        let busy = Duration::from_nanos(told(&self.shared.busy));
        (busy.as_secs_f64(), told(&self.shared.sent), told(&self.shared.received))
    }

    /// How many items are under way or done and not popped.
    fn outstanding(&self) -> usize {
        self.shared.results.outstanding()
    }

    /// Cancels what has not started; with `kill`, workers that run one of the map's tasks are ended.
    fn close(&self, py: Python<'_>, kill: bool) {
        *lock(&self.closed) = true;
        // First: whoever waits is told of the end, and not of a cancelled task.
        self.shared.results.close();
        let sink = Arc::clone(&self.sink) as Arc<dyn Sink>;
        let pool = self.pool.get().pool();
        py.detach(|| pool.cancel(&sink, kill));
    }
}

impl ProcessRun {
    fn tell<'py>(&self, py: Python<'py>, put: Put, items: Range<u64>) -> PyResult<Bound<'py, PyTuple>> {
        let count = items.end - items.start;
        let (came, size) = match &put {
            Put::End(_, size) => (count as usize, *size),
            Put::Error(_) | Put::Here(_) => (0, 0),
        };
        self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
        if self.shared.brake.as_ref().is_some_and(|brake| brake.taken(came, size)) {
            self.pool.get().pool().resume();
        }
        let (kind, payload) = match put {
            Put::End(end, _) => convert::end(py, end)?,
            Put::Error(error) => (Kind::Raised, error.into_value(py).into_bound(py).into_any()),
            Put::Here(value) => (Kind::Value, PyList::new(py, [value])?.into_any()),
        };
        (kind as u8, payload, items.start, count).into_pyobject(py)
    }
}

/// Puts the ends of tasks over processes in their places. It never touches the interpreter.
struct PutEnds {
    /// Of the runs that have not ended: by the first item, how many have not, and the bytes of their arguments.
    sizes: Mutex<BTreeMap<u64, (u32, usize)>>,
    shared: Arc<Shared>,
    terms: Option<Arc<TermsOfTasks>>,
    /// Dropped, perhaps as the last one, where the interpreter is not at hand: PyO3 then lets go of it later.
    _keeper: Py<PyAny>,
}

impl PutEnds {
    /// A run is under way.
    fn sent(&self, first: u64, count: u32, size: usize) {
        self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        self.shared.sent.fetch_add(size as u64, Ordering::Relaxed);
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
            End::Outcome(fanmap::Outcome::Value(message)) => message.size(),
            End::Outcome(fanmap::Outcome::Raised(bytes)) => bytes.len(),
            _ => 0,
        };
        self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        self.shared.received.fetch_add(size as u64, Ordering::Relaxed);
        self.answered(first, count);
        if let Some(brake) = &self.shared.brake {
            brake.came(count as usize, size);
        }
        self.shared.results.put(first, u64::from(count), Put::End(end, size));
    }

    fn time_limit(&self) -> Option<Duration> {
        self.terms.as_ref()?.time_limit
    }

    fn retries(&self) -> Option<&Retries> {
        self.terms.as_ref()?.retries.as_ref()
    }

    fn wanted(&self) -> Wanted {
        Wanted::Together
    }

    fn together(&self) -> u32 {
        self.shared.together
    }

    fn holds(&self, first: u64, count: u32) -> bool {
        let needed = || self.shared.results.needs(first, u64::from(count));
        self.shared.brake.as_ref().is_some_and(|brake| brake.holds(needed))
    }

    fn took(&self, nanos: u64, _count: u32) {
        self.shared.busy.fetch_add(nanos, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
