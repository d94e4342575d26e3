//! Large buffers beside the rings: who has which blob, at either end of a link.
//!
//! `fanmap_shm::blob` has the protocol; this is its book-keeping, the same for parent and worker.
//!
//! * [`Memory`] is what one side writes its blobs to: a pool's for what goes to its workers, a worker's for results.
//! * [`Lease`]: a range is somebody's as long as a lease on it lives. The last one to go frees it.
//! * [`Attached`] is a blob on its way with a message, and [`Parcel`] one that came with a message.
//! * [`Ledger`] is one end of a link: the leases of what was sent until the other side returns them, and what came and is
//!   to be returned. Returns travel in the ring that goes the other way; a worker that dies returns all.
//!
//! A [`Parcel`] that nobody maps is returned when it is dropped, so whatever becomes of a message its blobs come back.
//!
//! When the other side is gone, what it kept warm is of no use to anybody: the ledger gives all its memory back to the
//! system but for the blobs that came and were not returned, and each of those as it is.
//!
//! Giving memory back takes time (a GiB some 50 ms), so a lease is not to be dropped, nor a ledger closed, under a lock that
//! others wait for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanmap_shm::arena::{Arena, GRAIN, Grant, Range};
use fanmap_shm::bell::Bell;
use fanmap_shm::blob::{BlobRef, Blobs};
use fanmap_shm::mapping::{Access, Mapping};
use fanmap_shm::ring::Corrupt;

/// The memory that one side writes its blobs to.
#[derive(Debug)]
pub struct Memory {
    blobs: Arc<Blobs>,
    arena: Mutex<Arena>,
}

/// A range of a [`Memory`] that is not free.
#[derive(Debug)]
pub struct Lease {
    memory: Arc<Memory>,
    offset: u64,
}

/// A blob that goes with a message.
#[derive(Clone, Debug)]
pub struct Attached {
    blob: BlobRef,
    readonly: bool,
    lease: Arc<Lease>,
}

/// A message's bytes, and the blobs that go with it.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The blobs, in the order in which they are met in the bytes.
    pub blobs: Vec<Attached>,
}

/// A message as it came: its bytes, and the blobs that came with it.
#[derive(Debug, Default)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The blobs, in the order in which they are met in the bytes.
    pub blobs: Vec<Parcel>,
}

/// A blob that came with a message, and is returned when this is dropped.
#[derive(Debug)]
pub struct Parcel {
    blob: BlobRef,
    readonly: bool,
    returns: Option<Arc<Returns>>,
}

/// Blobs of the other side's that are to be returned.
#[derive(Debug)]
pub struct Returns {
    theirs: Arc<Blobs>,
    state: Mutex<Returned>,
    /// Rung when much waits to be returned.
    bell: Option<Arc<Bell>>,
}

/// Returns go with what is sent next, but for so many bytes somebody is woken. Less, and a program that drops one large
/// result after the other wakes a thread for each; more, and memory that was dropped stays taken while the pool is idle.
const MUCH: u64 = 16 << 20;

#[derive(Debug, Default)]
struct Returned {
    /// By offset.
    waiting: Vec<u64>,
    /// The bytes of these.
    bytes: u64,
    /// Those that came and were not given back: by offset, how long, and how often they came.
    out: BTreeMap<u64, (u64, u32)>,
    /// The other side is gone: what comes back is the system's.
    orphaned: bool,
}

/// One end of a link's traffic in blobs.
#[derive(Debug)]
pub(crate) struct Ledger {
    lent: HashMap<u64, (Arc<Lease>, u32)>,
    returns: Arc<Returns>,
    /// Whether blobs came since the other side was last asked to keep none warm.
    came: bool,
}

impl Memory {
    /// A memory whose warm idle ranges, and those in flight, are kept under `bound` bytes.
    pub(crate) fn create(bound: u64) -> io::Result<Arc<Self>> {
        Ok(Self::over(Blobs::create()?, bound))
    }

    /// The memory that the other side made for this one to write to.
    pub(crate) fn open(fd: OwnedFd, bound: u64) -> io::Result<Arc<Self>> {
        Ok(Self::over(Blobs::open(fd)?, bound))
    }

    fn over(blobs: Blobs, bound: u64) -> Arc<Self> {
        let arena = Mutex::new(Arena::new(blobs.size(), bound));
        Arc::new(Self {
            blobs: Arc::new(blobs),
            arena,
        })
    }

