//! A task's outcome that may not be there yet.
//!
//! [`promise`] makes the two ends: an executor keeps the [`Promise`], the user holds the [`Future`]. [`wait`] and
//! [`as_completed`] look at many at once.
//!
//! # Protocol
//! The outcome lives in a slot under a mutex and is put there once; the first wins and later ones are dropped. Whoever puts
//! it moves the stage in the same critical section, so `is_done` never runs ahead of `wait`. Then, outside the lock: the waiting
//! thread is woken, the async task is woken, the watches of `wait` and `as_completed` are told, and the callbacks run in
//! the order they were added, on the thread that settled the future. What is added later finds the slot settled and is
//! told at once, on its own thread; so each is told exactly once.
//!
//! A future may have a [`Control`], for tasks whose state is kept elsewhere (in memory shared with a worker process): then
//! `cancel` and `is_running` ask it instead of the stage.

mod many;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fanmap_shm::event::{Event, Wake};

use crate::error::{Error, ErrorKind};
use crate::outcome::{Outcome, Panic};
use crate::task::{Cancel, Stage, Start, TaskState};

pub use many::{AsCompleted, When, as_completed, wait};

use many::Watch;

/// The keeper of a task's state, where that is not the future itself.
///
/// ```
/// use fanmap::{Control, ErrorKind, Outcome, future::controlled_promise};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// /// A task that some server has, which may or may not have begun it.
/// #[derive(Default)]
/// struct Remote {
///     begun: AtomicBool,
/// }
///
/// impl Control for Remote {
///     fn cancel(&self) -> bool {
///         !self.begun.load(Ordering::Relaxed)
///     }
///     fn is_running(&self) -> bool {
///         self.begun.load(Ordering::Relaxed)
///     }
/// }
///
/// let remote = Arc::new(Remote::default());
/// let (promise, future) = controlled_promise(Arc::clone(&remote) as Arc<dyn Control>);
/// remote.begun.store(true, Ordering::Relaxed);
/// assert!(future.is_running() && !future.cancel());
/// promise.complete(Outcome::Value(42));
/// assert_eq!(future.wait()?, 42);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub trait Control: Send + Sync {
    /// Cancels the task: true if and only if it will never run, now or because it was cancelled before.
    fn cancel(&self) -> bool;

    /// Whether a worker runs the task right now.
    fn is_running(&self) -> bool;

    /// A thread is about to wait for the task: looks what has ended. False if there was nothing.
    #[doc(hidden)]
    fn look(&self) -> bool {
        false
    }
}

type Callback = Box<dyn FnOnce() + Send>;

enum Slot<T> {
    Open {
        waker: Option<Waker>,
        watches: Vec<(Arc<Watch>, usize)>,
        callbacks: Vec<Callback>,
    },
    Settled(Result<Outcome<T>, Error>),
    /// The outcome was there and was handed out.
    Taken,
}

struct Shared<T> {
    task: TaskState,
    slot: Mutex<Slot<T>>,
    settled: Event,
    control: Option<Arc<dyn Control>>,
}

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().expect("nothing panics under this lock")
    }

    fn is_done(&self) -> bool {
        self.task.stage().is_over()
    }

    fn settle(&self, outcome: Result<Outcome<T>, Error>) {
        self.settle_by(outcome, || ());
    }

    /// Settles; `alone` is called first, under the lock, if settling runs nothing of the user's on this thread.
    fn settle_by(&self, outcome: Result<Outcome<T>, Error>, alone: impl FnOnce()) {
        let slot = self.slot();
        if let Slot::Open { waker, callbacks, .. } = &*slot {
            if waker.is_none() && callbacks.is_empty() {
                alone();
            }
            let end = match outcome {
                Ok(Outcome::Cancelled) => Stage::Cancelled,
                _ => Stage::Done,
            };
            self.task.finish(end);
            self.put(slot, outcome);
        } else {
            drop(slot);
            drop(outcome);
        }
    }

    /// Cancels a task that keeps its own state.
    fn cancel(&self) -> bool {
        let slot = self.slot();
        match self.task.cancel() {
            Cancel::Now => {
                self.put(slot, Ok(Outcome::Cancelled));
                true
            }
            Cancel::Before => true,
            Cancel::TooLate => false,
        }
    }

    /// Fills the open slot and tells everybody.
    fn put(&self, mut slot: MutexGuard<'_, Slot<T>>, outcome: Result<Outcome<T>, Error>) {
        let failed = is_failure(&outcome);
        let before = std::mem::replace(&mut *slot, Slot::Settled(outcome));
        drop(slot);
        self.settled.notify();
        let Slot::Open {
            waker,
            watches,
            callbacks,
        } = before
        else {
            unreachable!("only an open slot is filled");
        };
        for (watch, index) in watches {
            watch.tell(index, failed);
        }
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        for callback in callbacks {
            contain(callback);
        }
    }

    /// The outcome if it is there: an error if it was taken before.
    fn take(&self) -> Option<Result<T, Error>> {
        let mut slot = self.slot();
        match &*slot {
            Slot::Open { .. } => None,
            Slot::Taken => Some(Err(Error::new(
                ErrorKind::InvalidInput,
                "the outcome of this future was already handed out",
            ))),
            Slot::Settled(_) => {
                let settled = std::mem::replace(&mut *slot, Slot::Taken);
                drop(slot);
                match settled {
                    Slot::Settled(outcome) => Some(outcome.and_then(Outcome::into_result)),
                    _ => unreachable!("it was settled a moment ago, under the same lock"),
                }
            }
        }
    }
}

