//! The state word of a chunk of tasks, in memory that the parent and one worker share.
//!
//! # Protocol
//! A chunk is a run of tasks sent in one message. Its word holds a phase, how many of its tasks were *started*, and the
//! *limit*: how many may be. So it tells of each task whether it is queued (at or past `started`), started (the last
//! before it) or done (all those before that).
//!
//! ```text
//! parent  queue(n)    (free)    -> OPEN 0/n
//! worker  start(k)    OPEN k/l  -> OPEN k+1/l       if k < l: task k starts, and the one before it is done
//! worker  finish()    OPEN l/l  -> DONE l/l         nothing will be started any more, and nothing runs
//! parent  cut(k)      OPEN s/l  -> OPEN s/max(s,k)  the tasks from max(s,k) on never start here
//! parent  condemn()   OPEN s/l  -> CONDEMNED s/l    if s > 0: the task that runs is given up, and the worker is ended
//! parent  cut(k)      CONDEMNED s/l -> CONDEMNED s/max(s,k)   nothing starts here any more; others may as well
//! ```
//! Every arrow but the first is a compare-and-swap on the whole word, so exactly one side wins each race: a task that the
//! parent cut off is never started, a worker that has gone on to its next task is not condemned for the last one, and a
//! worker whose step fails in another phase knows that it is condemned and touches nothing more. The parent alone frees a
//! word for the next chunk, once the worker has said that it is through with this one (which it says after DONE, so that
//! it never looks at the word again) or is dead.
//!
//! The order of the parent's store of OPEN before the worker reads it comes from the ring: the word is set before the
//! chunk's frame is published.

use std::ops::Range;

use crate::sync::{AtomicU64, Ordering};

/// The most tasks of one chunk.
pub const MOST_TASKS: u32 = (1 << COUNT_BITS) - 1;

const COUNT_BITS: u32 = 28;

/// How far a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The word belongs to no chunk, or holds nonsense that a broken peer wrote.
    Free,
    /// Its tasks are started one after another.
    Open,
    /// The worker is through with it. The last task's result is published at once if it took long.
    Done {
        /// Whether it took so little that it may be run again, should the worker die before its result is published.
        tiny: bool,
    },
    /// The parent gave up on it while a task ran, and ends the worker.
    Condemned,
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// How far the chunk is.
    pub phase: Phase,
    /// How many of its tasks were started.
    pub started: u32,
    /// How many may be.
    pub limit: u32,
}

/// What became of a worker's attempt to start a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Run it.
    Run,
    /// There is none, or it was cut off: finish.
    Over,
    /// The parent has given the chunk up: end without touching another task.
    Condemned,
}

/// One chunk's state word. All-zero memory is a free word.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU64);

impl Default for Word {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Word {
    /// The parent, before it publishes the frame of a chunk of `tasks` (at most [`MOST_TASKS`]).
    pub fn queue(&self, tasks: u32) {
        debug_assert!(tasks <= MOST_TASKS);
        let state = State {
            phase: Phase::Open,
            started: 0,
            limit: tasks,
        };
        self.0.store(state.pack(), Ordering::Release);
    }

