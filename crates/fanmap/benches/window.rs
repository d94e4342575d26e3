//! What a map adds to each item in the calling thread: the decision to read on, and the reordering.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use fanmap::map::reorder::Reorder;
use fanmap::map::window::{Window, items_for};

/// How far to read ahead, and whether there is room.
fn window(criterion: &mut Criterion) {
    criterion.bench_function("window/items_for", |bencher| {
        bencher.iter(|| items_for(black_box(2), black_box(Some(Duration::from_micros(3)))));
    });
    criterion.bench_function("window/has_room", |bencher| {
        let window = Window::of_items(64);
        bencher.iter(|| black_box(window).has_room(black_box(63), black_box(1 << 20)));
    });
}

/// A hundred outcomes that come in the order of the input, and in the opposite one.
fn reorder(criterion: &mut Criterion) {
    for (name, backwards) in [("reorder/in_order", false), ("reorder/backwards", true)] {
        criterion.bench_function(name, |bencher| {
            let mut reorder = Reorder::new();
            bencher.iter(|| {
                let indices: [u64; 100] = std::array::from_fn(|_| reorder.reserve(1));
                for place in 0..100 {
                    let index = indices[if backwards { 99 - place } else { place }];
                    black_box(reorder.put(index, 1, index));
                }
                while let Some(value) = reorder.pop_head() {
                    black_box(value);
                }
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    window(&mut criterion);
    reorder(&mut criterion);
    criterion.final_summary();
}
