//! What runs tasks: one sibling for each kind of worker.

pub(crate) mod processes;
pub(crate) mod threads;

pub use processes::{ProcessPool, ProcessPoolBuilder};
pub use threads::{Rejected, Seat, SpawnWith, ThreadPool, ThreadPoolBuilder, rest};
