//! What the supervisor is given to do: a function, an argument, and where the outcome goes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use fanmap_shm::link::Link;

use crate::config::Retries;
use crate::lost::Call;
use crate::memory::{Lease, Load, Message};
use crate::outcome::Outcome;
use crate::supervisor::policy;
use crate::transport::frame::Part;
use crate::transport::stream::Body;

/// Why a pool cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// A sentence.
    pub reason: String,
    /// What a worker's handler gave as the reason why it could not get ready, if that was it.
    pub refusal: Option<Vec<u8>>,
}

/// How a task ended, seen from its pool.
#[derive(Debug)]
#[must_use]
pub enum End {
    /// The task has an outcome of its own.
    Outcome(Outcome<Message, Vec<u8>>),
    /// The pool broke before the task was done.
    Broken(Arc<Broken>),
    /// The task failed so, after it had been tried before: and what that came to, in order.
    Failed {
        /// Any of the above.
        last: Box<End>,
        /// At least one.
        earlier: Vec<Outcome<Message, Vec<u8>>>,
    },
}

/// Where ends go. Called once for each task, from the supervisor's thread or from the one that cancelled; must not wait.
pub trait Sink: Send + Sync {
    /// The tasks with the keys from `first` on, `count` of them, have ended. Values are encoded together, as the worker's
    /// handler does it; any other end is the same for all of them.
    fn finished(&self, first: u64, count: u32, end: End);

    /// How long each of the tasks may take, from its start. One that takes longer is ended with its worker. The answer is
    /// always the same.
    fn time_limit(&self) -> Option<Duration> {
        None
    }

    /// Whether and when each of the tasks is tried again that failed. The answer is always the same.
    fn retries(&self) -> Option<&Retries> {
        None
    }

    /// How soon the next end is wanted.
    fn wanted(&self) -> Wanted {
        Wanted::AtOnce
    }

    /// How many of the tasks a worker should be sent at a time, at least, however long they take.
    fn together(&self) -> u32 {
        1
    }

    /// Whether `count` tasks from `first` on are to stay in the queue for now. Whoever ends that calls
    /// [`Pool::resume`](super::Pool::resume). Under the pool's lock.
    fn holds(&self, first: u64, count: u32) -> bool {
        let _ = (first, count);
        false
    }

    /// `count` more tasks, which a worker has answered for, ran so many nanoseconds together. Under the pool's lock.
    fn took(&self, nanos: u64, count: u32) {
        let _ = (nanos, count);
    }
}

/// How soon an end is wanted: a wake-up for each takes a core from the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As soon as it is there.
    AtOnce,
    /// The same, but where many tiny tasks end one by one they may gather for a fraction of a millisecond.
    Soon,
    /// Within a few milliseconds, if others come with it: of a map.
    Together,
    /// Not before somebody comes to wait for it, who says so ([`Ticket::attend`](super::Ticket::attend)).
    Later,
}

