//! Results that are handed out one by one, as fast as Python allows: the part of `MapResult` that every item goes through.
//! They came together and are kept, or are made here and now by a plain iterator ([`Plain`]).
//!
//! # What threads share
//! What is kept is behind a mutex that is held for a moment and never while Python code runs. Several threads may take
//! values; each gets others. Once closed, by any thread, nothing is kept, and what comes late is dropped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyIterator, PyList, PyNone, PyString, PyTuple};

use crate::calls;
use crate::clocks::{Clocks, seconds};
use crate::plain::{Found, Plain};

/// The base of an iterator that gets its values many at a time. A subclass has a method `_refill`, which gives the next
/// value or raises, and may `_keep` those that come after it, or `_go_plain`; and a method `_plain_ended`, which is told of
/// the end of a plain iterator: whether it failed, and whether it was interrupted. If it begins by `_try_first`, it has a method
/// `_first_was_slow`, which says for how many seconds to go on as a plain iterator.
#[pyclass(subclass, frozen, module = "fanmap._native")]
#[derive(Default)]
pub(crate) struct Stash {
    kept: Mutex<Kept>,
    plain: Plain,
}

#[derive(Default)]
struct Kept {
    /// The next one is the last.
    values: Vec<Py<PyAny>>,
    first: Option<First>,
    /// What the first took, until somebody asks.
    told: Option<Told>,
}

/// How to begin: by a first item, before which nobody can tell if a plain iterator will do.
struct First {
    /// What gives the results of the items after it.
    iterator: Py<PyIterator>,
    items: Py<PyIterator>,
    function: Py<PyAny>,
    /// Whether an item is a tuple of arguments.
    star: bool,
    /// If it takes less, in nanoseconds, the iterator does,
    tiny: u64,
    /// for so long.
    time: Duration,
}

/// When the first item was asked for, in seconds; and, if it has a result: what it took of time and of processors' time; and
/// when it was over, by the clock and by the thread's processor time.
type Told = (f64, Option<(f64, f64, f64, f64)>);

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
        match stash.plain.take(py) {
            Found::Ours(iterator) => return stash.next_plain(slf, iterator),
            Found::Out => return Err(PyValueError::new_err("a result of this map is already being asked for")),
            Found::Nothing | Found::Over => {}
        }
        let mut kept = stash.lock();
        if let Some(value) = kept.values.pop() {
            return Ok(value.into_bound(py));
        }
        let first = kept.first.take();
        if first.is_some() {
            // Before the lock is gone: nobody may think that there is nothing.
            stash.plain.take_out(py);
        }
        drop(kept);
        match first {
            Some(first) => stash.next_first(slf, first),
            None => calls::method(intern!(py, "_refill"), [slf.as_any()]),
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
        self.plain.put_for(iterator, duration(seconds));
    }

    /// The first value is that of `function` with the first of `items` (with `star`, a tuple of arguments). If it takes less than
    /// `tiny` seconds, the next ones are those of `iterator`, as by `_go_plain`. Before anything else.
    fn _try_first(
        &self,
        iterator: Bound<'_, PyIterator>,
        items: Bound<'_, PyIterator>,
        function: Bound<'_, PyAny>,
        star: bool,
        tiny: f64,
        seconds: f64,
    ) {
        self.lock().first = Some(First {
            iterator: iterator.unbind(),
            items: items.unbind(),
            function: function.unbind(),
            star,
            tiny: u64::try_from(duration(tiny).as_nanos()).unwrap_or(u64::MAX),
            time: duration(seconds),
        });
    }

    /// What the first item took, if it was tried and nobody has taken the answer yet, as `take` does.
    fn _told_of_first(&self, take: bool) -> Option<Told> {
        let mut kept = self.lock();
        if take { kept.told.take() } else { kept.told }
    }

    /// How many values plain iterators gave, the first item's among them. With `take` the count begins anew.
    fn _plain_count(&self, take: bool) -> usize {
        self.plain.count(take)
    }

    /// Keep none, now or later.
    fn _close_kept(&self) {
        self.plain.close();
        let kept = {
            let mut kept = self.lock();
            (std::mem::take(&mut kept.values), kept.first.take())
        };
        drop(kept);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector runs between instructions of Python code, and nobody holds the lock then.
        if let Ok(kept) = self.kept.try_lock() {
            for value in &kept.values {
                visit.call(value)?;
            }
            if let Some(first) = &kept.first {
                visit.call(&first.iterator)?;
                visit.call(&first.items)?;
                visit.call(&first.function)?;
            }
        }
        self.plain.traverse(&visit)
    }

    fn __clear__(&self) {
        self.plain.end();
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }
}

