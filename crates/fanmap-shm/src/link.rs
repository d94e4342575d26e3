//! One worker's link to its parent: a segment with two rings, the flags of both sleepers and the chunks' state words.
//!
//! ```text
//! | Shared: flags, cursors of both rings, WORDS state words | calls: parent -> worker | replies: worker -> parent |
//! ```
//! The parent creates the link and passes the segment's descriptor; the worker opens it. Each side then takes its two ring
//! ends once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::flag::Flag;
use crate::ring::{Consumer, Cursors, Producer, Storage};
use crate::segment::Segment;
use crate::word::Word;

/// How many chunks can be with one worker at a time. Fewer would starve a worker of tiny tasks that come one by one, while
/// the parent's thread is not scheduled; more is memory for nothing.
pub const WORDS: usize = 256;

/// Bytes of each ring. Longer messages pass through in pieces. Larger rings cost every worker resident memory; smaller
/// ones make the two sides take turns more often.
pub const RING_BYTES: usize = 1 << 18;

/// What stands at the start of the segment. All-zero memory is a fresh link.
#[repr(C)]
#[derive(Debug)]
struct Shared {
    parent_asleep: Flag,
    worker_asleep: Flag,
    /// See [`Link::mark_start`].
    started: AtomicU64,
    calls: Cursors,
    replies: Cursors,
    words: [Word; WORDS],
}

const HEADER_BYTES: usize = size_of::<Shared>().next_multiple_of(4096);
const SEGMENT_BYTES: usize = HEADER_BYTES + 2 * RING_BYTES;

/// One worker's segment, from either side.
#[derive(Debug)]
pub struct Link {
    segment: Segment,
    ends_taken: AtomicBool,
}

/// One of the two rings of a link, as the storage that its ends work on.
#[derive(Clone, Debug)]
pub struct RingOf {
    link: Arc<Link>,
    which: Which,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Calls,
    Replies,
}

impl Link {
    /// The parent's side of a fresh link.
    pub fn create() -> io::Result<Self> {
        Ok(Self::over(Segment::create(SEGMENT_BYTES)?))
    }

