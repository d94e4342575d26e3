//! Waiting for several descriptors at once.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::{bell, clock};

/// Why [`wait`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ready {
    /// The positions of the descriptors that can be read, or whose other end is gone.
    Some(Vec<usize>),
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran on this thread.
    Interrupted,
}

/// Waits until one of `fds` can be read, `deadline` (`None`: never) passes or a signal comes.
///
/// # Errors
/// One of them is not open any more: something in this process closed what is not its own. To wait on would be to spin.
pub fn wait(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Ready> {
    let timeout = match deadline {
        None => None,
        Some(at) => match clock::until(at) {
            Some(left) => Some(left),
            None => Some(rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 }),
        },
    };
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(0) => Ok(Ready::TimedOut),
        Ok(_) if polled.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) => Err(bell::closed()),
        Ok(_) => Ok(Ready::Some(
            polled
                .iter()
                .enumerate()
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(at, _)| at)
                .collect(),
        )),
        Err(Errno::INTR) => Ok(Ready::Interrupted),
        Err(errno) => Err(errno.into()),
    }
}
