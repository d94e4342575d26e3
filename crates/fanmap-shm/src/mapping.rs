//! A blob in this process's memory, and what becomes of it when the user's program forks.
//!
//! Called by whoever decodes a message with a [`BlobRef`]; what it is for stands in [`crate::blob`].
//!
//! # A fork
//! A child goes on seeing what was mapped, though the parent may drop it and its range be written to again. So each
//! fork has a number and a witness, and a range is free once every fork that was made while it was mapped has
//! ended: at once, as a rule. Which have ended is looked at when something is closed ([`Mapping::close`], [`settle`]),
//! so nobody waits and nobody polls.
//!
//! Between the hook before a fork and the fork itself, others may map blobs: other threads, and other hooks on this one.
//! What is mapped then is made private at once and counts as seen by that fork, which may come before or after. A lock
//! held meanwhile would not do: it would stop hooks that use a pool, and threads that the fork waits for.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

use crate::arena::GRAIN;
use crate::blob::{BlobRef, Blobs, locked, to_usize};
pub use crate::window::Access;
use crate::window::{self, Window};
use crate::witness::Witness;

/// The most blobs that are mapped at a time. Each is an entry in the process's table of mappings; Linux gives it 65,530
/// (`vm.max_map_count`), and where none is left threads do not start and allocators fail. More, and a program that holds
/// many results has none left for these; fewer, and it copies what it could map.
const MAX_LIVE: usize = 1 << 15;

/// A blob in this process's memory, from a page's first byte on. It stays there, and keeps its memory, until closed. If
/// it is dropped instead, nobody learns that its range is free.
#[derive(Debug)]
pub struct Mapping {
    /// `None` once closed.
    window: Option<Window>,
    blob: BlobRef,
}

/// What is known of a mapping apart from its owner.
#[derive(Debug)]
struct Live {
    blobs: Arc<Blobs>,
    offset: u64,
    len: usize,
    access: Access,
    /// How many forks there were before.
    since: u64,
}

/// A range that was closed: what to do when the forks of these numbers have ended.
struct Closed {
    forks: Range<u64>,
    free: Box<dyn FnOnce() + Send>,
}

/// The mappings of one process, and its forks.
#[derive(Default)]
struct State {
    /// By address. One is entered once it is whole and taken out before it goes: what is found here is mapped.
    live: HashMap<usize, Live>,
    /// How many forks there were.
    forks: u64,
    /// Those that may not have ended.
    living: Vec<(u64, Witness)>,
    closed: Vec<Closed>,
    /// How many threads are between the hook before a fork and the one after it.
    forking: u32,
    /// What their children inherit of these forks' witnesses.
    inherited: Vec<Window>,
}

struct Table {
    process: u32,
    state: Mutex<State>,
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

/// The table of this process. A forked child begins a new one: the lock of its parent's may be held in it by a thread
/// that is not there.
fn table() -> &'static Table {
    let now = TABLE.load(Ordering::Acquire);
    // SAFETY: null, or a table that was leaked below: nobody ever frees it or borrows it mutably.
    match unsafe { now.as_ref() } {
        Some(table) if table.process == std::process::id() => table,
        _ => {
            let fresh = Box::leak(Box::new(Table {
                process: std::process::id(),
                state: Mutex::default(),
            }));
            // A thread that loses the race looks again, and leaves its small table behind.
            let _ = TABLE.compare_exchange(now, fresh, Ordering::AcqRel, Ordering::Acquire);
            table()
        }
    }
}

/// Before the user's program forks: from now on, neither side sees what the other writes to a blob that is mapped now.
/// To be followed by [`after_fork`].
pub fn before_fork() {
    let mut state = locked(&table().state);
    state.forking += 1;
    if state.live.is_empty() {
        return;
    }
    for (start, live) in &mut state.live {
        // SAFETY: an entry is a window that is mapped while it stands here, which the lock ensures.
        unsafe { live.make_private(*start) };
    }
    state.count_fork();
}

/// After the fork, in the parent, or if there was none after all.
pub fn after_fork() {
    let mut state = locked(&table().state);
    state.forking = state.forking.saturating_sub(1);
    let inherited = match state.forking {
        0 => std::mem::take(&mut state.inherited),
        _ => Vec::new(),
    };
    drop(state);
    drop(inherited);
}

/// Frees what was closed before and waited for forks that have ended, as [`Mapping::close`] does too. To be called when a
/// pool has been idle for a while.
pub fn settle() {
    let ready = locked(&table().state).settle();
    for free in ready {
        free();
    }
}

