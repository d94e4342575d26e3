//! The engine's errors and ends as Python objects. The one place where Rust becomes Python.

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use fanmap::bytes::{Access, Broken, End, Message};
use fanmap::{Call, Error, ErrorKind, Exit, Outcome};

use crate::buffer;

/// How an outcome is told to Python, with a payload. `python/fanmap/_outcome.py` has the same numbers.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// The value: an object (threads), or (processes) bytes, or a pair of bytes and a list of buffers.
    Value = 0,
    /// What was raised: an exception (threads) or bytes (processes).
    Raised = 1,
    /// Nothing.
    Cancelled = 2,
    /// `(pid, seconds, call)`: how long it might run, and the call as below.
    TimedOut = 3,
    /// `(pid, exit code, peak memory, out of memory, memory limit, refused, corrupt, call)`: the code is negative for a signal,
    /// `None` if nobody could tell, as is the memory. What was raised for want of memory is encoded, or `None`. The call is
    /// `(function's name, arguments, place)`: the place of the argument in a run, or `None`.
    Lost = 4,
    /// `(reason, refusal)`: a sentence, and what the worker's setup raised, encoded, or `None`.
    Broken = 5,
}

/// The payload of a failure of a task that had been tried before.
#[pyclass(frozen, get_all, module = "fanmap._native")]
pub(crate) struct Tried {
    /// What it would be otherwise.
    payload: Py<PyAny>,
    /// The kinds and payloads of what the attempts before came to, in order.
    earlier: Vec<(u8, Py<PyAny>)>,
}

/// The kind and payload for an end of a task over processes.
pub(crate) fn end<'py>(py: Python<'py>, end: End) -> PyResult<(Kind, Bound<'py, PyAny>)> {
    let none = || py.None().into_bound(py);
    Ok(match end {
        End::Outcome(Outcome::Value(message)) => (Kind::Value, self::message(py, message)?),
        End::Outcome(Outcome::Raised(bytes)) => (Kind::Raised, PyBytes::new(py, &bytes).into_any()),
        End::Outcome(Outcome::Cancelled) => (Kind::Cancelled, none()),
        End::Outcome(Outcome::TimedOut(overdue)) => {
            let call = call(py, &overdue.call);
            let told = (overdue.pid, overdue.limit.as_secs_f64(), call);
            (Kind::TimedOut, told.into_pyobject(py)?.into_any())
        }
        End::Outcome(Outcome::Lost(lost)) => {
            let code = match lost.exit {
                Exit::Code(code) => Some(code),
                Exit::Signal(signal) => Some(-signal),
                Exit::Unknown => None,
            };
            let told = (
                lost.pid,
                code,
                lost.peak_memory,
                lost.out_of_memory,
                lost.memory_limit,
                lost.refused.as_ref().map(|bytes| PyBytes::new(py, bytes)),
                lost.corrupt,
                call(py, &lost.call),
            );
            (Kind::Lost, told.into_pyobject(py)?.into_any())
        }
        End::Broken(why) => (Kind::Broken, broken(py, &why)?.into_any()),
        End::Failed { last, earlier } => {
            let told = |end| self::end(py, end).map(|(kind, payload)| (kind, payload.unbind()));
            let (kind, payload) = told(*last)?;
            let earlier = earlier.into_iter().map(|outcome| {
                let (kind, payload) = told(End::Outcome(outcome))?;
                Ok((kind as u8, payload))
            });
            let earlier = earlier.collect::<PyResult<_>>()?;
            (kind, Bound::new(py, Tried { payload, earlier })?.into_any())
        }
    })
}

/// The bytes of a message; with the buffers that came with it, if any, as a pair.
fn message(py: Python<'_>, message: Message) -> PyResult<Bound<'_, PyAny>> {
    let bytes = PyBytes::new(py, &message.bytes);
    if message.blobs.is_empty() {
        return Ok(bytes.into_any());
    }
    // Nobody else has a result, so it is the user's to write to; and a fork of his program makes it private.
    let buffers = buffer::lend(py, message.blobs, Access::Shared)?;
    Ok((bytes, buffers).into_pyobject(py)?.into_any())
}

/// `(reason, refusal)`.
pub(crate) fn broken<'py>(py: Python<'py>, why: &Broken) -> PyResult<Bound<'py, PyTuple>> {
    let refusal = why.refusal.as_ref().map(|bytes| PyBytes::new(py, bytes));
    (&why.reason, refusal).into_pyobject(py)
}

/// An engine's error as the exception that the standard library raises in its place.
pub(crate) fn error(error: &Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::InvalidInput => PyValueError::new_err(message),
        ErrorKind::Os => PyOSError::new_err(message),
        // Programs match these words.
        ErrorKind::Closed => PyRuntimeError::new_err("cannot schedule new futures after shutdown"),
        _ => PyRuntimeError::new_err(message),
    }
}

/// A call as Python is told of it.
fn call<'py>(py: Python<'py>, call: &Call) -> (String, Bound<'py, PyBytes>, Option<u32>) {
    let place = (call.total > 1).then_some(call.place);
    (call.function.to_string(), PyBytes::new(py, &call.arguments), place)
}
