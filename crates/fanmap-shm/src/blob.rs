//! Blobs: large buffers in shared memory, beside the ring. The sending side copies a buffer in once, the receiving side
//! maps it and copies nothing.
//!
//! [`Blobs`] is the memory of one [`Arena`]: a sealed memfd, so large that it never needs to grow, whose pages are taken
//! as they are written and given back blob by blob. A [`BlobRef`] is what travels in a message, a [`Mapping`] is one
//! blob in a process's memory. What follows is the protocol that the two ends of a link keep; nothing here knows of
//! messages.
//!
//! # Who owns what
//! A memory has one side that allocates and writes, and has its arena; the others only map.
//!
//! | memory | created by | allocated and written by | mapped by |
//! |---|---|---|---|
//! | items and functions: one a pool | the parent | the parent | its workers |
//! | results: one a worker | the parent | that worker | the parent |
//!
//! A worker's invitation carries both descriptors: none has to be passed later, and a worker's results can be mapped
//! after its death. A worker that takes a dead one's place gets a memory of its own.
//!
//! # A blob's life
//! - **An item's blob** is allocated before its task is sent, and mapped by the worker that runs the task:
//!   [`Access::Shared`], so that an array can be written to in place; [`Access::Private`] if the task may run again
//!   (`retries`), so that each run sees the same. It is freed when the worker has dropped the last reference to it and
//!   says so in its replies, or when the task has ended without having been started.
//! - **A function's blob** is mapped by every worker, [`Access::Private`]: all see what was sent, whatever one of them
//!   writes. So it stays the snapshot, and the next call compares the source with it ([`Mapping::equals`]): reading
//!   both is faster than any digest, and where they are equal nothing is sent. It is freed when the function is
//!   forgotten and each worker that had it has dropped it, or is dead.
//! - **A result's blob** is handed over when its reply is published; the map's window bounds what nobody has asked for
//!   yet. The parent maps it when the result is decoded, and frees it, by a message in the worker's calls, when the
//!   last reference is gone. [`Access::Private`] shares no writes with any fork. [`Access::Shared`] shares none with
//!   forks that run the hook (see below); through a window that is kept it is read three times as fast, and written
//!   sixty.
//! - **Frees** travel in the ring that goes the other way, with what is sent next. They are worth a wake-up of their
//!   own only when they come to a good part of the bound, which an idle peer would keep from the system.
//!
//! # Ends
//! - **A worker dies**: the parent frees the items' blobs that were with it, but for those of tasks that go to another
//!   worker. Its results live: the memory stays while a mapping of it does. Since its arena is gone the parent itself
//!   gives back what it does not have, at once, and each blob that it has when that is dropped
//!   ([`Blobs::give_back`]). So it is with results that outlive the pool. Nothing of this is done before the worker
//!   has ended, even if it was told to end and nobody cares what becomes of it.
//! - **The parent dies**: so do its workers, and the system takes everything back, for nothing has a name.
//! - **The parent exits**: the same. A blob dropped that late tells nobody.
//!
//! # Why nobody waits
//! User code may hold a blob for ever, so nothing waits for one to come back: an [`Arena`] gives a range at once,
//! whatever is out. Its bound is kept by giving back what is idle, and what is in flight is bounded by the map's
//! window, which counts blobs' bytes like all others. The user sets one number; the items' arena has half of it, and
//! the workers' arenas share the other half. It should exceed the window some times over: if all of it were in flight,
//! each range would be given back when freed, and each blob written to fresh pages. When there is no range or no
//! memory, the bytes travel in the ring.
//!
//! # A fork of the user's program
//! The child has the arrays that its parent had, and neither sees what the other writes. So nobody inherits a shared
//! window, and [`before_fork`] makes those in use private, in place and without copying. The child goes on seeing the
//! bytes that were there: a range that it may see is not free before it has ended, or executed another program
//! ([`Mapping::close`]). The child itself tells nobody anything. The hooks are needed in the parent and in workers; a
//! fork by C code that runs no hook leaves the child without the shared windows, and without that care for private
//! ones. A worker's care for its own forks ends with it: a process that a task forked and that outlives the worker may
//! see the bytes of its task's items change, for the parent, which does not know of it, frees all that the worker had.
//!
//! # Trust
//! A peer may be broken. A reference is checked against the memory's size, which is sealed; a free, by the arena. A
//! peer that writes to a blob that is not its own corrupts values, as it could by sending wrong ones; it corrupts no
//! memory.
//!
//! [`Access::Private`]: crate::mapping::Access::Private
//! [`Access::Shared`]: crate::mapping::Access::Shared
//! [`Arena`]: crate::arena::Arena
//! [`Mapping`]: crate::mapping::Mapping
//! [`Mapping::close`]: crate::mapping::Mapping::close
//! [`Mapping::equals`]: crate::mapping::Mapping::equals
//! [`before_fork`]: crate::mapping::before_fork

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::process::Resource;

