//! Frames between a parent and its worker processes: single calls, a map, and bodies that outgrow the ring.
//!
//! The codec of a frame's header is private and takes nanoseconds; what counts is the frame's whole way, through the
//! public pool.

use criterion::{BenchmarkId, Criterion, Throughput};
use fanmap::ProcessPool;

const ITEMS: u64 = 2_000;
const WORKERS: usize = 2;

fn plus_one(x: u64) -> u64 {
    x + 1
}

fn length(bytes: Vec<u8>) -> u64 {
    bytes.len() as u64
}

fanmap::register!(plus_one, length);

/// One call from submit to result.
fn round_trip(criterion: &mut Criterion, pool: &ProcessPool) {
    criterion.bench_function("frame/round_trip", |bencher| {
        bencher.iter(|| {
            let future = pool.submit(plus_one, 1).expect("the pool is open");
            future.wait().expect("addition does not panic")
        });
    });
}

/// Items a second of a map of next to nothing.
fn map(criterion: &mut Criterion, pool: &ProcessPool) {
    let mut group = criterion.benchmark_group("frame/map");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("plus_one", |bencher| {
        bencher.iter(|| {
            let results = pool.map(0..ITEMS, plus_one).expect("plus_one is registered");
            results
                .map(|result| result.expect("addition does not panic"))
                .sum::<u64>()
        });
    });
    group.finish();
}

/// One call with an argument of so many bytes, which is copied by the codec, into the ring and out of it.
fn body(criterion: &mut Criterion, pool: &ProcessPool) {
    let mut group = criterion.benchmark_group("frame/body");
    group.sample_size(20);
    for bytes in [1 << 10, 1 << 16, 1 << 22] {
        let argument = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| {
                let future = pool.submit(length, argument.clone()).expect("the pool is open");
                future.wait().expect("a length is always there")
            });
        });
    }
    group.finish();
}

fn main() {
    fanmap::init(); // A worker of the pool below runs this program, and goes no further.
    let mut criterion = Criterion::default().configure_from_args();
    let pool = ProcessPool::new(WORKERS).expect("two workers can be started");
    round_trip(&mut criterion, &pool);
    map(&mut criterion, &pool);
    body(&mut criterion, &pool);
    criterion.final_summary();
}
