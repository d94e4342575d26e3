//! A byte stream between one producer and one consumer, over memory that somebody lends.
//!
//! The stream knows nothing of messages: whoever uses it frames them (a message may be longer than the ring; it then
//! passes through in pieces).
//!
//! # Protocol
//! `tail` counts the bytes ever written, `head` those ever read; both only grow. The producer alone stores `tail`, the
//! consumer alone `head`, each after the copy it stands for (`Release`), and each reads the other's with `Acquire`. So the
//! bytes between `head` and `tail` belong to the consumer and the rest to the producer, at every instant: a side that is
//! killed between two instructions leaves what it published whole and the rest invisible. There is no lock.
//!
//! Each side keeps its own cursor outside the shared memory and checks the other's on every read: a peer that writes
//! nonsense gets [`Corrupt`], never an access outside the ring.
//!
//! A producer that finds the ring full raises `starved` (a [`Flag`]) and looks once more; the consumer asks
//! [`Consumer::must_ring_for_space`] after releasing.

use thiserror::Error;

use crate::flag::Flag;
use crate::sync::{AtomicU64, Ordering};

/// The other side wrote something impossible into the shared cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the other side of a shared-memory ring wrote an impossible position")]
pub struct Corrupt;

/// Keeps the two sides' words on cache lines of their own, or each store would slow the other side's loads.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Apart<T>(T);

/// The shared words of one ring. All-zero memory is an empty ring.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Cursors {
    tail: Apart<AtomicU64>,
    head: Apart<AtomicU64>,
    starved: Apart<Flag>,
}

/// The memory that a ring lives in.
///
/// # Safety
/// `cursors` must return the same words, and `copy_in` / `copy_out` reach the same bytes, for as long as the value lives.
/// `capacity` must be a constant power of two, and every offset below it valid for the copies.
pub unsafe trait Storage {
    /// The shared words.
    fn cursors(&self) -> &Cursors;

    /// The size of the data area in bytes.
    fn capacity(&self) -> usize;

    /// Copies `src` to `offset`.
    ///
    /// # Safety
    /// `offset + src.len()` is at most the capacity, and nobody reads or writes those bytes meanwhile.
    unsafe fn copy_in(&self, offset: usize, src: &[u8]);

    /// Copies from `offset` into `dst`.
    ///
    /// # Safety
    /// `offset + dst.len()` is at most the capacity, and nobody writes those bytes meanwhile.
    unsafe fn copy_out(&self, offset: usize, dst: &mut [u8]);
}

/// The writing end. There must be only one for a storage.
#[derive(Debug)]
pub struct Producer<S> {
    storage: S,
    /// Bytes ever written; ahead of the shared `tail` until [`Producer::publish`].
    tail: u64,
    published: u64,
}

/// The reading end. There must be only one for a storage.
#[derive(Debug)]
pub struct Consumer<S> {
    storage: S,
    /// Bytes ever read; ahead of the shared `head` until [`Consumer::release`].
    head: u64,
    released: u64,
}

impl<S: Storage> Producer<S> {
    /// The producer of a fresh ring.
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            tail: 0,
            published: 0,
        }
    }

    /// Copies as much of `src` as fits and returns how much that was. The consumer sees it after [`Producer::publish`].
    pub fn write(&mut self, src: &[u8]) -> Result<usize, Corrupt> {
        let count = src.len().min(self.free()?);
        let capacity = self.storage.capacity();
        let offset = offset(self.tail, capacity);
        let first = count.min(capacity - offset);
        // SAFETY: `free` has shown `count` bytes from `tail` on to lie outside head..tail, which are the producer's alone
        // (there is one producer, and it is borrowed mutably); both pieces end within the capacity by construction.
        unsafe {
            self.storage.copy_in(offset, &src[..first]);
            self.storage.copy_in(0, &src[first..count]);
        }
        self.tail += count as u64;
        Ok(count)
    }

    /// Shows the consumer all that was written.
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            self.storage.cursors().tail.0.store(self.tail, Ordering::Release);
        }
    }

    /// How many bytes fit now.
    pub fn free(&self) -> Result<usize, Corrupt> {
        let capacity = self.storage.capacity();
        let head = self.storage.cursors().head.0.load(Ordering::Acquire);
        // What is unpublished counts as used; a head beyond what was published, or too far behind, is nonsense.
        match self.tail.checked_sub(head) {
            Some(used) if used <= capacity as u64 && head <= self.published => Ok(capacity - used as usize),
            _ => Err(Corrupt),
        }
    }

    /// Asks the consumer to ring when it has made room. Look at [`Producer::free`] once more before waiting.
    pub fn ask_for_space(&self) {
        self.storage.cursors().starved.0.arm();
    }

    /// The memory that was lent.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

