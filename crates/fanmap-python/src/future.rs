//! The state of a future, and the waits for it: the base class of the package's `Future`.
//!
//! A future of the standard library is a Condition and what it guards, and most futures are only ever asked for their
//! result. So this keeps state and outcome in a cell of its own, and makes the Condition when somebody asks for it: the
//! standard library's `wait` and `as_completed`, asyncio, `add_done_callback`. From then on the future is *observed*, for
//! good, and every change and every wait is the standard library's own code, under its Condition, with this as its store.
//!
//! # Protocol
//! The cell is under one mutex. It is held for a few moves and never while Python code runs, a Python object is dropped or
//! made, or the interpreter is waited for, so threads that are not attached take it, too: then steady ([`bytes::steady`]),
//! for a child that the program forks takes it as well.
//!
//! | state | becomes | by |
//! |---|---|---|
//! | pending | running | the worker's thread (tasks of processes stay pending here: their ticket knows) |
//! | pending | cancelled | who cancels |
//! | pending, running | finished | the worker's thread; the pool's supervisor; who calls `set_result` |
//! | cancelled | cancelled and notified | whoever comes across the task |
//!
//! - While it is not observed, each of these is one step under the mutex, followed by [`Event::notify`] if a thread waits.
//!   Who comes to wait later takes the mutex to say so, and sees the step.
//! - To be observed is such a step as well. A step that comes later finds it observed, changes nothing, and goes to the
//!   standard library's code instead, which takes the Condition first. A step that came earlier is seen by all who hold the
//!   Condition, for it was made after that. So whoever looks at the state under the Condition and then puts a waiter or a
//!   callback beside it misses nothing: what could still happen happens under the Condition.
//! - A thread that waits here reads the event's epoch before it looks. If the future is observed while it sleeps, it is
//!   woken by that, and goes on waiting at the Condition, with what is left of its time.
//! - What a process has returned is kept as it came, and decoded in the first thread that wants it; the state is finished
//!   all the time. Others who want it wait for that thread, at the event. A future that is observed before its outcome
//!   has come gets it decoded, by the pool's thread for that ([`crate::processes::Completions`]).
//! - A future in a final state has no ticket.
//!
//! Nothing here relies on the interpreter's lock. The collector's visits take the mutex, and can: whoever has it is not
//! waiting for anything.

use std::cell::Cell;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::{PyTraverseError, PyVisit};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PySuper, PyTuple, PyType};
use pyo3::{import_exception, intern};

use fanmap::bytes::{self, End, Ticket};
use fanmap::{Event, Outcome, Wake};

use crate::calls;
use crate::convert::{self, Kind};
use crate::wait;

import_exception!(concurrent.futures, CancelledError);

/// What the package's `Future` has before the standard library's in its line of classes.
#[pyclass(frozen, subclass, module = "fanmap._native")]
pub(crate) struct FutureBase {
    core: Arc<Core>,
}

/// What a future and the end of its task share.
#[derive(Default)]
pub(crate) struct Core {
    cell: Mutex<Inside>,
    /// Moves on with each step that somebody may wait for.
    moved: Event,
}

#[derive(Default)]
struct Inside {
    state: State,
    outcome: Kept,
    observers: Option<Observers>,
    /// The task's place in a pool of processes.
    ticket: Option<Ticket>,
    /// Whether to cancel the task while it runs ends its worker.
    cancels_running: bool,
    /// How many threads wait at the event.
    waiting: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Pending,
    Running,
    Cancelled,
    CancelledAndNotified,
    Finished,
}

/// What a future has of its outcome.
enum Kept {
    /// What the standard library keeps in `_result` and `_exception`.
    Decoded {
        result: Option<Py<PyAny>>,
        exception: Option<Py<PyAny>>,
    },
    /// What a process returned or raised, as it came.
    Encoded(End),
    /// The same, as Python has it, after an attempt to decode it that was interrupted.
    Interrupted(Kind, Py<PyAny>),
    /// The same, in the hands of the thread that decodes it.
    Decoding(ThreadId),
}

