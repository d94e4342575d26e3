//! The pool of processes, from the parent's side.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use fanmap::Pending;
use fanmap::bytes::{self, Attached, Channel, End, Load, ProcessConfig, Retries, Sink, Start, Wanted};

use crate::future::FutureBase;
use crate::{buffer, convert, wait, worker};

/// A pool of supervised worker processes.
#[pyclass(frozen, weakref, module = "fanmap._native")]
pub(crate) struct ProcessPool {
    /// Shared by itself: the engine's pool has its own lock.
    pool: bytes::Pool,
    /// Whether to cancel a task that runs is to end its worker.
    cancels_running: bool,
}

/// How long tasks may take, and when those that failed are tried again.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Terms {
    terms: Arc<TermsOfTasks>,
}

pub(crate) struct TermsOfTasks {
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: Option<Retries>,
}

#[pymethods]
impl Terms {
    /// `retries` is `(count, wait, factor, max_wait, lost, outgrown, timed_out)`, with the waits in seconds.
    #[new]
    fn new(time_limit: Option<f64>, retries: Option<(u32, f64, f64, f64, bool, bool, bool)>) -> Self {
        let retries = retries.map(|(count, wait, factor, max_wait, lost, outgrown, timed_out)| {
            // Which exceptions count is asked where they are raised.
            let mut retries = Retries::new(count)
                .wait(Duration::from_secs_f64(wait))
                .factor(factor)
                .max_wait(Duration::from_secs_f64(max_wait));
            (retries.lost, retries.outgrown, retries.timed_out) = (lost, outgrown, timed_out);
            retries
        });
        let time_limit = time_limit.map(Duration::from_secs_f64);
        Self {
            terms: Arc::new(TermsOfTasks { time_limit, retries }),
        }
    }
}

impl Terms {
    pub(crate) fn shared(&self) -> Arc<TermsOfTasks> {
        Arc::clone(&self.terms)
    }
}

/// A function that workers know while somebody holds this.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Function {
    pub(crate) function: Arc<bytes::Function>,
    /// What it carries beside its bytes.
    blobs: Vec<Attached>,
}

/// Ends of tasks on their way to the Python thread that completes futures with them: those of observed futures, and those
/// that are more than a result.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Completions {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Came>,
    came: Condvar,
}

/// The ends that have come, with their futures.
#[derive(Default)]
struct Came {
    ends: VecDeque<(Py<FutureBase>, End)>,
    /// How many more tasks will end.
    expected: usize,
    /// No more tasks will be submitted.
    closed: bool,
    /// The thread is wanted though there is nothing to complete: it lets go of futures that other threads could not.
    sweep: bool,
}

impl Queue {
    /// Brings a task's end to its future: directly if it can be kept there as it is, or through the queue.
    fn deliver(&self, future: Py<FutureBase>, end: End) {
        // A child has the future, and what PyO3 keeps of those that go here.
        let _steady = bytes::steady();
        let core = Arc::clone(future.get().core());
        match core.keep(end) {
            Ok(awaited) => {
                // Before anybody is woken. This thread is not attached, so it goes when the next one is.
                drop(future);
                if awaited {
                    core.notify();
                }
                let mut came = self.lock();
                came.expected -= 1;
                // The last one for now, and perhaps nobody comes: what the program has dropped already must not stay.
                let idle = came.expected == 0;
                came.sweep |= idle && !awaited;
                let wake = idle && (came.sweep || came.closed);
                drop(came);
                if wake {
                    self.came.notify_one();
                }
            }
            Err(end) => {
                let mut came = self.lock();
                came.ends.push_back((future, end));
                came.expected -= 1;
                drop(came);
                self.came.notify_one();
            }
        }
    }

