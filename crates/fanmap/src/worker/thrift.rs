//! How much memory a worker has of its own, and whether it has too much.
//!
//! There are two limits, both beyond what the process began with (one that a program forked begins with all of the program's):
//!
//! * One that is looked at *between tasks*. A worker that is past it, though its handler has tidied up, starts no more tasks:
//!   it says so, and ends in order. What it has not started others do.
//! * One that the system holds *at any time*. Who asks for more is refused, and the task that asked sees that its language's
//!   way: Python raises MemoryError, Rust aborts. A handler that is told so lifts the limit, so that there is memory to say
//!   what happened ([`Chunk::outgrown`](super::Chunk::outgrown)); and the worker ends, since others would pay for what is
//!   left of the task.

use std::time::Duration;

use fanmap_shm::clock::Ticker;
use fanmap_shm::process::{self, DataLimit};

use super::Handler;
use crate::error::Error;

/// How often to look at most. It takes some 30 us: more often, and short tasks would pay for it; less often, and many tasks
/// could grow the worker before anybody looks.
const EVERY: Duration = Duration::from_millis(10);

/// A worker's limits of memory.
#[derive(Debug)]
pub(super) struct Thrift {
    most: Option<u64>,
    limit: Option<DataLimit>,
    /// What the process began with.
    base: u64,
    /// When it was looked at, by the ticker.
    looked: Option<u64>,
    /// Whether the worker starts no more tasks.
    over: bool,
}

impl Thrift {
    /// From now on this process may have `most` bytes between tasks, and `limit` at any time.
    pub(super) fn new(most: Option<u64>, limit: Option<u64>) -> Result<Self, Error> {
        let limited = limit.map(DataLimit::of_more).transpose();
        Ok(Self {
            most,
            limit: limited.map_err(|cause| Error::os("limit the memory of a worker", cause))?,
            base: most.and_then(|_| process::own_memory()).unwrap_or(0),
            looked: None,
            over: false,
        })
    }

    /// Whether the worker is to start no more tasks. A task has ended at `tick`.
    pub(super) fn is_over(&mut self, ticker: &Ticker, tick: u64, handler: &mut dyn Handler) -> bool {
        let Some(most) = self.most.filter(|_| !self.over) else {
            return self.over;
        };
        if !self.looked.is_some_and(|looked| ticker.within(looked, tick, EVERY)) {
            self.looked = Some(tick);
            let has_more = || process::own_memory().is_some_and(|now| now.saturating_sub(self.base) > most);
            self.over = has_more() && {
                handler.tidy();
                has_more()
            };
        }
        self.over
    }

    /// The system has refused memory to a task: there is no limit any more, and no further task. False if there was none.
    pub(super) fn lift(&mut self) -> bool {
        let limit = self.limit.take();
        let was_limited = limit.is_some();
        self.over |= was_limited;
        limit.into_iter().for_each(DataLimit::lift);
        was_limited
    }
}
