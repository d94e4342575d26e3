//! What was asked of a pool, checked once and then passed on as a plain value.

use std::time::Duration;

use crate::cgroup::Limits;
use crate::error::{Error, ErrorKind};

/// What every pool is asked for: a number of workers.
///
/// Both pools refuse the same numbers with the same words, so the check lives here.
pub(crate) fn check_workers(workers: usize) -> Result<usize, Error> {
    if workers == 0 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "the number of workers must be at least 1, not 0",
        ));
    }
    Ok(workers)
}

/// What was asked of a pool of threads.
#[derive(Clone, Debug)]
pub(crate) struct ThreadConfig {
    /// The most threads there may be at a time, at least 1.
    pub(crate) workers: usize,
    /// What the threads' names begin with.
    pub(crate) name: String,
    /// How long a thread waits for work before it ends; `None`: until the pool closes.
    pub(crate) idle: Option<Duration>,
}

impl ThreadConfig {
    /// The same, if a pool can be made of it.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        check_workers(self.workers)?;
        // A worker that gives up at once could be gone before the job it was started for is queued, again and again.
        if self.idle == Some(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the idle time must be longer than nothing",
            ));
        }
        Ok(self)
    }
}

/// When a task over processes that failed is tried again: see [`ProcessPoolBuilder::retries`](crate::ProcessPoolBuilder::retries).
///
/// ```
/// use fanmap::Retries;
/// use std::time::Duration;
///
/// // After 100 ms, 200, 400, 500 and 500, if the function panicked or its worker died; what takes too long is given up.
/// let patient = Retries::new(5)
///     .wait(Duration::from_millis(100))
///     .max_wait(Duration::from_millis(500))
///     .task_timeout(false);
/// let pool = fanmap::ProcessPool::builder().retries(patient).task_timeout(Duration::from_secs(60)).build()?;
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Retries {
    /// How often at most, after the first time.
    pub count: u32,
    /// How long to wait before it is tried again for the first time.
    pub wait: Duration,
    /// By how much the next wait is longer than the one before, each time. At least 1.
    pub factor: f64,
    /// The longest wait.
    pub max_wait: Duration,
    /// Whether it is if its function raised something of which the worker's handler says that it counts
    /// ([`Chunk::raised`](crate::bytes::Chunk::raised)).
    pub raised: bool,
    /// Whether it is if its worker ended.
    pub lost: bool,
    /// Whether it is if it went past the memory limit of its worker.
    pub outgrown: bool,
    /// Whether it is if its time was up.
    pub timed_out: bool,
}

impl Retries {
    /// So often at most, after the first time; at once, and however it failed. 0 is never.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self {
            count,
            wait: Duration::ZERO,
            factor: 2.0,
            max_wait: Duration::from_secs(60),
            raised: true,
            lost: true,
            outgrown: true,
            timed_out: true,
        }
    }

    /// How long to wait before it is tried again for the first time. Default: not at all.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }

    /// By how much each wait is longer than the one before: 1 or more. Default: 2.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The longest wait. Default: a minute.
    #[must_use]
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.max_wait = time;
        self
    }

    /// Whether a task is tried again whose function [`Panicked`](ErrorKind::Panicked). Default: it is.
    #[must_use]
    pub fn panicked(mut self, again: bool) -> Self {
        self.raised = again;
        self
    }

    /// Whether a task is tried again that ended with its worker, as [`WorkerLost`](ErrorKind::WorkerLost). Default: it is.
    #[must_use]
    pub fn worker_lost(mut self, again: bool) -> Self {
        self.lost = again;
        self.outgrown = again;
        self
    }

    /// Whether a task is tried again whose time was up ([`TaskTimeout`](ErrorKind::TaskTimeout)). Default: it is.
    #[must_use]
    pub fn task_timeout(mut self, again: bool) -> Self {
        self.timed_out = again;
        self
    }

    /// The same, if waits can be made of it.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        if self.factor >= 1.0 && self.factor.is_finite() {
            return Ok(self);
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "waits between tries grow by a factor of at least 1, not {}",
                self.factor
            ),
        ))
    }
}

impl From<u32> for Retries {
    fn from(count: u32) -> Self {
        Self::new(count)
    }
}

/// What is asked of a pool of processes.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The most worker processes there may be at a time, at least 1. Default: the cores this process may use.
    pub workers: usize,
    /// After how many tasks a worker is replaced by a fresh one, at least 1; `None` (the default): never.
    pub max_tasks: Option<u64>,
    /// How long an idle pool keeps its processes; they are started again when needed. `None` (the default): until it
    /// closes.
    pub idle: Option<Duration>,
    /// How long a worker that was told to end may take for it, before it is killed; `None`: as long as it wants. Default: 10
    /// seconds.
    pub exit_time: Option<Duration>,
    /// How much memory the pool may keep for large buffers, in bytes: those under way, and those that are idle and warm.
    /// Half is for what goes to workers, half for what comes back. What is under way is not held up by it; past it each
    /// buffer is written to fresh memory, which takes ten times as long. Default: 1 GiB, or an eighth of what the cgroup
    /// may have, if that is less.
    pub blob_bytes: u64,
    /// How much memory of its own a worker may have between tasks, in bytes, beyond what it began with: one that has more
    /// is replaced by a fresh one. It is looked at after tasks, at most every 10 ms. `None` (the default): as much as it
    /// wants.
    pub max_memory: Option<u64>,
    /// How much memory of its own a worker may have at any time, in bytes, beyond what it began with: what goes past it is
    /// refused by the system, where it is asked for. `None` (the default): no limit.
    pub memory_limit: Option<u64>,
    /// Whether workers get channels to an [`Outlet`](crate::bytes::Outlet) with their invitation, in front of the other
    /// descriptors for the handler. `false` (the default): they write to the streams that they were started with.
    pub output: bool,
    /// Whether all workers are started with the first task. `false` (the default): each when a task has nobody to run it.
    pub at_once: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            workers: crate::cpus::available(),
            max_tasks: None,
            idle: None,
            exit_time: Some(Duration::from_secs(10)),
            blob_bytes: blob_bytes(Limits::of_this_process().memory),
            max_memory: None,
            memory_limit: None,
            output: false,
            at_once: false,
        }
    }
}

/// How much a pool keeps for large buffers where this is the limit of memory, if nothing else was asked for. More, and in a small
/// container what is only kept warm would take the room of what the program does; less, and its buffers would be cold.
fn blob_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit / 8).min(1 << 30)
}

/// No process lives in less memory than this: a smaller number is most likely one of megabytes.
const LEAST_MEMORY: u64 = 1 << 20;

impl ProcessConfig {
    /// The same, if a pool can be made of it.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        check_workers(self.workers)?;
        if self.max_tasks == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the number of tasks of a worker must be at least 1, not 0",
            ));
        }
        for memory in [self.max_memory, self.memory_limit].into_iter().flatten() {
            if memory < LEAST_MEMORY {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("the memory of a worker is told in bytes, at least {LEAST_MEMORY}, not {memory}"),
                ));
            }
        }
        match (self.max_memory, self.memory_limit) {
            (Some(max), Some(limit)) if max > limit => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("no worker reaches the {max} bytes at which it is replaced if it is limited to {limit}"),
            )),
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_buffers_is_a_share_of_a_limit() {
        assert_eq!(blob_bytes(None), 1 << 30);
        assert_eq!(blob_bytes(Some(1 << 40)), 1 << 30);
        assert_eq!(blob_bytes(Some(256 << 20)), 32 << 20);
        assert_eq!(blob_bytes(Some(0)), 0);
    }
}
