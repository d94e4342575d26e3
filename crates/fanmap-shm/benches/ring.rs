//! One ring of a link, in real shared memory: what a message costs without anybody asleep, and what a turn between two
//! awake sides costs.

use std::hint::{black_box, spin_loop};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput};
use fanmap_shm::link::{Link, RING_BYTES, RingOf};
use fanmap_shm::ring::{Consumer, Producer};

type Ends = (Producer<RingOf>, Consumer<RingOf>);

/// The parent's ends of a fresh link and the worker's, through a mapping of its own.
fn ends() -> (Ends, Ends) {
    let parent = Arc::new(Link::create().expect("shared memory can be made"));
    let descriptor = parent.as_fd().try_clone_to_owned().expect("descriptors are left");
    let worker = Arc::new(Link::open(descriptor).expect("a link that was just made is whole"));
    let (calls, replies) = parent.parent_ends().expect("nobody else took them");
    let (received, answers) = worker.worker_ends().expect("nobody else took them");
    ((calls, replies), (answers, received))
}

/// Reads exactly one message, however the bytes come.
fn read_whole(consumer: &mut Consumer<RingOf>, message: &mut [u8]) {
    let mut read = 0;
    while read < message.len() {
        match consumer.read(&mut message[read..]) {
            Ok(0) => spin_loop(),
            Ok(count) => read += count,
            Err(corrupt) => panic!("{corrupt:?}"),
        }
    }
    consumer.release();
}

fn write_whole(producer: &mut Producer<RingOf>, message: &[u8]) {
    let count = producer.write(message).expect("both sides are ours");
    assert_eq!(count, message.len(), "the ring has room for one message");
    producer.publish();
}

/// Both sides in one thread: the copies and the cursors, and nothing else.
fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/message");
    for bytes in [32, 1 << 10, 1 << 14, RING_BYTES / 2] {
        let ((mut calls, _), (_, mut received)) = ends();
        let sent = vec![7; bytes];
        let mut got = vec![0; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| {
                write_whole(&mut calls, black_box(&sent));
                read_whole(&mut received, &mut got);
            });
        });
    }
    group.finish();
}

/// One message there and one back, with the other side awake on a thread of its own.
fn turn(criterion: &mut Criterion) {
    let ((mut calls, mut replies), (mut answers, mut received)) = ends();
    // A first byte that is not zero ends the echo.
    let echo = thread::spawn(move || {
        let mut message = [0; 32];
        while message[0] == 0 {
            read_whole(&mut received, &mut message);
            write_whole(&mut answers, &message);
        }
    });
    let mut got = [0; 32];
    criterion.bench_function("ring/turn", |bencher| {
        bencher.iter(|| {
            write_whole(&mut calls, black_box(&[0; 32]));
            read_whole(&mut replies, &mut got);
        });
    });
    write_whole(&mut calls, &[1; 32]);
    echo.join().expect("the echo does not panic");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    message(&mut criterion);
    turn(&mut criterion);
    criterion.final_summary();
}
