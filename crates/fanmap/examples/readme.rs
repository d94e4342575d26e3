//! The README's Rust example; `tests/test_readme.py` keeps the two the same.

use fanmap::{Error, ProcessPool, ThreadPool};

fn square(x: u64) -> u64 {
    x * x
}

fanmap::register!(square);

fn main() -> Result<(), Error> {
    fanmap::init(); // first in main: a worker process runs its worker here, and never returns

    let plain: Vec<u64> = (0..100).map(square).collect();

    let threads = ThreadPool::new(4)?;
    let over_threads: Vec<u64> = threads.map(0..100, square).collect::<Result<_, _>>()?;
    assert_eq!(over_threads, plain);

    let processes = ProcessPool::new(2)?;
    let over_processes: Vec<u64> = processes.map(0..100, square)?.collect::<Result<_, _>>()?;
    assert_eq!(over_processes, plain);
    Ok(())
}
