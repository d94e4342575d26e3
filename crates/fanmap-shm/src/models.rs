//! Loom models of the algorithms that two processes run on the same memory.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p fanmap-shm --lib --release`

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::flag::Flag;
use crate::ring::{Consumer, Cursors, Producer, Storage};
use crate::word::{Phase, Step, Word};

const CAPACITY: usize = 2;

/// An eventfd: it counts, so a ring before the wait is not lost.
#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.0.lock().unwrap();
        while !*rung {
            rung = self.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// A ring whose every byte loom watches for races.
#[derive(Default)]
struct Heap {
    cursors: Cursors,
    bytes: [UnsafeCell<u8>; CAPACITY],
    sleeping: Flag,
    bell: Bell,
}

// SAFETY: the protocol keeps the two sides' bytes apart; loom checks that it does.
unsafe impl Sync for Heap {}

// SAFETY: the array never moves (it is behind an Arc), its length is a power of two, and loom checks the copies.
unsafe impl Storage for Arc<Heap> {
    fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    fn capacity(&self) -> usize {
        CAPACITY
    }

    unsafe fn copy_in(&self, offset: usize, src: &[u8]) {
        for (k, byte) in src.iter().enumerate() {
            // SAFETY: unshared by the caller's promise, which loom checks.
            self.bytes[offset + k].with_mut(|cell| unsafe { *cell = *byte });
        }
    }

    unsafe fn copy_out(&self, offset: usize, dst: &mut [u8]) {
        for (k, byte) in dst.iter_mut().enumerate() {
            // SAFETY: unshared by the caller's promise, which loom checks.
            self.bytes[offset + k].with(|cell| unsafe { *byte = *cell });
        }
    }
}

impl Heap {
    fn ring() -> (Arc<Heap>, Producer<Arc<Heap>>, Consumer<Arc<Heap>>) {
        let heap = Arc::new(Heap::default());
        (Arc::clone(&heap), Producer::new(Arc::clone(&heap)), Consumer::new(heap))
    }
}

/// Every interleaving with at most three preemptions: more would take hours and find what these find.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn the_consumer_is_always_woken_and_reads_what_was_written() {
    bounded(|| {
        let (heap, mut producer, mut consumer) = Heap::ring();
        let writer = thread::spawn(move || {
            for byte in [7, 9] {
                assert_eq!(producer.write(&[byte]), Ok(1));
                producer.publish();
                if heap.sleeping.must_ring() {
                    heap.bell.ring();
                }
            }
        });
        let mut seen = Vec::new();
        let mut room = [0; CAPACITY];
        while seen.len() < 2 {
            let mut count = consumer.read(&mut room).unwrap();
            if count == 0 {
                let heap = Arc::clone(consumer.storage());
                heap.sleeping.arm();
                count = consumer.read(&mut room).unwrap();
                if count == 0 {
                    heap.bell.wait();
                }
                heap.sleeping.disarm();
            }
            consumer.release();
            seen.extend_from_slice(&room[..count]);
        }
        assert_eq!(seen, [7, 9]);
        writer.join().unwrap();
    });
}

#[test]
fn a_starved_producer_is_always_woken() {
    loom::model(|| {
        let (heap, mut producer, mut consumer) = Heap::ring();
        let room_bell = Arc::clone(&heap);
        assert_eq!(producer.write(&[1, 2]), Ok(2));
        producer.publish();
        let reader = thread::spawn(move || {
            let mut room = [0; 1];
            assert_eq!(consumer.read(&mut room), Ok(1));
            consumer.release();
            if consumer.must_ring_for_space() {
                room_bell.bell.ring();
            }
        });
        let mut sent = producer.write(&[3]).unwrap();
        while sent == 0 {
            producer.ask_for_space();
            sent = producer.write(&[3]).unwrap();
            if sent == 0 {
                heap.bell.wait();
                sent = producer.write(&[3]).unwrap();
            }
        }
        reader.join().unwrap();
    });
}

#[test]
fn starting_and_cutting_off_have_one_winner() {
    loom::model(|| {
        let word = Arc::new(Word::default());
        word.queue(2);
        let worker = {
            let word = Arc::clone(&word);
            thread::spawn(move || (0..2).take_while(|task| word.start(*task) == Step::Run).count())
        };
        let cut = word.cut(0);
        let started = worker.join().unwrap();
        assert_eq!(cut.len() + started, 2, "each task is the worker's or the parent's");
        assert!(word.finish(true));
    });
}

#[test]
fn a_kill_at_the_deadline_never_hits_the_next_chunk() {
    loom::model(|| {
        let words = Arc::new([Word::default(), Word::default()]);
        words[0].queue(1);
        words[1].queue(1);
        let worker = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                for word in words.iter() {
                    // A worker whose DONE fails exits without touching another task.
                    if word.start(0) != Step::Run || !word.finish(false) {
                        return;
                    }
                }
            })
        };
        let condemned = words[0].condemn();
        worker.join().unwrap();
        let (first, second) = (words[0].state(), words[1].state());
        if condemned {
            assert_eq!(first.phase, Phase::Condemned);
            assert_eq!((second.phase, second.started), (Phase::Open, 0));
        } else {
            assert_eq!(second.phase, Phase::Done { tiny: false });
        }
    });
}