/// Result and exception: at most one of them, unless somebody sets them by hand.
type Decoded = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// A value, or an exception.
pub(crate) type Given<'a, 'py> = Result<&'a Bound<'py, PyAny>, &'a Bound<'py, PyAny>>;

/// What the standard library's functions hold on to.
struct Observers {
    condition: Py<PyAny>,
    waiters: Py<PyAny>,
    callbacks: Py<PyAny>,
}

/// What a wait came to.
enum Waited {
    Finished,
    Cancelled,
    TimedOut,
    /// The standard library's code is to go on.
    Observed,
}

impl Default for Kept {
    fn default() -> Self {
        Self::Decoded {
            result: None,
            exception: None,
        }
    }
}

impl State {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Cancelled,
        Self::CancelledAndNotified,
        Self::Finished,
    ];

    /// As the standard library writes it.
    fn name(self, py: Python<'_>) -> &Bound<'_, PyString> {
        match self {
            Self::Pending => intern!(py, "PENDING"),
            Self::Running => intern!(py, "RUNNING"),
            Self::Cancelled => intern!(py, "CANCELLED"),
            Self::CancelledAndNotified => intern!(py, "CANCELLED_AND_NOTIFIED"),
            Self::Finished => intern!(py, "FINISHED"),
        }
    }

    fn is_cancelled(self) -> bool {
        matches!(self, Self::Cancelled | Self::CancelledAndNotified)
    }

    fn is_final(self) -> bool {
        self.is_cancelled() || self == Self::Finished
    }
}

impl Inside {
    /// Takes a state. What comes back has to be dropped without the mutex.
    #[must_use]
    fn enter(&mut self, state: State) -> Option<Ticket> {
        self.state = state;
        if state.is_final() { self.ticket.take() } else { None }
    }

    /// Takes an outcome. What comes back has to be dropped without the mutex.
    #[must_use]
    fn finish(&mut self, outcome: Kept) -> (Kept, Option<Ticket>) {
        (mem::replace(&mut self.outcome, outcome), self.enter(State::Finished))
    }

    /// What a wait comes to now, if it is over.
    fn look(&self) -> Option<Waited> {
        // Whoever decodes needs no Condition, even if there is one.
        let decoded = matches!(self.outcome, Kept::Decoded { .. });
        match self.state {
            _ if self.observers.is_some() && decoded => Some(Waited::Observed),
            State::Finished => Some(Waited::Finished),
            State::Cancelled | State::CancelledAndNotified => Some(Waited::Cancelled),
            State::Pending | State::Running => None,
        }
    }
}

impl Core {
    /// For a task over processes that was submitted: whom to ask whether it runs.
    pub(crate) fn set_ticket(&self, ticket: Ticket, cancels_running: bool) {
        let mut cell = self.lock();
        if !cell.state.is_final() {
            cell.ticket = Some(ticket);
            cell.cancels_running = cancels_running;
        }
    }

    /// Keeps the end of a task over processes, if that is possible without Python: [`Core::notify`] is to be called then.
    /// Tells whether somebody waits for it.
    pub(crate) fn keep(&self, end: End) -> Result<bool, End> {
        let mut cell = self.lock();
        if cell.observers.is_some() {
            return Err(end);
        }
        let left = match &end {
            // Perhaps a thread that cancelled it at the same time as another has seen to its own part already.
            End::Outcome(Outcome::Cancelled) if cell.state != State::Finished => {
                (Kept::default(), cell.enter(State::CancelledAndNotified))
            }
            // Somebody has given it an outcome by hand.
            _ if cell.state.is_final() => (Kept::default(), None),
            End::Outcome(Outcome::Value(_) | Outcome::Raised(_)) => cell.finish(Kept::Encoded(end)),
            End::Failed { last, .. } if matches!(**last, End::Outcome(Outcome::Raised(_))) => {
                cell.finish(Kept::Encoded(end))
            }
            End::Outcome(_) | End::Broken(_) | End::Failed { .. } => return Err(end),
        };
        let awaited = cell.waiting > 0;
        drop(cell);
        drop(left);
        Ok(awaited)
    }

