//! The jobs that wait for a worker, and the workers that wait for a job.
//!
//! [`Queue`] is the one place where the two meet. It counts workers but never starts one: it says when one is wanted, and
//! the executor brings it. It never runs, drops or looks into a job, so no user code runs under its lock.
//!
//! # Protocol
//! Everything is under one mutex. A worker holds a *place*, which is [`Place::Idle`] from the moment it is reserved (that
//! is, before its thread exists) and [`Place::Busy`] between taking a job and coming back for the next.
//!
//! - `idle` counts the idle places exactly: those workers who will look at `jobs` before they sleep. As a new job is only
//!   given to a new worker if every idle one has a job waiting for it already (`jobs.len() >= idle`), no worker is started
//!   while one has nothing to do, and none is missing while there is room for it.
//! - A worker that is about to publish what its job came to, and will do nothing more of its own, may say so first
//!   ([`Queue::rest`]): it counts as idle from then on. So whoever got a result finds the worker that made it idle, and
//!   starts no other.
//! - A job is pushed only while there is a worker ([`Queue::offer`] answers [`Offer::NeedsWorker`] first), a worker ends by
//!   itself only if there is no job, and the last one to be lost takes the remaining jobs with it
//!   ([`Queue::leave`]). So a queued job always has somebody to run it, or to say that nobody will.
//! - A worker sleeps on the condition variable, whose mutex is ours: between its look at `jobs` and its sleep nothing can
//!   be pushed, so no wake-up is lost. At most one worker is on its way out of sleep for a job (`waking`): it takes a job, and
//!   if another is left it wakes the next. So while there are jobs and sleepers somebody is waking, but a submitter who
//!   is quicker than a wake-up pays for one system call, not for one a job. If a busy worker is quicker than the woken one, that
//!   one sleeps again.
//! - Who waits for the workers to end waits on an [`Event`] instead, since that wait must see signals.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::sync::{AtomicBool, Condvar, Event, Mutex, MutexGuard, Ordering, Wake};

/// What becomes of the tasks that have not started when an executor closes.
///
/// ```
/// use fanmap::{ErrorKind, Pending, ThreadPool};
/// use std::sync::mpsc;
///
/// let pool = ThreadPool::new(1)?;
/// let ((begun, has_begun), (release, held)) = (mpsc::channel(), mpsc::channel::<()>());
/// let runs = pool.submit(move || (begun.send(()), held.recv().is_err()).1)?;
/// let waits = pool.submit(|| 1)?;
/// has_begun.recv().expect("it begins");
/// pool.close(Pending::Cancel);
/// drop(release);
/// assert!(runs.wait()?);
/// assert_eq!(waits.wait().unwrap_err().kind(), ErrorKind::Cancelled);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// They are run, then the workers end.
    Finish,
    /// They are cancelled; only those that are running go on to their end.
    Cancel,
}

/// How waiting for an executor's workers ended.
///
/// ```
/// use fanmap::{Joined, Pending, ThreadPool};
///
/// let pool = ThreadPool::new(2)?;
/// let answer = pool.submit(|| 42)?;
/// pool.close(Pending::Finish);
/// assert_eq!(pool.join(None), Joined::All);
/// assert!(answer.is_done());
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Joined {
    /// No worker is left.
    All,
    /// The deadline passed first.
    TimedOut,
    /// A signal arrived. Look at the signals, then join again or give up.
    Interrupted,
}

/// What a worker is doing, as the queue counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It will look for a job before it sleeps or ends.
    Idle,
    /// It has a job.
    Busy,
}

/// What became of a job that was offered.
#[must_use]
pub(crate) enum Offer<J> {
    /// It is queued, and will be run or handed back.
    Taken,
    /// Not queued yet: bring a worker for the idle place with this index, which is reserved and must be used or left; then
    /// offer the job again.
    NeedsWorker(J, usize),
    /// Not queued: nobody will run it, for this reason.
    Refused(J, Error),
}

/// What [`Queue::next`] found.
#[must_use]
pub(crate) enum Next<J> {
    /// Run this. The place is busy now.
    Job(J),
    /// End. The place is given up.
    End,
}

enum Phase {
    Open,
    Closed,
    Broken(Error),
}