impl Stash {
    /// The next value of a plain iterator, which was taken out of its place.
    fn next_plain<'py>(&self, slf: &Bound<'py, Self>, iterator: Bound<'py, PyIterator>) -> PyResult<Bound<'py, PyAny>> {
        match calls::next(&iterator) {
            Some(Ok(value)) => {
                if self.plain.is_closed() {
                    return Err(PyStopIteration::new_err(()));
                }
                self.plain.gave();
                match self.plain.put(iterator) {
                    true => Ok(value),
                    false => Err(PyStopIteration::new_err(())),
                }
            }
            end => self.plain_ended(slf, end.and_then(Result::err)),
        }
    }

    /// The first value, and what is to give the others.
    fn next_first<'py>(&self, slf: &Bound<'py, Self>, first: First) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let clocks = Clocks::start();
        let began = seconds(clocks.began);
        let tried = match calls::next(first.items.bind(py)) {
            Some(Ok(item)) => {
                let function = first.function.bind(py);
                let result = if first.star {
                    item.cast::<PyTuple>()
                        .map_err(PyErr::from)
                        .and_then(|arguments| calls::call(function, arguments, None))
                } else {
                    calls::call1(function, &item)
                };
                Some(result.map(|value| (item, value)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        let (item, value) = match tried {
            Some(Ok(done)) => done,
            end => {
                self.lock().told = Some((began, None));
                return self.plain_ended(slf, end.and_then(Result::err));
            }
        };
        let took = clocks.stop(true);
        let [wall, cpu, thread] = [took.wall, took.cpu, took.thread].map(seconds);
        if self.plain.is_closed() {
            return Err(PyStopIteration::new_err(()));
        }
        self.plain.gave();
        self.lock().told = Some((began, Some((wall, cpu, began + wall, thread))));
        let time = if took.wall < first.tiny {
            first.time
        } else {
            let seconds = calls::method(intern!(py, "_first_was_slow"), [slf.as_any(), &item, &value]);
            match seconds.and_then(|seconds| seconds.extract::<f64>()) {
                Ok(seconds) => duration(seconds),
                Err(error) => {
                    self.plain.end();
                    return Err(error);
                }
            }
        };
        if time.is_zero() {
            self.plain.end();
        } else {
            self.plain.put_for(first.iterator.into_bound(py), time);
        }
        if self.plain.is_closed() {
            return Err(PyStopIteration::new_err(()));
        }
        Ok(value)
    }

    /// The plain iterator, which is out, has ended; or it or the function failed. What to raise.
    fn plain_ended<'py>(&self, slf: &Bound<'py, Self>, error: Option<PyErr>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let closed = self.plain.is_closed();
        self.plain.end();
        if closed {
            return Err(PyStopIteration::new_err(()));
        }
        let error = error.unwrap_or_else(|| PyStopIteration::new_err(()));
        let flags = [
            !error.is_instance_of::<PyStopIteration>(py),
            error.is_instance_of::<PyKeyboardInterrupt>(py),
        ];
        let [failed, interrupted] = flags.map(|flag| PyBool::new(py, flag).to_owned().into_any());
        calls::method(intern!(py, "_plain_ended"), [slf.as_any(), &failed, &interrupted])?;
        Err(error)
    }

    /// Keep these, the last of which is handed out next. Only when nothing is kept.
    pub(crate) fn keep_reversed(&self, values: Vec<Py<PyAny>>) {
        let goes = {
            let mut kept = self.lock();
            match self.plain.is_closed() {
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

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
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
