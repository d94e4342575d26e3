//! Pools that have worked and have nothing to do.

use std::error::Error;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use rayon::prelude::*;

use crate::cores;
use crate::table::Table;
use crate::work::say;

const FOR: Duration = Duration::from_secs(3);
/// From its last task on, after which it is idle.
const SETTLED: Duration = Duration::from_millis(200);

fn nothing(n: u64) -> u64 {
    n
}

fanmap::register!(nothing);

/// The time that the other threads of this process, and the processes that they started, have run.
fn others() -> io::Result<Duration> {
    let myself = fs::read_link("/proc/thread-self")?;
    let mut run = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        if path.file_name() != myself.file_name() {
            run += run_time(&path)?;
        }
        for child in fs::read_to_string(path.join("children"))?.split_whitespace() {
            for thread in fs::read_dir(format!("/proc/{child}/task"))? {
                run += run_time(&thread?.path())?;
            }
        }
    }
    Ok(run)
}

fn run_time(thread: &std::path::Path) -> io::Result<Duration> {
    let told = fs::read_to_string(thread.join("schedstat"))?;
    let nanos = told.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Ok(Duration::from_nanos(nanos.ok_or_else(|| io::Error::other(told))?))
}

/// What such a pool takes while it is idle. It has done some work.
fn idle<P>(table: &mut Table, name: &str, pool: P, work: impl FnOnce(&P)) -> io::Result<()> {
    work(&pool);
    thread::sleep(SETTLED);
    let before = others()?;
    thread::sleep(FOR);
    let took = others()? - before;
    table.add(vec![name.to_owned(), say(took)], took.as_secs_f64());
    Ok(())
}

pub fn table() -> Result<Table, Box<dyn Error>> {
    let text = format!(
        "Processor time of all threads and worker processes of a pool that has worked, in {} without work. To reach: none.",
        say(FOR)
    );
    let mut table = Table::new("Idle pools", text, &["pool", "processor time"]);
    idle(
        &mut table,
        "fanmap, threads",
        fanmap::ThreadPool::new(cores())?,
        |pool| {
            pool.map(0..1000, nothing).for_each(drop);
        },
    )?;
    idle(
        &mut table,
        "fanmap, processes",
        fanmap::ProcessPool::new(cores())?,
        |pool| {
            pool.map(0..1000, nothing).expect("it is registered").for_each(drop);
        },
    )?;
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(cores()).build()?;
    idle(&mut table, "rayon", rayon, |pool| {
        pool.install(|| (0..1000).into_par_iter().map(nothing).collect::<Vec<_>>());
    })?;
    idle(&mut table, "procspawn", procspawn::Pool::new(cores())?, |pool| {
        pool.spawn(1, nothing).join().expect("the worker lives");
    })?;
    Ok(table)
}
