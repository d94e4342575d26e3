//! The pool of threads. The threads are Python's own: the pool asks the package for one when it wants another worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use fanmap::{Error, ErrorKind, Pending};

use crate::call::{self, Call};
use crate::future::{self, FutureBase};
use crate::thread_map::Items;
use crate::{calls, convert, wait};

/// How long a worker may run job after job without asking whether another thread wants the interpreter's lock. Only bytecode
/// asks, and a job may be all C. Much longer, and others wait longer than the interpreter's own switch interval (5 ms) makes
/// them; shorter only costs time.
pub(crate) const BREATH: Duration = Duration::from_millis(1);

/// A pool of Python threads.
#[pyclass(frozen, weakref, module = "fanmap._native")]
pub(crate) struct ThreadPool {
    /// Shared by itself: the engine's pool has its own lock.
    pool: fanmap::ThreadPool,
    spawner: Arc<Py<PyAny>>,
    /// How many of the jobs that wait are helpers of maps.
    pub(crate) helpers: AtomicUsize,
    /// The maps under way, whose items wait elsewhere than in the pool's queue.
    maps: Mutex<Vec<Weak<Items>>>,
    /// Bytecode that does nothing: where the interpreter looks for signals, and for other threads that want its lock.
    breathe: Py<PyAny>,
}

/// A worker's place in a pool: the target of its thread.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Seat {
    index: usize,
    /// Taken by the thread that runs here.
    seat: Mutex<Option<fanmap::Seat>>,
}

#[pymethods]
impl ThreadPool {
    /// A pool of at most `workers` threads. `spawner.spawn(seat)` starts a thread that calls `seat.run()`, and
    /// `spawner.broken_pool(reason)` makes the exception of a task that cannot be run.
    #[new]
    #[pyo3(signature = (workers, spawner, idle=None))]
    fn new(py: Python<'_>, workers: usize, spawner: Py<PyAny>, idle: Option<f64>) -> PyResult<Self> {
        let spawner = Arc::new(spawner);
        let spawns = Arc::clone(&spawner);
        let mut builder = fanmap::ThreadPool::builder()
            .workers(workers)
            .spawn_with(Box::new(move |seat| {
                Python::attach(|py| {
                    let seat = Seat {
                        index: seat.index(),
                        seat: Mutex::new(Some(seat)),
                    };
                    let seat = seat.into_pyobject(py).map(Bound::into_any);
                    seat.and_then(|seat| calls::method(intern!(py, "spawn"), [spawns.bind(py), &seat]))
                        .map(drop)
                        .map_err(|error| {
                            Error::new(ErrorKind::Broken, format!("could not start a worker thread: {error}"))
                        })
                })
            }));
        if let Some(seconds) = idle {
            builder = builder.idle(Duration::from_secs_f64(seconds));
        }
        let pool = builder.build().map_err(|error| convert::error(&error))?;
        Ok(Self {
            pool,
            spawner,
            helpers: AtomicUsize::new(0),
            maps: Mutex::default(),
            breathe: py.eval(c"lambda: None", None, None)?.unbind(),
        })
    }

    /// Has `call`, a function and its arguments, called with `kwargs` in a copy of the present context; the outcome goes to
    /// `future`.
    fn submit(&self, future: Py<FutureBase>, call: &Bound<'_, PyTuple>, kwargs: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = call.py();
        let call = Box::new(Call::new(future, call, kwargs, &self.spawner)?);
        let executed = if future::has_asked() {
            py.detach(|| self.pool.execute(call))
        } else {
            self.pool.execute(call)
        };
        executed.map_err(|rejected| convert::error(&rejected.error))
    }

    /// Takes no more jobs; those that wait are run, or discarded if `cancel`.
    fn close(&self, cancel: bool) {
        self.pool.close(if cancel { Pending::Cancel } else { Pending::Finish });
    }

    /// Waits until no worker is left; false if `timeout` seconds passed first.
    #[pyo3(signature = (timeout=None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = wait::deadline(timeout)?;
        wait::join(py, || self.pool.join(deadline))
    }

    /// How many tasks wait for a worker, the items of maps included.
    fn queued(&self) -> usize {
        let items: usize = self
            .maps()
            .iter()
            .filter_map(Weak::upgrade)
            .map(|work| work.unclaimed())
            .sum();
        self.pool.queued().saturating_sub(self.helpers.load(Ordering::Relaxed)) + items
    }

    /// How many workers there are.
    fn workers(&self) -> usize {
        self.pool.workers()
    }

    /// Whether the calling thread is one of the pool's.
    fn on_worker(&self) -> bool {
        self.pool.on_worker()
    }
}

impl ThreadPool {
    pub(crate) fn pool(&self) -> &fanmap::ThreadPool {
        &self.pool
    }

    /// A map that sends items to this pool.
    pub(crate) fn note(&self, work: &Arc<Items>) {
        let mut maps = self.maps();
        maps.retain(|map| map.strong_count() > 0);
        maps.push(Arc::downgrade(work));
    }

    /// On a worker that has run for a while: lets other threads have the interpreter's lock if they want it.
    ///
    /// Detaching for a moment would not do: who waits for the lock is woken, finds it taken again, and starts its wait anew
    /// without ever asking for it. Bytecode that is asked waits until the other has had it.
    pub(crate) fn breathe(&self, py: Python<'_>) {
        if let Err(error) = calls::call0(self.breathe.bind(py)) {
            error.write_unraisable(py, None);
        }
    }

    fn maps(&self) -> MutexGuard<'_, Vec<Weak<Items>>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Seat {
    /// The worker's number among those of its pool.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// Runs jobs on the calling thread until the pool closes.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let mut seat = self.take()?;
        // Detaching for a moment would not do: who waits for the lock is woken, finds it taken again, and starts its wait
        // anew without ever asking for it. Bytecode that is asked waits until the other has had it.
        let breathe = py.eval(c"lambda: None", None, None)?;
        let mut breathed = Instant::now();
        loop {
            let job = match seat.try_next_job() {
                Some(job) => {
                    call::wake_owed();
                    if breathed.elapsed() >= BREATH {
                        if let Err(error) = calls::call0(&breathe) {
                            error.write_unraisable(py, None); // there is a job in hand
                        }
                        breathed = Instant::now();
                    }
                    Some(job)
                }
                None => {
                    let job = py.detach(|| {
                        call::wake_owed();
                        seat.next_job()
                    });
                    breathed = Instant::now();
                    job
                }
            };
            match job {
                Some(job) => job.run(),
                None => return Ok(()),
            }
        }
    }

    /// Breaks the pool: it cannot have workers, for this reason.
    fn fail(&self, reason: String) -> PyResult<()> {
        self.take()?.fail(Error::new(ErrorKind::Broken, reason));
        Ok(())
    }
}

impl Seat {
    fn take(&self) -> PyResult<fanmap::Seat> {
        self.seat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("a worker's seat can be taken only once"))
    }
}
