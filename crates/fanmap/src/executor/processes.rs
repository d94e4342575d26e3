//! A pool of worker processes that run registered functions.

use std::any::type_name;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffer;
use crate::config::{ProcessConfig, Retries};
use crate::error::{Error, ErrorKind};
use crate::future::{Control, Future, Promise, controlled_promise};
use crate::memory::{Load, Message, Parcel};
use crate::outcome::{Outcome, Panic};
use crate::queue::{Joined, Pending};
use crate::registry::{self, Raised};
use crate::supervisor::job::{End, Function, Sink, Wanted};
use crate::supervisor::launcher::Start;
use crate::supervisor::{Pool, Ticket};

/// A pool of supervised worker processes.
///
/// The workers are this same program, started again: [`init`](crate::init) must be the first line of `main`, and functions
/// must be [`register!`](crate::register)ed. A task that crashes its process fails alone, with
/// [`WorkerLost`](ErrorKind::WorkerLost); the worker is replaced and everything else goes on.
///
/// Dropping the pool finishes what was submitted and does not wait for it.
///
/// ```
/// use fanmap::ProcessPool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
/// fanmap::register!(square);
///
/// fn main() -> Result<(), fanmap::Error> {
///     fanmap::init();
///     let pool = ProcessPool::new(2)?;
///     assert_eq!(pool.submit(square, 7)?.wait()?, 49);
///     let squares: Vec<u64> = pool.map(1..=4, square)?.collect::<Result<_, _>>()?;
///     assert_eq!(squares, [1, 4, 9, 16]);
///     assert!(pool.workers().len() <= pool.max_workers());
///     // A drop would let it finish, too, but not wait until no process is left.
///     pool.close(fanmap::Pending::Finish);
///     assert_eq!(pool.join(None), fanmap::Joined::All);
///     Ok(())
/// }
/// ```
pub struct ProcessPool {
    core: Arc<Core>,
}

/// How a [`ProcessPool`] is made: see [`ProcessPool::builder`].
///
/// ```
/// use std::time::Duration;
///
/// let pool = fanmap::ProcessPool::builder()
///     .workers(2)
///     .max_tasks_per_worker(1000)
///     .worker_memory_limit(2 << 30)
///     .task_timeout(Duration::from_secs(60))
///     .retries(2)
///     .idle(Duration::from_secs(30))
///     .worker_args(["--quiet"])
///     .build()?;
/// assert_eq!(pool.workers(), []); // none before the first task
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct ProcessPoolBuilder {
    config: ProcessConfig,
    args: Option<Vec<String>>,
    terms: Terms,
}

/// What holds for every task of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: Option<Retries>,
}

impl ProcessPoolBuilder {
    /// How many worker processes there may be at a time. Default: [`cpus::available`](crate::cpus::available).
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// After how many tasks a worker is replaced by a fresh one. Default: never.
    #[must_use]
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.config.max_tasks = Some(tasks);
        self
    }

    /// How long the processes are kept without work; they are started again when needed. Default: until the pool closes.
    #[must_use]
    pub fn idle(mut self, time: Duration) -> Self {
        self.config.idle = Some(time);
        self
    }

    /// How much memory of its own a worker may have between tasks, in bytes (at least a MiB), beyond what it began with: one
    /// that has more is replaced by a fresh one. It is looked at after tasks, at most every 10 ms. Default: no limit.
    ///
    /// ```
    /// let pool = fanmap::ProcessPool::builder().max_memory_per_worker(1 << 30).worker_memory_limit(2 << 30).build()?;
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    #[must_use]
    pub fn max_memory_per_worker(mut self, bytes: u64) -> Self {
        self.config.max_memory = Some(bytes);
        self
    }

    /// How much memory of its own a worker may have at any time, in bytes (at least a MiB), beyond what it began with. More is
    /// refused by the system (`RLIMIT_DATA`), at which a Rust program aborts: the task that asked for it is lost, and its
    /// [`WorkerLost`](crate::WorkerLost) tells the limit. Default: no limit.
    #[must_use]
    pub fn worker_memory_limit(mut self, bytes: u64) -> Self {
        self.config.memory_limit = Some(bytes);
        self
    }

    /// How long a task may run, from its start. One that runs longer ends with [`TaskTimeout`](ErrorKind::TaskTimeout): its
    /// worker is killed and replaced, and everything else goes on. Default: as long as it takes.
    #[must_use]
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        self.terms.time_limit = Some(limit);
        self
    }

    /// Tries a task again that failed: so often at most, or as [`Retries`] say. Meanwhile it keeps no worker busy, and the
    /// results of a map keep their order. One that fails for good tells the last failure, and what the attempts before came
    /// to. Default: a task runs once (but see [`map`](ProcessPool::map) for tiny ones).
    ///
    /// Each attempt gets the argument as it was sent. What an attempt did outside its process, to files or servers, the next one
    /// finds done.
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// /// Crashes unless somebody has been here before.
    /// fn unreliable(path: String) -> u64 {
    ///     match File::create_new(&path) {
    ///         Ok(_) => std::process::abort(),
    ///         Err(_) => 42,
    ///     }
    /// }
    /// fanmap::register!(unreliable);
    ///
    /// fanmap::init();
    /// let path = std::env::temp_dir().join(format!("been-here-{}", std::process::id()));
    /// let pool = fanmap::ProcessPool::builder().workers(1).retries(2).build()?;
    /// assert_eq!(pool.submit(unreliable, path.display().to_string())?.wait()?, 42);
    /// # let _ = std::fs::remove_file(path);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    #[must_use]
    pub fn retries(mut self, retries: impl Into<Retries>) -> Self {
        self.terms.retries = Some(retries.into());
        self
    }

    /// The arguments that the program is started with as a worker. Default: none, or in a test what
    /// [`test_worker!`](crate::test_worker) asks for.
    #[must_use]
    pub fn worker_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Makes the pool. No process is started before the first task.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a number that must be at least 1 and is not, [`Os`](ErrorKind::Os) if
    /// the program cannot find itself.
    pub fn build(self) -> Result<ProcessPool, Error> {
        let retries = self.terms.retries.map(Retries::checked).transpose()?;
        let terms = Terms {
            // Who never tries again need not keep what was sent.
            retries: retries.filter(|retries| retries.count > 0),
            ..self.terms
        };
        let program = std::env::current_exe().map_err(|cause| Error::os("find this program's own file", cause))?;
        let args = self.args.unwrap_or_else(registry::test_worker_args);
        let command = move || {
            let mut command = Command::new(&program);
            command
                .args(&args)
                .env(registry::WORKER_VARIABLE, std::process::id().to_string());
            command
        };
        let pool = Pool::new(self.config, Start::Direct(Box::new(command)))?;
        Ok(ProcessPool {
            core: Arc::new(Core {
                pool,
                functions: Mutex::default(),
                terms: Arc::new(terms),
            }),
        })
    }
}

