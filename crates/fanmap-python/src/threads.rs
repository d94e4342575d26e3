//! The pool of threads. The threads are Python's own: the pool asks the package for one when it wants another worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use fanmap::{Error, ErrorKind, Job, Pending};

use crate::thread_map::Items;
use crate::{convert, wait};

/// How long a worker may run job after job without asking whether another thread wants the interpreter's lock. Only bytecode
/// asks, and a job may be all C. Much longer, and others wait longer than the interpreter's own switch interval (5 ms) makes
/// them; shorter only costs time.
pub(crate) const BREATH: Duration = Duration::from_millis(1);

/// A pool of Python threads.
#[pyclass(frozen, weakref, module = "fanmap._native")]
pub(crate) struct ThreadPool {
    /// Shared by itself: the engine's pool has its own lock.
    pool: fanmap::ThreadPool,
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
    /// Taken by the thread that runs here.
    seat: Mutex<Option<fanmap::Seat>>,
}

/// A Python object with the methods `run()`, `discard()` and `fail(reason)`, one of which is called once.
struct PyJob(Py<PyAny>);

impl PyJob {
    fn tell(self, what: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>) {
        Python::attach(|py| {
            let job = self.0.into_bound(py);
            if let Err(error) = what(&job) {
                error.write_unraisable(py, Some(&job));
            }
        });
    }
}

impl Job for PyJob {
    fn run(self: Box<Self>) {
        self.tell(|job| job.call_method0("run").map(drop));
    }

    fn discard(self: Box<Self>) {
        self.tell(|job| job.call_method0("discard").map(drop));
    }

    fn fail(self: Box<Self>, why: &Error) {
        self.tell(|job| job.call_method1("fail", (why.message(),)).map(drop));
    }
}

#[pymethods]
impl ThreadPool {
    /// A pool of at most `workers` threads. `spawn(seat)` starts a thread that calls `seat.run()`.
    #[new]
    #[pyo3(signature = (workers, spawn, idle=None))]
    fn new(py: Python<'_>, workers: usize, spawn: Py<PyAny>, idle: Option<f64>) -> PyResult<Self> {
        let mut builder = fanmap::ThreadPool::builder()
            .workers(workers)
            .spawn_with(Box::new(move |seat| {
                Python::attach(|py| {
                    let seat = Seat {
                        seat: Mutex::new(Some(seat)),
                    };
                    spawn.call1(py, (seat,)).map(drop).map_err(|error| {
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
            helpers: AtomicUsize::new(0),
            maps: Mutex::default(),
            breathe: py.eval(c"lambda: None", None, None)?.unbind(),
        })
    }

    /// Gives the pool a job: an object with the methods `run()`, `discard()` and `fail(reason)`.
    fn execute(&self, job: Py<PyAny>) -> PyResult<()> {
        self.pool
            .execute(Box::new(PyJob(job)))
            .map_err(|rejected| convert::error(&rejected.error))
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

    /// Whether somebody else's job than a helper's waits for a worker.
    pub(crate) fn others_wait(&self) -> bool {
        self.pool.queued() > self.helpers.load(Ordering::Relaxed)
    }

    /// On a worker that has run for a while: lets other threads have the interpreter's lock if they want it.
    ///
    /// Detaching for a moment would not do: who waits for the lock is woken, finds it taken again, and starts its wait anew
    /// without ever asking for it. Bytecode that is asked waits until the other has had it.
    pub(crate) fn breathe(&self, py: Python<'_>) {
        if let Err(error) = self.breathe.call0(py) {
            error.write_unraisable(py, None);
        }
    }

    fn maps(&self) -> MutexGuard<'_, Vec<Weak<Items>>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On a worker: it counts as idle from now on. Its job calls this before it publishes an outcome, and only if nothing of the
/// user's runs on this thread after that.
#[pyfunction]
pub(crate) fn rest() {
    fanmap::rest();
}

#[pymethods]
impl Seat {
    /// Runs jobs on the calling thread until the pool closes.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let mut seat = self.take()?;
        // Detaching for a moment would not do: who waits for the lock is woken, finds it taken again, and starts its wait
        // anew without ever asking for it. Bytecode that is asked waits until the other has had it.
        let breathe = py.eval(c"lambda: None", None, None)?;
        let mut breathed = Instant::now();
        loop {
            if breathed.elapsed() >= BREATH {
                breathe.call0()?;
                breathed = Instant::now();
            }
            let job = match seat.try_next_job() {
                Some(job) => Some(job),
                None => py.detach(|| seat.next_job()),
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