    /// Copies a buffer of `len` bytes into a blob, by `write`. `None`: there is no room or no memory, so the bytes must
    /// travel in the message.
    pub fn attach(
        self: &Arc<Self>,
        len: usize,
        readonly: bool,
        write: impl FnOnce(&Blobs, Grant) -> io::Result<BlobRef>,
    ) -> Option<Attached> {
        if !self.blobs.is_ours() {
            return None; // in a fork of the user's program, whose use of the pool is refused
        }
        let grant = lock(&self.arena).allocate(len as u64)?;
        // From here on the range is freed whatever happens.
        let lease = Arc::new(Lease {
            memory: Arc::clone(self),
            offset: grant.range.offset,
        });
        let blob = write(&self.blobs, grant).ok()?;
        Some(Attached { blob, readonly, lease })
    }

    /// Whether free ranges are kept warm.
    pub(crate) fn is_warm(&self) -> bool {
        lock(&self.arena).usage().idle > 0
    }

    /// Gives the memory of all free ranges back to the system.
    pub(crate) fn cool(&self) {
        let idle = lock(&self.arena).cool();
        for range in idle {
            let _ = self.blobs.give_back(range);
        }
    }

    fn free(&self, offset: u64) {
        if !self.blobs.is_ours() {
            return;
        }
        let excess = {
            let mut arena = lock(&self.arena);
            arena.free(offset);
            arena.trim()
        };
        for range in excess {
            // It can only fail for a range that is not in this memory.
            let _ = self.blobs.give_back(range);
        }
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.blobs.as_fd()
    }
}

impl Lease {
    /// It is the user's from here on, and counts no more against the bound.
    pub(crate) fn hand_over(&self) {
        lock(&self.memory.arena).hand_over(self.offset);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.free(self.offset);
    }
}

impl Attached {
    /// How many bytes it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a blob is never empty")]
    pub fn len(&self) -> usize {
        usize::try_from(self.blob.len()).unwrap_or(usize::MAX)
    }

    /// Whether what is made of it must not be written to.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// The blob in this process's memory, as it was sent: workers that hold it for a function see what they write alone.
    ///
    /// # Errors
    /// The system's table of mappings is full.
    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::new(&self.lease.memory.blobs, self.blob, Access::Shared)
    }
}

impl Load {
    /// Bytes of all, those of the blobs included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + self.blobs.iter().map(Attached::len).sum::<usize>()
    }

    /// Nothing is in it any more.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.blobs.clear();
    }

    /// The bytes as they travel, followed by the references to the blobs; how many these are; and their leases.
    pub(crate) fn pack(mut self) -> (Vec<u8>, u32, Vec<Arc<Lease>>) {
        for attached in &self.blobs {
            self.bytes.extend_from_slice(&attached.blob.encode());
            self.bytes.push(u8::from(attached.readonly));
        }
        let count = u32::try_from(self.blobs.len()).unwrap_or(u32::MAX);
        let leases = self.blobs.into_iter().map(|attached| attached.lease).collect();
        (self.bytes, count, leases)
    }
}

impl From<Vec<u8>> for Load {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            blobs: Vec::new(),
        }
    }
}

/// Bytes of a reference to a blob behind a message.
const REFERENCE: usize = BlobRef::BYTES + 1;

impl Message {
    /// Bytes of all, those of the blobs included.
    #[must_use]
    pub fn size(&self) -> usize {
        let blobs = self.blobs.iter().map(|parcel| parcel.blob.len());
        self.bytes.len() + usize::try_from(blobs.sum::<u64>()).unwrap_or(usize::MAX)
    }
}

impl Parcel {
    /// Whether what is made of it must not be written to.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// How many bytes it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a blob is never empty")]
    pub fn len(&self) -> usize {
        usize::try_from(self.blob.len()).unwrap_or(usize::MAX)
    }

    /// Maps the blob, once. Whoever closes the mapping then gives the blob to what is handed out with it.
    ///
    /// # Errors
    /// Those of [`Mapping::new`]; the parcel is as it was.
    pub fn open(&mut self, access: Access) -> io::Result<(Mapping, Arc<Returns>)> {
        let returns = self.returns.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mapping = Mapping::new(&returns.theirs, self.blob, access)?;
        let returns = self.returns.take().ok_or(io::ErrorKind::NotFound)?;
        Ok((mapping, returns))
    }

    /// Copies the blob's bytes, for who cannot map it. `into` has as many.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, into: &mut [u8]) -> io::Result<()> {
        let returns = self.returns.as_ref().ok_or(io::ErrorKind::NotFound)?;
        returns.theirs.read(self.blob, into)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(returns) = self.returns.take() {
            returns.give(self.blob);
        }
    }
}

