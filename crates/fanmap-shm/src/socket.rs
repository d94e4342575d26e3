//! The control socket: whole messages, each with a few descriptors, between a parent and a process it started.
//!
//! A connected pair of SEQPACKET sockets: a message arrives whole or not at all, and the end of the stream tells that the
//! other process is gone (or has closed its end).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::fd::Fd;

/// The most descriptors that one message carries.
pub const MAX_FDS: usize = 64;

/// The longest message in bytes.
pub const MAX_BYTES: usize = 4096;

/// One end of a control socket.
#[derive(Debug)]
pub struct Socket(Fd);

/// What [`Socket::receive`] found.
#[derive(Debug)]
#[must_use]
pub enum Received {
    /// A message and its descriptors.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// A message whose descriptors are lost: there was no room for all of them in this process's table of open files.
    Stripped(Vec<u8>),
    /// Nothing is there now.
    Empty,
    /// The other end is gone.
    Closed,
}

impl Socket {
    /// A connected pair. Both ends are closed in programs that are executed, unless made a standard stream.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one.into()), Self(other.into())))
    }

    /// The end behind a descriptor that was inherited.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd.into())
    }

    /// The descriptor, to hand it to a process that is being started.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0.into_owned()
    }

    /// Sends one message with descriptors (copies of them: the caller keeps its own).
    ///
    /// # Errors
    /// More than [`MAX_FDS`] descriptors or [`MAX_BYTES`] bytes, or a peer that is gone (`EPIPE`).
    pub fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > MAX_FDS || message.len() > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a control message is too long",
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many descriptors for a control message",
            ));
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Takes the next message if there is one; never waits (wait with [`crate::poll`]).
    pub fn receive(&self) -> io::Result<Received> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Empty),
                Err(Errno::CONNRESET) => return Ok(Received::Closed),
                Err(errno) => return Err(errno.into()),
                Ok(message) => break message,
            }
        };
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a control message is longer than any that is sent",
            ));
        }
        // Those that did come are closed with the buffer, but for what is taken out of it.
        if message.flags.contains(ReturnFlags::CTRUNC) {
            bytes.truncate(message.bytes);
            return Ok(Received::Stripped(bytes));
        }
        let mut fds = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if message.bytes == 0 {
            return Ok(Received::Closed);
        }
        bytes.truncate(message.bytes);
        Ok(Received::Message(bytes, fds))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bell::Bell;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (one, other) = Socket::pair().unwrap();
        assert!(matches!(other.receive().unwrap(), Received::Empty));
        let bell = Bell::new().unwrap();
        one.send(b"take this", &[bell.as_fd()]).unwrap();
        one.send(b"and this", &[]).unwrap();
        let Received::Message(bytes, fds) = other.receive().unwrap() else {
            panic!("no message")
        };
        assert_eq!((bytes.as_slice(), fds.len()), (b"take this".as_slice(), 1));
        let Received::Message(bytes, fds) = other.receive().unwrap() else {
            panic!("no message")
        };
        assert_eq!((bytes.as_slice(), fds.len()), (b"and this".as_slice(), 0));
        drop(one);
        assert!(matches!(other.receive().unwrap(), Received::Closed));
    }
}
