//! The first lesson: a plain `map`, made parallel over threads and over processes.
//!
//! The records are immutable and `transform` only returns something new, so it does not matter who handles which
//! record, or when: the results are the same, in the same order.
//!
//! `cargo run --release --example scientists`

mod race;

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use fanmap::{Error, ProcessPool, ThreadPool};
use race::{Race, Seen, seen, small, thread_name};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Scientist {
    name: String,
    born: u16,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Age {
    name: String,
    in_2000: u16,
}

const SCIENTISTS: [(&str, u16); 8] = [
    ("Ada Lovelace", 1815),
    ("Marie Curie", 1867),
    ("Emmy Noether", 1882),
    ("Vera Rubin", 1928),
    ("Tu Youyou", 1930),
    ("Ada Yonath", 1939),
    ("Jocelyn Bell Burnell", 1943),
    ("Sally Ride", 1951),
];

/// The same scientist with an age instead of a birth; works a moment, as if it asked a server.
fn transform(scientist: Scientist) -> Seen<Age> {
    seen(|| {
        println!("  process {} {}: {}", process::id(), thread_name(), scientist.name);
        thread::sleep(Duration::from_millis(if small() { 20 } else { 250 }));
        Age {
            name: scientist.name,
            in_2000: 2000 - scientist.born,
        }
    })
}

fanmap::register!(transform);

fn main() -> Result<(), Error> {
    fanmap::init(); // In a worker process this runs the worker, and never returns.
    let scientists = SCIENTISTS.map(|(name, born)| Scientist {
        name: name.to_owned(),
        born,
    });
    let mut race = Race::default();

    println!("serial:");
    let started = Instant::now();
    let plain = scientists.iter().cloned().map(transform);
    let serial = race.run("serial", started, plain.map(Ok))?;

    println!("threads:");
    let started = Instant::now();
    let pool = ThreadPool::new(4)?;
    let threads = race.run("threads", started, pool.map(scientists.clone(), transform))?;

    println!("processes:");
    let started = Instant::now();
    let pool = ProcessPool::new(4)?;
    let processes = race.run("processes", started, pool.map(scientists, transform)?)?;

    assert_eq!(threads, serial);
    assert_eq!(processes, serial);
    println!("\n{race}");
    Ok(())
}
