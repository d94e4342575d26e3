//! A wait that returns when a signal arrives.
//!
//! Everything that a caller's thread waits for goes through [`Event`]: futures, maps, joins. It is an event count over a
//! raw futex. The standard library's and crossbeam's waits retry when a signal interrupts them, so a Python program in
//! such a wait would never see Ctrl-C; this one returns [`Wake::Interrupted`] and lets the caller decide.
//!
//! # Protocol
//! The waiter reads [`Event::epoch`], *then* looks at the state it waits for, *then* calls [`Event::wait`] with the epoch
//! it read. The notifier changes the state, *then* calls [`Event::notify`]. If the change came after the waiter looked,
//! the epoch has moved and the futex refuses to sleep. `waiters` only saves the system call when nobody sleeps: the
//! waiter raises it before the futex compares the word, and the notifier reads it after moving the word, with a
//! sequentially consistent fence on both sides, so at least one of them sees the other.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Instant;

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
        let timeout = match deadline {
            None => None,
            Some(at) => match clock::until(at) {
                Some(left) => Some(left),
                None => return Wake::TimedOut,
            },
        };
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = futex::wait(&self.word, futex::Flags::PRIVATE, epoch, timeout.as_ref());
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        match slept {
            Err(Errno::INTR) => Wake::Interrupted,
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
