//! A pool of threads.
//!
//! A [`ThreadPool`] is a [`Queue`] of jobs and the threads that take from it. Threads start when a job comes and none is
//! idle, up to the number asked for; a thread that blocks in a job wastes nothing but itself. They are the pool's own
//! ([`std::thread`]), or the caller's: see [`ThreadPoolBuilder::spawn_with`].
//!
//! # Who owns what
//! The pool's handle and every worker hold the [`Core`]. Dropping the handle closes the pool and does not wait: the workers
//! finish what was submitted and end, and the last of them frees the core. Everything else that two threads touch is in
//! the queue, whose module tells why no job is ever left without somebody to run it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fanmap_shm::signals;

use crate::config::ThreadConfig;
use crate::cpus;
use crate::error::{Error, ErrorKind};
use crate::future::{Future, Promise, promise};
use crate::outcome::{Outcome, Panic, cancelled};
use crate::queue::{Joined, Next, Offer, Pending, Place, Queue};
use crate::task::{Job, Start};

/// Brings one more worker thread, on the thread that submits: see [`ThreadPoolBuilder::spawn_with`].
///
/// [`ThreadPoolBuilder::spawn_with`] has an example.
pub type SpawnWith = Box<dyn Fn(Seat) -> Result<(), Error> + Send + Sync>;

/// A job that the pool does not take, handed back, and why.
///
/// ```
/// use fanmap::{ErrorKind, Pending, ThreadPool};
///
/// struct Nothing;
///
/// impl fanmap::Job for Nothing {
///     fn run(self: Box<Self>) {}
///     fn discard(self: Box<Self>) {}
/// }
///
/// let pool = ThreadPool::new(1)?;
/// pool.close(Pending::Finish);
/// let rejected = pool.execute(Box::new(Nothing)).unwrap_err();
/// assert_eq!(rejected.error.kind(), ErrorKind::Closed);
/// rejected.job.discard(); // or run it here
/// # Ok::<(), fanmap::Error>(())
/// ```
pub struct Rejected {
    /// What was to be run. Neither run nor discarded: that is up to the caller now.
    pub job: Box<dyn Job>,
    /// [`Closed`](ErrorKind::Closed), or what broke the pool.
    pub error: Error,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Rejected {}

/// What was asked of a [`ThreadPool`] that is not made yet.
///
/// ```
/// let idle = std::time::Duration::from_secs(10);
/// let pool = fanmap::ThreadPool::builder().workers(2).name("fetch").idle(idle).build()?;
/// let name = pool.submit(|| std::thread::current().name().map(str::to_owned))?;
/// assert_eq!(name.wait()?.as_deref(), Some("fetch-0"));
/// # Ok::<(), fanmap::Error>(())
/// ```
#[must_use = "a builder makes nothing until it is built"]
pub struct ThreadPoolBuilder {
    config: ThreadConfig,
    spawn_with: Option<SpawnWith>,
}

impl ThreadPoolBuilder {
    /// The most threads there may be at a time. If not given, [`cpus::default_threads`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// What the threads' names begin with: `name-0`, `name-1` and so on. If not given, `fanmap`.
    ///
    /// Linux shows the first 15 bytes of a thread's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long a thread without a job lives. If not given, until the pool closes.
    pub fn idle(mut self, time: Duration) -> Self {
        self.config.idle = Some(time);
        self
    }

    /// Uses threads that the caller brings.
    ///
    /// `spawn` is called on the submitting thread when another worker is wanted. It starts a thread that calls
    /// [`Seat::run`] and returns without waiting for it, or returns why it cannot; then the job goes to the workers there
    /// are, and is rejected if there are none. The pool counts these threads but cannot join them:
    /// [`ThreadPool::join`] returns when the last of them has left its seat.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::builder()
    ///     .workers(2)
    ///     .spawn_with(Box::new(|seat| {
    ///         std::thread::Builder::new()
    ///             .stack_size(16 << 20)
    ///             .spawn(move || seat.run())
    ///             .map(drop)
    ///             .map_err(|cause| fanmap::Error::new(fanmap::ErrorKind::Os, cause.to_string()))
    ///     }))
    ///     .build()?;
    /// assert_eq!(pool.submit(|| 6 * 7)?.wait()?, 42);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn spawn_with(mut self, spawn: SpawnWith) -> Self {
        self.spawn_with = Some(spawn);
        self
    }

