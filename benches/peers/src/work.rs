//! What an item costs: steps of arithmetic, counted once and for everybody. No clock is read in them.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// So many steps, each of which waits for the one before. Never inlined: everybody runs the same code.
#[inline(never)]
pub fn spin(seed: u64, steps: u32) -> u64 {
    let mut x = seed;
    for _ in 0..steps {
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    x
}

/// How many steps make an item cost so much, in a plain loop over many and when nothing else runs. Items are independent, so
/// the processor begins short ones before the last has ended: what a step takes is no constant.
pub fn steps_of(cost: Duration) -> u32 {
    let wanted = cost.as_nanos() as f64;
    let mut steps = 1.0;
    for _ in 0..3 {
        // Of longer ones it is.
        let tried = (steps as u32).min(1000);
        steps = (f64::from(tried) * wanted / nanos_of(tried)).round().max(1.0);
    }
    steps as u32
}

/// What an item of so many steps costs: the least that was seen.
fn nanos_of(steps: u32) -> f64 {
    let items = 500_000 / u64::from(steps);
    let times = (0..100).map(|_| {
        let begun = Instant::now();
        for item in 0..items {
            black_box(spin(item, steps));
        }
        begun.elapsed()
    });
    times.min().unwrap_or_default().as_nanos() as f64 / items as f64
}

/// How many items of this cost are so much work, and at least so many.
pub fn items_of(cost: Duration, work: Duration, least: usize) -> usize {
    least.max((work.as_nanos() / cost.as_nanos().max(1)) as usize)
}

/// A time as people say it.
pub fn say(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (number, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = match number {
        n if n.fract() == 0.0 || n >= 100.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$} {unit}")
}
