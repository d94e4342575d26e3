//! Large buffers between Python objects and blobs: the one file of the binding that reads and lends memory.
//!
//! [`Source`] is a buffer of Python's that is copied into a blob; [`Blob`] is a blob that Python reads as a buffer:
//! `pickle.loads(data, buffers=[blob, ...])` makes arrays that lie in it. Used where messages are encoded and decoded;
//! what a blob's life is, `fanmap-shm`'s `blob` says.
//!
//! # Why the copy is sound without the interpreter's lock
//! An exported buffer stays where it is, with the length it has, until it is released: its exporter refuses to resize
//! or free it. What the exporter does not refuse is writing to it, by any thread that the interpreter runs, and by C
//! code even while the lock is held. So the lock would not make the bytes stand still, and here nobody makes a
//! reference to them: the copy is the system's or `memcpy`'s. Who writes to an array while he sends it gets some of the
//! bytes old and some new, as everywhere in Python.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};

use fanmap::bytes::{Access, Attached, BlobRef, Blobs, Grant, Mapping, Memory, Parcel};

/// Copies larger than this are made detached from the interpreter. A longer copy would make other threads wait (a MiB
/// takes 30 us, or 350 into fresh pages); after a shorter one this thread would itself wait, up to the 5 ms that a busy
/// thread keeps the interpreter for.
const DETACHED: usize = 1 << 20;

/// The bytes of a Python object, held for one copy.
pub(crate) struct Source(PyUntypedBuffer);

impl Source {
    /// The buffer of a `PickleBuffer`, `bytes`, `bytearray`, array.
    ///
    /// # Errors
    /// It has none, or one with gaps: those can only be sent in band.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.is_c_contiguous() || buffer.is_fortran_contiguous() {
            Ok(Self(buffer))
        } else {
            Err(PyBufferError::new_err("the buffer is not contiguous"))
        }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Whether what is made of it must not be written to.
    pub(crate) fn readonly(&self) -> bool {
        self.0.readonly()
    }

    /// Copies the bytes into a blob.
    pub(crate) fn write(&self, py: Python<'_>, blobs: &Blobs, grant: Grant) -> io::Result<BlobRef> {
        // SAFETY: the buffer is held by `self`, so its `len` bytes stay mapped (see the head of this file).
        self.with(py, || unsafe { blobs.write_from(grant, self.start(), self.len()) })
    }

    /// Whether a blob has the same bytes.
    pub(crate) fn equals(&self, py: Python<'_>, mapping: &Mapping) -> bool {
        // SAFETY: as in `write`.
        self.with(py, || unsafe { mapping.equals(self.start(), self.len()) })
    }

    /// The first byte: a contiguous buffer has no negative strides, so it begins where it points.
    fn start(&self) -> *const u8 {
        self.0.buf_ptr().cast_const().cast()
    }

    fn with<R: Send>(&self, py: Python<'_>, act: impl FnOnce() -> R + Send) -> R {
        if self.len() > DETACHED { py.detach(act) } else { act() }
    }
}

/// Copies buffers (a list of `PickleBuffer`s) into blobs. `None` if there is no memory for one of them: then they have to
/// travel in band.
pub(crate) fn attach(memory: &Arc<Memory>, buffers: &Bound<'_, PyList>) -> PyResult<Option<Vec<Attached>>> {
    let py = buffers.py();
    let mut attached = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let source = Source::new(&buffer)?;
        let write = |blobs: &Blobs, grant| source.write(py, blobs, grant);
        match memory.attach(source.len(), source.readonly(), write) {
            Some(blob) => attached.push(blob),
            None => return Ok(None),
        }
    }
    Ok(Some(attached))
}

/// Whether these blobs hold what the buffers do now.
pub(crate) fn are_equal(blobs: &[Attached], buffers: &Bound<'_, PyList>) -> PyResult<bool> {
    if blobs.len() != buffers.len() {
        return Ok(false);
    }
    for (blob, buffer) in blobs.iter().zip(buffers) {
        let source = Source::new(&buffer)?;
        let same = source.len() == blob.len() && source.readonly() == blob.readonly();
        // Where it cannot be mapped it is as good as different.
        let held = same.then(|| blob.map().ok()).flatten();
        if !held.is_some_and(|mapping| source.equals(buffers.py(), &mapping)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The blobs of a message as a list of buffers; copies of those that cannot be mapped because too many are. What is not [`Access::Shared`] is seen by others too, and changed for this
/// process alone.
pub(crate) fn lend(py: Python<'_>, parcels: Vec<Parcel>, access: Access) -> PyResult<Bound<'_, PyList>> {
    let buffers = PyList::empty(py);
    for mut parcel in parcels {
        let readonly = parcel.readonly();
        match parcel.open(access) {
            Ok((mapping, returns)) => {
                let free: Free = Box::new(move |blob| returns.give(blob));
                buffers.append(Blob::new(mapping, readonly, free))?;
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => buffers.append(copied(py, &parcel)?)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(buffers)
}

/// The bytes of a blob in memory of the interpreter's: too many are mapped already.
fn copied<'py>(py: Python<'py>, parcel: &Parcel) -> PyResult<Bound<'py, PyAny>> {
    let read = |into: &mut [u8]| Ok(parcel.read(into)?);
    Ok(match parcel.readonly() {
        true => PyBytes::new_with(py, parcel.len(), read)?.into_any(),
        false => PyByteArray::new_with(py, parcel.len(), read)?.into_any(),
    })
}

/// Told when the range of a blob that is gone from Python may be used again ([`Mapping::close`]), on whatever thread
/// dropped the last reference to it or to a later one: it must neither wait nor call Python.
pub(crate) type Free = Box<dyn FnOnce(BlobRef) + Send + Sync>;

/// A blob as a buffer of bytes, aligned to a page.
///
/// Whatever views it holds a reference to it (an array's base, a memoryview), so it goes with the last of them.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Blob {
    /// Both are `Some` until dropped, and nothing changes before: no lock is needed.
    mapping: Option<Mapping>,
    free: Option<Free>,
    readonly: bool,
}

impl Blob {
    /// Lends `mapping` to Python. If not `readonly` it must be this blob's alone: Python code writes to it.
    pub(crate) fn new(mapping: Mapping, readonly: bool, free: Free) -> Self {
        Self {
            mapping: Some(mapping),
            free: Some(free),
            readonly,
        }
    }
}

#[pymethods]
impl Blob {
    fn __len__(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::len)
    }

    /// There is no `__releasebuffer__`: a view owns nothing but its reference.
    ///
    /// # Safety
    /// `view` is a `Py_buffer` to fill in, or null: the interpreter calls this.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let blob = slf.get();
        let Some(mapping) = &blob.mapping else {
            return Err(PyBufferError::new_err("the blob is gone"));
        };
        let len = isize::try_from(mapping.len())?;
        let readonly = c_int::from(blob.readonly);
        // SAFETY: `view` is the interpreter's. The bytes are mapped readable and writable until `blob` is dropped,
        // which the reference that the view gets to it prevents. It fails, with an exception set, if `view` is null or
        // if `flags` ask for more than a readonly buffer gives.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), mapping.as_ptr().cast(), len, readonly, flags) };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let (Some(mapping), Some(free)) = (self.mapping.take(), self.free.take()) {
            mapping.close(free);
        }
    }
}
