//! A worker process, and the template that forks it.

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use fanmap::bytes::{self, Handler, Left, Request};

use crate::convert;

/// An invitation to join a pool as a worker.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Invitation {
    /// Taken by `serve`.
    invitation: Mutex<Option<bytes::Invitation>>,
    key: u64,
    parent: u32,
}

/// The template's side of its control socket.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Template {
    /// Used by the template's one thread.
    template: Mutex<bytes::Template>,
}

impl Invitation {
    fn wrap(invitation: bytes::Invitation) -> Self {
        Self {
            key: invitation.key(),
            parent: invitation.parent(),
            invitation: Mutex::new(Some(invitation)),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut bytes::Invitation) -> R) -> PyResult<R> {
        match &mut *self.invitation.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(invitation) => Ok(act(invitation)),
            None => Err(PyRuntimeError::new_err("the invitation was followed already")),
        }
    }
}

#[pymethods]
impl Invitation {
    /// Which worker it is for.
    #[getter]
    fn key(&self) -> u64 {
        self.key
    }

    /// The process that supervises the worker.
    #[getter]
    fn parent(&self) -> u32 {
        self.parent
    }

    /// The descriptors that came along, now the caller's own to close.
    fn take_extra(&self) -> PyResult<Vec<i32>> {
        self.with(|invitation| {
            invitation
                .take_extra()
                .into_iter()
                .map(IntoRawFd::into_raw_fd)
                .collect()
        })
    }

    /// Binds this process's life to the template's; false if that has ended.
    fn bind_to(&self, template: u32) -> PyResult<bool> {
        self.with(|invitation| invitation.bind_to(template))?
            .map_err(|error| convert::error(&error))
    }
}

#[pymethods]
impl Template {
    /// The template in a program that `parent` started.
    #[staticmethod]
    fn adopt(parent: u32) -> PyResult<Self> {
        Self::wrap(bytes::Template::adopt(parent))
    }

    /// The template in a child that `parent` forked, with the socket `fd`.
    #[staticmethod]
    fn over(fd: i32, parent: u32) -> PyResult<Self> {
        Self::wrap(bytes::Template::over(bytes::Socket::from_fd(adopt(fd)), parent))
    }

    /// Waits for the next invitation to fork a worker for; `None` when it is time to leave.
    fn wait(&self, py: Python<'_>) -> PyResult<Option<Invitation>> {
        loop {
            let request = py.detach(|| self.template.lock().unwrap_or_else(PoisonError::into_inner).wait());
            match request.map_err(|error| convert::error(&error))? {
                Request::Fork(invitation) => return Ok(Some(Invitation::wrap(invitation))),
                Request::Interrupted => py.check_signals()?,
                Request::Leave => return Ok(None),
            }
        }
    }

    /// Tells the parent that the child `pid` follows the invitation `key`, or that forking failed with `errno`.
    #[pyo3(signature = (key, *, pid=None, errno=0))]
    fn forked(&self, key: u64, pid: Option<u32>, errno: i32) -> PyResult<()> {
        let mut template = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        template
            .forked(key, pid.ok_or(errno))
            .map_err(|error| convert::error(&error))
    }
}

impl Template {
    fn wrap(template: Result<bytes::Template, fanmap::Error>) -> PyResult<Self> {
        let template = template.map_err(|error| convert::error(&error))?;
        Ok(Self {
            template: Mutex::new(template),
        })
    }
}

/// In a program that a pool started as a worker: the invitation, or `None` if the parent has ended.
#[pyfunction]
pub(crate) fn accept(py: Python<'_>) -> PyResult<Option<Invitation>> {
    let invitation = py.detach(bytes::accept).map_err(|error| convert::error(&error))?;
    Ok(invitation.map(Invitation::wrap))
}

