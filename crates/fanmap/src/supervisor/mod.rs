//! A pool of supervised worker processes, in bytes: it knows nothing of what functions and arguments mean.
//!
//! # Who does what
//! * **Any thread** may submit and cancel. Under the pool's lock it queues the task and, where a worker has room, writes it
//!   straight into that worker's ring: no other thread has to wake up for a task to start.
//! * **The supervisor** is one thread with all signals blocked. It starts workers (they die with the thread that started
//!   them), reads what they say, settles what becomes of tasks when one ends, and sleeps in `poll` otherwise: on the pool's
//!   bell, the workers' pidfds and the template's socket. It never needs anything of the program's but the lock.
//!   It is started by the first submit, and ends with the last worker once the pool is closed, or was idle for as long as
//!   it may be.
//! * **Sinks** get the ends. They are called after the lock is released, by whoever found the end.
//!
//! # Why it cannot hang
//! The lock is never held while waiting: writing into a ring takes what fits and leaves the rest to the next turn. The
//! supervisor's wake-ups are: a worker's ring (it armed every flag and looked once more before it slept), a worker's end
//! (the kernel makes the pidfd readable, whatever the worker was doing), the template's end, and the bell that other
//! threads ring after a change that needs it. A worker that ends has its last words read first; then each of its tasks is
//! settled by its state word: started ones are lost, others go back to the head of the queue.
//!
//! | module | what it is |
//! |---|---|
//! | [`policy`] | the decisions (pure) |
//! | [`job`] | tasks, functions, sinks |
//! | [`launcher`] | how workers come to be |
//! | [`seat`] | the parent's record of one worker |
//! | [`state`] | what the lock protects |

pub(crate) mod job;
pub(crate) mod launcher;
mod policy;
mod seat;
mod state;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fanmap_shm::bell::Bell;
use fanmap_shm::blob::Blobs;
use fanmap_shm::event::{Event, Wake};
use fanmap_shm::link::Link;
use fanmap_shm::mapping;
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process::Process;
use fanmap_shm::signals;
use fanmap_shm::word::{self, MOST_TASKS};

use crate::config::ProcessConfig;
use crate::error::{Error, ErrorKind};
use crate::memory::{Ledger, Load, Memory};
use crate::queue::{Joined, Pending};
use crate::supervisor::job::{Broken, Forgotten, Function, Job, Packed, Place, Sink};
use crate::supervisor::launcher::{Launcher, Start};
use crate::supervisor::seat::Seat;
use crate::supervisor::state::{Phase, Setup, State};
use crate::transport::control::Report;
use crate::transport::frame::Part;

/// For how long an idle pool keeps memory warm for large buffers. Shorter, and a program that maps every few seconds writes
/// to fresh pages each time, which takes ten times as long; longer, and it holds memory that others could use.
const WARM_TIME: Duration = Duration::from_secs(5);

/// A pool of supervised worker processes, in bytes.
///
/// Dropping it closes it: what was submitted is finished, then the workers end.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// One submitted task.
#[derive(Clone)]
pub struct Ticket {
    job: Arc<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Rung by workers that have something to say, and by threads that need the supervisor.
    bell: Arc<Bell>,
    /// Moves on when the supervisor ends.
    ended: Event,
    /// Moves on after each turn of the supervisor's.
    turned: Event,
    forgotten: Arc<Forgotten>,
    /// What functions and arguments are written to that are too large for the rings.
    memory: Arc<Memory>,
    config: ProcessConfig,
    /// The process that the pool belongs to. In a child that it forks, the lock may be held by a thread that is not there.
    owner: u32,
}