    /// All that have come, waiting for the first, or for being wanted. `None` once the queue is closed and nothing is
    /// expected.
    fn take(&self) -> Option<VecDeque<(Py<FutureBase>, End)>> {
        let mut came = self.lock();
        loop {
            if !came.ends.is_empty() || came.sweep {
                came.sweep = false;
                return Some(std::mem::take(&mut came.ends));
            }
            if came.closed && came.expected == 0 {
                return None;
            }
            came = self.came.wait(came).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Came> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one task's end. It never touches the interpreter.
struct Complete {
    queue: Arc<Queue>,
    terms: Option<Arc<TermsOfTasks>>,
    /// Held until then: a program may have nothing but a weak reference to a future whose task is under way.
    future: Mutex<Option<Py<FutureBase>>>,
}

impl Sink for Complete {
    fn finished(&self, _first: u64, _count: u32, end: End) {
        let future = self.future.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(future) = future {
            self.queue.deliver(future, end);
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        self.terms.as_ref()?.time_limit
    }

    fn retries(&self) -> Option<&Retries> {
        self.terms.as_ref()?.retries.as_ref()
    }

    fn wanted(&self) -> Wanted {
        let _steady = bytes::steady();
        let future = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        match &*future {
            // Who comes to wait for it says so.
            Some(future) if !future.get().core().is_observed() => Wanted::Later,
            _ => Wanted::AtOnce,
        }
    }
}

#[pymethods]
impl ProcessPool {
    /// A pool of at most `workers` processes. `start` is `"direct"` (each runs `command`), `"template"` (`command` runs a
    /// template that forks them) or `"forked"` (the template is the child `pid` behind the socket `fd`).
    #[new]
    #[pyo3(signature = (
        workers, start, *, command=None, pid=None, fd=None, max_tasks=None, idle=None, exit_time=None, at_once=false,
        blob_bytes=None, cancel_running=false, max_memory=None, memory_limit=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        workers: usize,
        start: &str,
        command: Option<Vec<String>>,
        pid: Option<u32>,
        fd: Option<i32>,
        max_tasks: Option<u64>,
        idle: Option<f64>,
        exit_time: Option<f64>,
        at_once: bool,
        blob_bytes: Option<u64>,
        cancel_running: bool,
        max_memory: Option<u64>,
        memory_limit: Option<u64>,
    ) -> PyResult<Self> {
        let config = ProcessConfig {
            workers,
            max_tasks,
            output: true,
            idle: idle.map(Duration::from_secs_f64),
            exit_time: exit_time.map(Duration::from_secs_f64),
            at_once,
            blob_bytes: blob_bytes.unwrap_or(ProcessConfig::default().blob_bytes),
            max_memory,
            memory_limit,
        };
        let start = match (start, command, pid, fd) {
            ("direct", Some(command), _, _) => Start::Direct(Box::new(move || program(&command))),
            ("template", Some(command), _, _) => Start::Template(Box::new(move || program(&command))),
            ("forked", _, Some(pid), Some(fd)) => {
                let process = bytes::Process::open(pid)?;
                let socket = bytes::Socket::from_fd(worker::adopt(fd));
                Start::Forked(Some(bytes::TemplateProcess::new(process, socket)))
            }
            _ => {
                return Err(PyValueError::new_err(
                    "a pool starts by a command or by a forked template",
                ));
            }
        };
        let pool = bytes::Pool::new(config, start).map_err(|error| convert::error(&error))?;
        Ok(Self {
            pool,
            cancels_running: cancel_running,
        })
    }

    /// A function that workers are sent once, with the buffers that were left out of its bytes. Buffers that hold what those
    /// of `like` do share their memory. `None` if there is no memory for them.
    /// `name` is for messages, and comes back with what is known of a call that was lost.
    #[pyo3(signature = (name, body, buffers=None, like=None))]
    fn function(
        &self,
        name: &str,
        body: &Bound<'_, PyBytes>,
        buffers: Option<&Bound<'_, PyList>>,
        like: Option<&Function>,
    ) -> PyResult<Option<Function>> {
        let load = match (buffers, like) {
            (Some(buffers), Some(like)) if buffer::are_equal(&like.blobs, buffers)? => Some(Load {
                bytes: body.as_bytes().to_vec(),
                blobs: like.blobs.clone(),
            }),
            _ => load(&self.pool, body, buffers)?,
        };
        let Some(load) = load else {
            return Ok(None);
        };
        let blobs = load.blobs.clone();
        let function = self.pool.function(name, load).map_err(|error| convert::error(&error))?;
        Ok(Some(Function { function, blobs }))
    }

    /// Whether a function's buffers are few enough to be held for a next call with the same: a quarter of what the pool keeps
    /// for buffers, which is half of what it keeps for those that go to workers. What is held counts as in flight. So if it
    /// were more, the arrays of items would hardly be kept warm beside it; and a bound that the user set bounds it too.
    fn may_hold(&self, function: &Function) -> bool {
        let bytes: u64 = function.blobs.iter().map(|blob| blob.len() as u64).sum();
        bytes <= self.pool.blob_bytes() / 4
    }

    /// What workers that are started from now on are told first, and descriptors that go with it (copies are taken).
    fn set_setup(&self, body: &Bound<'_, PyBytes>, fds: Vec<i32>) -> PyResult<()> {
        let fds = fds
            .into_iter()
            .map(worker::duplicate)
            .collect::<PyResult<Vec<OwnedFd>>>()?;
        self.pool
            .set_setup(body.as_bytes().to_vec(), fds)
            .map_err(|error| convert::error(&error))
    }

    /// Starts what workers are forked from, if the pool has such a process: before the first task is encoded.
    fn warm_up(&self) -> PyResult<()> {
        self.pool.warm_up().map_err(|error| convert::error(&error))
    }

    /// Whether the next task may cause a worker to be started.
    fn may_start_worker(&self) -> bool {
        self.pool.may_start_worker()
    }

    /// Submits a task whose end goes to `future`, if need be through `completions`. False, and nothing is done, if there is no
    /// memory for the buffers that were left out of its bytes.
    #[pyo3(signature = (function, argument, buffers, completions, future, terms))]
    fn submit(
        &self,
        function: &Function,
        argument: &Bound<'_, PyBytes>,
        buffers: Option<&Bound<'_, PyList>>,
        completions: &Completions,
        future: &Bound<'_, FutureBase>,
        terms: Option<&Terms>,
    ) -> PyResult<bool> {
        let sink = Arc::new(Complete {
            queue: Arc::clone(&completions.queue),
            terms: terms.map(Terms::shared),
            future: Mutex::new(Some(future.clone().unbind())),
        });
        let Some(argument) = load(&self.pool, argument, buffers)? else {
            return Ok(false);
        };
        completions.queue.lock().expected += 1;
        match self.pool.submit(&function.function, argument, sink, 0) {
            Ok(ticket) => {
                future.get().core().set_ticket(ticket, self.cancels_running);
                Ok(true)
            }
            Err(error) => {
                completions.queue.lock().expected -= 1;
                completions.queue.came.notify_all();
                Err(convert::error(&error))
            }
        }
    }

    /// Takes no more tasks; those that wait are run, or cancelled if `cancel`.
    fn close(&self, py: Python<'_>, cancel: bool) {
        py.detach(|| self.pool.close(if cancel { Pending::Cancel } else { Pending::Finish }));
    }

    /// Waits until no process of the pool is left; false if `timeout` seconds passed first.
    #[pyo3(signature = (timeout=None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = wait::deadline(timeout)?;
        wait::join(py, || self.pool.join(deadline))
    }

    /// Ends every worker now, and fails what is not done. Without `kill` the workers are asked, by SIGTERM.
    fn end_workers(&self, py: Python<'_>, kill: bool) {
        py.detach(|| self.pool.end_workers(kill));
    }

    /// The program ends: fails what is not done, and ends the workers, the idle ones in order.
    fn abandon(&self, py: Python<'_>) {
        py.detach(|| self.pool.abandon());
    }

    /// Has what workers write read from now on. False if none of them is left.
    fn watch_output(&self) -> PyResult<bool> {
        Ok(self.outlet().watch()?)
    }

    /// Waits until workers have written something: false if they never will any more.
    fn await_output(&self, py: Python<'_>) -> PyResult<bool> {
        wait::interruptible(py, || self.outlet().wait())
    }

    /// Reads what workers have written by now.
    fn drain_output(&self, py: Python<'_>) {
        py.detach(|| self.outlet().drain());
    }

    /// Some of what workers have written: by which channel (1 and 2 are the standard streams, 0 is for messages), the worker's
    /// index, and the bytes; and how many bytes were dropped before that.
    fn take_output<'py>(&self, py: Python<'py>) -> (Vec<(u8, u32, Bound<'py, PyBytes>)>, u64) {
        let (written, dropped) = self.outlet().take();
        let written = written.into_iter().map(|one| {
            let channel = match one.channel {
                Channel::Message => 0,
                Channel::Out => 1,
                Channel::Err => 2,
            };
            (channel, one.worker, PyBytes::new(py, &one.bytes))
        });
        (written.collect(), dropped)
    }

    /// Asks for a worker, as a task would for which none is idle.
    fn want_worker(&self) -> PyResult<()> {
        self.pool.want_worker().map_err(|error| convert::error(&error))
    }

    /// The process ids of the workers; with `wait`, once those that were asked for have been started.
    fn workers(&self, py: Python<'_>, wait: bool) -> PyResult<Vec<u32>> {
        if wait {
            wait::join(py, || self.pool.await_starts(None))?;
        }
        Ok(self.pool.workers())
    }

    /// Ends a worker; false if this process is none.
    fn signal_worker(&self, pid: u32, kill: bool) -> bool {
        self.pool.signal_worker(pid, kill)
    }

    /// Waits until this process is no worker any more; false if `timeout` seconds passed first.
    #[pyo3(signature = (pid, timeout=None))]
    fn await_worker(&self, py: Python<'_>, pid: u32, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = wait::deadline(timeout)?;
        wait::join(py, || self.pool.await_worker(pid, deadline))
    }

    /// Whether this process is a worker of the pool that has not ended.
    fn has_worker(&self, pid: u32) -> bool {
        self.pool.has_worker(pid)
    }

    /// Whether the pool takes no more tasks.
    fn closed(&self) -> bool {
        self.pool.is_closed() || self.pool.broken().is_some()
    }

    /// How many tasks wait for a worker.
    fn queued(&self) -> usize {
        self.pool.queued()
    }

    /// `(reason, refusal)` if the pool cannot go on.
    fn broken<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.pool.broken().map(|why| convert::broken(py, &why)).transpose()
    }
}

impl ProcessPool {
    pub(crate) fn pool(&self) -> &bytes::Pool {
        &self.pool
    }

