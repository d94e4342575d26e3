//! A piece of a file, mapped; and windows kept for the next use of their place.
//!
//! [`crate::blob`] maps blobs by windows, never the whole of their memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// How many windows a side keeps. A new window costs 90 us of page faults a MiB when it is read, and more when it is
/// written, so fewer would make programs with many blobs in flight pay again; each is an entry in the process's table
/// of mappings, of which Linux gives 65,530 to all its libraries together, and is passed by when one is looked for.
const MAX_KEPT: usize = 256;

/// What becomes of writes through a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They change the blob. For whoever has it to himself.
    Shared,
    /// They are copied on write, page by page, and seen by this process alone. For blobs that several map.
    Private,
}

/// Part of a file, mapped readable and writable; unmapped when dropped.
///
/// Only the process that made it unmaps it: in a forked child a shared window is not there, and something else may be
/// in its place. What a child inherits of private ones it has until it ends.
#[derive(Debug)]
pub(crate) struct Window {
    start: NonNull<u8>,
    len: usize,
    process: u32,
}

// SAFETY: the value owns its mapping, which any thread may reach and unmap. It gives out raw pointers only.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `len` bytes from `offset`. A shared window is not there in a forked child, whose writes would be shared
    /// too.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, access: Access) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the system chooses touches no memory of anyone's.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection(), flags(access), fd, offset)? };
        let start = NonNull::new(start.cast()).expect("only a fixed mapping can be at address 0");
        let process = std::process::id();
        let window = Self { start, len, process };
        if access == Access::Shared {
            // SAFETY: it is the window's own mapping, and in this process the advice changes nothing.
            unsafe { rustix::mm::madvise(window.start.as_ptr().cast(), len, Advice::LinuxDontFork)? };
        }
        Ok(window)
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this is the process that made it, and not a fork of that.
    pub(crate) fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Lets a forked child have it, as it would not.
    pub(crate) fn let_inherit(&self) -> io::Result<()> {
        // SAFETY: it is the window's own mapping, and in this process the advice changes nothing.
        unsafe { rustix::mm::madvise(self.start().cast(), self.len, Advice::LinuxDoFork)? };
        Ok(())
    }

    /// Enters the pages that the file has into the process's table at one go. A hint: it may do nothing.
    pub(crate) fn populate(&self) {
        // SAFETY: it is the window's own mapping; the advice reads its pages and changes none.
        let _ = unsafe { rustix::mm::madvise(self.start().cast(), self.len, Advice::LinuxPopulateRead) };
    }
}

/// Makes the window of `len` bytes at `start` a private one, in place: it reads as before, and writes from now on are
/// this process's own, and after a fork either's own.
///
/// # Safety
/// At `start` are `len` bytes of a window on this `fd` at this `offset`, which stays mapped during the call.
pub(crate) unsafe fn make_private(start: *mut u8, len: usize, fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    let flags = flags(Access::Private) | MapFlags::FIXED;
    // SAFETY: the new mapping replaces just these bytes of a window, by the caller's promise, and the system replaces
    // it in one step for all threads. Its bytes are the same, for they are the file's and nobody had private ones.
    unsafe { rustix::mm::mmap(start.cast(), len, protection(), flags, fd, offset)? };
    Ok(())
}

fn protection() -> ProtFlags {
    ProtFlags::READ | ProtFlags::WRITE
}

fn flags(access: Access) -> MapFlags {
    match access {
        Access::Shared => MapFlags::SHARED,
        // Most of a private window is never written: nothing is set aside for all of it.
        Access::Private => MapFlags::PRIVATE | MapFlags::NORESERVE,
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        // SAFETY: the window's own mapping, made in this process and still in place; whoever got its address holds it.
        // Failing, which takes a full table of mappings, leaves it in place.
        let _ = unsafe { rustix::mm::munmap(self.start().cast(), self.len) };
    }
}

/// Shared windows that nobody uses now, by their offsets, the least recently used first.
#[derive(Debug, Default)]
pub(crate) struct Kept(VecDeque<(u64, Window)>);

impl Kept {
    /// Takes the window at `offset`.
    pub(crate) fn take(&mut self, offset: u64) -> Option<Window> {
        let at = self.0.iter().position(|(at, _)| *at == offset)?;
        self.0.remove(at).map(|(_, window)| window)
    }

    /// Keeps a window, and returns the one that has to go for it: for the caller to drop when it holds no lock.
    #[must_use]
    pub(crate) fn put(&mut self, offset: u64, window: Window) -> Option<Window> {
        // Of two windows on one place, one is enough.
        let goes = self.take(offset);
        self.0.push_back((offset, window));
        if goes.is_none() && self.0.len() > MAX_KEPT {
            return self.0.pop_front().map(|(_, window)| window);
        }
        goes
    }

    /// Takes all windows that begin from `start` to before `end`.
    #[must_use]
    pub(crate) fn take_all(&mut self, start: u64, end: u64) -> Vec<Window> {
        let (inside, rest) = self.0.drain(..).partition(|(offset, _)| (start..end).contains(offset));
        let inside: VecDeque<_> = inside;
        self.0 = rest;
        inside.into_iter().map(|(_, window)| window).collect()
    }
}