    /// The parent, once the worker is through with the chunk or is dead.
    pub fn free(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// The worker, before it runs `task`, the one after the last it started.
    pub fn start(&self, task: u32) -> Step {
        loop {
            let state = self.state();
            if state.phase != Phase::Open || state.started != task {
                return Step::Condemned;
            }
            if task >= state.limit {
                return Step::Over;
            }
            let next = State {
                started: task + 1,
                ..state
            };
            if self.step(state, next) {
                return Step::Run;
            }
        }
    }

    /// The worker, when every task that it may start has ended; `tiny` as in [`Phase::Done`]. False if it is condemned.
    #[must_use]
    pub fn finish(&self, tiny: bool) -> bool {
        let state = self.state();
        let over = state.phase == Phase::Open && state.started == state.limit;
        over && self.step(
            state,
            State {
                phase: Phase::Done { tiny },
                ..state
            },
        )
    }

    /// The parent: the tasks from `keep` on, as far as they have not started, never start here. Which those are.
    #[must_use]
    pub fn cut(&self, keep: u32) -> Range<u32> {
        loop {
            let state = self.state();
            let limit = state.started.max(keep);
            if !matches!(state.phase, Phase::Open | Phase::Condemned) || limit >= state.limit {
                return 0..0;
            }
            if self.step(state, State { limit, ..state }) {
                return limit..state.limit;
            }
        }
    }

    /// The parent: true if a task was running, whose result will never come; the worker must now be ended.
    #[must_use]
    pub fn condemn(&self) -> bool {
        loop {
            let state = self.state();
            if state.phase != Phase::Open || state.started == 0 {
                return false;
            }
            let condemned = State {
                phase: Phase::Condemned,
                ..state
            };
            if self.step(state, condemned) {
                return true;
            }
        }
    }

    /// What the word says now.
    #[must_use]
    pub fn state(&self) -> State {
        State::unpack(self.0.load(Ordering::Acquire))
    }

    fn step(&self, from: State, to: State) -> bool {
        self.0
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl State {
    /// How many tasks have not been started, and could be: here, or by who takes them back.
    #[must_use]
    pub fn waiting(self) -> u32 {
        match self.phase {
            Phase::Open | Phase::Condemned => self.limit.saturating_sub(self.started),
            Phase::Free | Phase::Done { .. } => 0,
        }
    }

    /// Whether a task was started and the parent has not given the chunk up.
    #[must_use]
    pub fn has_begun(self) -> bool {
        self.started > 0 && matches!(self.phase, Phase::Open | Phase::Done { .. })
    }

    fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Free => 0,
            Phase::Open => 1,
            Phase::Done { tiny: false } => 2,
            Phase::Done { tiny: true } => 3,
            Phase::Condemned => 4,
        };
        (phase << (2 * COUNT_BITS)) | (u64::from(self.limit) << COUNT_BITS) | u64::from(self.started)
    }

    fn unpack(bits: u64) -> Self {
        let count = |shift: u32| u32::try_from((bits >> shift) & u64::from(MOST_TASKS)).unwrap_or(0);
        Self {
            phase: match bits >> (2 * COUNT_BITS) {
                1 => Phase::Open,
                2 => Phase::Done { tiny: false },
                3 => Phase::Done { tiny: true },
                4 => Phase::Condemned,
                _ => Phase::Free,
            },
            started: count(0),
            limit: count(COUNT_BITS),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queued(tasks: u32) -> Word {
        let word = Word::default();
        word.queue(tasks);
        word
    }

    #[test]
    fn a_cut_off_task_never_starts() {
        let word = queued(3);
        assert_eq!(word.start(0), Step::Run);
        assert_eq!(word.cut(0), 1..3, "the one that runs is kept");
        assert_eq!(word.start(1), Step::Over);
        assert!(word.finish(false));
        assert_eq!(word.cut(0), 0..0);
    }

    #[test]
    fn a_chunk_has_begun_from_its_first_start_until_it_is_free_or_given_up() {
        let word = queued(1);
        assert!(!word.state().has_begun());
        assert_eq!(word.start(0), Step::Run);
        assert!(word.state().has_begun());
        assert!(word.finish(false));
        assert!(word.state().has_begun());
        word.free();
        assert!(!word.state().has_begun());
        word.queue(1);
        assert_eq!(word.start(0), Step::Run);
        assert!(word.condemn() && !word.state().has_begun());
    }

    #[test]
    fn a_finished_chunk_is_never_condemned() {
        let word = queued(1);
        assert!(!word.condemn(), "nothing runs yet");
        assert_eq!(word.start(0), Step::Run);
        assert!(word.finish(true));
        assert!(!word.condemn());
        assert_eq!(word.state().phase, Phase::Done { tiny: true });
    }

    #[test]
    fn a_condemned_task_is_the_last() {
        let word = queued(2);
        assert_eq!(word.start(0), Step::Run);
        assert!(word.condemn());
        assert_eq!(word.start(1), Step::Condemned);
        assert!(!word.finish(false));
    }

    #[test]
    fn a_chunk_is_not_finished_while_a_task_waits() {
        let word = queued(2);
        assert_eq!(word.start(0), Step::Run);
        assert!(!word.finish(false));
        assert_eq!(word.state().waiting(), 1);
    }

    proptest! {
        #[test]
        fn a_state_comes_back_as_it_was(phase in 0u64..5, started in 0..=MOST_TASKS, limit in 0..=MOST_TASKS) {
            let bits = (phase << 56) | (u64::from(limit) << 28) | u64::from(started);
            let state = State::unpack(bits);
            prop_assert_eq!((state.started, state.limit), (started, limit));
            prop_assert_eq!(state.pack(), bits);
        }
    }
}