impl Pool {
    /// A pool that gets its workers from `start`. Nothing is started yet.
    ///
    /// # Errors
    /// A configuration that cannot be used, or no descriptor left.
    pub fn new(config: ProcessConfig, start: Start) -> Result<Self, Error> {
        let config = config.checked()?;
        let bell = Arc::new(Bell::new().map_err(|cause| Error::os("make a doorbell", cause))?);
        let memory = Memory::create(config.blob_bytes / 2).map_err(|cause| Error::os("make shared memory", cause))?;
        let state = State::new(config.workers, config.at_once, start);
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                bell,
                ended: Event::new(),
                turned: Event::new(),
                forgotten: Arc::default(),
                memory,
                config,
                owner: std::process::id(),
            }),
        })
    }

    /// A function for [`Pool::submit`]. Each worker that needs it is sent `body` once.
    ///
    /// # Errors
    /// The pool belongs to another process.
    pub fn function(&self, body: impl Into<Load>) -> Result<Arc<Function>, Error> {
        let id = self.shared.lock()?.next_id();
        Ok(Arc::new(Function::new(id, body.into(), &self.shared.forgotten)))
    }

    /// Starts the template, for a pool that has one: it gets ready while the first task is encoded.
    ///
    /// # Errors
    /// The pool belongs to another process, or the thread that starts workers cannot be started.
    pub fn warm_up(&self) -> Result<(), Error> {
        let mut state = self.shared.lock()?;
        match &state.start {
            Some(Start::Template(_)) => Shared::supervise(&self.shared, &mut state),
            _ => Ok(()),
        }
    }

    /// Where to write buffers that go with functions and arguments and are too large for the rings.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// What workers that are started from now on are told first, and descriptors that go with it.
    ///
    /// # Errors
    /// The pool belongs to another process.
    pub fn set_setup(&self, body: Vec<u8>, fds: Vec<OwnedFd>) -> Result<(), Error> {
        self.shared.lock()?.setup = Setup {
            body: Arc::new(body),
            fds: Arc::new(fds),
        };
        Ok(())
    }

    /// Whether the next task may cause a worker to be started: then is the time for [`Pool::set_setup`].
    #[must_use]
    pub fn may_start_worker(&self) -> bool {
        let Ok(state) = self.shared.lock() else {
            return false;
        };
        // A worker that is about to leave makes room for another.
        state.staying() < self.shared.config.workers && !state.seats.iter().any(Seat::is_idle)
    }

    /// Submits a task: `function` on `argument`. Its end goes to `sink`, with `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after [`Pool::close`], [`ErrorKind::Broken`] if the workers cannot live, or if the pool belongs
    /// to another process.
    pub fn submit(
        &self,
        function: &Arc<Function>,
        argument: impl Into<Load>,
        sink: Arc<dyn Sink>,
        key: u64,
    ) -> Result<Ticket, Error> {
        let job = self.queue(function, argument.into(), 1, sink, key)?;
        Ok(Ticket {
            job,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Submits a run of `count` tasks, whose arguments are encoded together in `arguments`. They are tasks of their own
    /// all the same: they may be worked on by several workers, and their ends go to `sink` as they come, with the keys from
    /// `first` on. They are cancelled by [`Pool::cancel`].
    ///
    /// # Errors
    /// As [`Pool::submit`]; [`ErrorKind::InvalidInput`] for no task, or more than 2^28 - 1.
    pub fn submit_run(
        &self,
        function: &Arc<Function>,
        arguments: impl Into<Load>,
        count: u32,
        sink: Arc<dyn Sink>,
        first: u64,
    ) -> Result<(), Error> {
        if count == 0 || count > MOST_TASKS {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a run has at least 1 task and at most {MOST_TASKS}, not {count}"),
            ));
        }
        self.queue(function, arguments.into(), count, sink, first).map(drop)
    }

    fn queue(
        &self,
        function: &Arc<Function>,
        load: Load,
        count: u32,
        sink: Arc<dyn Sink>,
        key: u64,
    ) -> Result<Arc<Job>, Error> {
        let message = Packed::new(load);
        let mut state = self.shared.lock()?;
        match &state.phase {
            Phase::Open => {}
            Phase::Closing => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    "cannot schedule new tasks after shutdown",
                ));
            }
            Phase::Broken(broken) => return Err(Error::new(ErrorKind::Broken, broken.reason.clone())),
        }
        let job = Arc::new(Job {
            id: state.next_id(),
            function: Arc::clone(function),
            message,
            part: Part::all(count),
            sink,
            key,
            place: Mutex::new(Place::Queued),
        });
        state.queue.push_back(Arc::clone(&job));
        state.dispatch();
        Shared::start_workers(&self.shared, &mut state)?;
        Ok(job)
    }

    /// Cancels every task that was submitted with this sink and has not started; with `kill`, workers that run one are
    /// ended. The sink is told of all of them.
    pub fn cancel(&self, sink: &Arc<dyn Sink>, kill: bool) {
        let Ok(mut state) = self.shared.lock() else {
            return;
        };
        state.cancel_of(sink, kill);
        let owed = std::mem::take(&mut state.owed);
        drop(state);
        owed.into_iter().for_each(state::Owed::deliver);
        // What was cancelled may have been the last that a closing pool waited for.
        self.shared.bell.ring();
    }

    /// Takes no more tasks. What was submitted is finished, or cancelled as far as it has not started; then the workers
    /// end. Closing twice is no error.
    pub fn close(&self, pending: Pending) {
        let Ok(mut state) = self.shared.lock() else {
            return;
        };
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        if pending == Pending::Cancel {
            state.cancel_waiting();
        }
        let owed = std::mem::take(&mut state.owed);
        // Without a supervisor there is nothing to finish, and what would have started workers may end.
        let unused = if state.supervised {
            None
        } else {
            Some((state.start.take(), std::mem::take(&mut state.setup)))
        };
        drop(state);
        drop(unused);
        owed.into_iter().for_each(state::Owed::deliver);
        self.shared.bell.ring();
    }

    /// Ends every worker now: by SIGKILL, or first by SIGTERM. Every task that is not done fails, and the pool takes no more.
    pub fn end_workers(&self, kill: bool) {
        let Ok(mut state) = self.shared.lock() else {
            return;
        };
        state.give_up(Broken {
            reason: "the workers were ended on request".to_owned(),
            refusal: None,
        });
        state
            .seats
            .iter_mut()
            .for_each(if kill { Seat::kill } else { Seat::terminate });
        let owed = std::mem::take(&mut state.owed);
        drop(state);
        owed.into_iter().for_each(state::Owed::deliver);
        self.shared.bell.ring();
    }

    /// After [`Pool::close`]: waits until nothing of the pool is left, no process and no thread.
    pub fn join(&self, deadline: Option<Instant>) -> Joined {
        loop {
            let epoch = self.shared.ended.epoch();
            let Ok(mut state) = self.shared.lock() else {
                return Joined::All;
            };
            if !state.supervised {
                let thread = state.thread.take();
                drop(state);
                if let Some(thread) = thread {
                    // It has let go of everything and is about to return.
                    let _ = thread.join();
                }
                return Joined::All;
            }
            if state
                .thread
                .as_ref()
                .is_some_and(|thread| thread.thread().id() == thread::current().id())
            {
                // A sink that waits for its own caller would wait for ever.
                return Joined::TimedOut;
            }
            drop(state);
            match self.shared.ended.wait(epoch, deadline) {
                Wake::Notified => {}
                Wake::TimedOut => return Joined::TimedOut,
                Wake::Interrupted => return Joined::Interrupted,
            }
        }
    }

    /// Asks for a worker, as a task would, if none is idle that has worked: for who has no task to submit but wants somebody
    /// there.
    ///
    /// # Errors
    /// The pool belongs to another process, or the thread that starts workers cannot be started.
    pub fn want_worker(&self) -> Result<(), Error> {
        let mut state = self.shared.lock()?;
        state.want_worker();
        Shared::start_workers(&self.shared, &mut state)
    }

    /// The process ids of the workers that run now, but for those that have nothing left to do but end.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        self.shared.lock().map_or_else(
            |_| Vec::new(),
            |state| {
                let busy = state.seats.iter().filter(|seat| !seat.is_spent());
                busy.filter_map(Seat::pid).collect()
            },
        )
    }

    /// Waits until the workers that were asked for have been started, as far as they could be: then [`Pool::workers`] tells
    /// of all.
    pub fn await_starts(&self, deadline: Option<Instant>) -> Joined {
        self.await_turn(deadline, || {
            self.shared.lock().map_or(true, |state| state.are_all_started())
        })
    }

    /// Ends the worker with this process id, by SIGKILL or (not `kill`) by SIGTERM, as a death of its own: its task is lost.
    /// False if it is no worker.
    pub fn signal_worker(&self, pid: u32, kill: bool) -> bool {
        let Ok(state) = self.shared.lock() else {
            return false;
        };
        let mut processes = state.seats.iter().filter_map(|seat| seat.process.as_ref());
        let Some(process) = processes.find(|process| process.pid() == pid) else {
            return false;
        };
        if kill {
            process.kill();
        } else {
            process.terminate();
        }
        true
    }

    /// Waits until the process with this id is no worker any more.
    pub fn await_worker(&self, pid: u32, deadline: Option<Instant>) -> Joined {
        self.await_turn(deadline, || !self.has_worker(pid))
    }

    /// Waits until `done`, which can only come true by a turn of the supervisor's.
    fn await_turn(&self, deadline: Option<Instant>, done: impl Fn() -> bool) -> Joined {
        loop {
            let epoch = self.shared.turned.epoch();
            if done() {
                return Joined::All;
            }
            match self.shared.turned.wait(epoch, deadline) {
                Wake::Notified => {}
                Wake::TimedOut => return Joined::TimedOut,
                Wake::Interrupted => return Joined::Interrupted,
            }
        }
    }

    /// Whether the process with this id is a worker of the pool that has not ended, as far as is known.
    #[must_use]
    pub fn has_worker(&self, pid: u32) -> bool {
        self.shared
            .lock()
            .is_ok_and(|state| state.seats.iter().any(|seat| seat.pid() == Some(pid) && !seat.gone))
    }

    /// How many workers there may be.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.shared.config.workers
    }

    /// How many tasks have not been given to a worker.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared
            .lock()
            .map_or(0, |state| state.queue.iter().map(|job| job.count() as usize).sum())
    }

    /// Why the pool cannot go on, if so.
    #[must_use]
    pub fn broken(&self) -> Option<Arc<Broken>> {
        match &self.shared.lock().ok()?.phase {
            Phase::Broken(broken) => Some(Arc::clone(broken)),
            _ => None,
        }
    }

    /// Whether the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared
            .lock()
            .is_ok_and(|state| matches!(state.phase, Phase::Closing))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Pending::Finish);
    }
}