struct State<J> {
    jobs: VecDeque<J>,
    phase: Phase,
    workers: usize,
    idle: usize,
    /// How many of the idle ones sleep, or have been woken and not come back to the mutex yet.
    asleep: usize,
    /// Whether one of those has been woken for a job.
    waking: bool,
    /// Which indices of places are taken: as many as there are workers.
    taken: Vec<bool>,
    /// How many jobs were ever queued.
    queued: u64,
}

impl<J> State<J> {
    /// The lowest index that no worker has.
    fn take_index(&mut self) -> usize {
        let free = self.taken.iter().position(|taken| !taken);
        let index = free.unwrap_or(self.taken.len());
        self.taken.resize(self.taken.len().max(index + 1), false);
        self.taken[index] = true;
        index
    }
}

/// Jobs in the order they came, and the count of those who take them.
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    ended: Event,
    max_workers: usize,
    /// Whether there are as many workers as there may be, as a hint that needs no lock. Written under it.
    full: AtomicBool,
    /// Whether it takes no more jobs. Written under the lock, and only ever set.
    shut: AtomicBool,
    /// Whether jobs that have not started never will: it was closed so, or broke. Written under the lock, and only ever set.
    stopped: AtomicBool,
    idle_time: Option<Duration>,
}

impl<J> Queue<J> {
    /// An open queue for up to `max_workers`, each of which ends after `idle_time` without a job.
    pub(crate) fn new(max_workers: usize, idle_time: Option<Duration>) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                phase: Phase::Open,
                workers: 0,
                idle: 0,
                asleep: 0,
                waking: false,
                taken: Vec::new(),
                queued: 0,
            }),
            work: Condvar::new(),
            ended: Event::new(),
            max_workers,
            full: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            idle_time,
        }
    }

    /// Queues `job`, if somebody is there to run it.
    ///
    /// With `may_grow` false it makes do with the workers that there are: for a caller who could not bring another.
    pub(crate) fn offer(&self, job: J, may_grow: bool) -> Offer<J> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Closed => return Offer::Refused(job, closed()),
            Phase::Broken(why) => return Offer::Refused(job, why.clone()),
        }
        if may_grow && state.jobs.len() >= state.idle && state.workers < self.max_workers {
            let index = state.take_index();
            state.workers += 1;
            state.idle += 1;
            self.full.store(state.workers == self.max_workers, Ordering::Relaxed);
            return Offer::NeedsWorker(job, index);
        }
        if state.workers == 0 {
            return Offer::Refused(
                job,
                Error::new(ErrorKind::Broken, "the pool has no worker to run the task"),
            );
        }
        state.jobs.push_back(job);
        state.queued += 1;
        self.unlock_and_wake(state);
        Offer::Taken
    }

    /// The next job for the worker in `place`, which has this index, waiting for one; or that the worker should end.
    pub(crate) fn next(&self, place: Place, index: usize) -> Next<J> {
        let mut state = self.lock();
        if place == Place::Busy {
            state.idle += 1;
        }
        let mut deadline = None;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.idle -= 1;
                self.unlock_and_wake(state);
                return Next::Job(job);
            }
            if !matches!(state.phase, Phase::Open) {
                break;
            }
            let left = match self.idle_time {
                None => None,
                Some(idle_time) => {
                    let now = Instant::now();
                    let at = *deadline.get_or_insert(now + idle_time);
                    if now >= at {
                        break;
                    }
                    Some(at - now)
                }
            };
            state.asleep += 1;
            state = match left {
                None => self.work.wait(state).expect("nothing panics under this lock"),
                Some(left) => {
                    self.work
                        .wait_timeout(state, left)
                        .expect("nothing panics under this lock")
                        .0
                }
            };
            state.asleep -= 1;
            state.waking = false;
        }
        state.idle -= 1;
        self.lose_worker(&mut state, index);
        self.unlock_and_tell(state);
        Next::End
    }

    /// A job for the worker in `place` if one is waiting right now: the place is busy then, and else what it was.
    pub(crate) fn try_next(&self, place: Place) -> Option<J> {
        let mut state = self.lock();
        let job = state.jobs.pop_front()?;
        if place == Place::Idle {
            state.idle -= 1;
        }
        Some(job)
    }

    /// A busy place is idle from now on: its worker promises to do nothing but come back for the next job. False if it
    /// stays busy, since no other worker could be started anyway.
    pub(crate) fn rest(&self) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        self.lock().idle += 1;
        true
    }

    /// Gives up a place without [`Next::End`]: its worker never came, or was lost.
    ///
    /// Hands back the jobs that now have nobody to run them.
    #[must_use]
    pub(crate) fn leave(&self, place: Place, index: usize) -> VecDeque<J> {
        let mut state = self.lock();
        if place == Place::Idle {
            state.idle -= 1;
        }
        self.lose_worker(&mut state, index);
        let orphans = if state.workers == 0 {
            std::mem::take(&mut state.jobs)
        } else {
            // Whoever leaves this way was not asleep, so no wake-up went to it that another needed.
            VecDeque::new()
        };
        self.unlock_and_tell(state);
        orphans
    }

    /// Takes no more jobs. Hands back those that will not run.
    #[must_use]
    pub(crate) fn close(&self, pending: Pending) -> VecDeque<J> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closed;
        }
        self.shut.store(true, Ordering::Release);
        let cancelled = match pending {
            Pending::Finish => VecDeque::new(),
            Pending::Cancel => {
                self.stopped.store(true, Ordering::Release);
                std::mem::take(&mut state.jobs)
            }
        };
        drop(state);
        self.work.notify_all();
        cancelled
    }

    /// Takes no more jobs, for this reason. Hands back those that will not run.
    #[must_use]
    pub(crate) fn fail(&self, why: &Error) -> VecDeque<J> {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Broken(_)) {
            state.phase = Phase::Broken(why.clone());
        }
        self.shut.store(true, Ordering::Release);
        self.stopped.store(true, Ordering::Release);
        let failed = std::mem::take(&mut state.jobs);
        drop(state);
        self.work.notify_all();
        failed
    }

    /// Waits until there is no worker. Those of an open queue stay, unless they have an idle time: close it first.
    pub(crate) fn join(&self, deadline: Option<Instant>) -> Joined {
        loop {
            let epoch = self.ended.epoch();
            if self.workers() == 0 {
                return Joined::All;
            }
            match self.ended.wait(epoch, deadline) {
                Wake::Notified => {}
                Wake::TimedOut => return Joined::TimedOut,
                Wake::Interrupted => return Joined::Interrupted,
            }
        }
    }

    /// Why it takes no more jobs, if it does not. Costs no lock while it does.
    pub(crate) fn refusal(&self) -> Option<Error> {
        if !self.shut.load(Ordering::Acquire) {
            return None;
        }
        match &self.lock().phase {
            Phase::Open => None,
            Phase::Closed => Some(closed()),
            Phase::Broken(why) => Some(why.clone()),
        }
    }

    /// Whether it takes no more jobs.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.lock().phase, Phase::Open)
    }

    /// Whether jobs that have not started never will be. Costs no lock.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// What broke it, if it did.
    pub(crate) fn broken(&self) -> Option<Error> {
        match &self.lock().phase {
            Phase::Broken(why) => Some(why.clone()),
            Phase::Open | Phase::Closed => None,
        }
    }

    /// How many jobs were ever queued: the number of the next one.
    pub(crate) fn queued(&self) -> u64 {
        self.lock().queued
    }

    /// Whether a job waits whose number is below this.
    pub(crate) fn waits_before(&self, number: u64) -> bool {
        let state = self.lock();
        !state.jobs.is_empty() && state.queued - (state.jobs.len() as u64) < number
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// How many workers there are, with those about to start.
    pub(crate) fn workers(&self) -> usize {
        self.lock().workers
    }

    /// How many workers there may be.
    pub(crate) fn max_workers(&self) -> usize {
        self.max_workers
    }

    /// Wakes a worker if there is a job for it and nobody is on the way.
    fn unlock_and_wake(&self, mut state: MutexGuard<'_, State<J>>) {
        let wake = !state.jobs.is_empty() && state.asleep > 0 && !state.waking;
        state.waking |= wake;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    fn lose_worker(&self, state: &mut State<J>, index: usize) {
        state.workers -= 1;
        state.taken[index] = false;
        self.full.store(false, Ordering::Relaxed);
    }

    fn unlock_and_tell(&self, state: MutexGuard<'_, State<J>>) {
        let none_left = state.workers == 0;
        drop(state);
        if none_left {
            self.ended.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

/// What is told of a job that comes too late.
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the pool has been shut down and takes no more tasks")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn taken<J>(offer: Offer<J>) -> bool {
        matches!(offer, Offer::Taken)
    }

    fn wants_worker<J>(offer: Offer<J>) -> bool {
        matches!(offer, Offer::NeedsWorker(..))
    }

    #[test]
    fn a_worker_is_wanted_only_when_every_idle_one_has_a_job_waiting() {
        let queue = Queue::new(2, None);
        assert!(wants_worker(queue.offer('a', true)));
        assert!(taken(queue.offer('a', true)), "the reserved place counts as idle");
        assert!(wants_worker(queue.offer('b', true)));
        assert!(taken(queue.offer('b', true)));
        assert!(taken(queue.offer('c', true)), "both workers exist");
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job('a')));
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job('b')));
        assert_eq!(queue.try_next(Place::Busy), Some('c'));
        assert_eq!(queue.try_next(Place::Busy), None);
        assert_eq!((queue.len(), queue.workers(), queue.max_workers()), (0, 2, 2));
    }

    #[test]
    fn a_worker_has_the_lowest_index_that_is_free() {
        let index = |offer| match offer {
            Offer::NeedsWorker(_, index) => index,
            _ => panic!("no worker is wanted"),
        };
        let queue = Queue::new(3, None);
        for expected in 0..3 {
            assert_eq!(index(queue.offer('a', true)), expected);
            assert!(taken(queue.offer('a', true)));
        }
        assert!(queue.leave(Place::Idle, 1).is_empty());
        assert!(queue.leave(Place::Idle, 0).is_empty());
        assert_eq!(index(queue.offer('a', true)), 0);
        assert_eq!(index(queue.offer('a', true)), 1);
    }

    #[test]
    fn a_worker_that_rests_is_idle_before_it_comes_back() {
        let queue = Queue::new(2, None);
        assert!(wants_worker(queue.offer('a', true)));
        assert!(taken(queue.offer('a', true)));
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job('a')));
        assert!(queue.rest());
        assert!(
            taken(queue.offer('b', true)),
            "it counts as idle, so no other is wanted"
        );
        assert_eq!(queue.try_next(Place::Idle), Some('b'));
        assert!(queue.rest());
        assert_eq!(queue.try_next(Place::Idle), None);
        assert!(taken(queue.offer('c', true)), "it is idle still");
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job('c')));
        assert!(wants_worker(queue.offer('d', true)), "now it is busy");
        assert!(!queue.rest(), "no other could be started");
    }

    #[test]
    fn the_last_worker_to_be_lost_hands_back_the_jobs() {
        let queue = Queue::new(2, None);
        assert!(wants_worker(queue.offer(1, true)));
        assert!(taken(queue.offer(1, true)));
        assert!(wants_worker(queue.offer(2, true)));
        assert!(taken(queue.offer(2, true)));
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job(1)));
        assert!(queue.leave(Place::Busy, 0).is_empty());
        assert_eq!(queue.leave(Place::Idle, 0), [2]);
        assert!(matches!(queue.offer(3, false), Offer::Refused(3, _)));
        assert_eq!(queue.join(None), Joined::All);
    }

    #[test]
    fn closing_to_finish_keeps_the_jobs_and_closing_to_cancel_hands_them_back() {
        let queue = Queue::new(1, None);
        assert!(wants_worker(queue.offer(1, true)));
        for job in 1..=3 {
            assert!(taken(queue.offer(job, true)));
        }
        assert!(queue.close(Pending::Finish).is_empty());
        assert!(matches!(queue.next(Place::Idle, 0), Next::Job(1)));
        assert_eq!(queue.close(Pending::Cancel), [2, 3]);
        assert_eq!(queue.join(Some(Instant::now())), Joined::TimedOut);
        assert!(matches!(queue.next(Place::Busy, 0), Next::End));
        assert_eq!(queue.join(None), Joined::All);
        assert!(matches!(queue.offer(4, true), Offer::Refused(4, why) if why.kind() == ErrorKind::Closed));
    }

    #[test]
    fn a_failure_refuses_every_later_job_with_its_reason() {
        let queue = Queue::new(1, None);
        assert!(wants_worker(queue.offer(1, true)));
        assert!(taken(queue.offer(1, true)));
        assert_eq!(queue.fail(&Error::new(ErrorKind::Broken, "no way")), [1]);
        assert!(matches!(queue.offer(2, true), Offer::Refused(2, why) if why.message() == "no way"));
    }
}