/// Whether two sinks are the same one.
pub(super) fn same_sink(one: &Arc<dyn Sink>, other: &Arc<dyn Sink>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// A function that workers know, or will once a task needs it. They forget it when the last reference is dropped.
#[derive(Debug)]
pub struct Function {
    pub(super) id: u64,
    /// For messages.
    name: Arc<str>,
    pub(super) message: Packed,
    pub(super) forgotten: Weak<Forgotten>,
    mean_nanos: AtomicU64,
}

/// Functions that nobody will call again, to be told to the workers.
#[derive(Debug)]
pub(super) struct Forgotten {
    ids: Mutex<Vec<u64>>,
    /// The process that has the pool: in a fork of it the lock may be held for ever.
    owner: u32,
}

impl Forgotten {
    pub(super) fn new() -> Self {
        Self {
            ids: Mutex::default(),
            owner: std::process::id(),
        }
    }

    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, id: u64) {
        if std::process::id() == self.owner {
            self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }
}

impl Function {
    pub(super) fn new(id: u64, name: &str, load: Load, forgotten: &Arc<Forgotten>) -> Self {
        Self {
            id,
            name: name.into(),
            message: Packed::new(load),
            forgotten: Arc::downgrade(forgotten),
            mean_nanos: AtomicU64::new(u64::MAX),
        }
    }

    /// What its tasks have taken so far, or `None` before the first has ended.
    #[must_use]
    pub fn mean_task(&self) -> Option<Duration> {
        match self.mean_nanos.load(Ordering::Relaxed) {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// `count` more tasks took `nanos` together. Only called under the pool's lock, so no update is lost.
    pub(super) fn took(&self, nanos: u64, count: u32) {
        let mean = policy::mean(self.mean_task(), Duration::from_nanos(nanos.min(u64::MAX / 16)), count);
        let nanos = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX - 1);
        self.mean_nanos.store(nanos, Ordering::Relaxed);
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(forgotten) = self.forgotten.upgrade() {
            forgotten.add(self.id);
        }
    }
}

/// A message on its way to workers: kept until it has gone to the last of them.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) body: Body,
    /// How many blobs it refers to, and the leases that keep them.
    pub(super) blobs: u32,
    pub(super) leases: Arc<[Arc<Lease>]>,
}

impl Packed {
    pub(super) fn new(load: Load) -> Self {
        let (body, blobs, leases) = load.pack();
        Self {
            body: Arc::new(body),
            blobs,
            leases: leases.into(),
        }
    }
}

/// Where a job is. Read and changed only under the pool's lock; the mutex merely lets the job be shared.
#[derive(Debug)]
pub(super) enum Place {
    /// In the pool's queue.
    Queued,
    /// To be tried again, but not before this.
    Resting(Instant),
    /// With a worker: its state word tells more.
    Sent { link: Arc<Link>, slot: u32, seat: u64 },
    /// Its end was delivered, or is about to be.
    Ended,
    /// The same, and it was cancelled.
    Cancelled,
}

/// One task, or a run of them whose arguments are encoded together, as the pool sees it.
///
/// A run is cut into jobs as workers have room for it; they share the arguments.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) function: Arc<Function>,
    /// The arguments.
    pub(super) message: Packed,
    /// Which of the arguments are this job's.
    pub(super) part: Part,
    pub(super) sink: Arc<dyn Sink>,
    /// The first task's.
    pub(super) key: u64,
    pub(super) place: Mutex<Place>,
    /// What came of it when it was tried before, if it is one task. Used only under the pool's lock.
    earlier: Mutex<Vec<Outcome<Message, Vec<u8>>>>,
    /// Whether nobody wants further tries. Used only under the pool's lock.
    forgone: AtomicBool,
    /// Whether arguments of further tasks may be put behind its own.
    joins: bool,
}