    /// Makes the pool. No thread starts before there is a job.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for no workers, or for no idle time at all.
    pub fn build(self) -> Result<ThreadPool, Error> {
        let config = self.config.checked()?;
        Ok(ThreadPool {
            core: Arc::new(Core {
                queue: Queue::new(config.workers, config.idle),
                config,
                spawn_with: self.spawn_with,
                threads: Mutex::new(Vec::new()),
                owner: process::id(),
            }),
        })
    }
}

impl fmt::Debug for ThreadPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A pool of threads, for tasks that compute and for tasks that wait.
///
/// Dropping it closes it with [`Pending::Finish`] and does not wait: what was submitted is run.
///
/// ```
/// use fanmap::{Pending, ThreadPool};
///
/// let pool = ThreadPool::new(4)?;
/// let answer = pool.submit(|| 6 * 7)?;
/// let lengths: Vec<usize> = pool.map(["one", "two", "three"], str::len).collect::<Result<_, _>>()?;
/// assert_eq!((answer.wait()?, lengths), (42, vec![3, 3, 5]));
/// assert!(pool.workers() <= pool.max_workers() && pool.max_workers() == 4);
/// assert!(pool.queued() == 0 && !pool.on_worker());
///
/// pool.close(Pending::Finish);
/// assert!(pool.is_closed() && !pool.is_stopped() && pool.broken().is_none());
/// assert!(pool.submit(|| 1).is_err());
/// # Ok::<(), fanmap::Error>(())
/// ```
pub struct ThreadPool {
    core: Arc<Core>,
}

impl ThreadPool {
    /// A pool of up to `workers` threads.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `workers` is 0.
    pub fn new(workers: usize) -> Result<Self, Error> {
        Self::builder().workers(workers).build()
    }

