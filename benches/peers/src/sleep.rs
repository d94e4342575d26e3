//! Tasks that wait, beside rayon and plain threads.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rayon::prelude::*;

use crate::race::{Contender, race};
use crate::table::{Table, at_most, only};
use crate::work::say;

const TASKS: u64 = 2000;
const WORKERS: usize = 32;
const SLEEP: Duration = Duration::from_millis(5);
const ROUNDS: usize = 21;

fn wait(task: u64) -> u64 {
    thread::sleep(SLEEP);
    task
}

fn plain_threads() -> Vec<u64> {
    let next = AtomicU64::new(0);
    let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|task| *task < TASKS);
    thread::scope(|s| {
        let threads: Vec<_> = (0..WORKERS)
            .map(|_| s.spawn(|| std::iter::from_fn(claim).map(wait).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a sleep does not panic"))
            .collect()
    })
}

pub fn table() -> Result<Table, Box<dyn Error>> {
    let ideal = SLEEP * u32::try_from(TASKS.div_ceil(WORKERS as u64))?;
    let text = format!(
        "{TASKS} sleeps of {} on {WORKERS} threads: `pool.map(items, f).collect()` and a `submit` for each, rayon's `par_iter` in a pool of as \
         many threads, and plain threads that share a counter. Ideal are {}. To reach: 1.05.",
        say(SLEEP),
        say(ideal)
    );
    let mut table = Table::new("Sleeps", text, &["by", "time", "time / ideal"]);
    let pool = fanmap::ThreadPool::new(WORKERS)?;
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    let items: Vec<u64> = (0..TASKS).collect();
    let times = race(
        ROUNDS,
        vec![
            Contender::new("fanmap, `map`", || {
                let results: Result<Vec<u64>, _> = pool.map(0..TASKS, wait).collect();
                results.expect("a sleep does not panic")
            }),
            Contender::new("fanmap, `submit`", || {
                let submit = |task| pool.submit(move || wait(task)).expect("the pool is open");
                let futures: Vec<_> = (0..TASKS).map(submit).collect();
                let results = futures.into_iter().map(fanmap::Future::wait);
                results.collect::<Result<_, _>>().expect("a sleep does not panic")
            }),
            Contender::new("rayon", || {
                rayon.install(|| items.par_iter().map(|task| wait(*task)).collect())
            }),
            Contender::new("plain threads", plain_threads),
        ],
    );
    for name in ["fanmap, `map`", "fanmap, `submit`", "rayon", "plain threads"] {
        let ratio = times.ratio_to(name, ideal);
        let told = if name.starts_with("fanmap") {
            at_most(ratio, 1.05)
        } else {
            only(ratio)
        };
        table.add(vec![name.to_owned(), times.say(name, 1), told], ());
    }
    table.raw = vec![serde_json::to_value(times)?];
    Ok(table)
}