impl Job {
    /// A run of tasks in the queue, with all the arguments of its message.
    pub(super) fn new(
        id: u64,
        function: &Arc<Function>,
        message: Packed,
        count: u32,
        sink: Arc<dyn Sink>,
        key: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            function: Arc::clone(function),
            message,
            part: Part::all(count),
            sink,
            key,
            place: Mutex::new(Place::Queued),
            earlier: Mutex::default(),
            forgone: AtomicBool::new(false),
            joins: false,
        })
    }

    /// One task in the queue, which others may join.
    pub(super) fn first(
        id: u64,
        function: &Arc<Function>,
        message: Packed,
        sink: &Arc<dyn Sink>,
        key: u64,
    ) -> Arc<Self> {
        let mut job = Self::new(id, function, message, 1, Arc::clone(sink), key);
        if let Some(job) = Arc::get_mut(&mut job) {
            job.joins = job.message.blobs == 0;
        }
        job
    }

    /// Whether the next task may join.
    pub(super) fn grows(&self) -> bool {
        self.joins && policy::grows(self.function.mean_task(), self.count(), self.message.body.len())
    }

    /// Adds the task that comes after its last to a job that the queue alone has. False: it cannot.
    pub(super) fn join(
        self: &mut Arc<Self>,
        function: &Arc<Function>,
        argument: &[u8],
        sink: &Arc<dyn Sink>,
        key: u64,
    ) -> bool {
        let follows = self.key + u64::from(self.count()) == key && self.part == Part::all(self.count());
        if !follows || !self.grows() || !Arc::ptr_eq(&self.function, function) || !same_sink(&self.sink, sink) {
            return false;
        }
        let Some(job) = Arc::get_mut(self) else {
            return false;
        };
        let Some(body) = Arc::get_mut(&mut job.message.body) else {
            return false;
        };
        if body.capacity() - body.len() < argument.len() {
            body.reserve(policy::RUN_BYTES.max(argument.len()));
        }
        body.extend_from_slice(argument);
        job.part = Part::all(job.count() + 1);
        true
    }

    /// How many tasks it is.
    pub(super) fn count(&self) -> u32 {
        self.part.count
    }

    /// A job of its own for some of the tasks, by number within this one.
    pub(super) fn cut(&self, id: u64, tasks: Range<u32>) -> Arc<Self> {
        Arc::new(Self {
            id,
            function: Arc::clone(&self.function),
            message: self.message.clone(),
            key: self.key + u64::from(tasks.start),
            part: self.part.of(tasks),
            sink: Arc::clone(&self.sink),
            place: Mutex::new(Place::Queued),
            earlier: Mutex::default(),
            forgone: AtomicBool::new(self.forgone.load(Ordering::Relaxed)),
            joins: false,
        })
    }

    /// The call that one of its tasks is.
    pub(super) fn call(&self, task: u32) -> Call {
        Call {
            function: Arc::clone(&self.function.name),
            arguments: Arc::clone(&self.message.body),
            place: self.part.first + task,
            total: self.part.total,
        }
    }

    /// Moves the job to `place`; returns where it was.
    pub(super) fn move_to(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place.lock().unwrap_or_else(PoisonError::into_inner), place)
    }

    pub(super) fn has_ended(&self) -> bool {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*place, Place::Ended | Place::Cancelled)
    }

    /// Whatever of it runs now is not tried again: it was to be cancelled.
    pub(super) fn forgo(&self) {
        self.forgone.store(true, Ordering::Relaxed);
    }

    /// For how long the task rests that was tried and ended so, before it is tried again. If it is not, its outcome comes
    /// back.
    pub(super) fn try_again(&self, outcome: Outcome<Message, Vec<u8>>) -> Result<Duration, Outcome<Message, Vec<u8>>> {
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let retries = self.sink.retries().filter(|_| !self.forgone.load(Ordering::Relaxed));
        match retries.and_then(|retries| policy::rest(retries, earlier.len())) {
            Some(rest) => {
                earlier.push(outcome);
                Ok(rest)
            }
            None => Err(outcome),
        }
    }

    /// The end as its sink is told it: a failure with what the attempts before came to.
    pub(super) fn told(&self, end: End) -> End {
        if matches!(end, End::Outcome(Outcome::Value(_) | Outcome::Cancelled)) {
            return end;
        }
        let earlier = std::mem::take(&mut *self.earlier.lock().unwrap_or_else(PoisonError::into_inner));
        if earlier.is_empty() {
            return end;
        }
        End::Failed {
            last: Box::new(end),
            earlier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Sink for Deaf {
        fn finished(&self, _first: u64, _count: u32, _end: End) {}
    }

    #[test]
    fn a_tiny_task_joins_the_one_before_it_unless_somebody_has_that() {
        let forgotten = Arc::new(Forgotten::new());
        let function = Arc::new(Function::new(1, "f", Vec::new().into(), &forgotten));
        let (sink, other): (Arc<dyn Sink>, Arc<dyn Sink>) = (Arc::new(Deaf), Arc::new(Deaf));
        let first = || Job::first(1, &function, Packed::new(vec![1, 2].into()), &sink, 7);
        assert!(
            !first().join(&function, &[3], &sink, 8),
            "it is not known how long they take"
        );
        function.took(1_000, 1);
        let mut job = first();
        assert!(!job.join(&function, &[3], &sink, 9) && !job.join(&function, &[3], &other, 8));
        assert!(job.join(&function, &[3], &sink, 8) && job.join(&function, &[4, 5], &sink, 9));
        assert_eq!(
            (job.part, job.message.body.as_slice()),
            (Part::all(3), &[1, 2, 3, 4, 5][..])
        );
        let sent = Arc::clone(&job);
        assert!(!job.join(&function, &[6], &sink, 10));
        drop(sent);
        assert!(job.join(&function, &[6], &sink, 10));
        assert!(
            !Job::new(1, &function, Packed::new(vec![1].into()), 1, Arc::clone(&sink), 7).join(
                &function,
                &[2],
                &sink,
                8
            )
        );
        function.took(1_000_000_000, 1);
        assert!(!job.join(&function, &[7], &sink, 11), "they take long now");
    }
}
