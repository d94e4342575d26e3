//! The engine's own descriptors, and what becomes of them in a fork of the user's program; and of others' in a worker.
//!
//! A child that the user's program forks gets copies of all its descriptors: of a pool's doorbell, its workers' pidfds, the
//! template's control socket. It can do nothing with them, and they would keep things alive that the parent means to end.
//! The child cannot drop what owns them, for locks may be held in it by threads that are not there. So every descriptor of
//! the engine's is an [`Fd`], which is noted in a table of bits, and [`forsake_all`] in the child points each noted number
//! at `/dev/null`: the number stays taken until its owner is dropped, if ever; what it meant is let go at once.
//!
//! # Who may touch what when
//! A bit is set after its descriptor was opened and cleared before it is closed, each by one atomic operation. A fork in
//! between leaves the child with a descriptor that is not noted, which is harmless; never with a noted number that means
//! something of the user's. `forsake_all` runs in a child of one thread.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, FdFlags};

/// How many numbers the table has. A program with more descriptors open keeps those beyond it in its children.
const NUMBERS: usize = 1 << 16;

static NOTED: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];

/// A descriptor of the engine's.
#[derive(Debug)]
pub struct Fd(ManuallyDrop<OwnedFd>);

impl Fd {
    /// The descriptor, to hand it to somebody else: it is the engine's no longer.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        note(this.0.as_raw_fd(), false);
        // SAFETY: `this` is never dropped nor used again, so the descriptor is taken once.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        note(fd.as_raw_fd(), true);
        Self(ManuallyDrop::new(fd))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        note(self.0.as_raw_fd(), false);
        // SAFETY: a value is dropped once, and `into_owned` never drops what it took the descriptor from.
        unsafe { ManuallyDrop::drop(&mut self.0) }
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn note(fd: RawFd, ours: bool) {
    let Some(number) = usize::try_from(fd).ok().filter(|number| *number < NUMBERS) else {
        return;
    };
    let (word, bit) = (&NOTED[number / 64], 1 << (number % 64));
    if ours {
        word.fetch_or(bit, Ordering::Relaxed);
    } else {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// In a child that was just forked and means to do something else than its parent: every descriptor of the engine's means
/// `/dev/null` from now on. What owns them in this process is of no use any more.
///
/// # Errors
/// No descriptor is left for `/dev/null`: then nothing was changed.
pub fn forsake_all() -> std::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for (at, word) in NOTED.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let number = at * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            // SAFETY: a noted number is open and belongs to an `Fd` (see above), which stays its owner: this value is not
            // dropped. Whatever the `Fd` does with it later it does to `/dev/null`.
            let mut fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number as RawFd) });
            // It can only fail for numbers that are not open.
            let _ = rustix::io::dup3(&null, &mut fd, DupFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// In a program that was just started, by another that had descriptors open which are not closed on exec: each of them means
/// `/dev/null` from now on, but for the three streams. Else a pipe's other end would wait for this process, too.
///
/// The numbers stay taken. Nothing here owns them; should something have opened one of its own so, it closes no other's.
///
/// # Errors
/// The descriptors cannot be listed, or none is left for `/dev/null`: then nothing was changed.
pub fn forsake_inherited() -> std::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let listed = std::fs::read_dir("/proc/self/fd")?.flatten();
    let numbers: Vec<RawFd> = listed
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: it was open a moment ago, and nobody closes what was handed to this program; should the number be none by
        // now (the listing's own is not), the two calls below fail. This value is not dropped.
        let mut fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        if rustix::io::fcntl_getfd(&*fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            let _ = rustix::io::dup3(&null, &mut fd, DupFlags::CLOEXEC);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_noted(fd: &impl AsRawFd) -> bool {
        let number = fd.as_raw_fd() as usize;
        NOTED[number / 64].load(Ordering::Relaxed) & (1 << (number % 64)) != 0
    }

    // `forsake_all` would take them from the tests that run beside this one; the package's tests fork for it.
    #[test]
    fn a_descriptor_is_noted_while_it_is_the_engines() {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let number = file.as_raw_fd();
        let fd = Fd::from(file);
        assert!(is_noted(&number));
        let file = fd.into_owned();
        assert!(!is_noted(&number));
        drop(Fd::from(file));
        assert!(!is_noted(&number));
    }
}
