//! A slice mapped into a `Vec`, beside rayon.

use std::error::Error;
use std::time::Duration;

use rayon::prelude::*;

use crate::race::{Contender, race};
use crate::table::{Table, at_most};
use crate::work::{items_of, say, spin, steps_of};

/// The least of which the issue speaks, and the hardest: less hides a start, more does.
const WORK: Duration = Duration::from_millis(10);
/// Each worker gets some.
const LEAST_ITEMS: usize = 8;
const COSTS: [Duration; 7] = [
    Duration::from_nanos(10),
    Duration::from_nanos(100),
    Duration::from_micros(1),
    Duration::from_micros(10),
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(10),
];

pub fn table() -> Result<Table, Box<dyn Error>> {
    let text = format!(
        "`fanmap::map_vec(&items, f)` beside `items.par_iter().map(f).collect()`, {} of work in all, or {LEAST_ITEMS} items. \
         To reach: 1.05.",
        say(WORK)
    );
    let mut table = Table::new(
        "A slice into a `Vec`",
        text,
        &["an item costs", "items", "fanmap", "rayon", "fanmap / rayon"],
    );
    for cost in COSTS {
        let (count, steps) = (items_of(cost, WORK, LEAST_ITEMS), steps_of(cost));
        let items: Vec<u64> = (0..count as u64).collect();
        let rounds = if cost < Duration::from_millis(10) { 201 } else { 61 };
        let times = race(
            rounds,
            vec![
                Contender::new("fanmap", || {
                    fanmap::map_vec(&items, |item| spin(*item, steps)).expect("arithmetic does not panic")
                }),
                Contender::new("rayon", || items.par_iter().map(|item| spin(*item, steps)).collect()),
            ],
        );
        let row = vec![
            say(cost),
            count.to_string(),
            times.say("fanmap", 1),
            times.say("rayon", 1),
            at_most(times.ratio("fanmap", "rayon"), 1.05),
        ];
        table.add(row, times);
    }
    Ok(table)
}