    /// A pool with more to say about it.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder {
            config: ThreadConfig {
                workers: cpus::default_threads(),
                name: "fanmap".to_owned(),
                idle: None,
            },
            spawn_with: None,
        }
    }

    /// Calls `f` on a worker.
    ///
    /// A panic in it is the future's outcome, and the worker lives on.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after [`close`](ThreadPool::close); [`Os`](ErrorKind::Os) if no thread could be
    /// started.
    pub fn submit<F, T>(&self, f: F) -> Result<Future<T>, Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, future) = submission(f);
        self.execute(job).map_err(|rejected| rejected.error)?;
        Ok(future)
    }

    /// Runs `job` on a worker: the plain form beneath [`submit`](ThreadPool::submit), for who reports outcomes otherwise.
    ///
    /// # Errors
    /// The job, handed back, if it will not be run.
    pub fn execute(&self, job: Box<dyn Job>) -> Result<(), Rejected> {
        self.core.execute(job)
    }

    /// Takes no more tasks. Can be called again, to cancel what an earlier call let finish.
    pub fn close(&self, pending: Pending) {
        if !self.core.is_ours() {
            return;
        }
        for job in self.core.queue.close(pending) {
            contain(|| job.discard());
        }
    }

    /// Takes no more tasks because of `why`: later submits are told so, and what has not started fails with it.
    ///
    /// ```
    /// use fanmap::{Error, ErrorKind, ThreadPool};
    ///
    /// let pool = ThreadPool::new(1)?;
    /// pool.fail(Error::new(ErrorKind::Broken, "the licence has run out"));
    /// assert_eq!(pool.submit(|| 1).unwrap_err().message(), "the licence has run out");
    /// assert!(pool.is_stopped() && pool.broken().is_some());
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn fail(&self, why: Error) {
        self.core.fail(&why);
    }

    /// Waits until no worker is left, for a pool that was closed. (An open one's workers stay, or come again.)
    ///
    /// Never call it from a task of this pool: that waits for itself.
    pub fn join(&self, deadline: Option<Instant>) -> Joined {
        if !self.core.is_ours() {
            return Joined::All;
        }
        let joined = self.core.queue.join(deadline);
        if joined == Joined::All && self.core.queue.is_closed() {
            self.core.reap();
        }
        joined
    }

    /// How many tasks wait for a worker. One that was cancelled counts until a worker comes across it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.core.queue.len()
    }

    /// How many jobs were ever queued: for [`waits_before`](ThreadPool::waits_before).
    #[must_use]
    pub fn jobs_queued(&self) -> u64 {
        self.core.queue.queued()
    }

    /// Whether a job waits that was queued when [`jobs_queued`](ThreadPool::jobs_queued) was less than `number`. For a job
    /// that does many things and lets those go first that came before them.
    ///
    /// ```
    /// let pool = fanmap::ThreadPool::new(1)?;
    /// let now = pool.jobs_queued();
    /// pool.submit(|| ())?.wait()?;
    /// assert!(pool.jobs_queued() > now && !pool.waits_before(now));
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    #[must_use]
    pub fn waits_before(&self, number: u64) -> bool {
        self.core.queue.waits_before(number)
    }

    /// Whether it takes no more tasks.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.queue.is_closed()
    }

    /// Whether tasks that have not started never will be: it was closed with [`Pending::Cancel`], or broke.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.core.queue.is_stopped()
    }

    /// What broke it, if it did.
    #[must_use]
    pub fn broken(&self) -> Option<Error> {
        self.core.queue.broken()
    }

    /// How many workers there are now.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.core.queue.workers()
    }

    /// How many workers there may be.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.core.queue.max_workers()
    }

    /// Whether the calling thread is a worker of this pool: if so, waiting here for another task of it may wait for ever.
    #[must_use]
    pub fn on_worker(&self) -> bool {
        self.core.on_worker()
    }

    /// What to keep of the pool to send it jobs, without keeping it open.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.close(Pending::Finish);
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.core.config.name)
            .field("workers", &self.workers())
            .field("max_workers", &self.max_workers())
            .field("queued", &self.queued())
            .finish()
    }
}

/// A call of `f` as a job, and the future of its value.
pub(crate) fn submission<'f, F, T>(f: F) -> (Box<dyn Job + 'f>, Future<T>)
where
    F: FnOnce() -> T + Send + 'f,
    T: Send + 'f,
{
    let (promise, future) = promise();
    (Box::new(Call { f, promise }), future)
}

/// What the pool's handle and its workers share.
pub(crate) struct Core {
    queue: Queue<Box<dyn Job>>,
    config: ThreadConfig,
    spawn_with: Option<SpawnWith>,
    /// The pool's own threads, those that have ended excepted. Empty if the caller brings them.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process that the pool belongs to.
    owner: u32,
}

impl Core {
    /// False in a child that the pool's process forked. No worker is there, and a lock may be held for ever by a thread
    /// that is not there either.
    fn is_ours(&self) -> bool {
        process::id() == self.owner
    }

    /// Queues the job, and brings a worker for it if one is wanted.
    pub(crate) fn execute(self: &Arc<Self>, job: Box<dyn Job>) -> Result<(), Rejected> {
        if !self.is_ours() {
            let error = Error::new(
                ErrorKind::Broken,
                "this pool belongs to the process that made it; make a new one after a fork",
            );
            return Err(Rejected { job, error });
        }
        let mut offer = self.queue.offer(job, true);
        let mut could_not_grow = None;
        loop {
            match offer {
                Offer::Taken => return Ok(()),
                // If there was no worker and none could be started, why not says more than that there is none.
                Offer::Refused(job, error) => {
                    let error = match could_not_grow {
                        Some(cause) if error.kind() == ErrorKind::Broken => cause,
                        _ => error,
                    };
                    return Err(Rejected { job, error });
                }
                Offer::NeedsWorker(job, index) => {
                    could_not_grow = self.start_worker(index).err();
                    offer = self.queue.offer(job, could_not_grow.is_none());
                }
            }
        }
    }

