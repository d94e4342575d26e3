//! Waits that see Ctrl-C.
//!
//! The engine's waits return when a signal handler ran. Python's own handlers run only where the interpreter looks for
//! them: here, attached again, and then the wait goes on, or the exception that the handler raised ends it. A signal that came
//! too late for the interpreter's last look and too early to interrupt the wait is seen a moment later.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use fanmap::Joined;
use fanmap_shm::event::look_soon;

/// Repeats `wait`, detached, until it gives something other than `None`, which means that a signal came.
pub(crate) fn interruptible<R: Send>(py: Python<'_>, mut wait: impl FnMut() -> Option<R> + Send) -> PyResult<R> {
    look_soon();
    loop {
        if let Some(found) = py.detach(&mut wait) {
            return Ok(found);
        }
        py.check_signals()?;
    }
}

/// Joins a pool: false if `deadline` passed first.
pub(crate) fn join(py: Python<'_>, mut wait: impl FnMut() -> Joined + Send) -> PyResult<bool> {
    interruptible(py, || match wait() {
        Joined::All => Some(true),
        Joined::TimedOut => Some(false),
        Joined::Interrupted => None,
    })
}

/// The moment `seconds` from now; `None` is never, as is a moment past the end of time.
pub(crate) fn deadline(seconds: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    if seconds.is_nan() {
        return Err(PyValueError::new_err("a timeout must be a number of seconds, not NaN"));
    }
    // A negative timeout has passed already, as everywhere in Python.
    Ok(Duration::try_from_secs_f64(seconds.max(0.0))
        .ok()
        .and_then(|left| Instant::now().checked_add(left)))
}