impl ProcessPool {
    /// A pool of so many worker processes.
    ///
    /// # Errors
    /// As [`ProcessPoolBuilder::build`].
    pub fn new(workers: usize) -> Result<Self, Error> {
        Self::builder().workers(workers).build()
    }

    /// A pool of another make.
    ///
    /// ```
    /// let pool = fanmap::ProcessPool::builder().workers(2).max_tasks_per_worker(100).build()?;
    /// assert_eq!(pool.max_workers(), 2);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    #[must_use]
    pub fn builder() -> ProcessPoolBuilder {
        ProcessPoolBuilder::default()
    }

    /// Calls a registered function on an argument in a worker process.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the function is not registered, [`Codec`](ErrorKind::Codec) if the
    /// argument cannot be encoded, [`Closed`](ErrorKind::Closed), [`Broken`](ErrorKind::Broken).
    pub fn submit<F, A, R>(&self, function: F, argument: A) -> Result<Future<R>, Error>
    where
        F: Fn(A) -> R,
        A: Serialize,
        R: DeserializeOwned + Send + 'static,
    {
        let remote = Arc::new(Remote::default());
        let (promise, future) = controlled_promise(Arc::clone(&remote) as Arc<dyn Control>);
        let sink = Arc::new(Deliver {
            promise: Mutex::new(Some(promise)),
            terms: Arc::clone(&self.core.terms),
        });
        let name = self.core.function_of(&function)?;
        let mut load = Load::default();
        self.core.encode(&argument, &mut load)?;
        let ticket = self.core.pool.submit(&name, load, sink, 0)?;
        // Nobody else has the future yet, so nobody has asked for the ticket.
        let _ = remote.0.set(ticket);
        Ok(future)
    }

    /// Takes no more tasks; what was submitted is finished, or cancelled as far as it has not started.
    pub fn close(&self, pending: Pending) {
        self.core.pool.close(pending);
    }

    /// After [`close`](ProcessPool::close): waits until no process of the pool is left.
    pub fn join(&self, deadline: Option<Instant>) -> Joined {
        self.core.pool.join(deadline)
    }

    /// The process ids of the workers that run now.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        self.core.pool.workers()
    }

    /// How many worker processes there may be.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.core.pool.max_workers()
    }

    /// What a map keeps of the pool.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessPool({} workers)", self.max_workers())
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.close(Pending::Finish);
    }
}

/// A pool, with the functions it was given by their names.
pub(crate) struct Core {
    pub(crate) pool: Pool,
    functions: Mutex<HashMap<&'static str, Arc<Function>>>,
    pub(crate) terms: Arc<Terms>,
}