use crate::arena::{GRAIN, Grant, Range};
use crate::fd::Fd;
use crate::segment::SEALS;
use crate::window::{Access, Kept, Window};

/// The size of a memory, in addresses: what no program uses up in years. More would leave no room to add a length to an
/// offset without care.
const SPACE: u64 = 1 << 62;

/// A blob, by its place in a memory that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    offset: u64,
    len: u64,
}

impl BlobRef {
    /// Bytes of a reference as it travels.
    pub const BYTES: usize = 16;

    /// As it travels.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.len.to_ne_bytes());
        bytes
    }

    /// What a peer sent, if it lies in a memory of `size` bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::BYTES], size: u64) -> Option<Self> {
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|k| bytes[at + k]));
        let blob = Self {
            offset: long(0),
            len: long(8),
        };
        blob.is_in(size).then_some(blob)
    }

    /// Where it is; this names its range to the arena.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// How many bytes it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a blob is never empty")]
    pub fn len(self) -> u64 {
        self.len
    }

    pub(crate) fn is_in(self, size: u64) -> bool {
        let end = self
            .len
            .checked_next_multiple_of(GRAIN)
            .and_then(|len| self.offset.checked_add(len));
        self.len > 0 && self.offset % GRAIN == 0 && end.is_some_and(|end| end <= size)
    }
}

/// The memory of one arena, from either side.
#[derive(Debug)]
pub struct Blobs {
    fd: Fd,
    size: u64,
    /// Whose it is: a fork of that process has no say in what the memory holds.
    process: u32,
    kept: Mutex<Kept>,
}

impl Blobs {
    /// A fresh memory. Its size is addresses only: it is less than 2^62 where the user has limited the size of files.
    ///
    /// # Errors
    /// The system's, for example when the table of open files is full.
    pub fn create() -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("fanmap-blobs", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // Beyond the limit the system does not just refuse: it ends the process (SIGXFSZ).
        let size = SPACE.min(file_limit());
        let size = size - size % GRAIN;
        rustix::fs::ftruncate(&fd, size)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Ok(Self::over(fd, size))
    }

