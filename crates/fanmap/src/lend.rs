//! What a call lends to other threads for as long as it runs: jobs that borrow, and the places of a [`Vec`].
//!
//! Its unsafe code rests on two promises, which this file keeps by itself.
//!
//! # Jobs that borrow
//! [`lending`] calls a closure with a [`Lender`] and returns when no job that it [lent](Lender::lend) exists any more. Each
//! is counted before its lifetime is forgotten, and counted off after it was run or dropped, whoever does that and however it
//! ends. The count is waited for in this file's own frame, also when the closure panics; nothing that can be leaked stands for
//! it. A job that nobody ever runs or drops makes `lending` wait for ever, which is no unsoundness.
//!
//! The count is under a mutex. Who takes it to nothing moves the event's epoch afterwards, and who waits reads the epoch before
//! it looks at the count, so no wake-up is lost.
//!
//! # Places
//! [`Places`] is the room for a `Vec` whose values many threads write. Runs of places are handed out by moving a cursor, which never goes back, so
//! each place belongs to one [`Run`], which alone writes to it. How many were written is added up, and only if it is all of
//! them they become a `Vec`. Otherwise what was written is dropped, run by run.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::needs_drop;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::sync::{AtomicUsize, Event, Mutex, Ordering};
use crate::task::Job;

/// How many lent things are out.
struct Loans {
    out: Mutex<usize>,
    none: Event,
}

impl Loans {
    fn new() -> Self {
        Self {
            out: Mutex::new(0),
            none: Event::new(),
        }
    }

    fn wait_for_none(&self) {
        loop {
            let epoch = self.none.epoch();
            if *self.out.lock().expect("nothing panics under this lock") == 0 {
                return;
            }
            let _ = self.none.wait(epoch, None);
        }
    }
}

/// One thing that is out.
struct Loan(Arc<Loans>);

impl Loan {
    fn new(loans: &Arc<Loans>) -> Self {
        *loans.out.lock().expect("nothing panics under this lock") += 1;
        Self(Arc::clone(loans))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut out = self.0.out.lock().expect("nothing panics under this lock");
        *out -= 1;
        let none = *out == 0;
        drop(out);
        if none {
            self.0.none.notify();
        }
    }
}

/// Lends what lives as long as `'scope`, which ends with the call of [`lending`].
pub(crate) struct Lender<'scope, 'env: 'scope> {
    loans: Arc<Loans>,
    // Invariant in both, as the standard library's scoped threads are: neither may be taken for a shorter or longer one.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Calls `body`, and returns when nothing is out that its lender lent.
pub(crate) fn lending<'env, T>(body: impl for<'scope> FnOnce(&'scope Lender<'scope, 'env>) -> T) -> T {
    struct Wait<'a>(&'a Loans);
    impl Drop for Wait<'_> {
        fn drop(&mut self) {
            self.0.wait_for_none();
        }
    }
    let lender = Lender {
        loans: Arc::new(Loans::new()),
        scope: PhantomData,
        env: PhantomData,
    };
    let loans = Arc::clone(&lender.loans);
    // Dropped at the end of this very function, whether `body` returns or panics.
    let _wait = Wait(&loans);
    body(&lender)
}

impl<'scope> Lender<'scope, '_> {
    /// The same job, for whoever asks for one that borrows nothing. It is run or dropped before [`lending`] returns.
    pub(crate) fn lend(&'scope self, job: Box<dyn Job + 'scope>) -> Box<dyn Job> {
        let loan = Loan::new(&self.loans);
        // SAFETY: the types differ in the lifetime alone. What the job borrows is alive as long as `'scope`, and that is longer
        // than the call of `lending`, which returns only when `loan` is gone. `Lent` keeps the job until then and no longer:
        // see there.
        let job = unsafe { std::mem::transmute::<Box<dyn Job + 'scope>, Box<dyn Job + 'static>>(job) };
        Box::new(Lent { job, loan })
    }
}

/// A job that is counted until it is gone.
struct Lent {
    // Dropped first: fields are dropped in their order.
    job: Box<dyn Job>,
    loan: Loan,
}

impl Lent {
    /// Gives the job away to `end`, which returns or panics only when nothing is left of it.
    fn end(self, end: impl FnOnce(Box<dyn Job>)) {
        let Self { job, loan } = self;
        end(job);
        drop(loan);
    }
}

impl Job for Lent {
    fn run(self: Box<Self>) {
        self.end(|job| job.run());
    }

    fn discard(self: Box<Self>) {
        self.end(|job| job.discard());
    }

