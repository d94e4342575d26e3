//! The state word of one task, in memory that the parent and one worker share.
//!
//! # Protocol
//! ```text
//!            parent sends               worker                    worker
//!   (free) ---------------> QUEUED ----------------> STARTED ---------------> DONE
//!                             |                         |
//!                             | parent                  | parent (deadline, kill)
//!                             +--> CANCELLED            +--> CONDEMNED
//!                             +--> TAKEN_BACK
//! ```
//! Every arrow but the first is a compare-and-swap, so exactly one side wins each race: a task that the parent cancelled
//! or took back is never started, a task that the worker finished is never killed, and a worker whose step to DONE fails
//! knows that it is condemned and touches nothing more. The parent alone frees a word for the next task, once the worker
//! has answered for it (with a reply, or by saying that it skipped it) or is dead.
//!
//! The order of the parent's store of QUEUED before the worker reads it comes from the ring: the word is set before the
//! task's frame is published.

use crate::sync::{AtomicU32, Ordering};

/// Where a task that was sent to a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The word belongs to no task, or holds nonsense that a broken peer wrote.
    Free,
    /// Sent, not started.
    Queued,
    /// The worker runs it.
    Started,
    /// The worker has run it; the reply follows.
    Done,
    /// The parent cancelled it before it started.
    Cancelled,
    /// The parent took it back to give it to another worker.
    TakenBack,
    /// The parent gave up on it while it ran, and ends the worker.
    Condemned,
}

const FREE: u32 = 0;
const QUEUED: u32 = 1;
const STARTED: u32 = 2;
const DONE: u32 = 3;
const CANCELLED: u32 = 4;
const TAKEN_BACK: u32 = 5;
const CONDEMNED: u32 = 6;

/// One task's state word. All-zero memory is a free word.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU32);

impl Default for Word {
    fn default() -> Self {
        Self(AtomicU32::new(FREE))
    }
}

impl Word {
    /// The parent, before it publishes the task's frame.
    pub fn queue(&self) {
        self.0.store(QUEUED, Ordering::Release);
    }

    /// The parent, once the worker has answered for the task or is dead.
    pub fn free(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// The worker, before it runs the task: false if the parent wants it no more.
    #[must_use]
    pub fn start(&self) -> bool {
        self.step(QUEUED, STARTED)
    }

    /// The worker, after it ran the task and before it publishes the reply: false if it is condemned.
    #[must_use]
    pub fn finish(&self) -> bool {
        self.step(STARTED, DONE)
    }

    /// The parent: true if the task will never start.
    #[must_use]
    pub fn cancel(&self) -> bool {
        self.step(QUEUED, CANCELLED)
    }

    /// The parent: true if the task will not start here and may be given to another worker.
    #[must_use]
    pub fn take_back(&self) -> bool {
        self.step(QUEUED, TAKEN_BACK)
    }

    /// The parent: true if the task was running and its reply will never come; the worker must now be ended.
    #[must_use]
    pub fn condemn(&self) -> bool {
        self.step(STARTED, CONDEMNED)
    }

    /// Where the task stands now.
    #[must_use]
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            QUEUED => State::Queued,
            STARTED => State::Started,
            DONE => State::Done,
            CANCELLED => State::Cancelled,
            TAKEN_BACK => State::TakenBack,
            CONDEMNED => State::Condemned,
            _ => State::Free,
        }
    }

    fn step(&self, from: u32, to: u32) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_task_never_starts() {
        let word = Word::default();
        word.queue();
        assert!(word.cancel());
        assert!(!word.start());
        assert_eq!(word.state(), State::Cancelled);
    }

    #[test]
    fn a_finished_task_is_never_condemned() {
        let word = Word::default();
        word.queue();
        assert!(word.start());
        assert!(!word.cancel() && !word.take_back());
        assert!(word.finish());
        assert!(!word.condemn());
        assert_eq!(word.state(), State::Done);
    }

    #[test]
    fn a_condemned_task_never_finishes() {
        let word = Word::default();
        word.queue();
        assert!(word.start() && word.condemn());
        assert!(!word.finish());
    }
}