impl Live {
    /// Neither this process nor a fork of it sees what the other writes from now on.
    ///
    /// # Safety
    /// It is mapped at `start`, and stays so during the call.
    unsafe fn make_private(&mut self, start: usize) {
        if self.access == Access::Private {
            return;
        }
        let fd = self.blobs.as_fd();
        // SAFETY: an entry is a window on this memory, mapped by the caller's promise.
        let done = unsafe { window::make_private(start as *mut u8, self.len, fd, self.offset) };
        // If it fails, the window stays ours alone: the child has nothing in its place.
        if done.is_ok() {
            self.access = Access::Private;
        }
    }
}

impl State {
    /// A fork is about to be made that sees what is mapped now.
    fn count_fork(&mut self) {
        // Those that have ended, or a program that forks often would keep a descriptor for each.
        self.living.retain(|(_, witness)| !witness.is_alone());
        let (witness, inherited) = Witness::call();
        self.living.push((self.forks, witness));
        self.forks += 1;
        self.inherited.extend(inherited);
    }

    fn settle(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        self.living.retain(|(_, witness)| !witness.is_alone());
        let (ready, waiting): (Vec<_>, Vec<_>) = self
            .closed
            .drain(..)
            .partition(|closed| !self.living.iter().any(|(number, _)| closed.forks.contains(number)));
        self.closed = waiting;
        ready.into_iter().map(|closed| closed.free).collect()
    }
}