    fn fail(self: Box<Self>, why: &Error) {
        self.end(|job| job.fail(why));
    }
}

/// The room for a [`Vec`] of a known length, which many threads fill.
pub(crate) struct Places<R> {
    /// Of length 0: its room alone is used.
    room: Vec<R>,
    base: *mut R,
    len: usize,
    cursor: AtomicUsize,
    written: AtomicUsize,
    /// What was written, if dropping it does something.
    runs: Mutex<Vec<Range<usize>>>,
}

// SAFETY: of `base` and what it points to, a thread uses only the places of its own runs, to which it sends values. `room` is
// not touched before the threads have let go of the whole.
unsafe impl<R: Send> Sync for Places<R> {}
// SAFETY: `base` points into `room`, whose values are on the heap and move with it.
unsafe impl<R: Send> Send for Places<R> {}

impl<R> Places<R> {
    /// Room for so many values.
    ///
    /// # Errors
    /// There is not as much memory.
    pub(crate) fn new(len: usize) -> Result<Self, Error> {
        let mut room = Vec::new();
        room.try_reserve_exact(len)
            .map_err(|cause| Error::os("make room for the results", cause))?;
        Ok(Self {
            base: room.as_mut_ptr(),
            room,
            len,
            cursor: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            runs: Mutex::new(Vec::new()),
        })
    }

    /// The next run of at most `most` places. `None`: all are claimed, or nobody is to claim more.
    pub(crate) fn claim(&self, most: usize) -> Option<Run<'_, R>> {
        let end = |first| most.min(self.len - first) + first;
        let claimed = self.cursor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
            (first < self.len).then(|| end(first))
        });
        claimed.ok().map(|first| Run {
            places: self,
            first,
            end: end(first),
            next: first,
        })
    }

    /// Nobody is to claim more.
    pub(crate) fn stop(&self) {
        self.cursor.store(self.len, Ordering::Relaxed);
    }

    /// The values, if every place was written.
    pub(crate) fn finish(mut self) -> Option<Vec<R>> {
        if self.written.load(Ordering::Relaxed) < self.len {
            return None;
        }
        let mut values = std::mem::take(&mut self.room);
        self.runs.lock().expect("nothing panics under this lock").clear();
        // SAFETY: there is room for so many, and each was written: the runs are disjoint, each counts what it has written once,
        // and the sum is the length.
        unsafe { values.set_len(self.len) };
        Some(values)
    }
}

impl<R> Drop for Places<R> {
    fn drop(&mut self) {
        let runs = std::mem::take(&mut *self.runs.lock().expect("nothing panics under this lock"));
        for run in runs {
            for place in run {
                // SAFETY: a run notes what it has written, once, and `finish` clears the notes if it gives the values away.
                unsafe { self.base.add(place).drop_in_place() };
            }
        }
    }
}

/// Some places that are one thread's to write.
pub(crate) struct Run<'a, R> {
    places: &'a Places<R>,
    first: usize,
    end: usize,
    next: usize,
}

impl<R> Run<'_, R> {
    /// Which places.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.end
    }

    /// The place that is written next.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// Writes values to the places, in order, until one of the two ends.
    pub(crate) fn fill(&mut self, mut values: impl Iterator<Item = R>) {
        /// Counts in a register, and tells what it came to also if the iterator panics.
        struct Count<'a> {
            left: usize,
            end: usize,
            told: &'a mut usize,
        }
        impl Drop for Count<'_> {
            fn drop(&mut self) {
                *self.told = self.end - self.left;
            }
        }
        // One number counts and tells the place: with two, a register more than there are around a call, tiny items pay for it.
        // SAFETY: the run's end is within the room, or just past it.
        let end = unsafe { self.places.base.add(self.end) };
        let mut count = Count {
            left: self.end - self.next,
            end: self.end,
            told: &mut self.next,
        };
        while count.left > 0 {
            let Some(value) = values.next() else { break };
            // SAFETY: the place is one of the last `left` of the run, so within the room, and this run's alone; it is written
            // once, as `left` moves on.
            unsafe { end.sub(count.left).write(value) };
            count.left -= 1;
        }
    }
}

impl<R> Drop for Run<'_, R> {
    fn drop(&mut self) {
        // What is read of this is read after every thread has let go of the places, which orders it.
        self.places.written.fetch_add(self.next - self.first, Ordering::Relaxed);
        if needs_drop::<R>() {
            let mut runs = self.places.runs.lock().expect("nothing panics under this lock");
            match runs.last_mut() {
                Some(last) if last.end == self.first => last.end = self.next,
                _ => runs.push(self.first..self.next),
            }
        }
    }
}