impl Returns {
    /// The blob is needed no more, and its place may be used again. It neither waits nor calls anybody.
    pub fn give(&self, blob: BlobRef) {
        if !self.theirs.is_ours() {
            return;
        }
        let mut state = lock(&self.state);
        if let Entry::Occupied(mut entry) = state.out.entry(blob.offset()) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            } else if state.orphaned {
                return;
            }
        }
        if !state.orphaned {
            state.waiting.push(blob.offset());
            let before = state.bytes;
            state.bytes += blob.len();
            let much = before < MUCH && state.bytes >= MUCH;
            drop(state);
            if let Some(bell) = self.bell.as_ref().filter(|_| much) {
                bell.ring();
            }
            return;
        }
        drop(state);
        let range = Range {
            offset: blob.offset(),
            len: blob.len().next_multiple_of(GRAIN),
        };
        let _ = self.theirs.give_back(range);
    }

    /// A blob came.
    fn note(&self, blob: BlobRef) {
        let mut state = lock(&self.state);
        let (len, times) = state.out.entry(blob.offset()).or_default();
        *len = blob.len().next_multiple_of(GRAIN).max(*len);
        *times += 1;
    }

    /// The other side is gone: its memory is the system's but for what is here.
    fn orphan(&self) {
        let mut gaps = Vec::new();
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.orphaned, true) {
            return;
        }
        let mut end = 0;
        for (offset, (len, _)) in &state.out {
            gaps.push(end..*offset);
            end = end.max(offset + len);
        }
        gaps.push(end..self.theirs.size());
        drop(state);
        for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
            let range = Range {
                offset: gap.start,
                len: gap.end - gap.start,
            };
            let _ = self.theirs.give_back(range);
        }
    }

    fn take(&self) -> Vec<u64> {
        let mut state = lock(&self.state);
        state.bytes = 0;
        std::mem::take(&mut state.waiting)
    }
}

impl Ledger {
    /// For a link whose other side writes its blobs to `theirs`. `bell` wakes who sends what is to be returned.
    pub(crate) fn new(theirs: Arc<Blobs>, bell: Option<Arc<Bell>>) -> Self {
        Self {
            lent: HashMap::new(),
            returns: Arc::new(Returns {
                theirs,
                state: Mutex::default(),
                bell,
            }),
            came: false,
        }
    }

    /// Whether the other side may keep warm ranges, since blobs came. Asked once: it is told to let them go.
    pub(crate) fn take_came(&mut self) -> bool {
        std::mem::take(&mut self.came)
    }

    /// As [`Ledger::take_came`], without asking.
    pub(crate) fn has_come(&self) -> bool {
        self.came
    }

    /// A message with these goes to the other side.
    pub(crate) fn lend(&mut self, leases: &[Arc<Lease>]) {
        for lease in leases {
            let entry = self.lent.entry(lease.offset).or_insert_with(|| (Arc::clone(lease), 0));
            entry.1 += 1;
        }
    }

    /// The other side returns a blob: its lease, if it has it no more.
    pub(crate) fn returned(&mut self, offset: u64) -> Result<Option<Arc<Lease>>, Corrupt> {
        let (_, times) = self.lent.get_mut(&offset).ok_or(Corrupt)?;
        *times -= 1;
        if *times > 0 {
            return Ok(None);
        }
        Ok(self.lent.remove(&offset).map(|(lease, _)| lease))
    }

    /// A message with `count` references behind its bytes.
    pub(crate) fn receive(&mut self, mut bytes: Vec<u8>, count: u32) -> Result<Message, Corrupt> {
        if count == 0 {
            let blobs = Vec::new();
            return Ok(Message { bytes, blobs });
        }
        self.came = true;
        let table = (count as usize).checked_mul(REFERENCE).ok_or(Corrupt)?;
        let start = bytes.len().checked_sub(table).ok_or(Corrupt)?;
        let size = self.returns.theirs.size();
        let blobs = bytes[start..].chunks_exact(REFERENCE).map(|entry| {
            let (blob, flag) = entry.split_first_chunk().ok_or(Corrupt)?;
            let blob = BlobRef::decode(blob, size).ok_or(Corrupt)?;
            self.returns.note(blob);
            Ok(Parcel {
                blob,
                readonly: flag == [1],
                returns: Some(Arc::clone(&self.returns)),
            })
        });
        let blobs = blobs.collect::<Result<_, Corrupt>>()?;
        bytes.truncate(start);
        Ok(Message { bytes, blobs })
    }

    /// What is to be returned to the other side, by offset.
    pub(crate) fn returns(&mut self) -> Vec<u64> {
        let offsets = self.returns.take();
        // The other side keeps them warm.
        self.came |= !offsets.is_empty();
        offsets
    }

    /// This side is about to end, and the other goes on with what it was lent: nothing of that becomes free.
    pub(crate) fn leave(&mut self) {
        for (_, (lease, _)) in self.lent.drain() {
            std::mem::forget(lease);
        }
    }