    /// Whether somebody other than a thread that asks for its outcome may want to know of it.
    pub(crate) fn is_observed(&self) -> bool {
        self.lock().observers.is_some()
    }

    /// The pool is to deliver what has come: the state is asked for.
    fn rouse(&self) {
        let ticket = self.lock().ticket.clone();
        if let Some(ticket) = ticket {
            ticket.rouse();
        }
    }

    /// Wakes who waits here.
    pub(crate) fn notify(&self) {
        self.moved.notify();
    }

    /// One step of the state, if nobody observes and `step` can make it. Tells whether somebody waits and has to be woken.
    fn step<R>(&self, step: impl FnOnce(&mut Inside) -> Option<R>) -> Option<(R, bool)> {
        let mut cell = self.lock();
        if cell.observers.is_some() {
            return None;
        }
        Some((step(&mut cell)?, cell.waiting > 0))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The signatures as written are the standard library's, whose `self` can be named.
#[pymethods]
impl FutureBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { core: Arc::default() }
    }

    /// Nothing: the standard library's would make a Condition.
    fn __init__(&self) {}

    /// The outcome of the call: its value, or raised, what it raised.
    ///
    /// Waits for it, for `timeout` seconds at most if that is given. Raises TimeoutError if it is not there then, and
    /// CancelledError if the call was cancelled.
    #[pyo3(signature = (timeout=None), text_signature = "(self, timeout=None)")]
    fn result<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match Self::wait(slf, timeout)? {
            Ok(()) => match Self::decoded(slf)? {
                (_, Some(exception)) => Err(PyErr::from_value(exception.into_bound(py))),
                (result, None) => Ok(result.unwrap_or_else(|| py.None()).into_bound(py)),
            },
            Err(left) => standard_wait(slf, intern!(py, "result"), left),
        }
    }

    /// What the call raised, or None if it returned.
    ///
    /// Waits as `result` does, and raises what that raises of its own.
    #[pyo3(signature = (timeout=None), text_signature = "(self, timeout=None)")]
    fn exception<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match Self::wait(slf, timeout)? {
            Ok(()) => {
                let (_, exception) = Self::decoded(slf)?;
                Ok(exception.unwrap_or_else(|| py.None()).into_bound(py))
            }
            Err(left) => standard_wait(slf, intern!(py, "exception"), left),
        }
    }

    /// Whether the call has ended, or was cancelled.
    #[pyo3(text_signature = "(self)")]
    fn done(&self) -> bool {
        let done = self.core.lock().state.is_final();
        if !done {
            self.core.rouse();
        }
        done
    }

    /// Whether the call was cancelled.
    #[pyo3(text_signature = "(self)")]
    fn cancelled(&self) -> bool {
        self.core.lock().state.is_cancelled()
    }

    /// Whether a worker runs the call right now.
    #[pyo3(text_signature = "(self)")]
    fn running(&self) -> bool {
        let cell = self.core.lock();
        let (state, ticket) = (cell.state, cell.ticket.clone());
        drop(cell);
        state == State::Running || ticket.is_some_and(|ticket| ticket.is_running())
    }

    /// Cancel the call if it has not started. True if it never runs, or never ends.
    ///
    /// In a pool of processes with `cancel_running=True` a call that runs is ended as well, with its worker.
    #[pyo3(text_signature = "(self)")]
    pub(crate) fn cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let core = &*slf.get().core;
        let (ticket, kill) = {
            let cell = core.lock();
            (cell.ticket.clone(), cell.cancels_running)
        };
        if let Some(ticket) = ticket {
            if !py.detach(|| if kill { ticket.kill() } else { ticket.cancel() }) {
                return Ok(core.lock().state.is_cancelled());
            }
        }
        let cancelled = core.step(|cell| match cell.state {
            State::Pending => Some((true, cell.enter(State::Cancelled))),
            State::Running | State::Finished => Some((false, None)),
            State::Cancelled | State::CancelledAndNotified => Some((true, None)),
        });
        match cancelled {
            Some(((cancelled, _ticket), awaited)) => {
                if awaited {
                    core.notify();
                }
                Ok(cancelled)
            }
            None => calls::method(intern!(py, "cancel"), [standard(slf)?.as_any()])?.extract(),
        }
    }

    /// Mark the call as running: for who runs it. False if it was cancelled and must not run.
    #[pyo3(text_signature = "(self)")]
    pub(crate) fn set_running_or_notify_cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let started = slf.get().core.step(|cell| match cell.state {
            State::Pending => Some((true, cell.enter(State::Running))),
            State::Cancelled => Some((false, cell.enter(State::CancelledAndNotified))),
            _ => None,
        });
        match started {
            // Nobody waits for this.
            Some(((started, _ticket), _)) => Ok(started),
            None => {
                let name = intern!(slf.py(), "set_running_or_notify_cancel");
                calls::method(name, [standard(slf)?.as_any()])?.extract()
            }
        }
    }

    /// Give the call's value: for who ran it. Raises InvalidStateError if the future has an outcome.
    #[pyo3(text_signature = "(self, result)")]
    fn set_result(slf: &Bound<'_, Self>, result: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::give(slf, Ok(result))
    }

    /// Give what the call raised: for who ran it. Raises InvalidStateError if the future has an outcome.
    #[pyo3(text_signature = "(self, exception)")]
    pub(crate) fn set_exception(slf: &Bound<'_, Self>, exception: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::give(slf, Err(exception))
    }

    // The names under which the standard library's code finds it all.

    #[getter(_state)]
    fn get_state<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        let state = self.core.lock().state;
        state.name(py).clone()
    }

    #[setter(_state)]
    fn set_state(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
        let py = name.py();
        let mut states = State::ALL.into_iter();
        let Some(state) = states.find(|state| state.name(py).as_any().eq(name).unwrap_or(false)) else {
            return Err(PyValueError::new_err(format!("{name} is no state of a future")));
        };
        let left = self.core.lock().enter(state);
        self.core.notify();
        drop(left);
        Ok(())
    }

    #[getter(_result)]
    fn get_result(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Self::decoded(slf).map(|(result, _)| result)
    }

    #[setter(_result)]
    fn set_result_alone(slf: &Bound<'_, Self>, result: Option<Py<PyAny>>) -> PyResult<()> {
        let (_, exception) = Self::decoded(slf)?;
        slf.get().set_outcome(Kept::Decoded { result, exception });
        Ok(())
    }

    #[getter(_exception)]
    fn get_exception(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Self::decoded(slf).map(|(_, exception)| exception)
    }

    #[setter(_exception)]
    fn set_exception_alone(slf: &Bound<'_, Self>, exception: Option<Py<PyAny>>) -> PyResult<()> {
        let (result, _) = Self::decoded(slf)?;
        slf.get().set_outcome(Kept::Decoded { result, exception });
        Ok(())
    }

    #[getter(_condition)]
    fn get_condition(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.observed(py, |observers| observers.condition.clone_ref(py))
    }

    #[setter(_condition)]
    fn set_condition(&self, py: Python<'_>, condition: Py<PyAny>) -> PyResult<()> {
        self.observed(py, |observers| mem::replace(&mut observers.condition, condition))
            .map(drop)
    }

    #[getter(_waiters)]
    fn get_waiters(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.observed(py, |observers| observers.waiters.clone_ref(py))
    }

    #[setter(_waiters)]
    fn set_waiters(&self, py: Python<'_>, waiters: Py<PyAny>) -> PyResult<()> {
        self.observed(py, |observers| mem::replace(&mut observers.waiters, waiters))
            .map(drop)
    }

    #[getter(_done_callbacks)]
    fn get_done_callbacks(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.observed(py, |observers| observers.callbacks.clone_ref(py))
    }

    #[setter(_done_callbacks)]
    fn set_done_callbacks(&self, py: Python<'_>, callbacks: Py<PyAny>) -> PyResult<()> {
        self.observed(py, |observers| mem::replace(&mut observers.callbacks, callbacks))
            .map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let cell = self.core.lock();
        match &cell.outcome {
            Kept::Decoded { result, exception } => {
                visit.call(result)?;
                visit.call(exception)?;
            }
            Kept::Interrupted(_, payload) => visit.call(payload)?,
            Kept::Encoded(_) | Kept::Decoding(_) => {}
        }
        if let Some(observers) = &cell.observers {
            visit.call(&observers.condition)?;
            visit.call(&observers.waiters)?;
            visit.call(&observers.callbacks)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut cell = self.core.lock();
        let left = (mem::take(&mut cell.outcome), cell.observers.take());
        drop(cell);
        drop(left);
    }
}

