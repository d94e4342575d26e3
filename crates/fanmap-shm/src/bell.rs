//! A doorbell: an eventfd that one side rings and the other waits for, through [`crate::poll`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::fd::Fd;

/// A doorbell. It counts rings; [`Bell::hush`] takes them all.
#[derive(Debug)]
pub struct Bell(Fd);

impl Bell {
    /// A silent bell. Its descriptor is closed in programs that are executed.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(fd.into()))
    }

    /// The bell behind a descriptor that another process passed.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd.into())
    }

    /// Rings.
    pub fn ring(&self) {
        let _ = self.try_ring();
    }

    /// Rings, for who would wait for ever if nobody heard it. A bell whose counter is full is ringing already.
    ///
    /// # Errors
    /// It cannot be rung, for something in this process has closed its descriptor.
    pub fn try_ring(&self) -> io::Result<()> {
        loop {
            match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(closed()),
            }
        }
    }

    /// Takes all rings: the bell is silent until the next one.
    pub fn hush(&self) {
        loop {
            match rustix::io::read(&self.0, &mut [0; 8]) {
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// What is said where a descriptor of the engine's was closed by something else.
pub(crate) fn closed() -> io::Error {
    io::Error::other("the program has closed a file descriptor that is fanmap's own")
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
