//! A plain `map` made parallel: same results, same order, one call. Over threads, and over processes that may crash.
//!
//! ```
//! let lengths: Result<Vec<usize>, fanmap::Error> = fanmap::map(["one", "two", "three"], str::len).collect();
//! assert_eq!(lengths?, [3, 3, 5]);
//! # Ok::<(), fanmap::Error>(())
//! ```
//!
//! # Threads
//! A [`ThreadPool`] runs tasks on threads, for work that computes and for work that waits. It gives a [`Future`] for a
//! task, which can be waited for, cancelled and awaited, and a [`map`](ThreadPool::map) for many. A panic in a task is that
//! task's [`Error`], which tells its message and its item, and nothing else's.
//!
//! ```
//! use fanmap::ThreadPool;
//!
//! let pool = ThreadPool::new(4)?;
//! let answer = pool.submit(|| 6 * 7)?;
//! let words = vec!["borrowed".to_owned(), "words".to_owned()];
//! let longest = pool.scope(|s| s.submit(|| words.iter().map(String::len).max())?.wait())?;
//! let lengths = pool.map_vec(&words, |word| word.len())?; // a slice or a range: no queue, whatever an item costs
//! assert_eq!(answer.wait()?, 42);
//! assert_eq!((longest, lengths), (Some(8), vec![8, 5]));
//! # Ok::<(), fanmap::Error>(())
//! ```
//!
//! # Streaming
//! A [`Map`] takes any iterator, endless ones too. It reads only so far ahead of the results that are asked for, on the thread
//! that asks for them, and gives them in the order of the items, or as they come ([`unordered`](Map::unordered)). An input that
//! is slow withholds no result.
//!
//! ```
//! use fanmap::FanMap;
//! use std::time::Duration;
//!
//! let mut numbers = 0u64..; // lines of a file, messages of a queue, ...
//! let squares = numbers.by_ref().fan_map(|n| n * n).window(100)?.timeout(Duration::from_secs(60));
//! let first: Vec<u64> = squares.take(3).collect::<Result<_, _>>()?;
//! assert_eq!(first, [0, 1, 4]);
//! assert!(numbers.start <= 103);
//! # Ok::<(), fanmap::Error>(())
//! ```
//!
//! # Processes
//! A [`ProcessPool`] runs [`register!`]ed functions in processes of their own: this same program, started again. One that
//! crashes, or takes too long, costs its own task alone, which is tried again if you say so
//! ([`retries`](ProcessPoolBuilder::retries)). Arguments and results travel by serde; large arrays in a [`Buffer`], beside
//! it. In tests, [`test_worker!`] stands for `main`.
//!
//! ```
//! use fanmap::{ErrorKind, ProcessPool};
//!
//! fn careless(n: u32) -> u32 {
//!     if n == 3 { std::process::abort() } else { n * 2 }
//! }
//! fanmap::register!(careless);
//!
//! fanmap::init(); // first in main: a worker process runs its worker here, and never returns
//! let pool = ProcessPool::new(2)?;
//! let results: Vec<_> = pool.map(0..5, careless)?.collect();
//! assert_eq!(results[4], Ok(8));
//! assert_eq!(results[3].as_ref().unwrap_err().kind(), ErrorKind::WorkerLost);
//! # Ok::<(), fanmap::Error>(())
//! ```
//!
//! # When to use rayon, tokio or this
//! | the work | take |
//! |---|---|
//! | computes on slices and collections that are in memory; wants `filter`, `fold`, `sort` and the like in parallel | [rayon](https://docs.rs/rayon) |
//! | a stream of items, in order, in bounded memory; tasks that block; tasks to cancel, or to wait for only so long | this |
//! | native code that may crash, hang or leak | this, over processes |
//! | thousands of connections that wait at the same time | [tokio](https://docs.rs/tokio) |
//! | blocking calls and computing beside tokio | this: a [`Future`] can be awaited |
//!
//! A task that waits for another never runs a third one meanwhile, on its own stack, as rayon's do: so a lock that it holds
//! is no danger, and its stack does not grow. The price is that tasks which wait for tasks of the same pool need a thread each.

#![deny(unsafe_code)]
// For loom only the queue is there, and its models are all that uses it.
#![cfg_attr(loom, allow(dead_code, missing_docs, rustdoc::broken_intra_doc_links))]

mod brake;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
pub mod bytes;
#[cfg(not(loom))]
pub mod cgroup;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
pub mod cpus;
mod error;
#[cfg(not(loom))]
mod executor;
mod flow;
#[cfg(not(loom))]
pub mod future;
mod lend;
mod lost;
#[cfg(not(loom))]
pub mod map;
#[cfg(not(loom))]
mod memory;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod oom;
#[cfg(not(loom))]
mod outcome;
#[cfg(not(loom))]
mod output;
mod pipe;
mod queue;
#[cfg(doctest)]
mod refused;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod supervisor;
mod sync;
mod task;
#[cfg(not(loom))]
mod transport;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use buffer::{Buffer, Element};
#[cfg(not(loom))]
pub use config::Retries;
#[cfg(not(loom))]
pub use error::{Error, ErrorKind};
#[cfg(not(loom))]
pub use executor::{ProcessPool, ProcessPoolBuilder, Rejected, Seat, SpawnWith, ThreadPool, ThreadPoolBuilder, rest};
#[cfg(not(loom))]
pub use fanmap_shm::event::{Event, Wake};
#[cfg(not(loom))]
pub use future::{AsCompleted, Control, Future, Promise, When, as_completed, wait};
#[cfg(not(loom))]
pub use lost::{Call, Exit, Overdue, WorkerLost};
#[cfg(not(loom))]
pub use map::{FanMap, Map, Scope, Split, map, map_vec, scope};
#[cfg(not(loom))]
pub use outcome::{Outcome, Panic};
#[cfg(not(loom))]
pub use queue::{Joined, Pending};
#[cfg(not(loom))]
pub use registry::init;
#[cfg(not(loom))]
pub use task::{Job, Start};

/// What the crate's macros expand to. Not for use by hand.
#[doc(hidden)]
#[cfg(not(loom))]
pub mod __private {
    pub use crate::registry::{Entry, TestWorker, call};
    pub use inventory::submit;
}