    fn outlet(&self) -> &Arc<bytes::Outlet> {
        self.pool.outlet().expect("the pool was made with one")
    }
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> Self {
        Self { queue: Arc::default() }
    }

    /// The ends that have come, as triples `(future, kind, payload)`, waiting for one. There may be none: then the wait was
    /// only to let go of what is held. `None` once closed and all have come.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let Some(came) = py.detach(|| self.queue.take()) else {
            return Ok(None);
        };
        let list = PyList::empty(py);
        for (future, end) in came {
            match convert::end(py, end) {
                Ok((kind, payload)) => list.append((future, kind as u8, payload))?,
                // No memory to map its buffers: that is the task's error, and the others still come.
                Err(error) => {
                    let future = future.bind(py);
                    let given = FutureBase::set_running_or_notify_cancel(future).and_then(|runs| match runs {
                        true => FutureBase::set_exception(future, error.value(py).as_any()),
                        false => Ok(()),
                    });
                    if let Err(error) = given {
                        error.write_unraisable(py, Some(future));
                    }
                }
            }
        }
        Ok(Some(list))
    }

    /// No more tasks will be submitted with this: once the last of them has ended, `take` gives `None`.
    fn close(&self) {
        self.queue.close();
    }
}

/// A message for workers. `None` if there is no memory for its buffers.
pub(crate) fn load(
    pool: &bytes::Pool,
    bytes: &Bound<'_, PyBytes>,
    buffers: Option<&Bound<'_, PyList>>,
) -> PyResult<Option<Load>> {
    let blobs = match buffers {
        Some(buffers) if !buffers.is_empty() => match buffer::attach(pool.memory(), buffers)? {
            Some(blobs) => blobs,
            None => return Ok(None),
        },
        _ => Vec::new(),
    };
    let bytes = bytes.as_bytes().to_vec();
    Ok(Some(Load { bytes, blobs }))
}

fn program(command: &[String]) -> Command {
    let mut words = command.iter();
    let mut program = Command::new(words.next().map_or("", String::as_str));
    program.args(words);
    program
}
