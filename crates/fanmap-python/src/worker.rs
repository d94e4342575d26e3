//! A worker process, and the template that forks it.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use fanmap::Error;
use fanmap::bytes::{self, Access, Chunk, Handler, Left, Load, Memory, Message, Request};

use crate::buffer;
use crate::convert;
use crate::numbers::{self, Packed};
use crate::stash::is_atom;

/// An invitation to join a pool as a worker.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Invitation {
    /// Taken by `serve`.
    invitation: Mutex<Option<bytes::Invitation>>,
    key: u64,
    index: u32,
    parent: u32,
}

/// The template's side of its control socket.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Template {
    /// Used by the template's one thread; `None` in its workers.
    template: Mutex<Option<bytes::Template>>,
}

impl Invitation {
    fn wrap(invitation: bytes::Invitation) -> Self {
        Self {
            key: invitation.key(),
            index: invitation.index(),
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

    /// The worker's number among those of its pool.
    #[getter]
    fn index(&self) -> u32 {
        self.index
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
    /// The template in a program that `parent` started; `None` if that has ended.
    #[staticmethod]
    fn adopt(parent: u32) -> PyResult<Option<Self>> {
        Self::wrap(bytes::Template::adopt(parent))
    }

    /// The template in a child that `parent` forked, with the socket `fd`; `None` if that has ended. `bound` if the thread
    /// that forked it ends with its process only.
    #[staticmethod]
    fn over(fd: i32, parent: u32, bound: bool) -> PyResult<Option<Self>> {
        Self::wrap(bytes::Template::over(bytes::Socket::from_fd(adopt(fd)), parent, bound))
    }

    /// Waits for the next invitation to fork a worker for; `None` when it is time to leave.
    fn wait(&self, py: Python<'_>) -> PyResult<Option<Invitation>> {
        loop {
            let request = py.detach(|| self.with(bytes::Template::wait))?;
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
        self.with(|template| template.forked(key, pid.ok_or(errno)))?
            .map_err(|error| convert::error(&error))
    }

    /// In a worker that was just forked: lets go of the socket, and of what watches the other processes.
    fn leave(&self) {
        drop(self.template.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Template {
    fn with<R>(&self, act: impl FnOnce(&mut bytes::Template) -> R) -> PyResult<R> {
        match &mut *self.template.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(template) => Ok(act(template)),
            None => Err(PyRuntimeError::new_err("a worker is no template")),
        }
    }

    fn wrap(template: Result<Option<bytes::Template>, fanmap::Error>) -> PyResult<Option<Self>> {
        let template = template.map_err(|error| convert::error(&error))?;
        Ok(template.map(|template| Self {
            template: Mutex::new(Some(template)),
        }))
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
/// `handler` has `setup(body) -> bytes | None` (what it could not do), `behave(behavior)`,
/// `define(id, body, buffers)`, `forget(id)`,
/// `function(id) -> (how, function, again)` (the exceptions for which it is tried again, or `None`) and
/// `argument(body, buffers)`, which raise what is to be the task's error,
/// `result(value, buffers) -> bytes`, which may and puts large buffers into the list `buffers` unless that is None,
/// `raised(error) -> bytes`, which does not, and `tidy()`, which lets go of what is not needed.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, invitation: &Invitation, handler: Bound<'_, PyAny>) -> PyResult<bool> {
    let taken = invitation
        .invitation
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let invitation = taken.ok_or_else(|| PyRuntimeError::new_err("the invitation was followed already"))?;
    let left = bytes::serve(invitation, &mut PyHandler::new(py, handler)?).map_err(|error| convert::error(&error))?;
    Ok(left != Left::Condemned)
}

/// Makes standard input an empty file.
#[pyfunction]
pub(crate) fn empty_stdin() -> PyResult<()> {
    Ok(bytes::empty_stdin()?)
}

/// Has what C code prints written line by line.
#[pyfunction]
pub(crate) fn line_buffer_stdout() {
    bytes::line_buffer_stdout();
}

/// In a child that the user's program forked: lets go of every descriptor of the engine's.
#[pyfunction]
pub(crate) fn forsake_all() -> PyResult<()> {
    Ok(bytes::forsake_all()?)
}

/// Before the user's program forks: what it holds of shared memory is its own from here on, and the child's.
#[pyfunction]
pub(crate) fn before_fork() {
    bytes::before_fork();
}

/// After that, in the parent.
#[pyfunction]
pub(crate) fn after_fork() {
    bytes::after_fork();
}

/// A connected pair of control sockets, as descriptors.
#[pyfunction]
pub(crate) fn control_pair() -> PyResult<(i32, i32)> {
    let (one, other) = bytes::Socket::pair()?;
    Ok((one.into_fd().into_raw_fd(), other.into_fd().into_raw_fd()))
}

/// How a function is to be called on what was decoded.
#[derive(Clone, Copy)]
enum How {
    /// With it as the only argument.
    One,
    /// With the tuple's elements.
    Star,
    /// It is a pair of positional and named arguments.
    Named,
}

/// A function that was decoded.
#[derive(Clone)]
struct Known<'py> {
    how: How,
    function: Bound<'py, PyAny>,
    /// The exceptions for which a task is tried again.
    again: Option<Bound<'py, PyAny>>,
}

/// What a task raised, or what went wrong around it; and whether it is worth another try.
struct Failed {
    error: PyErr,
    again: bool,
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Self { error, again: false }
    }
}

impl<'py> Known<'py> {
    fn call(&self, argument: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Failed> {
        self.try_call(argument).map_err(|error| {
            let is_one = |kinds: &Bound<'py, PyAny>| error.matches(kinds.py(), kinds).unwrap_or(false);
            let again = self.again.as_ref().is_some_and(is_one);
            Failed { error, again }
        })
    }

    fn try_call(&self, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.how {
            How::One => self.function.call1((argument,)),
            How::Star => self.function.call1(argument.cast::<PyTuple>()?),
            How::Named => {
                let (args, kwargs): (Bound<'_, PyTuple>, Bound<'_, PyDict>) = argument.extract()?;
                self.function.call(args, Some(&kwargs))
            }
        }
    }
}

/// The arguments of a run of tasks.
enum Arguments<'py> {
    Numbers(Packed),
    Pickled(Bound<'py, PyList>),
}

impl<'py> Arguments<'py> {
    fn get(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Numbers(numbers) => {
                let number = numbers.get(py, index);
                number.ok_or_else(|| PyIndexError::new_err("the run of numbers is shorter than it should be"))
            }
            Self::Pickled(list) => list.get_item(index),
        }
    }
}

/// A Python object as a handler, on the thread that is attached for its whole life.
struct PyHandler<'py> {
    py: Python<'py>,
    handler: Bound<'py, PyAny>,
    dumps: Bound<'py, PyAny>,
    /// Bytecode that does nothing: where the interpreter looks for signals, and for other threads that want its lock.
    breathe: Bound<'py, PyAny>,
    /// The functions that were called, decoded.
    functions: HashMap<u64, Known<'py>>,
    /// How the worker is to behave while each runs (the package's `_output` knows what that means), and how it does now.
    behaviors: HashMap<u64, Arc<[u8]>>,
    behavior: Option<Arc<[u8]>>,
    /// Those whose buffers could not be mapped, and why: an error of each of their tasks.
    unusable: HashMap<u64, PyErr>,
}

impl<'py> PyHandler<'py> {
    fn new(py: Python<'py>, handler: Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Self {
            py,
            handler,
            dumps: py.import("pickle")?.getattr("dumps")?,
            breathe: py.eval(c"lambda: None", None, None)?,
            functions: HashMap::new(),
            behaviors: HashMap::new(),
            behavior: None,
            unusable: HashMap::new(),
        })
    }

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

    /// The function, decoded when it is first called: what goes wrong then is its caller's.
    fn function(&mut self, id: u64) -> PyResult<Known<'py>> {
        if let Some(known) = self.functions.get(&id) {
            return Ok(known.clone());
        }
        if let Some(error) = self.unusable.get(&id) {
            return Err(error.clone_ref(self.py));
        }
        let found = self.handler.call_method1("function", (id,))?;
        let (how, function, again): (Bound<'_, PyBytes>, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>) =
            found.extract()?;
        let how = match how.as_bytes() {
            b"1" => How::One,
            b"*" => How::Star,
            _ => How::Named,
        };
        let known = Known { how, function, again };
        self.functions.insert(id, known.clone());
        Ok(known)
    }

    /// Has the worker behave as a function's caller wants it.
    fn behave_for(&mut self, function: u64) {
        let wanted = self.behaviors.get(&function);
        if self.behavior.as_ref() == wanted {
            return;
        }
        if let Some(wanted) = wanted {
            let behaves = self.handler.call_method1("behave", (self.bytes(wanted),));
            self.must(behaves.map(drop));
            self.behavior = Some(Arc::clone(wanted));
        }
    }

    fn argument(&self, body: Message, chunk: &Chunk<'_>) -> PyResult<Bound<'py, PyAny>> {
        // Who is sent them again must find them as they were.
        let access = if chunk.is_kept() {
            Access::Private
        } else {
            Access::Shared
        };
        let buffers = buffer::lend(self.py, body.blobs, access)?;
        self.handler
            .call_method1(intern!(self.py, "argument"), (self.bytes(&body.bytes), buffers))
    }

    fn arguments(&self, body: Message, chunk: &Chunk<'_>) -> PyResult<Arguments<'py>> {
        match Packed::read(&body.bytes) {
            Some(numbers) => Ok(Arguments::Numbers(numbers)),
            None => Ok(Arguments::Pickled(self.argument(body, chunk)?.cast_into::<PyList>()?)),
        }
    }

    /// What a task that ended with a value sends; or what went wrong with encoding it.
    fn result(&self, value: &Bound<'py, PyAny>, memory: &Arc<Memory>) -> PyResult<Load> {
        let name = intern!(self.py, "result");
        let buffers = PyList::empty(self.py);
        let bytes = self.handler.call_method1(name, (value, &buffers))?;
        if !buffers.is_empty() {
            if let Some(blobs) = buffer::attach(memory, &buffers)? {
                let bytes = bytes.cast::<PyBytes>()?.as_bytes().to_vec();
                return Ok(Load { bytes, blobs });
            }
            // No memory for them: in band.
            let bytes = self.handler.call_method1(name, (value, self.py.None()))?;
            return Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec().into());
        }
        Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec().into())
    }

    fn raised(&self, error: PyErr) -> Vec<u8> {
        let error = error.into_value(self.py);
        let body = self.handler.call_method1(intern!(self.py, "raised"), (error,));
        let body = self.must(body);
        self.must(body.cast::<PyBytes>().map_err(PyErr::from))
            .as_bytes()
            .to_vec()
    }

    fn give(&mut self, result: Result<Load, Failed>, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        match result {
            Ok(value) => chunk.values(self, 1, value),
            Err(failed) => self.fail(failed, chunk),
        }
    }

    /// Gives what a task raised. If it ran out of memory that is limited, there is some again before that is encoded.
    fn fail(&mut self, Failed { error, again }: Failed, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        let outgrown = error.is_instance_of::<PyMemoryError>(self.py) && chunk.lift_limit();
        let body = self.raised(error);
        if outgrown {
            return chunk.outgrown(self, body);
        }
        chunk.raised(self, body, again)
    }

    /// Gives the values that were kept, all atoms, in one pickle.
    fn give_kept(&mut self, kept: &mut Vec<Bound<'py, PyAny>>, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        let values = std::mem::take(kept);
        if values.len() > 1 {
            let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
            if let Some(packed) = numbers::pack(values.iter().cloned()) {
                return chunk.values(self, count, packed);
            }
            let list = PyList::new(self.py, values);
            let body = list.and_then(|list| self.dumps.call1((list, PROTOCOL)));
            let body = self.must(body.and_then(|body| Ok(body.cast_into::<PyBytes>()?)));
            return chunk.values(self, count, body.as_bytes().to_vec());
        }
        for value in values {
            let result = self.result(&value, chunk.memory());
            self.give(result.map_err(Failed::from), chunk)?;
        }
        Ok(())
    }

    /// Fails the tasks of a chunk that cannot be called, the first of which was started.
    fn fail_all(&mut self, error: &PyErr, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        loop {
            chunk.ended();
            self.fail(error.clone_ref(self.py).into(), chunk)?;
            if chunk.start(self).is_none() {
                return Ok(());
            }
        }
    }

    /// Runs the one task that a body is for.
    fn run_one(&mut self, known: &Known<'py>, body: Message, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        let argument = self.argument(body, chunk).map_err(Failed::from);
        let value = argument.and_then(|argument| known.call(&argument));
        let result = value.and_then(|value| Ok(self.result(&value, chunk.memory())?));
        chunk.ended();
        self.give(result, chunk)
    }

    /// Runs those of a chunk, from the one at `next` on, which was started.
    fn run_many(
        &mut self,
        known: &Known<'py>,
        arguments: &Arguments<'py>,
        mut next: u32,
        chunk: &mut Chunk<'_>,
    ) -> Result<(), Error> {
        // Values of tasks that have ended: immutable atoms, to be encoded together.
        let mut kept = Vec::new();
        loop {
            let argument = arguments.get(self.py, next as usize).map_err(Failed::from);
            let value = argument.and_then(|argument| known.call(&argument));
            let due = chunk.ended();
            match value {
                Ok(value) if is_atom(&value) => {
                    kept.push(value);
                    if due {
                        self.give_kept(&mut kept, chunk)?;
                    }
                }
                Ok(value) => {
                    // Encoded before the next task runs, which may change it.
                    let result = self.result(&value, chunk.memory());
                    drop(value);
                    self.give_kept(&mut kept, chunk)?;
                    self.give(result.map_err(Failed::from), chunk)?;
                }
                Err(failed) => {
                    self.give_kept(&mut kept, chunk)?;
                    self.fail(failed, chunk)?;
                }
            }
            if due {
                let breathed = self.breathe.call0();
                self.heard(breathed.map(drop));
                chunk.start_clock();
            }
            match chunk.start(self) {
                Some(task) => next = task,
                None => return self.give_kept(&mut kept, chunk),
            }
        }
    }

    /// What a signal handler did between tasks. One that raises has nobody to raise to; SystemExit is a wish that is honoured.
    fn heard(&self, result: PyResult<()>) {
        if let Err(error) = result {
            if error.is_instance_of::<pyo3::exceptions::PySystemExit>(self.py) {
                self.must::<()>(Err(error));
            } else {
                error.write_unraisable(self.py, None);
            }
        }
    }
}

const PROTOCOL: u8 = 5;

impl Handler for PyHandler<'_> {
    fn setup(&mut self, body: Vec<u8>) -> Result<(), Vec<u8>> {
        let refusal = self.handler.call_method1("setup", (self.bytes(&body),));
        match self.must(refusal.and_then(|refusal| refusal.extract::<Option<Vec<u8>>>())) {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }

    fn define(&mut self, function: u64, body: Message) {
        // Others have the same blobs, and one that changes what it was given changes it for itself.
        let buffers = match buffer::lend(self.py, body.blobs, Access::Private) {
            Ok(buffers) => buffers,
            Err(error) => {
                self.unusable.insert(function, error);
                return;
            }
        };
        // The behavior's length and the behavior come first.
        let (length, rest) = body.bytes.split_at_checked(4).unwrap_or_default();
        let length = u32::from_ne_bytes(length.try_into().unwrap_or_default()) as usize;
        let (behavior, rest) = rest.split_at_checked(length).unwrap_or_default();
        self.behaviors.insert(function, Arc::from(behavior));
        let body = self.bytes(rest);
        let defined = self.handler.call_method1("define", (function, body, buffers));
        self.must(defined.map(drop));
    }

    fn forget(&mut self, function: u64) {
        self.functions.remove(&function);
        self.behaviors.remove(&function);
        self.unusable.remove(&function);
        self.must(self.handler.call_method1("forget", (function,)).map(drop));
    }

    fn run(&mut self, function: u64, body: Message, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        // Started before anything is decoded: who dies of that is not to be tried again and again.
        let Some(first) = chunk.start(self) else {
            return Ok(());
        };
        if !self.functions.contains_key(&function) {
            chunk.hold_clock();
        }
        self.behave_for(function);
        let known = match self.function(function) {
            Ok(known) => known,
            Err(error) => return self.fail_all(&error, chunk),
        };
        chunk.start_clock();
        if chunk.total() == 1 {
            return self.run_one(&known, body, chunk);
        }
        match self.arguments(body, chunk) {
            Ok(arguments) => self.run_many(&known, &arguments, first, chunk),
            Err(error) => self.fail_all(&error, chunk),
        }
    }

    fn sleep(&mut self, wait: &mut (dyn FnMut() + Send)) {
        self.py.detach(wait);
    }

    fn interrupted(&mut self) {
        self.heard(self.py.check_signals());
    }

    fn tidy(&mut self) {
        self.must(self.handler.call_method0("tidy").map(drop));
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
