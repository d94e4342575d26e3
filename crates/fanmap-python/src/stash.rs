//! Results that came together and are handed out one by one: the part of `MapResult` that every item goes through.
//!
//! # What threads share
//! The values are behind a mutex that is held for a moment and never while Python code runs. Several threads may take
//! values; each gets others. Once it is closed, by any thread, it keeps nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyNone, PyString, PyTuple};

/// The base of an iterator that gets its values many at a time. A subclass has a method `_refill`, which gives the next
/// value or raises, and may `_keep` those that come after it.
#[pyclass(subclass, frozen, module = "fanmap._native")]
#[derive(Default)]
pub(crate) struct Stash {
    /// The next one is the last.
    values: Mutex<Vec<Py<PyAny>>>,
    /// Written while the values are locked.
    closed: AtomicBool,
}

#[pymethods]
impl Stash {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::default()
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let kept = slf.get().lock().pop();
        match kept {
            Some(value) => Ok(value.into_bound(py)),
            None => slf.call_method0(intern!(py, "_refill")),
        }
    }

    /// Keep these, to be handed out next and in this order. Only when nothing is kept.
    fn _keep(&self, values: &Bound<'_, PyList>) {
        self.keep_reversed(values.iter().rev().map(Bound::unbind).collect());
    }

    /// How many are kept.
    fn _kept(&self) -> usize {
        self.lock().len()
    }

    /// The next one, as a tuple; an empty tuple if none is kept.
    fn _take_kept<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let kept = self.lock().pop();
        PyTuple::new(py, Vec::from_iter(kept))
    }

    /// Keep none, now or later.
    fn _close_kept(&self) {
        let kept = {
            let mut values = self.lock();
            self.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *values)
        };
        drop(kept);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector runs between instructions of Python code, and nobody holds the lock then.
        if let Ok(values) = self.values.try_lock() {
            for value in values.iter() {
                visit.call(value)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }
}

impl Stash {
    /// Keep these, the last of which is handed out next. Only when nothing is kept.
    pub(crate) fn keep_reversed(&self, values: Vec<Py<PyAny>>) {
        let goes = {
            let mut kept = self.lock();
            match self.closed.load(Ordering::Relaxed) {
                true => values,
                false => std::mem::replace(&mut *kept, values),
            }
        };
        drop(goes);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Py<PyAny>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer tuples than this are sooner pickled than looked through.
const SHORT: usize = 8;

/// Text and bytes beyond this travel alone: their copy costs more than a message, and many of them together would take
/// as much memory again.
const LONG: usize = 4096;

/// Whether these may be pickled together: immutable atoms and short tuples of them, in which no identity can show and
/// nothing can fail.
#[pyfunction]
pub(crate) fn are_atoms(values: &Bound<'_, PyList>) -> bool {
    values.iter().all(|value| is_atom(&value))
}

/// Whether one value is such.
pub(crate) fn is_atom(value: &Bound<'_, PyAny>) -> bool {
    if is_plain(value) {
        return true;
    }
    match value.cast_exact::<PyTuple>() {
        Ok(tuple) => tuple.len() <= SHORT && tuple.iter().all(|value| is_plain(&value)),
        Err(_) => false,
    }
}

fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    if value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyNone>()
    {
        return true;
    }
    let short = || value.len().is_ok_and(|len| len <= LONG);
    (value.is_exact_instance_of::<PyString>() || value.is_exact_instance_of::<PyBytes>()) && short()
}
