//! Results that are handed out one by one, as fast as Python allows: the part of `MapResult` that every item goes through.
//! They came together and are kept, or are made here and now by a plain iterator, such as the built-in `map`'s.
//!
//! # What threads share
//! All is behind a mutex that is held for a moment and never while Python code runs. Several threads may take values;
//! each gets others. The plain iterator is taken out of its place by the thread that asks it for a value, so another one
//! that comes meanwhile sees that it is out. Once closed, by any thread, nothing is kept, and what comes late is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyIterator, PyList, PyNone, PyString, PyTuple};
use rustix::time::{ClockId, clock_gettime};

use crate::calls;

/// The base of an iterator that gets its values many at a time. A subclass has a method `_refill`, which gives the next
/// value or raises, and may `_keep` those that come after it, or `_go_plain`; and a method `_plain_ended`, which is told of
/// the end of a plain iterator: whether it failed, and whether it was interrupted.
#[pyclass(subclass, frozen, module = "fanmap._native")]
#[derive(Default)]
pub(crate) struct Stash {
    kept: Mutex<Kept>,
    /// Written while `kept` is locked.
    closed: AtomicBool,
}

#[derive(Default)]
struct Kept {
    /// The next one is the last.
    values: Vec<Py<PyAny>>,
    plain: Plain,
    /// How many values plain iterators gave since somebody took that number.
    plain_count: usize,
}

#[derive(Default)]
enum Plain {
    #[default]
    No,
    /// It gives the values, until that time of the coarse clock.
    Here(Py<PyIterator>, Duration),
    /// A thread is asking it for one.
    Out,
}

/// It moves a few hundred times a second, and reading it takes a few nanoseconds: tiny items do not feel it.
fn coarse_clock() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
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
        let stash = slf.get();
        let mut kept = stash.lock();
        if let Some(value) = kept.values.pop() {
            return Ok(value.into_bound(py));
        }
        match std::mem::replace(&mut kept.plain, Plain::Out) {
            Plain::Here(iterator, until) if coarse_clock() < until => {
                drop(kept);
                stash.next_plain(slf, iterator.into_bound(py), until)
            }
            Plain::Out => {
                drop(kept);
                Err(PyValueError::new_err("a result of this map is already being asked for"))
            }
            other => {
                kept.plain = Plain::No;
                drop(kept);
                drop(other);
                calls::method(intern!(py, "_refill"), [slf.as_any()])
            }
        }
    }

    /// Keep these, to be handed out next and in this order. Only when nothing is kept.
    fn _keep(&self, values: &Bound<'_, PyList>) {
        self.keep_reversed(values.iter().rev().map(Bound::unbind).collect());
    }

    /// How many are kept.
    fn _kept(&self) -> usize {
        self.lock().values.len()
    }

    /// The next one, as a tuple; an empty tuple if none is kept.
    fn _take_kept<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let kept = self.lock().values.pop();
        PyTuple::new(py, Vec::from_iter(kept))
    }

    /// The next values are those of `iterator`, for so many seconds (some milliseconds more, perhaps), or to its end. Only
    /// when nothing is kept.
    fn _go_plain(&self, iterator: Bound<'_, PyIterator>, seconds: f64) {
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let until = coarse_clock().saturating_add(time);
        let mut kept = self.lock();
        if !self.closed.load(Ordering::Relaxed) {
            kept.plain = Plain::Here(iterator.unbind(), until);
        }
    }

    /// How many values plain iterators gave. With `take` the count begins anew.
    fn _plain_count(&self, take: bool) -> usize {
        let mut kept = self.lock();
        match take {
            true => std::mem::take(&mut kept.plain_count),
            false => kept.plain_count,
        }
    }

    /// Keep none, now or later.
    fn _close_kept(&self) {
        let kept = {
            let mut kept = self.lock();
            self.closed.store(true, Ordering::Relaxed);
            (std::mem::take(&mut kept.values), std::mem::take(&mut kept.plain))
        };
        drop(kept);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector runs between instructions of Python code, and nobody holds the lock then.
        if let Ok(kept) = self.kept.try_lock() {
            for value in &kept.values {
                visit.call(value)?;
            }
            if let Plain::Here(iterator, _) = &kept.plain {
                visit.call(iterator)?;
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
    /// The next value of a plain iterator, which was taken out of its place.
    fn next_plain<'py>(
        &self,
        slf: &Bound<'py, Self>,
        iterator: Bound<'py, PyIterator>,
        until: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let next = calls::next(&iterator);
        let mut kept = self.lock();
        let closed = self.closed.load(Ordering::Relaxed);
        kept.plain = match &next {
            Some(Ok(_)) if !closed => {
                kept.plain_count += 1;
                Plain::Here(iterator.unbind(), until)
            }
            _ => Plain::No,
        };
        drop(kept);
        match next {
            Some(Ok(value)) if !closed => return Ok(value),
            _ if closed => {}
            None => plain_ended(slf, false, false)?,
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let interrupted = error.is_instance_of::<PyKeyboardInterrupt>(slf.py());
                plain_ended(slf, true, interrupted)?;
                return Err(error);
            }
        }
        Err(PyStopIteration::new_err(()))
    }

    /// Keep these, the last of which is handed out next. Only when nothing is kept.
    pub(crate) fn keep_reversed(&self, values: Vec<Py<PyAny>>) {
        let goes = {
            let mut kept = self.lock();
            match self.closed.load(Ordering::Relaxed) {
                true => values,
                false => std::mem::replace(&mut kept.values, values),
            }
        };
        drop(goes);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the subclass of the end of a plain iterator.
fn plain_ended(slf: &Bound<'_, Stash>, failed: bool, interrupted: bool) -> PyResult<()> {
    let py = slf.py();
    let [failed, interrupted] = [failed, interrupted].map(|flag| PyBool::new(py, flag).to_owned().into_any());
    calls::method(intern!(py, "_plain_ended"), [slf.as_any(), &failed, &interrupted]).map(drop)
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
#[pyfunction]
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
