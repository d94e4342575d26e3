//! Calls in a context of their own, without a Python call for each step.
//!
//! The same as `context.copy().run(function, *arguments)`, by the interpreter's C functions: a map over threads does this for
//! every item, and three method calls would cost more than a small function itself.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

/// Calls `call` in a fresh copy of `context`.
pub(crate) fn in_copy_of<R>(context: &Bound<'_, PyAny>, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let py = context.py();
    // SAFETY: `context` is a borrowed reference to a live object while this thread is attached, and the function checks
    // that it is a context. It gives a new reference, or null with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr()))? };
    // SAFETY: as above. No other thread can have entered the copy, which nobody else has.
    if unsafe { ffi::PyContext_Enter(copy.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let result = call();
    // SAFETY: it was entered on this thread, and what was entered since then was left again: by Python code through
    // `Context.run`, which leaves what it enters.
    if unsafe { ffi::PyContext_Exit(copy.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    result
}
