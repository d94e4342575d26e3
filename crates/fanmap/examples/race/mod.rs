//! What the examples share: run one job in several ways, and show how long each took and who did the work.

use std::collections::BTreeSet;
use std::fmt;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use fanmap::Error;
use serde::{Deserialize, Serialize};

/// A task's value, and who made it: where it ran and what it took.
#[derive(Serialize, Deserialize)]
pub struct Seen<T> {
    value: T,
    process: u32,
    thread: String,
    core: usize,
    took: Duration,
}

/// Does `work`, and notes who did it. Called in the worker.
pub fn seen<T>(work: impl FnOnce() -> T) -> Seen<T> {
    let started = Instant::now();
    let value = work();
    Seen {
        value,
        process: process::id(),
        thread: thread_name(),
        core: rustix::thread::sched_getcpu(),
        took: started.elapsed(),
    }
}

/// The calling thread's name, for people.
pub fn thread_name() -> String {
    thread::current().name().unwrap_or("?").to_owned()
}

/// Whether to run on a small part of the input: the tests do.
pub fn small() -> bool {
    std::env::var("FANMAP_DEMO").is_ok_and(|size| size == "small")
}

/// One job run in several ways; printing it shows them side by side, each against the first.
#[derive(Default)]
pub struct Race {
    first: Option<Duration>,
    rows: Vec<[String; COLUMNS]>,
}

const COLUMNS: usize = 8;
const HEADER: [&str; COLUMNS] = [
    "how",
    "workers",
    "seconds",
    "speed-up",
    "at once",
    "processes",
    "threads",
    "cores",
];
/// The columns of numbers, which are set to the right.
const NUMBERS: std::ops::Range<usize> = 1..5;

impl Race {
    /// Runs `tasks` to their end, and keeps a row called `how`; gives their values.
    ///
    /// The time is from `started`, so that the starting of the pool can be in it.
    pub fn run<T>(
        &mut self,
        how: &str,
        started: Instant,
        tasks: impl Iterator<Item = Result<Seen<T>, Error>>,
    ) -> Result<Vec<T>, Error> {
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        let took = started.elapsed();
        let first = *self.first.get_or_insert(took);
        self.rows.push(row(how, took, first, &tasks));
        Ok(tasks.into_iter().map(|task| task.value).collect())
    }
}

/// The cells of one way to run the job, under [`HEADER`].
fn row<T>(how: &str, took: Duration, first: Duration, tasks: &[Seen<T>]) -> [String; COLUMNS] {
    let workers: BTreeSet<_> = tasks.iter().map(|task| (task.process, &task.thread)).collect();
    let busy: Duration = tasks.iter().map(|task| task.took).sum();
    [
        how.to_owned(),
        workers.len().to_string(),
        format!("{:.3}", took.as_secs_f64()),
        format!("{:.1} x", first.as_secs_f64() / took.as_secs_f64()),
        format!("{:.1}", busy.as_secs_f64() / took.as_secs_f64()),
        distinct(tasks.iter().map(|task| task.process)),
        distinct(tasks.iter().map(|task| &task.thread)),
        distinct(tasks.iter().map(|task| task.core)),
    ]
}

/// The distinct ones of `names`, in order.
fn distinct<N: Ord + ToString>(names: impl Iterator<Item = N>) -> String {
    let names: BTreeSet<_> = names.collect();
    names.iter().map(N::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = HEADER.map(str::to_owned);
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: [usize; COLUMNS] =
            std::array::from_fn(|column| lines().map(|cells| cells[column].len()).max().unwrap_or(0));
        for cells in lines() {
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
                if NUMBERS.contains(&column) {
                    line += &format!("{cell:>width$}  ");
                } else {
                    line += &format!("{cell:<width$}  ");
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(
            f,
            "\nat once: how many tasks were under way at the same time, on average"
        )
    }
}