/// Whether a wait for the first error ends at this outcome. As in Python, a cancelled task is not an error.
fn is_failure<T>(settled: &Result<Outcome<T>, Error>) -> bool {
    !matches!(settled, Ok(Outcome::Value(_) | Outcome::Cancelled))
}

/// Runs what the user gave us to be told; its panic (which the panic hook has reported) stops nobody else from being told.
fn contain(tell: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(tell));
}

/// The two ends of a task's outcome.
///
/// ```
/// use fanmap::Outcome;
///
/// let (promise, future) = fanmap::future::promise();
/// promise.complete(Outcome::Value(42));
/// assert_eq!(future.wait()?, 42);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub fn promise<T>() -> (Promise<T>, Future<T>) {
    ends(None)
}

/// The two ends of the outcome of a task whose state somebody else keeps.
///
/// [`Control`] has an example.
pub fn controlled_promise<T>(control: Arc<dyn Control>) -> (Promise<T>, Future<T>) {
    ends(Some(control))
}

fn ends<T>(control: Option<Arc<dyn Control>>) -> (Promise<T>, Future<T>) {
    let shared = Arc::new(Shared {
        task: TaskState::new(),
        slot: Mutex::new(Slot::Open {
            waker: None,
            watches: Vec::new(),
            callbacks: Vec::new(),
        }),
        settled: Event::new(),
        control,
    });
    (
        Promise {
            shared: Arc::clone(&shared),
        },
        Future { shared },
    )
}

/// The executor's end: who holds it owes the outcome. Dropping it pays the debt, so that nobody waits for ever.
///
/// ```
/// use fanmap::{ErrorKind, Outcome, Start, future::promise};
///
/// let (promise, future) = promise();
/// assert_eq!(promise.start(), Start::Run); // it cannot be cancelled any more
/// promise.complete(Outcome::Value("done"));
/// assert_eq!(future.wait()?, "done");
///
/// let (promise, future) = fanmap::future::promise::<u32>();
/// assert!(future.cancel());
/// assert_eq!(promise.start(), Start::Skip);
///
/// let (promise, future) = fanmap::future::promise::<u32>();
/// drop(promise);
/// assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
/// # Ok::<(), fanmap::Error>(())
/// ```
pub struct Promise<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Promise<T> {
    /// Marks the task as running, unless it was cancelled. Not for a task with a [`Control`].
    pub fn start(&self) -> Start {
        self.shared.task.start()
    }

    /// Settles the future, unless it is settled already.
    pub fn complete(self, outcome: Outcome<T>) {
        self.shared.settle(Ok(outcome));
    }

    /// As [`complete`](Promise::complete). `alone` is called first if this thread has nothing of the user's to run then: no
    /// callback and no waker. It must not touch the future.
    pub(crate) fn complete_by(self, outcome: Outcome<T>, alone: impl FnOnce()) {
        self.shared.settle_by(Ok(outcome), alone);
    }

    /// Settles the future with an error that is no outcome of the task: it could not be run, or its value not be read.
    pub(crate) fn fail(self, error: Error) {
        self.shared.settle(Err(error));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        match self.shared.task.stage() {
            Stage::Pending => self.shared.settle(Ok(Outcome::Cancelled)),
            Stage::Running => {
                let panic = Panic::new("the task was dropped before it ended");
                self.shared.settle(Ok(Outcome::Raised(panic)));
            }
            Stage::Done | Stage::Cancelled => {}
        }
    }
}