impl<S: Storage> Consumer<S> {
    /// The consumer of a fresh ring.
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            head: 0,
            released: 0,
        }
    }

    /// How many bytes can be read now.
    pub fn available(&self) -> Result<usize, Corrupt> {
        let tail = self.storage.cursors().tail.0.load(Ordering::Acquire);
        match tail.checked_sub(self.head) {
            Some(ready) if tail - self.released <= self.storage.capacity() as u64 => Ok(ready as usize),
            _ => Err(Corrupt),
        }
    }

    /// Copies as much into `dst` as is there and returns how much that was. The producer gets the room back after
    /// [`Consumer::release`].
    pub fn read(&mut self, dst: &mut [u8]) -> Result<usize, Corrupt> {
        let count = dst.len().min(self.available()?);
        let capacity = self.storage.capacity();
        let offset = offset(self.head, capacity);
        let first = count.min(capacity - offset);
        let (start, rest) = dst[..count].split_at_mut(first);
        // SAFETY: `available` has shown `count` bytes from `head` on to be published and not released, which are the
        // consumer's alone; both pieces end within the capacity by construction.
        unsafe {
            self.storage.copy_out(offset, start);
            self.storage.copy_out(0, rest);
        }
        self.head += count as u64;
        Ok(count)
    }

    /// Gives the room of all that was read back to the producer.
    pub fn release(&mut self) {
        if self.released != self.head {
            self.released = self.head;
            self.storage.cursors().head.0.store(self.head, Ordering::Release);
        }
    }

    /// After [`Consumer::release`]: whether the producer waits for room and must be rung.
    #[must_use]
    pub fn must_ring_for_space(&self) -> bool {
        self.storage.cursors().starved.0.must_ring()
    }

    /// The memory that was lent.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

fn offset(position: u64, capacity: usize) -> usize {
    (position & (capacity as u64 - 1)) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    /// A ring on the heap.
    struct Heap(Cursors, UnsafeCell<Box<[u8]>>);

    // SAFETY: the ring protocol keeps the two sides' bytes apart; that is what the tests exercise.
    unsafe impl Sync for Heap {}

    // SAFETY: the box is never replaced, its length is a power of two, and the copies stay in it by the caller's promise.
    unsafe impl Storage for Arc<Heap> {
        fn cursors(&self) -> &Cursors {
            &self.0
        }

        fn capacity(&self) -> usize {
            // SAFETY: the length of the box is never written.
            unsafe { (&(*self.1.get())).len() }
        }

        unsafe fn copy_in(&self, offset: usize, src: &[u8]) {
            // SAFETY: in bounds and unshared by the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), (*self.1.get()).as_mut_ptr().add(offset), src.len()) }
        }

        unsafe fn copy_out(&self, offset: usize, dst: &mut [u8]) {
            // SAFETY: in bounds and unshared by the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping((*self.1.get()).as_ptr().add(offset), dst.as_mut_ptr(), dst.len()) }
        }
    }

    fn ring(capacity: usize) -> (Producer<Arc<Heap>>, Consumer<Arc<Heap>>) {
        let heap = Arc::new(Heap(Cursors::default(), UnsafeCell::new(vec![0; capacity].into())));
        (Producer::new(Arc::clone(&heap)), Consumer::new(heap))
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            data in prop::collection::vec(any::<u8>(), 0..600),
            writes in prop::collection::vec(1usize..40, 1..50),
            reads in prop::collection::vec(1usize..40, 1..50),
        ) {
            let (mut producer, mut consumer) = ring(32);
            let (mut sent, mut received) = (0, Vec::new());
            let mut sizes = writes.iter().cycle().zip(reads.iter().cycle());
            while received.len() < data.len() {
                let (write, read) = sizes.next().expect("cycles never end");
                let end = data.len().min(sent + write);
                sent += producer.write(&data[sent..end]).unwrap();
                producer.publish();
                let mut piece = vec![0; *read];
                let count = consumer.read(&mut piece).unwrap();
                consumer.release();
                received.extend_from_slice(&piece[..count]);
            }
            prop_assert_eq!(received, data);
        }

        #[test]
        fn nonsense_cursors_are_refused_or_stay_in_bounds(tail in any::<u64>(), head in any::<u64>()) {
            let (mut producer, mut consumer) = ring(32);
            consumer.storage.cursors().tail.0.store(tail, Ordering::Release);
            let mut room = [0; 64];
            match consumer.read(&mut room) {
                Ok(count) => prop_assert!(tail <= 32 && count as u64 == tail),
                Err(Corrupt) => prop_assert!(tail > 32),
            }
            producer.storage.cursors().head.0.store(head, Ordering::Release);
            match producer.write(&[1; 64]) {
                Ok(count) => prop_assert!(head == 0 && count == 32),
                Err(Corrupt) => prop_assert!(head != 0),
            }
        }
    }

    #[test]
    fn what_is_not_published_is_not_seen() {
        let (mut producer, consumer) = ring(32);
        assert_eq!(producer.write(b"abc"), Ok(3));
        assert_eq!(consumer.available(), Ok(0));
        producer.publish();
        assert_eq!(consumer.available(), Ok(3));
    }

    #[test]
    fn two_threads_pass_a_stream() {
        let (mut producer, mut consumer) = ring(64);
        let total = 200_000usize;
        let writer = std::thread::spawn(move || {
            let data: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
            let mut sent = 0;
            while sent < total {
                let count = producer.write(&data[sent..total.min(sent + 37)]).unwrap();
                producer.publish();
                sent += count;
                if count == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let (mut seen, mut piece) = (0usize, [0; 29]);
        while seen < total {
            let count = consumer.read(&mut piece).unwrap();
            consumer.release();
            for (k, byte) in piece[..count].iter().enumerate() {
                assert_eq!(*byte, ((seen + k) % 251) as u8);
            }
            seen += count;
            if count == 0 {
                std::thread::yield_now();
            }
        }
        writer.join().unwrap();
    }
}
