//! A wait that returns when a signal arrives.
//!
//! Everything that a caller's thread waits for goes through [`Event`]: futures, maps, joins. It is an event count over a
//! raw futex. The standard library's and crossbeam's waits retry when a signal interrupts them, so a Python program in
//! such a wait would never see Ctrl-C; this one returns [`Wake::Interrupted`] and lets the caller decide.
//!
//! A signal that comes between the caller's last look at the signals and the system call interrupts nothing. So a caller that
//! looks at them says so before its first wait ([`look_soon`]), which then returns to it after a moment, once: whatever came
//! before that is seen, and what comes later interrupts.
//!
//! # Protocol
//! The waiter reads [`Event::epoch`], *then* looks at the state it waits for, *then* calls [`Event::wait`] with the epoch
//! it read. The notifier changes the state, *then* calls [`Event::notify`]. If the change came after the waiter looked,
//! the epoch has moved and the futex refuses to sleep. `waiters` only saves the system call when nobody sleeps: the
//! waiter raises it before the futex compares the word, and the notifier reads it after moving the word, with a
//! sequentially consistent fence on both sides, so at least one of them sees the other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex;

use crate::clock;

/// Why [`Event::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// The event moved on (or may have: look at the state again).
    Notified,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran on this thread. Look at the signals, then wait again or give up.
    Interrupted,
}

/// How long the first wait is. Shorter, and waits that are over soon are interrupted for nothing; longer, and a Ctrl-C that fell
/// into the gap is felt to be slow.
const MOMENT: Duration = Duration::from_millis(20);

thread_local! {
    static LOOKS_SOON: Cell<bool> = const { Cell::new(false) };
}

/// The next wait of this thread that takes longer than a moment returns [`Wake::Interrupted`] after it.
pub fn look_soon() {
    LOOKS_SOON.set(true);
}

/// An event count: waiters sleep until it moves on.
#[derive(Debug, Default)]
pub struct Event {
    word: AtomicU32,
    waiters: AtomicU32,
}

impl Event {
    /// A fresh event that nobody waits for.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
        }
    }

    /// The present epoch: read it before looking at the state.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Sleeps until the event has left `epoch`, `deadline` has passed (`None`: never) or a signal came.
    pub fn wait(&self, epoch: u32, deadline: Option<Instant>) -> Wake {
        let moment = LOOKS_SOON.take().then(|| Instant::now() + MOMENT);
        let looks = moment.is_some_and(|moment| deadline.is_none_or(|at| moment < at));
        let timeout = match if looks { moment } else { deadline } {
            None => None,
            Some(at) => match clock::until(at) {
                Some(left) => Some(left),
                None if looks => return Wake::Interrupted,
                None => return Wake::TimedOut,
            },
        };
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = futex::wait(&self.word, futex::Flags::PRIVATE, epoch, timeout.as_ref());
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        match slept {
            Err(Errno::INTR) => Wake::Interrupted,
            Err(Errno::TIMEDOUT) if looks => Wake::Interrupted,
            Err(Errno::TIMEDOUT) => Wake::TimedOut,
            Ok(()) | Err(_) => Wake::Notified,
        }
    }

    /// Moves the event on and wakes every waiter. Call it after changing the state that they look at.
    pub fn notify(&self) {
        self.word.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            // A failed wake could only mean a bad address, and the word is ours.
            let _ = futex::wake(&self.word, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    #[test]
    fn a_stale_epoch_never_sleeps() {
        let event = Event::new();
        let epoch = event.epoch();
        event.notify();
        assert_eq!(event.wait(epoch, None), Wake::Notified);
    }

    #[test]
    fn a_passed_deadline_times_out() {
        let event = Event::new();
        assert_eq!(event.wait(event.epoch(), Some(Instant::now())), Wake::TimedOut);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(event.wait(event.epoch(), Some(soon)), Wake::TimedOut);
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn who_looks_at_signals_comes_back_to_that_once_and_soon() {
        let event = Event::new();
        look_soon();
        assert_eq!(event.wait(event.epoch(), None), Wake::Interrupted);
        let soon = Instant::now() + 2 * MOMENT;
        assert_eq!(event.wait(event.epoch(), Some(soon)), Wake::TimedOut);
        look_soon();
        let sooner = Instant::now() + MOMENT / 10;
        assert_eq!(event.wait(event.epoch(), Some(sooner)), Wake::TimedOut);
        assert!(Instant::now() >= sooner);
    }

    #[test]
    fn notify_wakes_every_waiter() {
        let shared = Arc::new((Event::new(), AtomicBool::new(false)));
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    loop {
                        let epoch = shared.0.epoch();
                        if shared.1.load(Ordering::Acquire) {
                            return;
                        }
                        let _ = shared.0.wait(epoch, None);
                    }
                })
            })
            .collect();
        shared.1.store(true, Ordering::Release);
        shared.0.notify();
        for waiter in waiters {
            waiter.join().expect("a waiter panicked");
        }
    }
}