impl Core {
    /// What workers know `function` by.
    pub(crate) fn function_of<F>(&self, _function: &F) -> Result<Arc<Function>, Error> {
        let name = type_name::<F>();
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(Arc::clone(function));
        }
        if !registry::is_registered(name) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("`{name}` is not registered: add `fanmap::register!(...)` for it at module level"),
            ));
        }
        let function = self.pool.function(name, name.as_bytes().to_vec())?;
        functions.insert(name, Arc::clone(&function));
        Ok(function)
    }

    /// Writes an argument to `load`, which is empty, as it travels.
    pub(crate) fn encode<A: Serialize>(&self, argument: &A, load: &mut Load) -> Result<(), Error> {
        buffer::encode(argument, self.pool.memory(), load).map_err(|why| {
            Error::new(
                ErrorKind::Codec,
                format!("the task's argument could not be encoded: {why}"),
            )
        })
    }
}

/// What became of a task, decoded. A value is taken out of `end`.
pub(crate) fn decode<R: DeserializeOwned>(end: &mut End) -> Result<Outcome<R>, Error> {
    match end {
        End::Broken(broken) => Err(Error::new(ErrorKind::Broken, broken.reason.clone())),
        End::Outcome(outcome) => decode_outcome(outcome),
        End::Failed { last, earlier } => {
            let failure = |one: Result<Outcome<R>, Error>| one.and_then(Outcome::into_result).err();
            let earlier: Vec<Error> = earlier.iter_mut().map(decode_outcome).filter_map(failure).collect();
            let value = decode(last).and_then(Outcome::into_result);
            value.map(Outcome::Value).map_err(|error| error.after(&earlier))
        }
    }
}

fn decode_outcome<R: DeserializeOwned>(outcome: &mut Outcome<Message, Vec<u8>>) -> Result<Outcome<R>, Error> {
    Ok(match outcome {
        Outcome::Value(message) => {
            let bytes = std::mem::take(&mut message.bytes);
            Outcome::Value(decode_value(buffer::values(&bytes).next(), &mut message.blobs)?)
        }
        Outcome::Raised(bytes) => match postcard::from_bytes::<Raised>(bytes) {
            Ok(raised) => return Err(raised.into()),
            Err(why) => return Err(undecodable(&why.to_string())),
        },
        Outcome::Cancelled => Outcome::Cancelled,
        Outcome::TimedOut(overdue) => Outcome::TimedOut(Arc::clone(overdue)),
        Outcome::Lost(lost) => Outcome::Lost(Arc::clone(lost)),
    })
}

/// The values of so many tasks that returned, out of their message.
pub(crate) fn decode_values<R: DeserializeOwned>(mut message: Message, count: u32) -> Vec<Result<R, Error>> {
    let bytes = std::mem::take(&mut message.bytes);
    let mut values = buffer::values(&bytes);
    (0..count)
        .map(|_| decode_value(values.next(), &mut message.blobs))
        .collect()
}

/// By the caller's code, which may panic on a thread that others need.
fn decode_value<R: DeserializeOwned>(value: Option<&[u8]>, blobs: &mut Vec<Parcel>) -> Result<R, Error> {
    let value = value.ok_or_else(|| undecodable("it did not come"))?;
    match catch_unwind(AssertUnwindSafe(|| buffer::decode(value, blobs))) {
        Ok(value) => value.map_err(|why| undecodable(&why.to_string())),
        Err(payload) => Err(undecodable(Panic::from_payload(&*payload).message())),
    }
}

fn undecodable(why: &str) -> Error {
    Error::new(
        ErrorKind::Codec,
        format!("the task's result could not be decoded: {why}"),
    )
}

/// The state of a task is kept in the memory shared with its worker.
#[derive(Default)]
struct Remote(OnceLock<Ticket>);

impl Control for Remote {
    fn cancel(&self) -> bool {
        self.0.get().is_some_and(Ticket::cancel)
    }

    fn is_running(&self) -> bool {
        self.0.get().is_some_and(Ticket::is_running)
    }

    fn look(&self) -> bool {
        self.0.get().is_some_and(Ticket::look)
    }
}

/// Settles a future.
struct Deliver<R> {
    promise: Mutex<Option<Promise<R>>>,
    terms: Arc<Terms>,
}

impl<R: DeserializeOwned + Send> Sink for Deliver<R> {
    fn finished(&self, _first: u64, _count: u32, mut end: End) {
        if let Some(promise) = self.promise.lock().unwrap_or_else(PoisonError::into_inner).take() {
            match decode(&mut end) {
                Ok(outcome) => promise.complete(outcome),
                Err(error) => promise.fail(error),
            }
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted::Soon
    }

    fn time_limit(&self) -> Option<Duration> {
        self.terms.time_limit
    }

    fn retries(&self) -> Option<&Retries> {
        self.terms.retries.as_ref()
    }
}