impl FutureBase {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Gives the outcome, the value or what was raised.
    pub(crate) fn give(slf: &Bound<'_, Self>, outcome: Given<'_, '_>) -> PyResult<()> {
        if let Some(awaited) = Self::try_give(slf, outcome, || ()) {
            if awaited {
                slf.get().core.notify();
            }
            return Ok(());
        }
        let (name, object) = match outcome {
            Ok(value) => (intern!(slf.py(), "set_result"), value),
            Err(error) => (intern!(slf.py(), "set_exception"), error),
        };
        calls::method(name, [standard(slf)?.as_any(), object]).map(drop)
    }

    /// Gives the outcome if the future has none and nobody observes it, so that nothing is called when it is given; `before`
    /// is called first then, under the mutex. If that tells that somebody waits, [`Core::notify`] is to be called.
    pub(crate) fn try_give(slf: &Bound<'_, Self>, outcome: Given<'_, '_>, before: impl FnOnce()) -> Option<bool> {
        let given = slf.get().core.step(|cell| {
            if cell.state.is_final() {
                return None;
            }
            // The other one is as it was, which matters only if somebody has set it by hand.
            let (Kept::Decoded { result, exception }, object) = (&mut cell.outcome, outcome.unwrap_or_else(|it| it))
            else {
                return None;
            };
            before();
            let place = if outcome.is_ok() { result } else { exception };
            let left = mem::replace(place, (!object.is_none()).then(|| object.clone().unbind()));
            Some((left, cell.enter(State::Finished)))
        });
        given.map(|(_, awaited)| awaited)
    }

