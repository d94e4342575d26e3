//! One-way channels to this process: what others write into them is read here without waiting.
//!
//! A [`stream`] carries bytes, as standard output does; a [`messages`] channel carries whole messages, which any number of
//! processes may send at once. Writers wait when it is full. Both ends are closed in programs that are executed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::fd::Fd;

/// What one read of a stream finds at most, if nobody has made it larger; and a message that is longer is cut to it.
pub const CAPACITY: usize = 64 * 1024;

/// The end that is read.
#[derive(Debug)]
pub struct Reader(Fd);

/// What [`Reader::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Got {
    /// So many bytes: all that a stream had (if there was room), or one message.
    Some(usize),
    /// Nothing is there now.
    Empty,
    /// Nothing is there, and nobody is left who could write. Of messages also: one that is empty.
    Over,
}

/// A stream of bytes, and the end to write into.
pub fn stream() -> io::Result<(Reader, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Reader::over(read)?, write))
}

/// A channel of messages, and the end to send into.
pub fn messages() -> io::Result<(Reader, OwnedFd)> {
    let (read, write) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Reader::over(read)?, write))
}

impl Reader {
    fn over(fd: OwnedFd) -> io::Result<Self> {
        // Of this end alone: those who write may wait.
        rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
        Ok(Self(fd.into()))
    }

    /// Takes what is there, into a buffer of [`CAPACITY`].
    pub fn read(&self, into: &mut [u8]) -> Got {
        loop {
            match rustix::io::read(&self.0, &mut *into) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Got::Empty,
                Ok(0) | Err(_) => return Got::Over,
                Ok(count) => return Got::Some(count),
            }
        }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_as_far_as_it_is_there_and_ends_with_its_last_writer() {
        let (reader, write) = stream().unwrap();
        let mut bytes = vec![0; CAPACITY];
        assert_eq!(reader.read(&mut bytes), Got::Empty);
        rustix::io::write(&write, b"one ").unwrap();
        rustix::io::write(&write, b"two").unwrap();
        assert_eq!(reader.read(&mut bytes), Got::Some(7));
        assert_eq!(&bytes[..7], b"one two");
        let other = write.try_clone().unwrap();
        drop(write);
        assert_eq!(reader.read(&mut bytes), Got::Empty);
        drop(other);
        assert_eq!(reader.read(&mut bytes), Got::Over);
    }

    #[test]
    fn messages_come_one_by_one() {
        let (reader, write) = messages().unwrap();
        let mut bytes = vec![0; CAPACITY];
        rustix::io::write(&write, b"one").unwrap();
        rustix::io::write(&write, b"four").unwrap();
        assert_eq!(reader.read(&mut bytes), Got::Some(3));
        assert_eq!(reader.read(&mut bytes), Got::Some(4));
        assert_eq!(reader.read(&mut bytes), Got::Empty);
        drop(write);
        assert_eq!(reader.read(&mut bytes), Got::Over);
    }
}