/// The user's end: the outcome of a task, now or later.
///
/// Dropping it does not cancel the task. It can also be awaited.
///
/// ```
/// use std::sync::mpsc::channel;
/// use std::time::{Duration, Instant};
///
/// let pool = fanmap::ThreadPool::new(1)?;
/// let ((begun, has_begun), (release, held)) = (channel(), channel::<()>());
/// let mut runs = pool.submit(move || (begun.send(()), held.recv().is_err()).1)?;
/// let waits = pool.submit(|| 6 * 7)?;
///
/// let late = runs.wait_timeout(Duration::from_millis(1)).unwrap_err();
/// assert_eq!(late.kind(), fanmap::ErrorKind::Timeout); // it can be waited for again
/// has_begun.recv().expect("it begins");
/// assert!(runs.is_running() && !runs.is_done());
///
/// let (ended, told) = channel();
/// waits.on_done(move || ended.send("over").expect("somebody listens"));
/// assert!(waits.cancel() && waits.is_cancelled()); // it will never run
/// assert_eq!(told.recv(), Ok("over"));
///
/// drop(release);
/// assert!(runs.wait_until(Instant::now() + Duration::from_secs(60))?);
///
/// let answer = async { pool.submit(|| 6 * 7)?.await };
/// assert_eq!(block_on(answer)?, 42);
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     struct Unpark(std::thread::Thread);
/// #     impl std::task::Wake for Unpark {
/// #         fn wake(self: std::sync::Arc<Self>) {
/// #             self.0.unpark();
/// #         }
/// #     }
/// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
/// #     let mut context = std::task::Context::from_waker(&waker);
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut context) {
/// #             std::task::Poll::Ready(output) => return output,
/// #             std::task::Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
/// # Ok::<(), fanmap::Error>(())
/// ```
#[must_use = "a future that is dropped takes its task's outcome with it"]
pub struct Future<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Future<T> {
    /// Waits for the task to end.
    ///
    /// # Errors
    /// [`Panicked`](ErrorKind::Panicked), [`Cancelled`](ErrorKind::Cancelled) and, over processes,
    /// [`WorkerLost`](ErrorKind::WorkerLost), [`TaskTimeout`](ErrorKind::TaskTimeout) and [`Codec`](ErrorKind::Codec) say
    /// what became of the task instead.
    pub fn wait(self) -> Result<T, Error> {
        self.block(None)
    }

    /// Waits for the task to end, but no longer than `limit`.
    ///
    /// # Errors
    /// As [`wait`](Future::wait); and [`Timeout`](ErrorKind::Timeout) if the task has not ended: it goes on, and the
    /// future can be waited for again. Once the outcome was handed out, [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<T, Error> {
        // A limit past the end of time is no limit.
        self.block(Instant::now().checked_add(limit))
    }

    /// Waits for the task to end, but not past `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Future::wait_timeout).
    pub fn wait_until(&mut self, deadline: Instant) -> Result<T, Error> {
        self.block(Some(deadline))
    }

    /// Whether the task has ended or was cancelled: [`wait`](Future::wait) would not block.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.is_done()
    }

    /// Whether a worker runs the task right now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match &self.shared.control {
            None => self.shared.task.stage() == Stage::Running,
            Some(control) => !self.is_done() && control.is_running(),
        }
    }

    /// Whether the task was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.task.stage() == Stage::Cancelled
    }

    /// Cancels the task if it has not started: true if and only if it never runs.
    ///
    /// A cancelled future is done at once, and its callbacks run here.
    pub fn cancel(&self) -> bool {
        match &self.shared.control {
            None => self.shared.cancel(),
            Some(control) => match self.shared.task.stage() {
                Stage::Cancelled => true,
                Stage::Done => false,
                Stage::Pending | Stage::Running => {
                    let cancelled = control.cancel();
                    if cancelled {
                        self.shared.settle(Ok(Outcome::Cancelled));
                    }
                    cancelled
                }
            },
        }
    }

    /// Calls `callback` when the task has ended or was cancelled: now, if it has.
    ///
    /// Callbacks run in the order they were added, on the thread that ended the task (a worker, or who cancelled it; over
    /// processes, who hears of its end, which may be a thread that waits for another one), so keep them short. A panic in one is contained.
    pub fn on_done(&self, callback: impl FnOnce() + Send + 'static) {
        let mut slot = self.shared.slot();
        match &mut *slot {
            Slot::Open { callbacks, .. } => callbacks.push(Box::new(callback)),
            _ => {
                drop(slot);
                contain(callback);
            }
        }
    }

    fn block(&self, deadline: Option<Instant>) -> Result<T, Error> {
        loop {
            let epoch = self.shared.settled.epoch();
            if let Some(result) = self.shared.take() {
                return result;
            }
            let in_time = deadline.is_none_or(|at| Instant::now() < at);
            if in_time && self.shared.control.as_ref().is_some_and(|control| control.look()) {
                continue;
            }
            match self.shared.settled.wait(epoch, deadline) {
                // In a Rust program the signal's handler has done what there was to do.
                Wake::Notified | Wake::Interrupted => {}
                Wake::TimedOut => {
                    return self.shared.take().unwrap_or_else(|| {
                        Err(Error::new(
                            ErrorKind::Timeout,
                            "the task did not end in time; it goes on",
                        ))
                    });
                }
            }
        }
    }

    /// Has `watch` told, under `index`, when this is settled: now, if it is.
    fn watch(&self, watch: &Arc<Watch>, index: usize) {
        let mut slot = self.shared.slot();
        let failed = match &mut *slot {
            Slot::Open { watches, .. } => {
                watches.push((Arc::clone(watch), index));
                return;
            }
            Slot::Settled(outcome) => is_failure(outcome),
            Slot::Taken => false,
        };
        drop(slot);
        watch.tell(index, failed);
    }

    /// Forgets `watch`, so that waiting again and again for the same future leaves nothing behind in it.
    fn unwatch(&self, watch: &Arc<Watch>) {
        if let Slot::Open { watches, .. } = &mut *self.shared.slot() {
            watches.retain(|(known, _)| !Arc::ptr_eq(known, watch));
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned before and dropped after: a waker is the async runtime's code, and runs under no lock of ours.
        let fresh = context.waker().clone();
        let mut slot = self.shared.slot();
        if let Slot::Open { waker, .. } = &mut *slot {
            let stale = waker.replace(fresh);
            drop(slot);
            drop(stale);
            return Poll::Pending;
        }
        drop(slot);
        Poll::Ready(self.shared.take().expect("a slot that is not open has an answer"))
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.shared.task.stage() {
            Stage::Cancelled => "cancelled",
            Stage::Done => "done",
            Stage::Pending | Stage::Running if self.is_running() => "running",
            Stage::Pending | Stage::Running => "pending",
        };
        write!(f, "Future({state})")
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise({:?})", self.shared.task.stage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn log() -> (Arc<Mutex<Vec<u32>>>, impl Fn(u32) -> Callback) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&log);
        (log, move |number| {
            let log = Arc::clone(&writer);
            Box::new(move || log.lock().expect("no panic").push(number))
        })
    }

    #[test]
    fn callbacks_run_once_each_in_order_and_survive_a_panic_in_one() {
        let (log, write) = log();
        let (promise, future) = promise();
        future.on_done(write(1));
        future.on_done(|| panic!("a callback's panic, contained"));
        future.on_done(write(2));
        assert!(log.lock().expect("no panic").is_empty());
        promise.complete(Outcome::Value(()));
        future.on_done(write(3));
        assert_eq!(*log.lock().expect("no panic"), [1, 2, 3]);
    }

    #[test]
    fn the_first_outcome_wins() {
        let (promise, future) = promise();
        assert!(future.cancel());
        assert_eq!(promise.start(), Start::Skip);
        promise.complete(Outcome::Value(1));
        assert!(future.is_cancelled());
        assert_eq!(future.wait().expect_err("cancelled").kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_dropped_promise_settles_its_future() {
        let (pending, future) = promise::<()>();
        drop(pending);
        assert_eq!(future.wait().expect_err("never ran").kind(), ErrorKind::Cancelled);
        let (running, future) = promise::<()>();
        assert_eq!(running.start(), Start::Run);
        drop(running);
        assert_eq!(future.wait().expect_err("never ended").kind(), ErrorKind::Panicked);
    }

    #[test]
    fn an_outcome_is_handed_out_once() {
        let (promise, mut future) = promise();
        let late = future.wait_timeout(Duration::ZERO).expect_err("not there yet");
        assert_eq!(late.kind(), ErrorKind::Timeout);
        promise.complete(Outcome::Value(5));
        assert_eq!(future.wait_timeout(Duration::ZERO), Ok(5));
        assert_eq!(future.wait().expect_err("gone").kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_controlled_future_asks_its_control() {
        #[derive(Default)]
        struct Elsewhere {
            running: AtomicBool,
        }
        impl Control for Elsewhere {
            fn cancel(&self) -> bool {
                !self.is_running()
            }
            fn is_running(&self) -> bool {
                self.running.load(Ordering::Relaxed)
            }
        }
        let elsewhere = Arc::new(Elsewhere::default());
        let (_promise, future) = controlled_promise::<()>(elsewhere.clone());
        elsewhere.running.store(true, Ordering::Relaxed);
        assert!(future.is_running());
        assert!(!future.cancel());
        elsewhere.running.store(false, Ordering::Relaxed);
        assert!(future.cancel());
        assert!(future.cancel());
        assert!(future.is_done() && future.is_cancelled());
    }

    #[test]
    fn it_can_be_awaited() {
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let (promise, mut future) = promise();
        assert!(std::future::Future::poll(Pin::new(&mut future), &mut context).is_pending());
        promise.complete(Outcome::Value(7));
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(
            std::future::Future::poll(Pin::new(&mut future), &mut context),
            Poll::Ready(Ok(7))
        );
    }
}