    /// The memory that another process created and passed.
    ///
    /// # Errors
    /// It is not sealed, or not of a size that [`Blobs::create`] makes.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if !rustix::fs::fcntl_get_seals(&fd)?.contains(SEALS) {
            return refuse("a memory for blobs is not sealed against resizing");
        }
        match u64::try_from(rustix::fs::fstat(&fd)?.st_size) {
            Ok(size) if size <= SPACE && size % GRAIN == 0 => Ok(Self::over(fd, size)),
            _ => refuse("a memory for blobs has the wrong size"),
        }
    }

    fn over(fd: OwnedFd, size: u64) -> Self {
        Self {
            fd: fd.into(),
            size,
            process: std::process::id(),
            kept: Mutex::default(),
        }
    }

    /// Whether this process made or opened it. In a fork of that one its windows are not there, and nobody keeps its ranges.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// How many bytes an arena of this memory has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies `bytes` into a range of this memory's arena.
    ///
    /// # Errors
    /// They do not fit, or there is no memory.
    pub fn write(&self, grant: Grant, bytes: &[u8]) -> io::Result<BlobRef> {
        // SAFETY: a slice can be read for as long as it is borrowed.
        unsafe { self.write_from(grant, bytes.as_ptr(), bytes.len()) }
    }

    /// As [`Blobs::write`], from memory that others may be writing to: then which of their bytes are copied is open.
    ///
    /// The copy is made by the system or by `memcpy`, and no reference to the source is made.
    ///
    /// # Errors
    /// As for [`Blobs::write`].
    ///
    /// # Safety
    /// `len` bytes from `source` on are mapped and readable during the call.
    pub unsafe fn write_from(&self, grant: Grant, source: *const u8, len: usize) -> io::Result<BlobRef> {
        let Range { offset, len: room } = grant.range;
        let blob = BlobRef {
            offset,
            len: len as u64,
        };
        if !blob.is_in(self.size) || blob.len > room {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a blob does not fit its range",
            ));
        }
        // How to copy was measured (2 cores of a virtual AMD EPYC, Linux 6.18; us a MiB). Fresh pages: `pwrite` 340,
        // all else 730 and more (a mapping, with or without MADV_POPULATE_WRITE or `fallocate` before), since only
        // `pwrite` takes no page fault for each page. Warm pages: a window that is kept 28, `pwrite` 100, a new window
        // 450, or 145 if it is populated by MADV_POPULATE_READ first. So the second use of a range makes a window, the
        // others find it. Past a limit on the size of files that came later than the memory, `pwrite` would end the
        // process.
        let limited = offset + blob.len > file_limit();
        let window = (grant.warm || limited).then(|| self.window(offset, to_usize(room)?, true));
        match window {
            Some(Ok(window)) => {
                // SAFETY: the source is readable by the caller's promise. The window has `room >= len` bytes and is
                // this call's alone; nobody else reads or writes the range, for the arena gave it out and no reference
                // to the blob was sent. The two do not overlap: a mapping that a caller has is not on a range that is
                // granted.
                unsafe { std::ptr::copy_nonoverlapping(source, window.start(), len) };
                self.keep(offset, window);
            }
            Some(Err(error)) if limited => return Err(error),
            // SAFETY: readable by the caller's promise.
            _ => unsafe { self.pwrite(offset, source, len)? },
        }
        Ok(blob)
    }

    /// Copies the first bytes of a blob into `into`: for who cannot map it.
    ///
    /// # Errors
    /// It is shorter, or not in this memory.
    pub fn read(&self, blob: BlobRef, into: &mut [u8]) -> io::Result<()> {
        if !blob.is_in(self.size) || blob.len < into.len() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&self.fd, &mut into[done..], blob.offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the memory of a range back to the system. Its bytes are zero from now on; the arena has forgotten it. In a fork
    /// of the user's program it does nothing.
    ///
    /// # Errors
    /// It is not in this memory.
    pub fn give_back(&self, range: Range) -> io::Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        let end = range.offset.checked_add(range.len).filter(|end| *end <= self.size);
        let end = end.ok_or(io::Error::from(Errno::INVAL))?;
        let stale = locked(&self.kept).take_all(range.offset, end);
        drop(stale);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.fd, how, range.offset, range.len)?)
    }

    /// A shared window on `len` bytes from `offset`, kept or new.
    pub(crate) fn window(&self, offset: u64, len: usize, populate: bool) -> io::Result<Window> {
        let kept = locked(&self.kept).take(offset);
        if let Some(window) = kept.filter(|window| window.len() >= len) {
            return Ok(window);
        }
        let window = Window::map(self.fd.as_fd(), offset, len, Access::Shared)?;
        if populate {
            window.populate();
        }
        Ok(window)
    }

    /// Keeps a shared window for the next use of its place.
    pub(crate) fn keep(&self, offset: u64, window: Window) {
        let goes = locked(&self.kept).put(offset, window);
        drop(goes);
    }

    /// # Safety
    /// `len` bytes from `source` on are readable.
    unsafe fn pwrite(&self, offset: u64, source: *const u8, len: usize) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let (fd, mut done) = (self.fd.as_fd().as_raw_fd(), 0);
        while done < len {
            // SAFETY: the system reads `len - done` bytes from `source + done`, readable by the caller's promise, and
            // writes to our own file, in a range that nobody else uses.
            let count = unsafe { libc::pwrite(fd, source.add(done).cast(), len - done, (offset + done as u64) as i64) };
            match usize::try_from(count) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }
}