    /// Whether the calling thread is a worker of this pool.
    pub(crate) fn on_worker(&self) -> bool {
        HERE.with_borrow(|here| here.as_ref().is_some_and(|here| std::ptr::eq(&*here.core, self)))
    }

    /// How many workers there may be.
    pub(crate) fn max_workers(&self) -> usize {
        self.queue.max_workers()
    }

    /// Why the pool takes no more tasks, if it does not. Costs no lock while it does.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.queue.refusal()
    }

    /// What tasks that have not started end with, if they are not to start any more. Costs no lock while they are.
    pub(crate) fn stopped(&self) -> Option<Error> {
        self.queue
            .is_stopped()
            .then(|| self.queue.broken().unwrap_or_else(cancelled))
    }

    /// Whether a job waits for a worker.
    pub(crate) fn has_waiting(&self) -> bool {
        self.queue.len() > 0
    }

    fn fail(&self, why: &Error) {
        for job in self.queue.fail(why) {
            contain(|| job.fail(why));
        }
    }

    /// Starts the worker for the place that the queue has reserved. If it fails, dropping the seat gives the place up.
    fn start_worker(self: &Arc<Self>, index: usize) -> Result<(), Error> {
        let seat = Seat {
            core: Arc::clone(self),
            index,
            place: Some(Place::Idle),
            taken: false,
        };
        if let Some(spawn) = &self.spawn_with {
            return spawn(seat);
        }
        let thread = thread::Builder::new()
            .name(format!("{}-{index}", self.config.name))
            .spawn(move || {
                signals::block_all();
                seat.run();
            })
            .map_err(|cause| Error::os("start a worker thread", cause))?;
        let mut threads = self.threads.lock().expect("nothing panics under this lock");
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Joins the threads that have left their seats and are about to end, so that after a join none is left. Only when the
    /// pool is closed: otherwise new ones, which end who knows when, may be among them.
    fn reap(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("nothing panics under this lock"));
        for thread in threads {
            // Its panics were contained, job by job.
            let _ = thread.join();
        }
    }
}

thread_local! {
    /// The pool whose worker this thread is, from the first job that it asks for until its seat is dropped.
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// What a worker's thread knows of where it works.
struct Here {
    core: Arc<Core>,
    /// Whether it has counted itself as idle since it took its job.
    rested: bool,
}

/// Called by a job on its worker, before it publishes its outcome: the worker counts as idle from now on, so that whoever
/// gets the outcome and submits the next task finds it so, and no other is started for it.
///
/// It is a promise to do nothing more that could wait for another task. Elsewhere than on a worker it does nothing. Tasks
/// of [`ThreadPool::submit`] and of maps need not call it; a [`Job`] that reports its outcome otherwise may.
///
/// ```
/// use std::sync::mpsc;
///
/// struct Report(mpsc::Sender<u32>);
///
/// impl fanmap::Job for Report {
///     fn run(self: Box<Self>) {
///         let outcome = 6 * 7;
///         fanmap::rest();
///         let _ = self.0.send(outcome);
///     }
///     fn discard(self: Box<Self>) {}
/// }
///
/// let pool = fanmap::ThreadPool::new(2)?;
/// let (sender, outcomes) = mpsc::channel();
/// for _ in 0..3 {
///     pool.execute(Box::new(Report(sender.clone()))).map_err(|rejected| rejected.error)?;
///     assert_eq!(outcomes.recv().ok(), Some(42));
/// }
/// assert_eq!(pool.workers(), 1);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn rest() {
    HERE.with_borrow_mut(|here| {
        if let Some(here) = here.as_mut().filter(|here| !here.rested) {
            here.rested = here.core.queue.rest();
        }
    });
}

