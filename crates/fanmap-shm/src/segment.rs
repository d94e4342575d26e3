//! A piece of anonymous shared memory: a memfd, sealed so that nobody can shrink or grow it.
//!
//! It has no name in any file system, so nothing can be left behind and nobody else can attach; `/dev/shm` and its size
//! do not matter. The seals matter to safety: a peer that shrank the file would make our next access a SIGBUS.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::fd::Fd;

/// Nobody can change the size, nor these seals.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Shared memory, mapped readable and writable. The mapping lives as long as the value.
#[derive(Debug)]
pub struct Segment {
    map: MmapRaw,
    fd: Fd,
}

impl Segment {
    /// A fresh segment of `len` zero bytes. Memory is taken page by page as it is touched.
    pub fn create(len: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("fanmap", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Self::map(fd, len)
    }

    /// Maps the segment that another process created and passed. Refuses one that is not sealed or not of `len` bytes.
    pub fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if !rustix::fs::fcntl_get_seals(&fd)?.contains(SEALS) {
            return refuse("a shared-memory segment is not sealed against resizing");
        }
        if rustix::fs::fstat(&fd)?.st_size != len as i64 {
            return refuse("a shared-memory segment has the wrong size");
        }
        Self::map(fd, len)
    }

    fn map(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let file = File::from(fd);
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        // A child that the user's program forks must not share the rings.
        map.advise(Advice::DontFork)?;
        let fd = OwnedFd::from(file).into();
        Ok(Self { map, fd })
    }

    /// The first byte. It is page-aligned.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cannot_be_resized() {
        let segment = Segment::create(4096).unwrap();
        assert!(rustix::fs::ftruncate(&segment, 0).is_err());
        assert!(rustix::fs::ftruncate(&segment, 8192).is_err());
    }

    #[test]
    fn an_unsealed_or_misfit_segment_is_refused() {
        let loose = rustix::fs::memfd_create("loose", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&loose, 4096).unwrap();
        assert!(
            Segment::open(loose, 4096)
                .unwrap_err()
                .to_string()
                .contains("not sealed")
        );
        let segment = Segment::create(4096).unwrap();
        let copy = segment.as_fd().try_clone_to_owned().unwrap();
        assert!(
            Segment::open(copy, 8192)
                .unwrap_err()
                .to_string()
                .contains("wrong size")
        );
    }
}
