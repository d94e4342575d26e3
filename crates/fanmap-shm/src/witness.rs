//! Whether a fork of this process has ended, without knowing who it is.
//!
//! A child inherits a page of shared memory, and has it until it ends or executes another program, whatever becomes of
//! its descriptors. The system refuses to seal a file against writing while somebody has it mapped so; so the attempt
//! tells whether anybody is left. The child's own children count too, as they should.

use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::fd::Fd;
use crate::window::{Access, Window};

/// Who tells whether anybody still has the page.
#[derive(Debug)]
pub(crate) struct Witness(Option<Fd>);

impl Witness {
    /// Called before a fork: the witness, and the page to be dropped after it, in the parent.
    ///
    /// When the system has no descriptor or memory for it, the witness never is alone.
    pub(crate) fn call() -> (Self, Option<Window>) {
        match Self::with_page() {
            Ok((fd, page)) => (Self(Some(fd)), Some(page)),
            Err(_) => (Self(None), None),
        }
    }

    fn with_page() -> std::io::Result<(Fd, Window)> {
        let fd = rustix::fs::memfd_create("fanmap-fork", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // The smallest mapping there is.
        let len = rustix::param::page_size();
        rustix::fs::ftruncate(&fd, len as u64)?;
        let page = Window::map(fd.as_fd(), 0, len, Access::Shared)?;
        page.let_inherit()?;
        Ok((fd.into(), page))
    }

    /// Whether nobody has the page any more: then nobody ever will.
    pub(crate) fn is_alone(&self) -> bool {
        let Self(Some(fd)) = self else {
            return false;
        };
        rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_alone_when_the_page_is_gone() {
        let (witness, page) = Witness::call();
        assert!(page.is_some() && !witness.is_alone());
        drop(page);
        assert!(witness.is_alone() && witness.is_alone());
    }
}
