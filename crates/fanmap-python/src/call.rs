//! One submitted call, as a thread of a pool runs it.
//!
//! A call belongs to whoever holds it: the pool's queue, then one thread, attached. What it holds goes before its outcome is
//! out, since whoever waits for that may look for it to be gone.

use std::cell::Cell;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use fanmap::{Error, Job};

use crate::calls;
use crate::future::{Core, FutureBase};

pub(crate) struct Call {
    future: Py<FutureBase>,
    /// The function and its arguments.
    call: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
    /// A copy of the submitter's context.
    context: Py<PyAny>,
    spawner: Arc<Py<PyAny>>,
}

impl Call {
    /// A call in a copy of the present context. `spawner.broken_pool(reason)` makes the exception of a broken pool.
    pub(crate) fn new(
        future: Py<FutureBase>,
        call: &Bound<'_, PyTuple>,
        kwargs: &Bound<'_, PyDict>,
        spawner: &Arc<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            future,
            call: call.clone().unbind(),
            kwargs: (!kwargs.is_empty()).then(|| kwargs.clone().unbind()),
            context: copy_context(call.py())?,
            spawner: Arc::clone(spawner),
        })
    }

    fn run_here(self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.into_bound(py);
        if !FutureBase::set_running_or_notify_cancel(&future)? {
            return Ok(());
        }
        let context = self.context.into_bound(py);
        let outcome = own_decimal(&context).and_then(|()| {
            let kwargs = self.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
            calls::call(&context.getattr(intern!(py, "run"))?, self.call.bind(py), kwargs)
        });
        drop((self.call, self.kwargs, context));
        publish(&future, outcome)
    }

    fn fail_here(self, py: Python<'_>, reason: &str) -> PyResult<()> {
        let future = self.future.bind(py);
        if FutureBase::set_running_or_notify_cancel(future)? {
            let reason = PyString::new(py, reason).into_any();
            let error = calls::method(intern!(py, "broken_pool"), [self.spawner.bind(py), &reason])?;
            FutureBase::set_exception(future, &error)?;
        }
        Ok(())
    }

    fn discard_here(self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.bind(py);
        if FutureBase::cancel(future)? {
            FutureBase::set_running_or_notify_cancel(future)?;
        }
        Ok(())
    }

    /// Does something with the call that nobody hears the errors of.
    fn tell(self, act: impl FnOnce(Self, Python<'_>) -> PyResult<()>) {
        Python::attach(|py| {
            let future = self.future.clone_ref(py);
            if let Err(error) = act(self, py) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        });
    }
}

impl Job for Call {
    fn run(self: Box<Self>) {
        self.tell(Self::run_here);
    }

    fn discard(self: Box<Self>) {
        self.tell(Self::discard_here);
    }

    fn fail(self: Box<Self>, why: &Error) {
        self.tell(|call, py| call.fail_here(py, why.message()));
    }
}

thread_local! {
    /// Whom this worker has given an outcome and not yet woken.
    static OWED: Cell<Option<Arc<Core>>> = const { Cell::new(None) };
}

/// Wakes who waits for the outcome of the call that this thread ran last. Called before it runs another or waits, and if it
/// is to wait, then detached: who is woken wants the interpreter's lock, and would find it taken.
pub(crate) fn wake_owed() {
    if let Some(core) = OWED.take() {
        core.notify();
    }
}

/// Gives a future its outcome, on the worker that ran its call.
///
/// Whoever gets it may submit the next call at once, and must find this thread idle. It is, unless callbacks of the user's
/// are to run on it first.
fn publish(future: &Bound<'_, FutureBase>, outcome: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
    let py = future.py();
    let outcome = outcome.map_err(|error| error.into_value(py).into_bound(py).into_any());
    let outcome = outcome.as_ref();
    if let Some(awaited) = FutureBase::try_give(future, outcome, fanmap::rest) {
        if awaited {
            OWED.set(Some(Arc::clone(future.get().core())));
        }
        return Ok(());
    }
    // It is reentrant, and while it is held nobody adds a callback.
    let condition = future.getattr(intern!(py, "_condition"))?;
    calls::method(intern!(py, "__enter__"), [&condition])?;
    let alone = future
        .getattr(intern!(py, "_done_callbacks"))
        .and_then(|them| them.is_empty());
    let given = match alone {
        Ok(false) => Ok(()),
        _ => {
            fanmap::rest();
            FutureBase::give(future, outcome)
        }
    };
    let none = py.None().into_bound(py);
    calls::method(intern!(py, "__exit__"), [&condition, &none, &none, &none])?;
    given?;
    if !alone? {
        FutureBase::give(future, outcome)?;
    }
    Ok(())
}

fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    calls::call0(COPY.import(py, "contextvars", "copy_context")?).map(Bound::unbind)
}

/// Gives a context a decimal context of its own, if the program uses any: a copied context refers to the same, changeable,
/// one.
fn own_decimal(context: &Bound<'_, PyAny>) -> PyResult<()> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static DECIMAL: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let py = context.py();
    if DECIMAL.get(py).is_none() && !MODULES.import(py, "sys", "modules")?.contains(intern!(py, "decimal"))? {
        return Ok(());
    }
    let (get, set) = DECIMAL.get_or_try_init(py, || {
        let decimal = py.import("decimal")?;
        PyResult::Ok((
            decimal.getattr("getcontext")?.unbind(),
            decimal.getattr("setcontext")?.unbind(),
        ))
    })?;
    let run = context.getattr(intern!(py, "run"))?;
    let own = calls::method(intern!(py, "copy"), [&calls::call1(&run, get.bind(py))?])?;
    calls::call(&run, &(set, own).into_pyobject(py)?, None).map(drop)
}
