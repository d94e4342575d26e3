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

pub mod bytes;
mod config;
pub mod cpus;
mod error;
mod executor;
pub mod future;
pub mod map;
mod outcome;
mod queue;
mod registry;
mod supervisor;
mod task;
mod transport;
mod worker;

pub use error::{Error, ErrorKind};
pub use executor::{ProcessPool, ProcessPoolBuilder, Rejected, Seat, SpawnWith, ThreadPool, ThreadPoolBuilder, rest};
pub use fanmap_shm::event::{Event, Wake};
pub use future::{AsCompleted, Control, Future, Promise, When, as_completed, wait};
pub use map::{Map, map};
pub use outcome::{Exit, Outcome, Panic, WorkerLost};
pub use queue::{Joined, Pending};
pub use registry::init;
pub use task::{Job, Start};

/// What the crate's macros expand to. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::registry::{Entry, call};
    pub use inventory::submit;
}
