//! A plain `map` made parallel: same results, same order, one call.
//!
//! ```
//! let lengths: Result<Vec<usize>, fanmap::Error> = fanmap::map(["one", "two", "three"], str::len).collect();
//! assert_eq!(lengths?, [3, 3, 5]);
//! # Ok::<(), fanmap::Error>(())
//! ```
//!
//! A [`ThreadPool`] runs tasks on threads, for work that computes and for work that waits. It gives a [`Future`] for a
//! task, and an ordered, bounded [`map`](ThreadPool::map) for many. A panic in a task is that task's [`Error`], and nothing
//! else's.
//!
//! ```
//! use fanmap::ThreadPool;
//!
//! let pool = ThreadPool::new(4)?;
//! let answer = pool.submit(|| 6 * 7)?;
//! let doubled: Vec<_> = pool.map(0..1000, |n| n * 2).take(3).collect::<Result<_, _>>()?;
//! assert_eq!(answer.wait()?, 42);
//! assert_eq!(doubled, [0, 2, 4]);
//! # Ok::<(), fanmap::Error>(())
//! ```

#![deny(unsafe_code)]
// For loom only the queue is there, and its models are all that uses it.
#![cfg_attr(loom, allow(dead_code, missing_docs, rustdoc::broken_intra_doc_links))]

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
mod queue;
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
    pub use crate::registry::{Entry, call};
    pub use inventory::submit;
}
