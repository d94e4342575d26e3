//! One call of the user's function: what an executor may do with it, and what stage it is at.
//!
//! # Protocol
//! A task that nobody else keeps the state of has it in one atomic, [`TaskState`]:
//!
//! ```text
//! Pending --start (the worker)--> Running --finish (the worker)--> Done
//!    \----cancel (anybody)------> Cancelled
//! ```
//!
//! `start` and `cancel` are compare-and-swaps from `Pending`, so exactly one of them wins: a task whose cancellation
//! succeeded never runs, and one that started cannot be cancelled. Nothing leaves `Done` or `Cancelled`.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::Error;

/// Something an executor runs once, or tells that it will never run.
///
/// An executor that takes a job calls exactly one of the three methods, without holding any lock of its own.
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
///
/// struct Greet(Sender<&'static str>);
///
/// impl fanmap::Job for Greet {
///     fn run(self: Box<Self>) {
///         let _ = self.0.send("hello");
///     }
///     fn discard(self: Box<Self>) {
///         let _ = self.0.send("never");
///     }
/// }
///
/// let (sender, heard) = channel();
/// fanmap::ThreadPool::new(1)?.execute(Box::new(Greet(sender))).map_err(|rejected| rejected.error)?;
/// assert_eq!(heard.recv(), Ok("hello"));
/// # Ok::<(), fanmap::Error>(())
/// ```
pub trait Job: Send {
    /// Does the work, on a worker. A panic in it is contained, but nobody hears of it: report outcomes from inside.
    fn run(self: Box<Self>);

    /// The job will never run: the executor closed with [`Pending::Cancel`](crate::Pending::Cancel).
    fn discard(self: Box<Self>);

    /// The job will never run: the executor broke, for this reason. If not given, the same as [`discard`](Job::discard).
    fn fail(self: Box<Self>, why: &Error) {
        let _ = why;
        self.discard();
    }
}

/// What stage a task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It waits for a worker.
    Pending,
    /// A worker runs it.
    Running,
    /// It has an outcome, other than being cancelled.
    Done,
    /// It will never run.
    Cancelled,
}

impl Stage {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Stage::Pending,
            1 => Stage::Running,
            2 => Stage::Done,
            _ => Stage::Cancelled,
        }
    }

    /// Whether nothing can change any more.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Stage::Done | Stage::Cancelled)
    }
}

/// Whether a worker may run the task.
///
/// [`Promise::start`](crate::Promise::start) tells it; see there for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Start {
    /// Run it: it cannot be cancelled any more.
    Run,
    /// Leave it: it was cancelled.
    Skip,
}

/// What an attempt to cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Cancel {
    /// The task is cancelled now, by this call.
    Now,
    /// It was cancelled before.
    Before,
    /// It has started.
    TooLate,
}

/// The stage of one task, shared by whoever runs it and whoever may cancel it.
#[derive(Debug)]
pub(crate) struct TaskState(AtomicU8);

impl TaskState {
    /// A task that waits for a worker.
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(Stage::Pending as u8))
    }

    /// The stage it is at.
    pub(crate) fn stage(&self) -> Stage {
        Stage::from_bits(self.0.load(Ordering::Acquire))
    }

    /// From `Pending` to `Running`, if it was not cancelled first.
    pub(crate) fn start(&self) -> Start {
        match self.leave_pending(Stage::Running) {
            Ok(()) => Start::Run,
            Err(_) => Start::Skip,
        }
    }

    /// From `Pending` to `Cancelled`, if it did not start first.
    pub(crate) fn cancel(&self) -> Cancel {
        match self.leave_pending(Stage::Cancelled) {
            Ok(()) => Cancel::Now,
            Err(Stage::Cancelled) => Cancel::Before,
            Err(_) => Cancel::TooLate,
        }
    }

    /// To its end. Only whoever holds the task's outcome calls this, once.
    pub(crate) fn finish(&self, end: Stage) {
        debug_assert!(end.is_over());
        self.0.store(end as u8, Ordering::Release);
    }

    fn leave_pending(&self, to: Stage) -> Result<(), Stage> {
        self.0
            .compare_exchange(Stage::Pending as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Stage::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_task_cannot_be_cancelled() {
        let task = TaskState::new();
        assert_eq!(task.start(), Start::Run);
        assert_eq!(task.cancel(), Cancel::TooLate);
        assert_eq!(task.stage(), Stage::Running);
        task.finish(Stage::Done);
        assert_eq!(task.cancel(), Cancel::TooLate);
        assert!(task.stage().is_over());
    }

    #[test]
    fn a_cancelled_task_never_starts() {
        let task = TaskState::new();
        assert_eq!(task.cancel(), Cancel::Now);
        assert_eq!(task.start(), Start::Skip);
        assert_eq!(task.cancel(), Cancel::Before);
        assert_eq!(task.stage(), Stage::Cancelled);
    }
}
