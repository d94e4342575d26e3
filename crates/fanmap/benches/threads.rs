//! The pool of threads: a map of next to nothing, single tasks at once, and one at a time.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use fanmap::{Future, ThreadPool};

const ITEMS: u64 = 10_000;
const WORKERS: usize = 2;

fn pool() -> ThreadPool {
    ThreadPool::new(WORKERS).expect("two is a valid number of workers")
}

/// Items a second of the ordered, bounded map.
fn map(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("threads/map");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("plus_one", |bencher| {
        bencher.iter(|| {
            let results = pool.map(0..ITEMS, |x| x + 1);
            results
                .map(|result| result.expect("addition does not panic"))
                .sum::<u64>()
        });
    });
    group.finish();
}

/// Tasks a second when all are submitted before the first is waited for.
fn storm(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("threads/storm");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("plus_one", |bencher| {
        bencher.iter(|| {
            let futures: Vec<Future<u64>> = (0..ITEMS)
                .map(|x| pool.submit(move || x + 1).expect("the pool is open"))
                .collect();
            for future in futures {
                black_box(future.wait().expect("addition does not panic"));
            }
        });
    });
    group.finish();
}

/// One task from submit to result, with the workers asleep in between.
fn round_trip(criterion: &mut Criterion) {
    let pool = pool();
    criterion.bench_function("threads/round_trip", |bencher| {
        bencher.iter(|| {
            let future = pool.submit(|| black_box(1)).expect("the pool is open");
            future.wait().expect("nothing panics")
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    map(&mut criterion);
    storm(&mut criterion);
    round_trip(&mut criterion);
    criterion.final_summary();
}