impl Ticket {
    /// Cancels the task: true if it will never run. Its sink is told.
    pub fn cancel(&self) -> bool {
        self.with_state(|state, job| state.cancel(job))
    }

    /// Cancels the task, and ends its worker if it runs. Its sink is told; false if the task has ended already.
    pub fn kill(&self) -> bool {
        self.with_state(|state, job| state.kill(job))
    }

    /// Whether the task's end was delivered, or is about to be.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.job.has_ended()
    }

    /// Whether a worker runs the task now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let Ok(_state) = self.shared.lock() else {
            return false;
        };
        match &*self.job.place.lock().unwrap_or_else(PoisonError::into_inner) {
            Place::Sent { link, slot, .. } => link.word(*slot as usize).is_some_and(|word| {
                let state = word.state();
                state.phase == word::Phase::Open && state.started > 0
            }),
            Place::Queued | Place::Ended => false,
        }
    }

    fn with_state(&self, act: impl FnOnce(&mut State, &Arc<Job>) -> bool) -> bool {
        let Ok(mut state) = self.shared.lock() else {
            return false;
        };
        let done = act(&mut state, &self.job);
        let owed = std::mem::take(&mut state.owed);
        drop(state);
        let last = owed.is_empty();
        owed.into_iter().for_each(state::Owed::deliver);
        if !last {
            // A cancelled task may have been the last one that a closing pool waited for.
            self.shared.bell.ring();
        }
        done
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.job.id)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.config)
    }
}