/// Serves the pool until told to leave: true. False if this process was given up and is about to be killed.
///
/// `handler` has `setup(body) -> bytes | None` (what it could not do), `define(id, body)`, `forget(id)` and
/// `call(id, argument) -> (bool, bytes)`: whether it returned, and what.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, invitation: &Invitation, handler: Bound<'_, PyAny>) -> PyResult<bool> {
    let taken = invitation
        .invitation
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let invitation = taken.ok_or_else(|| PyRuntimeError::new_err("the invitation was followed already"))?;
    let left = bytes::serve(invitation, &mut PyHandler { py, handler }).map_err(|error| convert::error(&error))?;
    Ok(left != Left::Condemned)
}

/// Makes standard input an empty file.
#[pyfunction]
pub(crate) fn empty_stdin() -> PyResult<()> {
    Ok(bytes::empty_stdin()?)
}

/// In a child that the user's program forked: lets go of every descriptor of the engine's.
#[pyfunction]
pub(crate) fn forsake_all() -> PyResult<()> {
    Ok(bytes::forsake_all()?)
}

/// A connected pair of control sockets, as descriptors.
#[pyfunction]
pub(crate) fn control_pair() -> PyResult<(i32, i32)> {
    let (one, other) = bytes::Socket::pair()?;
    Ok((one.into_fd().into_raw_fd(), other.into_fd().into_raw_fd()))
}

/// A Python object as a handler, on the thread that is attached for its whole life.
struct PyHandler<'py> {
    py: Python<'py>,
    handler: Bound<'py, PyAny>,
}

impl<'py> PyHandler<'py> {
    /// What a method of the handler gives. It catches what tasks raise itself; anything else is an error in the worker's
    /// own code, which it cannot survive: the parent sees it end.
    fn must<R>(&self, result: PyResult<R>) -> R {
        result.unwrap_or_else(|error| {
            error.print(self.py);
            std::process::exit(1);
        })
    }

    fn bytes(&self, body: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(self.py, body)
    }
}

impl Handler for PyHandler<'_> {
    fn setup(&mut self, body: Vec<u8>) -> Result<(), Vec<u8>> {
        let refusal = self.handler.call_method1("setup", (self.bytes(&body),));
        match self.must(refusal.and_then(|refusal| refusal.extract::<Option<Vec<u8>>>())) {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }

    fn define(&mut self, function: u64, body: Vec<u8>) {
        self.must(
            self.handler
                .call_method1("define", (function, self.bytes(&body)))
                .map(drop),
        );
    }

    fn forget(&mut self, function: u64) {
        self.must(self.handler.call_method1("forget", (function,)).map(drop));
    }

    fn call(&mut self, function: u64, argument: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        let answer = self.handler.call_method1("call", (function, self.bytes(&argument)));
        drop(argument);
        let answer = answer.and_then(|answer| {
            let (returned, body): (bool, Bound<'_, PyBytes>) = answer.extract()?;
            Ok((returned, body.as_bytes().to_vec()))
        });
        match self.must(answer) {
            (true, value) => Ok(value),
            (false, raised) => Err(raised),
        }
    }

    fn sleep(&mut self, wait: &mut (dyn FnMut() + Send)) {
        self.py.detach(wait);
    }

    fn interrupted(&mut self) {
        if let Err(error) = self.py.check_signals() {
            // A handler that raises between tasks has nobody to raise to; SystemExit is a wish that is honoured.
            if error.is_instance_of::<pyo3::exceptions::PySystemExit>(self.py) {
                self.must::<()>(Err(error));
            } else {
                error.write_unraisable(self.py, None);
            }
        }
    }
}

/// Takes over a descriptor that the package hands in and forgets.
#[allow(unsafe_code)]
pub(crate) fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the package passes descriptors that `control_pair` made for this purpose and uses them no more.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A copy of a descriptor that the package keeps.
#[allow(unsafe_code)]
pub(crate) fn duplicate(fd: i32) -> PyResult<OwnedFd> {
    // SAFETY: the package keeps the descriptor open during the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(borrowed.try_clone_to_owned()?)
}
