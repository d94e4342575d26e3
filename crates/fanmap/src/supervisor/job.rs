//! What the supervisor is given to do: a function, an argument, and where the outcome goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fanmap_shm::link::Link;

use crate::outcome::Outcome;
use crate::supervisor::policy;
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum End {
    /// The task has an outcome of its own.
    Outcome(Outcome<Vec<u8>, Vec<u8>>),
    /// The pool broke before the task was done.
    Broken(Arc<Broken>),
}

/// Where ends go. Called once for each task, from the supervisor's thread or from the one that cancelled; must not wait.
pub trait Sink: Send + Sync {
    /// The task that was submitted with `key` has ended.
    fn finished(&self, key: u64, end: End);
}

/// A function that workers know, or will once a task needs it. They forget it when the last reference is dropped.
#[derive(Debug)]
pub struct Function {
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) forgotten: Weak<Forgotten>,
    mean_nanos: AtomicU64,
}

/// Functions that nobody will call again, to be told to the workers.
#[derive(Debug, Default)]
pub(super) struct Forgotten(Mutex<Vec<u64>>);

impl Forgotten {
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Function {
    pub(super) fn new(id: u64, body: Vec<u8>, forgotten: &Arc<Forgotten>) -> Self {
        Self {
            id,
            body: Arc::new(body),
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

    /// One more task took `nanos`. Only called under the pool's lock, so no update is lost.
    pub(super) fn took(&self, nanos: u64) {
        let mean = policy::mean(self.mean_task(), Duration::from_nanos(nanos.min(u64::MAX / 16)));
        let nanos = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX - 1);
        self.mean_nanos.store(nanos, Ordering::Relaxed);
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(forgotten) = self.forgotten.upgrade() {
            forgotten.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

/// Where a task is. Read and changed only under the pool's lock; the mutex merely lets the job be shared.
#[derive(Debug)]
pub(super) enum Place {
    /// In the pool's queue.
    Queued,
    /// With a worker: its state word tells more.
    Sent { link: Arc<Link>, slot: u32, seat: u64 },
    /// Its end was delivered, or is about to be.
    Ended,
}

/// One task, as the pool sees it.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) function: Arc<Function>,
    pub(super) argument: Body,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) key: u64,
    pub(super) place: Mutex<Place>,
}

impl Job {
    /// Moves the job to `place`; returns where it was.
    pub(super) fn move_to(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place.lock().unwrap_or_else(PoisonError::into_inner), place)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.place.lock().unwrap_or_else(PoisonError::into_inner), Place::Ended)
    }
}