impl Shared {
    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        if std::process::id() != self.owner {
            return Err(Error::new(
                ErrorKind::Broken,
                "this pool belongs to the process that made it; make a new one after a fork",
            ));
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the workers started that there should be.
    fn start_workers(shared: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        if state.starts() > 0 {
            Self::supervise(shared, state)?;
            shared.bell.ring();
        }
        Ok(())
    }

    /// Starts the supervisor unless it runs.
    fn supervise(shared: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        if state.supervised {
            return Ok(());
        }
        let start = state
            .start
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Broken, "the pool has no way to start workers"))?;
        // One that ended for idleness has nothing left to do but return.
        state.thread = None;
        let handed = Arc::new(Mutex::new(Some(start)));
        let (taken, own) = (Arc::clone(&handed), Arc::clone(shared));
        let spawned = thread::Builder::new()
            .name("fanmap-supervisor".to_owned())
            .spawn(move || {
                let start = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(start) = start {
                    Supervisor::new(own, start).run();
                }
            });
        match spawned {
            Ok(thread) => {
                state.thread = Some(thread);
                state.supervised = true;
                Ok(())
            }
            Err(cause) => {
                state.start = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(Error::os("start the thread that supervises the workers", cause))
            }
        }
    }
}

/// The workers whose ends are waited for, and until when.
type Watched = (Vec<(u64, Arc<Process>)>, Option<Instant>);