impl AsFd for Blobs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The largest file that the user allows this process.
fn file_limit() -> u64 {
    rustix::process::getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

pub(crate) fn to_usize(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// No lock is held while anything but its own data is touched, so what a panic leaves behind is whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use proptest::prelude::*;

    fn read(blobs: &Blobs, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xEE; len];
        assert_eq!(rustix::io::pread(blobs, &mut bytes, offset).unwrap(), len);
        bytes
    }

    /// Bytes of memory that the file has.
    fn taken(blobs: &Blobs) -> u64 {
        rustix::fs::fstat(blobs).unwrap().st_blocks as u64 * 512
    }

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| ((at + seed) % 251) as u8).collect()
    }

    #[test]
    fn memory_is_taken_as_it_is_written_and_given_back_blob_by_blob() {
        let blobs = Blobs::create().unwrap();
        let mut arena = Arena::new(blobs.size(), 0);
        let [one, two] = [(); 2].map(|()| arena.allocate(1 << 20).unwrap());
        assert_eq!(taken(&blobs), 0);
        for grant in [one, two] {
            blobs.write(grant, &pattern(1 << 20, 1)).unwrap();
        }
        assert_eq!(taken(&blobs), 2 << 20);
        assert!(arena.free(one.range.offset));
        for range in arena.trim() {
            blobs.give_back(range).unwrap();
        }
        assert_eq!(taken(&blobs), 1 << 20);
        assert_eq!(read(&blobs, two.range.offset, 1 << 20), pattern(1 << 20, 1));
        assert_eq!(read(&blobs, one.range.offset, 1 << 20), vec![0; 1 << 20]);
    }

    #[test]
    fn a_memory_cannot_be_resized_and_a_loose_one_is_refused() {
        let blobs = Blobs::create().unwrap();
        assert!(rustix::fs::ftruncate(&blobs, 0).is_err());
        let again = Blobs::open(blobs.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(again.size(), blobs.size());
        let open = |size: u64, seals| {
            let fd = rustix::fs::memfd_create("other", MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::ftruncate(&fd, size).unwrap();
            rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
            Blobs::open(fd).map_err(|error| error.to_string())
        };
        let loose = rustix::fs::SealFlags::SHRINK;
        assert!(open(GRAIN, loose).unwrap_err().contains("not sealed"));
        assert!(open(GRAIN + 4096, SEALS).unwrap_err().contains("wrong size"));
        assert!(open(2 * SPACE - GRAIN, SEALS).unwrap_err().contains("wrong size"));
        assert!(open(GRAIN, SEALS).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let blobs = Blobs::create().unwrap();
        let blob = blobs.write(Arena::new(GRAIN, 0).allocate(3).unwrap(), b"abc").unwrap();
        let mut read = [0; 3];
        blobs.read(blob, &mut read).unwrap();
        assert_eq!(&read, b"abc");
        assert!(blobs.read(blob, &mut [0; 4]).is_err());
        let outside = BlobRef {
            offset: blobs.size(),
            len: 3,
        };
        assert!(blobs.read(outside, &mut read).is_err());
        let grant = |offset, len, warm| Grant {
            range: Range { offset, len },
            warm,
        };
        for warm in [false, true] {
            assert!(blobs.write(grant(0, GRAIN, warm), &[1; GRAIN as usize + 1]).is_err());
            assert!(blobs.write(grant(blobs.size(), GRAIN, warm), b"past the end").is_err());
            assert!(blobs.write(grant(1, GRAIN, warm), b"askew").is_err());
            assert!(blobs.write(grant(0, GRAIN, warm), b"").is_err());
        }
        for (offset, len) in [(blobs.size(), 1), (u64::MAX, u64::MAX)] {
            assert!(blobs.give_back(Range { offset, len }).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_reference_comes_back_as_it_was(grain in 0u64..1 << 46, len in 1u64..1 << 40) {
            let blob = BlobRef { offset: grain * GRAIN, len };
            prop_assert_eq!(BlobRef::decode(&blob.encode(), 1 << 63), Some(blob));
        }

        #[test]
        fn any_bytes_are_a_reference_inside_the_memory_or_refused(bytes in any::<[u8; 16]>(), size in any::<u64>()) {
            if let Some(blob) = BlobRef::decode(&bytes, size) {
                prop_assert!(blob.len() > 0 && blob.offset().checked_add(blob.len()).unwrap() <= size);
            }
        }
    }

    proptest! {
        // Each case writes and reads megabytes: as many cases as elsewhere would take a minute.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_blob_reads_as_it_was_written_cold_or_warm(lens in prop::collection::vec(1usize..300_000, 1..12)) {
            let blobs = Blobs::create().unwrap();
            let mut arena = Arena::new(blobs.size(), 1 << 20);
            let mut held = std::collections::VecDeque::new();
            for (seed, len) in lens.into_iter().enumerate() {
                let grant = arena.allocate(len as u64).unwrap();
                held.push_back((blobs.write(grant, &pattern(len, seed)).unwrap(), seed));
                for (blob, seed) in &held {
                    let len = blob.len() as usize;
                    prop_assert_eq!(read(&blobs, blob.offset(), len), pattern(len, *seed));
                }
                if held.len() == 3 {
                    prop_assert!(arena.free(held.pop_front().unwrap().0.offset()));
                }
                for range in arena.trim() {
                    blobs.give_back(range).unwrap();
                }
            }
        }
    }
}
