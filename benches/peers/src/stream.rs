//! An iterator of unknown length, in order, beside pariter, rayon's `par_bridge` and orx-parallel.

use std::error::Error;
use std::thread;
use std::time::Duration;

use fanmap::FanMap;
use orx_parallel::{IterIntoParIter, Par};
use pariter::IteratorExt;
use rayon::prelude::*;

use crate::cores;
use crate::race::{Contender, race};
use crate::table::{Table, at_least, only};
use crate::work::{items_of, say, spin, steps_of};

/// An item cost, how much work there is of it, how often it is measured, and what is asked beside not being behind.
struct Row {
    cost: Duration,
    work: Duration,
    rounds: usize,
    of_pariter: Option<f64>,
    of_ideal: Option<f64>,
}

const ROWS: [Row; 4] = [
    Row {
        cost: Duration::from_nanos(100),
        work: Duration::from_millis(20),
        rounds: 31,
        of_pariter: Some(3.0),
        of_ideal: None,
    },
    Row {
        cost: Duration::from_micros(1),
        work: Duration::from_millis(50),
        rounds: 41,
        of_pariter: Some(3.0),
        of_ideal: None,
    },
    Row {
        cost: Duration::from_micros(100),
        work: Duration::from_millis(200),
        rounds: 41,
        of_pariter: None,
        of_ideal: Some(0.98),
    },
    Row {
        cost: Duration::from_millis(1),
        work: Duration::from_millis(400),
        rounds: 31,
        of_pariter: None,
        of_ideal: Some(0.98),
    },
];

/// Where even plain threads are not so many times as fast as pariter: the part of them to reach instead.
const NEAR: f64 = 0.95;

/// Who is not behind: the difference is within what one run differs from the next.
const EVEN: f64 = 0.98;

/// Numbers, as many as that; nobody is told how many.
fn unknown(count: usize) -> impl Iterator<Item = u64> + Send + 'static {
    let mut next = 0..count as u64;
    std::iter::from_fn(move || next.next())
}

/// The work, divided among threads beforehand, with nothing to hand over.
fn ideal(count: usize, steps: u32) -> Vec<u64> {
    let part = count.div_ceil(cores());
    let items: Vec<u64> = unknown(count).collect();
    thread::scope(|s| {
        let parts = items.chunks(part);
        let threads: Vec<_> = parts
            .map(|part| s.spawn(move || part.iter().map(|item| spin(*item, steps)).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("arithmetic does not panic"))
            .collect()
    })
}

pub fn table() -> Result<Table, Box<dyn Error>> {
    let text = format!(
        "`iter.fan_map(f).collect()`, in order, beside pariter's `parallel_map` (in order), rayon's `par_bridge().map(f).collect()` (in no \
         order) and orx-parallel's `iter_into_par().map(f).collect()`. Ideal are plain threads, one for each of the {} cores, to which \
         the items were given in equal parts beforehand. To reach: 3 times pariter's speed for items of a microsecond or less (or {NEAR} of \
         the ideal, where that is not 3 times as fast itself), 0.98 of the ideal for those of 100 us and more, and never behind rayon or \
         orx-parallel ({EVEN} or more: less than that is the noise of a run).",
        cores()
    );
    let mut table = Table::new(
        "An iterator of unknown length",
        text,
        &[
            "an item costs",
            "items",
            "ideal",
            "fanmap",
            "pariter",
            "rayon",
            "orx-parallel",
            "ideal / fanmap",
            "pariter / fanmap",
            "rayon / fanmap",
            "orx-parallel / fanmap",
        ],
    );
    for row in ROWS {
        let (count, steps) = (items_of(row.cost, row.work, 1), steps_of(row.cost));
        let f = move |item| spin(item, steps);
        let times = race(
            row.rounds,
            vec![
                Contender::new("ideal", || ideal(count, steps)),
                Contender::new("fanmap", || {
                    let results: Result<Vec<u64>, _> = unknown(count).fan_map(f).collect();
                    results.expect("arithmetic does not panic")
                }),
                Contender::new("pariter", || {
                    unknown(count).parallel_map_custom(|o| o.threads(cores()), f).collect()
                }),
                Contender::new("rayon", || unknown(count).par_bridge().map(f).collect()),
                Contender::new("orx-parallel", || unknown(count).iter_into_par().map(f).collect()),
            ],
        );
        let beside = |peer, least: Option<f64>| {
            let ratio = times.ratio(peer, "fanmap");
            least.map_or_else(|| only(ratio), |least| at_least(ratio, least))
        };
        let of_pariter = row
            .of_pariter
            .map(|times_as_fast| times_as_fast.min(NEAR * times.ratio("pariter", "ideal")));
        let cells = vec![
            say(row.cost),
            count.to_string(),
            times.say("ideal", 1),
            times.say("fanmap", 1),
            times.say("pariter", 1),
            times.say("rayon", 1),
            times.say("orx-parallel", 1),
            beside("ideal", row.of_ideal),
            beside("pariter", of_pariter),
            beside("rayon", Some(EVEN)),
            beside("orx-parallel", Some(EVEN)),
        ];
        table.add(cells, times);
    }
    Ok(table)
}
