//! What callers hold: the pool, and tickets of single tasks. Its protocol stands at the head of [`super`].

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use fanmap_shm::bell::Bell;
use fanmap_shm::event::{Event, Wake};
use fanmap_shm::word::MOST_TASKS;

use crate::config::ProcessConfig;
use crate::error::{Error, ErrorKind};
use crate::memory::{Load, Memory};
use crate::output::Outlet;
use crate::queue::{Joined, Pending};
use crate::supervisor::job::{Broken, Forgotten, Function, Job, Packed, Place, Sink};
use crate::supervisor::launcher::Start;
use crate::supervisor::seat::{Seat, Stage};
use crate::supervisor::shared::Shared;
use crate::supervisor::state::{self, Phase, Setup, State};
use crate::supervisor::watch;

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

impl Pool {
    /// A pool that gets its workers from `start`. Nothing is started yet.
    ///
    /// # Errors
    /// A configuration that cannot be used, or no descriptor left.
    pub fn new(config: ProcessConfig, start: Start) -> Result<Self, Error> {
        let config = config.checked()?;
        let bell = Arc::new(Bell::new().map_err(|cause| Error::os("make a doorbell", cause))?);
        let memory = Memory::create(config.blob_bytes / 2).map_err(|cause| Error::os("make shared memory", cause))?;
        let outlet = config.output.then(Outlet::new).transpose();
        let outlet = outlet.map_err(|cause| Error::os("make a doorbell", cause))?;
        let state = State::new(config.workers, config.at_once, start);
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                bell,
                waiting: AtomicUsize::new(0),
                dozing: AtomicBool::new(false),
                ended: Event::new(),
                turned: Event::new(),
                forgotten: Arc::new(Forgotten::new()),
                memory,
                outlet: outlet.map(Arc::new),
                config,
                owner: std::process::id(),
            }),
        })
    }

    /// A function for [`Pool::submit`]. Each worker that needs it is sent `body` once. `name` is for messages.
    ///
    /// # Errors
    /// The pool belongs to another process.
    pub fn function(&self, name: &str, body: impl Into<Load>) -> Result<Arc<Function>, Error> {
        let id = self.shared.lock()?.next_id();
        Ok(Arc::new(Function::new(id, name, body.into(), &self.shared.forgotten)))
    }

    /// Starts the template, for a pool that has one: it gets ready while the first task is encoded.
    ///
    /// # Errors
    /// The pool belongs to another process, or the thread that starts workers cannot be started.
    pub fn warm_up(&self) -> Result<(), Error> {
        let mut state = self.shared.lock()?;
        match &state.start {
            Some(Start::Template(_)) => watch::supervise(&self.shared, &mut state),
            _ => Ok(()),
        }
    }

    /// Where to write buffers that go with functions and arguments and are too large for the rings.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// Where workers write to, if [`ProcessConfig::output`] asked for it.
    #[must_use]
    pub fn outlet(&self) -> Option<&Arc<Outlet>> {
        self.shared.outlet.as_ref()
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
        let staying = state.seats.iter().filter(|seat| seat.stage != Stage::Leaving).count();
        staying < self.shared.config.workers && !state.seats.iter().any(Seat::is_idle)
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

    /// Submits one task, as [`Pool::submit_run`] does, of those whose arguments can be told apart where they stand one behind the
    /// other. While such tasks are queued that are tiny and have consecutive keys, they are put together to a run.
    ///
    /// # Errors
    /// As [`Pool::submit`].
    pub(crate) fn submit_next(
        &self,
        function: &Arc<Function>,
        argument: &mut Load,
        sink: &Arc<dyn Sink>,
        key: u64,
    ) -> Result<(), Error> {
        let mut state = self.open()?;
        let joined = argument.blobs.is_empty()
            && state
                .queue
                .back_mut()
                .is_some_and(|last| last.join(function, &argument.bytes, sink, key));
        if !joined {
            let message = Packed::new(std::mem::take(argument));
            let job = Job::first(state.next_id(), function, message, sink, key);
            state.queue.push_back(job);
        }
        self.dispatch(state, sink, !joined)
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
        let mut state = self.open()?;
        let job = Job::new(state.next_id(), function, message, count, sink, key);
        state.queue.push_back(Arc::clone(&job));
        self.dispatch(state, &job.sink, true)?;
        Ok(job)
    }

    /// The state, if tasks are taken.
    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.shared.lock()?;
        match &state.phase {
            Phase::Open => Ok(state),
            Phase::Closing => Err(Error::new(
                ErrorKind::Closed,
                "cannot schedule new tasks after shutdown",
            )),
            Phase::Broken(broken) => Err(Error::new(ErrorKind::Broken, broken.reason.clone())),
        }
    }

    /// Sends on what was put at the back of the queue: a job of its own, if it is `new`.
    fn dispatch(&self, mut state: MutexGuard<'_, State>, sink: &Arc<dyn Sink>, new: bool) -> Result<(), Error> {
        state.dispatch();
        if let Err(error) = watch::start_workers(&self.shared, &mut state) {
            // There is no supervisor, so no worker either: the job is where it was put. Who is told that it was refused
            // must not see it run once somebody else's starts.
            debug_assert!(new, "a queue with tasks in it has a supervisor");
            state.queue.pop_back();
            return Err(error);
        }
        if sink.time_limit().is_some_and(|limit| state.oversleeps(limit)) {
            self.shared.bell.ring();
        }
        Ok(())
    }

    /// Cancels every task that was submitted with this sink and has not started; with `kill`, workers that run one are
    /// ended. The sink is told of all of them.
    pub fn cancel(&self, sink: &Arc<dyn Sink>, kill: bool) {
        let Ok(mut state) = self.shared.lock() else {
            return;
        };
        state.cancel_of(sink, kill);
        self.settle(state);
    }

    /// Takes the first task with this sink that waits in the queue away from the pool, as long as no worker is there that
    /// could have it: for who would rather do it than wait for the first worker. Its key; its sink is told nothing of it.
    #[must_use]
    pub fn reclaim(&self, sink: &Arc<dyn Sink>) -> Option<u64> {
        let mut state = self.shared.lock().ok()?;
        let key = state.reclaim(sink)?;
        if matches!(state.phase, Phase::Closing) {
            // It may have been the last that the pool waited for.
            self.shared.bell.ring();
        }
        Some(key)
    }

    /// Sends on what a sink held back ([`Sink::holds`]) and does no more.
    pub fn resume(&self) {
        self.shared.bell.ring();
    }

    /// For a thread that is about to wait for the end of a task: hands over the ends that workers have told of, its own and
    /// others'. True: there were some, so look whether the wait is over, and here again.
    #[must_use]
    pub(crate) fn look(&self) -> bool {
        self.shared.look()
    }

    /// After a change: hands over the ends that it owes, and has the supervisor look. Some may have been the last that a
    /// closing pool waited for.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        let owed = std::mem::take(&mut state.owed);
        drop(state);
        state::deliver(owed);
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
            state.seats.iter().for_each(Seat::resume);
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
        if unused.is_some() {
            self.shared.close_outlet();
        }
        drop(unused);
        state::deliver(owed);
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
        self.settle(state);
    }

    /// The program ends and wants nothing of the pool any more: every task that is not done fails. Workers that run one are
    /// killed, those that are idle end in order.
    pub fn abandon(&self) {
        let Ok(mut state) = self.shared.lock() else {
            return;
        };
        let idle: Vec<bool> = state.seats.iter().map(Seat::is_idle).collect();
        state.give_up(Broken {
            reason: "the program ends".to_owned(),
            refusal: None,
        });
        for (seat, idle) in state.seats.iter_mut().zip(idle) {
            if idle {
                seat.dismiss();
            } else if !seat.is_spent() {
                seat.kill();
            }
        }
        self.settle(state);
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
        watch::start_workers(&self.shared, &mut state)
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

    /// How many bytes may be kept for buffers, in both directions.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.shared.config.blob_bytes
    }

    /// How many workers there may be.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.shared.config.workers
    }

    /// How many tasks have not been given to a worker, or are to be given to one again.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.lock().map_or(0, |state| {
            let queued: usize = state.queue.iter().map(|job| job.count() as usize).sum();
            queued + state.resting.len()
        })
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
    /// Cancels the task: true if it will never run, or never again, whoever cancelled it. Its sink is told, once.
    pub fn cancel(&self) -> bool {
        self.with_state(|state, job| state.cancel(job))
    }

    /// Cancels the task, and ends its worker if it runs. Its sink is told; false if the task has ended already.
    pub fn kill(&self) -> bool {
        self.with_state(|state, job| state.kill(job))
    }

    /// The end of this task, which is wanted later ([`Wanted::Later`](super::job::Wanted)), is waited for now and until the
    /// guard is dropped.
    #[must_use]
    pub fn attend(&self) -> Attention {
        self.shared.attend();
        Attention(Arc::clone(&self.shared))
    }

    /// As [`Pool::look`].
    #[must_use]
    pub(crate) fn look(&self) -> bool {
        self.shared.look()
    }

    /// Somebody wants to know how the task is doing: if its end has come, it is to be delivered now.
    pub fn rouse(&self) {
        self.shared.rouse();
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
                // Over, it runs as long as nobody has heard of its end.
                word.state().has_begun()
            }),
            Place::Queued | Place::Resting(_) | Place::Ended | Place::Cancelled => false,
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
        state::deliver(owed);
        if !last {
            // A cancelled task may have been the last one that a closing pool waited for.
            self.shared.bell.ring();
        }
        done
    }
}

/// A thread's word that it waits for the end of a task: see [`Ticket::attend`].
#[derive(Debug)]
pub struct Attention(Arc<Shared>);

impl Drop for Attention {
    fn drop(&mut self) {
        self.0.attended();
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.job.id)
    }
}
