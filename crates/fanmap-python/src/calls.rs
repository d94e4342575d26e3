//! Calls of Python code that need not come back.
//!
//! A thread that still runs when the interpreter ends gets its lock no more. Before Python 3.14 whoever asks for it then is
//! ended on the spot, by `pthread_exit` from somewhere below the call, which unwinds the stack by force. Rust code in the way
//! of that ends the whole program. Here such a thread stops for good instead, as Python does it itself from 3.14 on: at the
//! first guard on the way out, which is the innermost call of Python from Rust, so no other frame of Rust's is unwound. The
//! thread goes with the process. (PyO3 guards the waits for the lock of its own in the same way, `attach` and the end of
//! `detach`.)
//!
//! So whatever a thread of a pool, or a thread of the program's that waits for one, calls that is or may be Python code, it
//! calls by this module. Not guarded are destructors: a `__del__` of the user's that lets go of the lock while a Rust frame
//! drops the last reference, on a thread that the end of the program leaves behind.
#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyString, PyTuple};

type Object = *mut ffi::PyObject;

unsafe extern "C-unwind" {
    fn PyObject_Call(callable: Object, args: Object, kwargs: Object) -> Object;
    fn PyObject_Vectorcall(callable: Object, args: *const Object, nargsf: usize, kwnames: Object) -> Object;
    fn PyObject_VectorcallMethod(name: Object, args: *const Object, nargsf: usize, kwnames: Object) -> Object;
    fn PyIter_Next(iterator: Object) -> Object;
}

type Call = unsafe extern "C-unwind" fn(Object, Object, Object) -> Object;
type Vectorcall = unsafe extern "C-unwind" fn(Object, *const Object, usize, Object) -> Object;
type Next = unsafe extern "C-unwind" fn(Object) -> Object;

static CALL: Call = PyObject_Call;
static VECTORCALL: Vectorcall = PyObject_Vectorcall;
static VECTORCALL_METHOD: Vectorcall = PyObject_VectorcallMethod;
static NEXT: Next = PyIter_Next;

/// A function that is called through a pointer of which the compiler does not know whither. Called by their names, those of
/// the interpreter would have no guard: PyO3 declares the same symbols as functions that never unwind, and of two
/// declarations of one symbol one wins.
fn opaque<F: Copy>(function: &'static F) -> F {
    // SAFETY: a reference is valid for reads, and nobody writes to a static.
    unsafe { ptr::read_volatile(function) }
}

/// Stops the thread for good when it is dropped.
struct Stops;

impl Drop for Stops {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// What `call` gives, a new reference or null; if the thread is ended within it, it stops here.
fn guarded(call: impl FnOnce() -> Object) -> Object {
    let stops = Stops;
    let result = call();
    std::mem::forget(stops);
    result
}

/// What a call gave: its result, or the exception that is set.
fn result(py: Python<'_>, result: Object) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: every caller passes on what a function of the interpreter's gave just now, on this attached thread: a new
    // reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}

/// `callable(*args, **kwargs)`.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kwargs = kwargs.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: all are references to live objects that the caller holds, a tuple and a dict or null where those are asked
    // for, and the thread is attached.
    let called = guarded(|| unsafe { opaque(&CALL)(callable.as_ptr(), args.as_ptr(), kwargs) });
    result(callable.py(), called)
}

/// `callable()`.
pub(crate) fn call0<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the callable is live, no argument is read, and the thread is attached.
    let called = guarded(|| unsafe { opaque(&VECTORCALL)(callable.as_ptr(), ptr::null(), 0, ptr::null_mut()) });
    result(callable.py(), called)
}

/// `callable(arg)`.
pub(crate) fn call1<'py>(callable: &Bound<'py, PyAny>, arg: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // The place before it is for the receiver, if the callable is a bound method.
    let mut args = [ptr::null_mut(), arg.as_ptr()];
    let nargsf = 1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    // SAFETY: callable and argument are live, there is the one argument that is announced, and before it a place that may be
    // written, as the flag says; and the thread is attached.
    let called = guarded(|| unsafe {
        opaque(&VECTORCALL)(callable.as_ptr(), args.as_mut_ptr().add(1), nargsf, ptr::null_mut())
    });
    result(callable.py(), called)
}

/// `object.name(...)`: `args` are the object and the arguments.
pub(crate) fn method<'py, const N: usize>(
    name: &Bound<'py, PyString>,
    args: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    const { assert!(N > 0, "the first is the object") };
    let pointers = args.map(Bound::as_ptr);
    // SAFETY: the name is a string, name and arguments are live, there are as many as announced, the first of which is the
    // object; and the thread is attached.
    let called =
        guarded(|| unsafe { opaque(&VECTORCALL_METHOD)(name.as_ptr(), pointers.as_ptr(), N, ptr::null_mut()) });
    result(name.py(), called)
}

/// `next(iterator)`, or `None` at the end.
pub(crate) fn next<'py>(iterator: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    // SAFETY: it is a live iterator, and the thread is attached.
    let item = guarded(|| unsafe { opaque(&NEXT)(iterator.as_ptr()) });
    match item.is_null() {
        true => PyErr::take(iterator.py()).map(Err),
        false => Some(result(iterator.py(), item)),
    }
}