impl Mapping {
    /// Maps a blob.
    ///
    /// # Errors
    /// It is not in this memory. With [`io::ErrorKind::OutOfMemory`]: the system's table of mappings is full, or has its
    /// share of them; [`Blobs::read`] still works.
    pub fn new(blobs: &Arc<Blobs>, blob: BlobRef, access: Access) -> io::Result<Self> {
        if !blob.is_in(blobs.size()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a blob does not lie in its memory",
            ));
        }
        if !blobs.is_ours() {
            return Err(io::Error::other(
                "a buffer of a result is with the process that this one is a fork of",
            ));
        }
        if locked(&table().state).live.len() >= MAX_LIVE {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (offset, len) = (blob.offset(), to_usize(blob.len().next_multiple_of(GRAIN))?);
        // Reading all of 8 MiB takes 0.4 ms through a kept window and 1.0 through a new one; populating a new one first
        // makes it 1.2, since the system enters 16 pages at each fault anyway. A private window cannot be kept: it has
        // pages of its own where it was written to.
        let window = match access {
            Access::Shared => blobs.window(offset, len, false)?,
            Access::Private => Window::map(blobs.as_fd(), offset, len, access)?,
        };
        let mut state = locked(&table().state);
        let mut live = Live {
            blobs: Arc::clone(blobs),
            offset,
            len: window.len(),
            access,
            since: state.forks,
        };
        if state.forking > 0 {
            // SAFETY: it was just mapped there, and is held.
            unsafe { live.make_private(window.start() as usize) };
            state.count_fork();
        }
        state.live.insert(window.start() as usize, live);
        let window = Some(window);
        Ok(Self { window, blob })
    }

    /// The first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.window.as_ref().map_or(std::ptr::null_mut(), Window::start)
    }

    /// How many bytes the blob has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a blob is never empty")]
    pub fn len(&self) -> usize {
        self.blob.len() as usize
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Whether the blob has the same bytes as `len` bytes from `source` on.
    ///
    /// # Safety
    /// They are readable during the call. If somebody writes to them meanwhile, the answer is open.
    #[must_use]
    pub unsafe fn equals(&self, source: *const u8, len: usize) -> bool {
        // SAFETY: the source is readable by the caller's promise, and the mapping has as many bytes.
        len == self.len() && unsafe { libc::memcmp(self.as_ptr().cast(), source.cast(), len) == 0 }
    }

    /// Unmaps the blob, and calls `free` when its range may be used again: now, or when the forks that see it have
    /// ended. Never in such a fork: what happens there is nobody's business but its own.
    ///
    /// `free` runs on this thread, or on one that closes another mapping, and must not wait.
    pub fn close(mut self, free: impl FnOnce(BlobRef) + Send + 'static) {
        let blob = self.blob;
        let Some(since) = self.unmap() else {
            // In a fork, what it owns may depend on threads that are not there.
            std::mem::forget(free);
            return;
        };
        let ready = {
            let mut state = locked(&table().state);
            let forks = since..state.forks;
            let free = Box::new(move || free(blob));
            state.closed.push(Closed { forks, free });
            state.settle()
        };
        for free in ready {
            free();
        }
    }

    /// How many forks there were before it was mapped; `None` if this process is a fork of the one that mapped it.
    fn unmap(&mut self) -> Option<u64> {
        // A window knows that in a fork it must not unmap.
        let window = self.window.take().filter(Window::is_ours)?;
        let live = locked(&table().state).live.remove(&(window.start() as usize))?;
        if live.access == Access::Shared {
            live.blobs.keep(live.offset, window);
        }
        Some(live.since)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.unmap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, Grant};

    const LEN: usize = 100_000;

    /// Both sides' views of one memory, and a range that holds a blob.
    fn written() -> (Arc<Blobs>, Arc<Blobs>, Grant, BlobRef) {
        let writer = Arc::new(Blobs::create().unwrap());
        let reader = Arc::new(Blobs::open(writer.as_fd().try_clone_to_owned().unwrap()).unwrap());
        let grant = Arena::new(writer.size(), 0).allocate(LEN as u64).unwrap();
        let blob = writer.write(grant, &[7; LEN]).unwrap();
        (writer, reader, grant, blob)
    }

    fn equals(mapping: &Mapping, bytes: &[u8]) -> bool {
        // SAFETY: a slice can be read while it is borrowed.
        unsafe { mapping.equals(bytes.as_ptr(), bytes.len()) }
    }

    /// Whether closing a mapping frees its range at once.
    fn frees(mapping: Mapping) -> bool {
        let (tell, told) = std::sync::mpsc::channel();
        let blob = mapping.blob();
        mapping.close(move |freed| tell.send(freed).unwrap());
        told.try_recv() == Ok(blob)
    }

    fn set(mapping: &Mapping, at: usize, byte: u8) {
        assert!(at < mapping.len());
        // SAFETY: in bounds, and the test's alone.
        unsafe { *mapping.as_ptr().add(at) = byte }
    }

    fn get(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.len());
        // SAFETY: in bounds, and nobody writes meanwhile.
        unsafe { *mapping.as_ptr().add(at) }
    }

    #[test]
    fn a_blob_is_mapped_aligned_and_whole() {
        let (_, reader, _, blob) = written();
        for access in [Access::Shared, Access::Private] {
            let mapping = Mapping::new(&reader, blob, access).unwrap();
            assert_eq!(mapping.as_ptr() as usize % 4096, 0);
            assert_eq!((mapping.len(), mapping.blob()), (LEN, blob));
            assert!(equals(&mapping, &[7; LEN]));
            assert!(!equals(&mapping, &[7; LEN - 1]));
            assert!(frees(mapping));
        }
    }

    #[test]
    fn shared_writes_change_the_blob_and_private_ones_do_not() {
        let (_, reader, _, blob) = written();
        let [one, two] = [(); 2].map(|()| Mapping::new(&reader, blob, Access::Private).unwrap());
        let shared = Mapping::new(&reader, blob, Access::Shared).unwrap();
        set(&one, 5, 1);
        assert_eq!((get(&one, 5), get(&two, 5), get(&shared, 5)), (1, 7, 7));
        set(&shared, 6, 2);
        assert_eq!((get(&two, 6), get(&shared, 6)), (2, 2));
    }

    #[test]
    fn a_shared_window_is_kept_and_shows_the_next_blob() {
        let (writer, reader, grant, blob) = written();
        let mapping = Mapping::new(&reader, blob, Access::Shared).unwrap();
        let address = mapping.as_ptr();
        assert!(frees(mapping));
        for byte in [8, 9] {
            let warm = Grant { warm: true, ..grant };
            let blob = writer.write(warm, &[byte; LEN - 1]).unwrap();
            let mapping = Mapping::new(&reader, blob, Access::Shared).unwrap();
            assert_eq!(mapping.as_ptr(), address);
            assert!(equals(&mapping, &[byte; LEN - 1]));
        }
        writer.give_back(grant.range).unwrap();
        let mapping = Mapping::new(&reader, blob, Access::Shared).unwrap();
        assert!(equals(&mapping, &[0; LEN]));
    }

    #[test]
    fn two_mappings_of_one_blob_have_windows_of_their_own() {
        let (_, reader, _, blob) = written();
        let [one, two] = [(); 2].map(|()| Mapping::new(&reader, blob, Access::Shared).unwrap());
        assert_ne!(one.as_ptr(), two.as_ptr());
        drop(one);
        assert_eq!(get(&two, 0), 7);
        drop(two);
        assert_eq!(get(&Mapping::new(&reader, blob, Access::Shared).unwrap(), 0), 7);
    }

    #[test]
    fn a_mapping_outlives_both_ends() {
        let (writer, reader, _, blob) = written();
        let mapping = Mapping::new(&reader, blob, Access::Private).unwrap();
        drop((writer, reader));
        assert!(equals(&mapping, &[7; LEN]));
    }

    #[test]
    fn a_reference_into_another_memory_is_refused() {
        let (_, _, _, blob) = written();
        let fd = rustix::fs::memfd_create("small", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, GRAIN).unwrap();
        rustix::fs::fcntl_add_seals(&fd, crate::segment::SEALS).unwrap();
        let small = Arc::new(Blobs::open(fd).unwrap());
        assert!(Mapping::new(&small, blob, Access::Shared).is_err());
    }
}