    /// The worker's side of the link whose descriptor the parent passed.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self::over(Segment::open(fd, SEGMENT_BYTES)?))
    }

    fn over(segment: Segment) -> Self {
        Self {
            segment,
            ends_taken: AtomicBool::new(false),
        }
    }

    /// The parent's ends: it writes calls and reads replies. `None` if this side's ends were taken before.
    #[must_use]
    pub fn parent_ends(self: &Arc<Self>) -> Option<(Producer<RingOf>, Consumer<RingOf>)> {
        self.take_ends().then(|| {
            (
                Producer::new(self.ring(Which::Calls)),
                Consumer::new(self.ring(Which::Replies)),
            )
        })
    }

    /// The worker's ends: it reads calls and writes replies. `None` if this side's ends were taken before.
    #[must_use]
    pub fn worker_ends(self: &Arc<Self>) -> Option<(Consumer<RingOf>, Producer<RingOf>)> {
        self.take_ends().then(|| {
            (
                Consumer::new(self.ring(Which::Calls)),
                Producer::new(self.ring(Which::Replies)),
            )
        })
    }

    /// Raised while the parent's receiver sleeps.
    #[must_use]
    pub fn parent_asleep(&self) -> &Flag {
        &self.shared().parent_asleep
    }

    /// Raised while the worker sleeps.
    #[must_use]
    pub fn worker_asleep(&self) -> &Flag {
        &self.shared().worker_asleep
    }

    /// The worker, before it starts a task whose time is limited: now is when it starts. It does so before the step of the
    /// state word, so that who sees that step never sees an earlier task's start.
    pub fn mark_start(&self) {
        self.shared().started.store(clock::nanos(), Ordering::Relaxed);
    }

    /// The worker: the task that it has started does not begin yet.
    pub fn unmark_start(&self) {
        self.shared().started.store(u64::MAX, Ordering::Relaxed);
    }

    /// The parent, after it has looked at the state word: for how long the last task that was marked has run; not at all
    /// if it does not begin yet. `None`: it claims to begin later than now, which no good worker writes.
    #[must_use]
    pub fn since_start(&self) -> Option<Duration> {
        let started = self.shared().started.load(Ordering::Relaxed);
        match clock::nanos().checked_sub(started) {
            None if started == u64::MAX => Some(Duration::ZERO),
            since => since.map(Duration::from_nanos),
        }
    }

    /// The state word at `slot`, if there is such a slot.
    #[must_use]
    pub fn word(&self, slot: usize) -> Option<&Word> {
        self.shared().words.get(slot)
    }

    fn take_ends(&self) -> bool {
        !self.ends_taken.swap(true, Ordering::AcqRel)
    }

    fn ring(self: &Arc<Self>, which: Which) -> RingOf {
        RingOf {
            link: Arc::clone(self),
            which,
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the segment is mapped for as long as `self` lives, is page-aligned and larger than `Shared`
        // (SEGMENT_BYTES), sealed against shrinking, and every field of `Shared` is an atomic for which every bit
        // pattern is valid, so a peer's writes are no data race.
        unsafe { &*self.segment.as_ptr().cast::<Shared>() }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

impl RingOf {
    fn data(&self) -> *mut u8 {
        let offset = match self.which {
            Which::Calls => HEADER_BYTES,
            Which::Replies => HEADER_BYTES + RING_BYTES,
        };
        // SAFETY: both offsets lie within the segment, whose length is SEGMENT_BYTES.
        unsafe { self.link.segment.as_ptr().add(offset) }
    }
}

// SAFETY: the segment is mapped and of constant size for as long as the Arc lives; each ring's data area is RING_BYTES
// long, a power of two, and apart from the header and the other ring. A link gives its ends away once a side.
unsafe impl Storage for RingOf {
    fn cursors(&self) -> &Cursors {
        match self.which {
            Which::Calls => &self.link.shared().calls,
            Which::Replies => &self.link.shared().replies,
        }
    }

    fn capacity(&self) -> usize {
        RING_BYTES
    }

    unsafe fn copy_in(&self, offset: usize, src: &[u8]) {
        debug_assert!(offset + src.len() <= RING_BYTES);
        // SAFETY: in bounds and the producer's alone by the caller's promise; `src` is ordinary memory, never this map.
        unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), self.data().add(offset), src.len()) }
    }

    unsafe fn copy_out(&self, offset: usize, dst: &mut [u8]) {
        debug_assert!(offset + dst.len() <= RING_BYTES);
        // SAFETY: in bounds and the consumer's alone by the caller's promise; `dst` is ordinary memory, never this map. A
        // peer that breaks the protocol can change the bytes while they are copied: the copy then holds nonsense, which
        // every reader of frames must expect anyway.
        unsafe { std::ptr::copy_nonoverlapping(self.data().add(offset), dst.as_mut_ptr(), dst.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Phase;

    #[test]
    fn two_mappings_of_a_link_are_one_memory() {
        let parent = Arc::new(Link::create().unwrap());
        let worker = Arc::new(Link::open(parent.as_fd().try_clone_to_owned().unwrap()).unwrap());
        let (mut calls, _) = parent.parent_ends().unwrap();
        let (mut received, _) = worker.worker_ends().unwrap();
        assert_eq!(calls.write(b"hello"), Ok(5));
        calls.publish();
        let mut room = [0; 8];
        assert_eq!(received.read(&mut room), Ok(5));
        assert_eq!(&room[..5], b"hello");
        parent.word(3).unwrap().queue(2);
        let state = worker.word(3).unwrap().state();
        assert_eq!((state.phase, state.waiting()), (Phase::Open, 2));
        assert!(parent.word(WORDS).is_none());
    }

    #[test]
    fn a_start_that_is_yet_to_come_is_none() {
        let link = Link::create().unwrap();
        link.mark_start();
        assert!(link.since_start().is_some());
        link.unmark_start();
        assert_eq!(link.since_start(), Some(Duration::ZERO));
        link.shared().started.store(u64::MAX - 1, Ordering::Relaxed);
        assert_eq!(link.since_start(), None);
    }

    #[test]
    fn the_ends_are_given_away_once() {
        let link = Arc::new(Link::create().unwrap());
        assert!(link.parent_ends().is_some());
        assert!(link.parent_ends().is_none());
        assert!(link.worker_ends().is_none());
    }
}