    /// The other side is gone, and all that it sent was received: what was lent is free, and its memory goes to the system
    /// but for what is in use here, which does as it comes back.
    pub(crate) fn close(self) {
        self.returns.orphan();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn attach(memory: &Arc<Memory>, bytes: &[u8]) -> Attached {
        let attached = memory.attach(bytes.len(), false, |blobs, grant| blobs.write(grant, bytes));
        attached.expect("there is room")
    }

    fn usage(memory: &Memory) -> (u64, u64) {
        let usage = lock(&memory.arena).usage();
        (usage.idle, usage.in_flight)
    }

    /// A memory, and both ends of a link that carries its blobs.
    fn ends() -> (Arc<Memory>, Ledger, Ledger) {
        let memory = Memory::create(1 << 30).unwrap();
        let unused = Memory::create(0).unwrap();
        let (sender, receiver) = (
            Ledger::new(Arc::clone(&unused.blobs), None),
            Ledger::new(Arc::clone(&memory.blobs), None),
        );
        (memory, sender, receiver)
    }

    #[test]
    fn a_blob_is_free_when_sender_and_receiver_are_through_with_it() {
        let (memory, mut sender, mut receiver) = ends();
        let load = Load {
            bytes: b"see the blob".to_vec(),
            blobs: vec![attach(&memory, &[7; 100_000])],
        };
        assert_eq!(load.size(), 100_012);
        let (bytes, count, leases) = load.pack();
        sender.lend(&leases);
        leases[0].hand_over();
        drop(leases);
        let message = receiver.receive(bytes, count).unwrap();
        assert_eq!(message.bytes, b"see the blob");
        let mut parcel = message.blobs.into_iter().next().unwrap();
        let (mapping, returns) = parcel.open(Access::Shared).unwrap();
        assert_eq!(usage(&memory), (0, 0), "what the user has does not count");
        mapping.close(move |blob| returns.give(blob));
        for offset in receiver.returns() {
            sender.returned(offset).unwrap();
        }
        assert_eq!(usage(&memory), (131_072, 0));
        assert!(memory.is_warm() && receiver.has_come());
        memory.cool();
        assert_eq!(usage(&memory), (0, 0));
        assert!(sender.returned(0).is_err(), "it was returned before");
    }

    #[test]
    fn a_message_that_nobody_reads_returns_its_blobs() {
        let (memory, mut sender, mut receiver) = ends();
        let attached = attach(&memory, &[1; 70_000]);
        let load = Load {
            bytes: Vec::new(),
            blobs: vec![attached.clone(), attached],
        };
        let (bytes, count, leases) = load.pack();
        sender.lend(&leases);
        drop(receiver.receive(bytes, count).unwrap());
        assert_eq!(receiver.returns(), [0, 0]);
        drop(sender);
        assert_ne!(usage(&memory).1, 0, "the sender's own leases live");
        drop(leases);
        assert_eq!(usage(&memory).1, 0);
    }

    #[test]
    fn what_a_side_that_is_gone_kept_warm_goes_back_but_for_what_is_in_use() {
        let (memory, mut sender, mut receiver) = ends();
        let mut send = |byte| {
            let attached = attach(&memory, &[byte; GRAIN as usize]);
            let load = Load {
                bytes: Vec::new(),
                blobs: vec![attached],
            };
            let (bytes, count, leases) = load.pack();
            sender.lend(&leases);
            let blobs = receiver.receive(bytes, count).unwrap().blobs;
            blobs.into_iter().next().unwrap()
        };
        let [first, mut second, third, last] = [1, 2, 3, 4].map(&mut send);
        drop((first, third));
        let kept = second.open(Access::Shared).unwrap();
        let grains = || {
            let file = std::fs::File::from(memory.as_fd().try_clone_to_owned().unwrap());
            file.metadata().unwrap().blocks() * 512 / GRAIN
        };
        assert_eq!(grains(), 4);
        receiver.close();
        assert_eq!(grains(), 2);
        drop(last);
        assert_eq!(grains(), 1);
        let (mapping, returns) = kept;
        mapping.close(move |blob| returns.give(blob));
        assert_eq!(grains(), 0);
    }

    #[test]
    fn references_that_lie_are_refused() {
        let (_memory, _, mut receiver) = ends();
        assert!(receiver.receive(vec![0; 5], 1).is_err(), "there is no room for one");
        assert!(receiver.receive(vec![0xff; 64], 1).is_err(), "it is not in the memory");
        assert!(receiver.receive(Vec::new(), u32::MAX).is_err());
        assert!(receiver.returns().is_empty());
    }
}