/// What one look at everything found.
#[must_use]
struct Turn {
    /// How many workers to start.
    starts: usize,
    /// Whether nothing is left to supervise.
    done: bool,
    /// Whether no end was handed over: a sink may have submitted or cancelled something, so look again before leaving.
    settled: bool,
}

/// The supervisor's thread.
struct Supervisor {
    shared: Arc<Shared>,
    start: Start,
    launcher: Option<Launcher>,
}

impl Supervisor {
    fn new(shared: Arc<Shared>, start: Start) -> Self {
        Self {
            shared,
            start,
            launcher: None,
        }
    }

    fn run(mut self) {
        signals::block_all();
        if matches!(self.start, Start::Template(_)) {
            // If that fails, it is tried again for the first worker, and told.
            self.launcher = self.start.open().ok();
        }
        loop {
            let turn = self.turn();
            for _ in 0..turn.starts {
                self.start_worker();
            }
            self.shared.turned.notify();
            if turn.done && turn.settled && self.leave() {
                return;
            }
            // Nothing would wake one who has nothing left to wait for: it looks again until it may leave.
            if turn.starts == 0 && !turn.done {
                self.sleep();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at everything.
    fn turn(&mut self) -> Turn {
        let forgotten = self.shared.forgotten.take();
        let mut state = self.lock();
        state.listen();
        state.bury();
        if !forgotten.is_empty() {
            state.seats.iter_mut().for_each(|seat| seat.forget(&forgotten));
        }
        state.dispatch();
        let starts = state.starts();
        let idle = state.idle_since;
        let expired = self.idle_deadline(idle).is_some_and(|at| at <= Instant::now());
        let finishing = !matches!(state.phase, Phase::Open) || expired;
        if finishing && idle.is_some() && starts == 0 {
            state.seats.iter_mut().for_each(Seat::dismiss);
        }
        let done = finishing && idle.is_some() && starts == 0 && state.seats.is_empty();
        let cools = self.cool_deadline(&state).is_some_and(|at| at <= Instant::now());
        if cools {
            // First, so that what waited for forks to end is returned as well.
            mapping::settle();
            state.seats.iter_mut().for_each(Seat::cool);
        }
        let owed = std::mem::take(&mut state.owed);
        drop(state);
        if cools {
            self.shared.memory.cool();
        }
        let settled = owed.is_empty();
        owed.into_iter().for_each(state::Owed::deliver);
        Turn { starts, done, settled }
    }

    /// When memory that is kept warm for large buffers goes back to the system, if there is any.
    fn cool_deadline(&self, state: &State) -> Option<Instant> {
        let warm = self.shared.memory.is_warm() || state.seats.iter().any(Seat::may_be_warm);
        state.idle_since.filter(|_| warm)?.checked_add(WARM_TIME)
    }

    fn idle_deadline(&self, idle_since: Option<Instant>) -> Option<Instant> {
        idle_since?.checked_add(self.shared.config.idle?)
    }

    fn start_worker(&mut self) {
        if let Err(error) = self.try_start_worker() {
            let mut state = self.lock();
            state.launched();
            state.start_failed(&error.to_string());
        }
    }

    fn try_start_worker(&mut self) -> Result<(), Error> {
        if self.launcher.is_none() {
            self.launcher = Some(self.start.open()?);
        }
        let launcher = self.launcher.as_ref().expect("it was just opened");
        let (setup, key) = {
            let mut state = self.lock();
            (state.setup.clone(), state.next_id())
        };
        let os = |cause| Error::os("make the shared memory of a worker", cause);
        let link = Arc::new(Link::create().map_err(os)?);
        let bell = Bell::new().map_err(os)?;
        let results = Arc::new(Blobs::create().map_err(os)?);
        let bells = (&bell, &*self.shared.bell);
        let config = &self.shared.config;
        let bytes = config.blob_bytes / 2 / config.workers as u64;
        let memories = (self.shared.memory.as_fd(), results.as_fd(), bytes);
        let launched = launcher.launch(&self.start, key, &link, bells, memories, &setup.fds)?;
        let blobs = Ledger::new(results, Some(Arc::clone(&self.shared.bell)));
        let seat = Seat::new(key, link, bell, launched, setup.body, blobs, config.max_tasks)?;
        let mut state = self.lock();
        state.seats.push(seat);
        state.launched();
        Ok(())
    }

    /// Nothing is left to supervise: ends the launcher, then itself, unless something came up meanwhile.
    fn leave(&mut self) -> bool {
        drop(self.launcher.take());
        let shared = Arc::clone(&self.shared);
        let lock = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        if !state.queue.is_empty() {
            return false;
        }
        let start = std::mem::replace(&mut self.start, Start::Forked(None));
        if matches!(state.phase, Phase::Open) {
            state.start = Some(start);
        } else {
            // It never starts anything again. A template that was never used ends here; and among what new workers were
            // told are copies of the program's own descriptors, whose ends somebody may be waiting for.
            let setup = std::mem::take(&mut state.setup);
            drop(state);
            drop((start, setup));
            state = lock();
        }
        state.supervised = false;
        drop(state);
        shared.ended.notify();
        shared.turned.notify();
        true
    }

    /// Sleeps until something happens, and notes which workers have ended.
    fn sleep(&mut self) {
        let Some((processes, deadline)) = self.arm() else {
            return;
        };
        let reports = self.launcher.as_ref().and_then(Launcher::reports_fd);
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.shared.bell.as_fd()];
        fds.extend(processes.iter().map(|(_, process)| process.as_fd()));
        fds.extend(reports);
        let ready = match poll::wait(&fds, deadline) {
            Ok(Ready::Some(ready)) => ready,
            Ok(Ready::TimedOut | Ready::Interrupted) => return,
            Err(cause) => {
                let reason = Error::os("wait for the worker processes", cause).to_string();
                self.lock().break_down(Broken { reason, refusal: None });
                return;
            }
        };
        if ready.contains(&0) {
            self.shared.bell.hush();
        }
        for (key, process) in ready.iter().filter_map(|at| processes.get(at.wrapping_sub(1))) {
            let exit = self.launcher.as_ref().and_then(|launcher| launcher.exit_of(process));
            let mut state = self.lock();
            if let Some(seat) = state.seats.iter_mut().find(|seat| seat.key == *key) {
                seat.gone = true;
                seat.exit = seat.exit.or(exit);
            }
        }
        if reports.is_some() && ready.contains(&(processes.len() + 1)) {
            self.read_reports();
        }
    }

    /// Raises every flag and looks once more. `None` if there is something to do; else what to wait for.
    fn arm(&self) -> Option<Watched> {
        let state = self.lock();
        if !state.seats.iter().all(Seat::arm) {
            return None;
        }
        let deadline = if state.seats.is_empty() {
            None
        } else {
            self.idle_deadline(state.idle_since)
        };
        let deadline = [deadline, self.cool_deadline(&state)].into_iter().flatten().min();
        let processes = state
            .seats
            .iter()
            .filter(|seat| !seat.gone)
            .filter_map(|seat| Some((seat.key, Arc::clone(seat.process.as_ref()?))))
            .collect();
        Some((processes, deadline))
    }

    fn read_reports(&mut self) {
        while let Some(launcher) = &self.launcher {
            match launcher.report() {
                Ok(None) => return,
                Ok(Some(report)) => self.note(report),
                Err(launcher::TemplateGone) => {
                    drop(self.launcher.take());
                    self.lock().template_gone();
                }
            }
        }
    }

    fn note(&self, report: Report) {
        let mut state = self.lock();
        let key = match &report {
            Report::Started { key, .. } | Report::Failed { key, .. } | Report::Ended { key, .. } => *key,
        };
        let Some(at) = state.seats.iter().position(|seat| seat.key == key) else {
            return;
        };
        match report {
            Report::Started { process, .. } => state.seats[at].started(process),
            Report::Ended { exit, .. } => state.seats[at].exit = Some(exit),
            Report::Failed { errno, .. } => {
                state.seats.remove(at);
                let why = std::io::Error::from_raw_os_error(errno);
                state.start_failed(&format!("forking it failed: {why}"));
            }
        }
    }
}