    /// Waits until the future is finished. If it is observed, what is left of `timeout` comes back, for the standard
    /// library's code to go on with. Being cancelled and running out of time are exceptions.
    fn wait(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Result<(), Option<f64>>> {
        let py = slf.py();
        let core = &*slf.get().core;
        ASKED.set(true);
        // In a statement of its own, so that the mutex is let go of.
        let now = core.lock().look();
        let mut left = timeout;
        let waited = match now {
            Some(waited) => waited,
            None => {
                let deadline = wait::deadline(timeout)?;
                let ticket = {
                    let mut cell = core.lock();
                    cell.waiting += 1;
                    cell.ticket.clone()
                };
                let attention = ticket.as_ref().map(Ticket::attend);
                let waited = wait::interruptible(py, || core.wait(deadline));
                drop((attention, ticket));
                core.lock().waiting -= 1;
                left = deadline.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64());
                waited?
            }
        };
        match waited {
            Waited::Finished => Ok(Ok(())),
            Waited::Observed => Ok(Err(left)),
            Waited::TimedOut => Err(PyTimeoutError::new_err(())),
            Waited::Cancelled => Err(CancelledError::new_err(())),
        }
    }

    /// Result and exception of a future, once what came from a process is decoded: here, unless another thread does it.
    ///
    /// Ctrl-C while it is decoded is the asker's, and leaves it to the next.
    fn decoded(slf: &Bound<'_, Self>) -> PyResult<Decoded> {
        let py = slf.py();
        let this = slf.get();
        let core = &*this.core;
        loop {
            let epoch = core.moved.epoch();
            let mut cell = core.lock();
            match &mut cell.outcome {
                Kept::Decoded { result, exception } => {
                    let own = |object: &Option<Py<PyAny>>| object.as_ref().map(|object| object.clone_ref(py));
                    return Ok((own(result), own(exception)));
                }
                Kept::Decoding(thread) => {
                    if *thread == thread::current().id() {
                        return Err(PyRuntimeError::new_err(
                            "a future's result is asked for by its own decoding",
                        ));
                    }
                    drop(cell);
                    wait::interruptible(py, || match core.moved.wait(epoch, None) {
                        Wake::Interrupted => None,
                        Wake::Notified | Wake::TimedOut => Some(()),
                    })?;
                }
                Kept::Encoded(_) | Kept::Interrupted(..) => {
                    let kept = mem::replace(&mut cell.outcome, Kept::Decoding(thread::current().id()));
                    drop(cell);
                    let opened = match kept {
                        Kept::Encoded(end) => convert::end(py, end),
                        Kept::Interrupted(kind, payload) => Ok((kind, payload.into_bound(py))),
                        Kept::Decoded { .. } | Kept::Decoding(_) => unreachable!("it was, under this very lock"),
                    };
                    let (kind, payload) = match opened {
                        Ok(opened) => opened,
                        Err(error) => {
                            // No memory to map its buffers: that is the task's error.
                            this.set_outcome(Kept::Decoded {
                                result: None,
                                exception: Some(error.into_value(py).into_any()),
                            });
                            continue;
                        }
                    };
                    let number = (kind as u8).into_pyobject(py)?.into_any();
                    let pair = calls::method(intern!(py, "_decoded"), [slf.as_any(), &number, &payload]);
                    match pair.and_then(|pair| pair.extract()) {
                        Ok((result, exception)) => this.set_outcome(Kept::Decoded { result, exception }),
                        Err(error) => {
                            this.set_outcome(Kept::Interrupted(kind, payload.unbind()));
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    fn set_outcome(&self, outcome: Kept) {
        let before = mem::replace(&mut self.core.lock().outcome, outcome);
        self.core.notify();
        drop(before);
    }

    /// Does something with the observers. From the first time on the future is observed.
    fn observed<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Observers) -> R) -> PyResult<R> {
        let mut cell = self.core.lock();
        if let Some(observers) = &mut cell.observers {
            return Ok(act(observers));
        }
        drop(cell);
        let made = Observers {
            condition: new_condition(py)?,
            waiters: PyList::empty(py).into_any().unbind(),
            callbacks: PyList::empty(py).into_any().unbind(),
        };
        let mut cell = self.core.lock();
        // Another thread may have been quicker: its are the ones then.
        let spare = match &cell.observers {
            None => {
                cell.observers = Some(made);
                None
            }
            Some(_) => Some(made),
        };
        let done = cell.observers.as_mut().map(act).expect("there are some now");
        drop(cell);
        self.core.notify();
        self.core.rouse();
        drop(spare);
        Ok(done)
    }
}

impl Core {
    /// Waits, detached, until there is something to say; `None` if a signal came.
    fn wait(&self, deadline: Option<Instant>) -> Option<Waited> {
        loop {
            let epoch = self.moved.epoch();
            if let Some(waited) = self.look() {
                return Some(waited);
            }
            match self.moved.wait(epoch, deadline) {
                Wake::Notified => {}
                Wake::TimedOut => return Some(self.look().unwrap_or(Waited::TimedOut)),
                Wake::Interrupted => return None,
            }
        }
    }

    fn look(&self) -> Option<Waited> {
        let _steady = bytes::steady();
        self.lock().look()
    }
}

thread_local! {
    /// Whether this thread has asked a future since it submitted its last task.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread has asked a future for its outcome since this was called last.
pub(crate) fn has_asked() -> bool {
    ASKED.replace(false)
}

/// The future as the standard library's class sees it: the next after this one in its line of classes.
fn standard<'py>(slf: &Bound<'py, FutureBase>) -> PyResult<Bound<'py, PySuper>> {
    PySuper::new(&PyType::new::<FutureBase>(slf.py()), slf)
}

/// `result` or `exception` as the standard library has it, for so many seconds at most.
fn standard_wait<'py>(
    slf: &Bound<'py, FutureBase>,
    name: &Bound<'py, PyString>,
    seconds: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let seconds = seconds.into_pyobject(slf.py())?;
    calls::method(name, [standard(slf)?.as_any(), &seconds])
}

fn new_condition(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static CONDITION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    calls::call0(CONDITION.import(py, "threading", "Condition")?).map(Bound::unbind)
}