/// A worker's place in a pool: whoever holds it is expected to run jobs.
///
/// Dropping it gives the place up. If that was the last worker's and jobs are waiting, they fail.
///
/// ```
/// use fanmap::{Seat, ThreadPool};
///
/// fn work(mut seat: Seat) {
///     println!("worker {} begins", seat.index());
///     while let Some(job) = seat.next_job() {
///         job.run();
///         while let Some(job) = seat.try_next_job() {
///             job.run();
///         }
///     }
/// }
///
/// let spawn = |seat| {
///     std::thread::spawn(move || work(seat));
///     Ok(())
/// };
/// let pool = ThreadPool::builder().workers(2).spawn_with(Box::new(spawn)).build()?;
/// assert_eq!(pool.submit(|| 6 * 7)?.wait()?, 42);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub struct Seat {
    core: Arc<Core>,
    index: usize,
    /// `None` once the place was given up.
    place: Option<Place>,
    /// Whether a thread has begun to work here, and [`HERE`] says so on it.
    taken: bool,
}

impl Seat {
    /// The worker's number, from 0: no two that there are at a time have the same, and a later one has that of one that ended.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs jobs on this thread until the pool closes, or the idle time is over.
    pub fn run(mut self) {
        while let Some(job) = self.next_job() {
            contain(|| job.run());
        }
    }

    /// Waits for a job. `None`: the place is given up, the thread should end.
    ///
    /// For who needs to do something around the wait; call [`run`](Job::run) on the job before asking for the next.
    pub fn next_job(&mut self) -> Option<Box<dyn Job>> {
        let place = self.stand()?;
        match self.core.queue.next(place, self.index) {
            Next::Job(job) => {
                self.place = Some(Place::Busy);
                Some(job)
            }
            Next::End => {
                self.place = None;
                None
            }
        }
    }

    /// The next job if there is one right now, for a worker that has just run one.
    ///
    /// Of a worker that has not run any, it is `None`: wait with [`next_job`](Seat::next_job).
    pub fn try_next_job(&mut self) -> Option<Box<dyn Job>> {
        if !self.taken {
            return None;
        }
        let place = self.stand()?;
        let job = self.core.queue.try_next(place)?;
        self.place = Some(Place::Busy);
        Some(job)
    }

    /// What the place is now, on the thread that works here: a job may have called [`rest`].
    fn stand(&mut self) -> Option<Place> {
        let place = self.place?;
        self.taken = true;
        HERE.with_borrow_mut(|here| match here {
            Some(here) if Arc::ptr_eq(&here.core, &self.core) => {
                if std::mem::take(&mut here.rested) {
                    self.place = Some(Place::Idle);
                }
            }
            other => {
                *other = Some(Here {
                    core: Arc::clone(&self.core),
                    rested: false,
                });
            }
        });
        self.place.or(Some(place))
    }

    /// Breaks the pool because of `why`, which no worker can do without: see [`ThreadPool::fail`]. Gives the place up.
    pub fn fail(self, why: Error) {
        self.core.fail(&why);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = if self.taken { self.stand() } else { self.place };
        if self.taken {
            // In a variable, so that it is dropped after the borrow has ended.
            let _core = HERE.take();
        }
        let Some(place) = place else { return };
        let orphans = self.core.queue.leave(place, self.index);
        if !orphans.is_empty() {
            let why = Error::new(
                ErrorKind::Broken,
                "the pool's last worker was lost before it ran the task",
            );
            for job in orphans {
                contain(|| job.fail(&why));
            }
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// A function to call, and the future that waits for what it returns.
struct Call<F, T> {
    f: F,
    promise: Promise<T>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(self: Box<Self>) {
        let Call { f, promise } = *self;
        if promise.start() == Start::Run {
            let outcome = call(f);
            promise.complete_by(outcome, rest);
        }
    }

    fn discard(self: Box<Self>) {
        self.promise.complete(Outcome::Cancelled);
    }
}

/// What became of a call of `f`, on this thread.
pub(crate) fn call<T>(f: impl FnOnce() -> T) -> Outcome<T> {
    // The function and what it captured are gone after a panic; what it shares with others is theirs to keep sound, as
    // with any thread that panics.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Outcome::Value(value),
        Err(payload) => Outcome::Raised(Panic::from_payload(&*payload)),
    }
}

/// A job's panic ends neither the worker nor whoever closes the pool.
fn contain(act: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(act));
}
