//! A fork of the user's program finds no thread in the middle of what its child goes on to use.
//!
//! The child has only the thread that forked. A lock that another thread held at that moment stays locked in it for ever.
//! The engine's own pools are not used there. But what the user holds is: the child drops futures, and the collector looks
//! at them. So a thread that has a lock of such a thing, and that the interpreter's lock does not keep from running while
//! another one forks, holds a [`Steady`] meanwhile.
//!
//! # Protocol
//! Threads that are steady share a lock, and the thread that forks has it alone, from the system's hook before a fork until
//! that after it, in the parent and in the child. Between these nothing of the user's runs, and no interpreter is
//! needed, so those who come meanwhile wait for one system call. Who is steady waits for nothing but short locks. A thread
//! that is steady already, and one that forks while it is, take nothing: they would wait for themselves.

use std::cell::{Cell, RefCell};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static LOCK: RwLock<()> = RwLock::new(());

thread_local! {
    static STEADY: Cell<bool> = const { Cell::new(false) };
    static FORKING: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// While somebody holds this, no other thread forks.
#[derive(Debug)]
pub struct Steady(Option<RwLockReadGuard<'static, ()>>);

/// Waits for a fork that is under way, and keeps others off.
#[must_use]
pub fn steady() -> Steady {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        // SAFETY: the hooks are functions without state that live as long as the program, and unwind nowhere.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    });
    if STEADY.replace(true) {
        return Steady(None);
    }
    Steady(Some(LOCK.read().unwrap_or_else(PoisonError::into_inner)))
}

impl Drop for Steady {
    fn drop(&mut self) {
        if self.0.is_some() {
            STEADY.set(false);
        }
    }
}

extern "C" fn before() {
    // A thread that is at its end has no variables any more, and is not steady.
    let steady = STEADY.try_with(Cell::get).unwrap_or(false);
    if !steady {
        let held = LOCK.write().unwrap_or_else(PoisonError::into_inner);
        let _ = FORKING.try_with(|forking| forking.replace(Some(held)));
    }
}

extern "C" fn after() {
    let _ = FORKING.try_with(RefCell::take);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn who_is_steady_may_be_so_again() {
        let outer = steady();
        drop(steady());
        assert!(LOCK.try_write().is_err());
        drop(outer);
    }

    #[test]
    fn a_fork_waits_for_who_is_steady() {
        let (tell, told) = mpsc::channel();
        let held = steady();
        let forks = thread::spawn(move || {
            before();
            tell.send(()).expect("the test listens");
            after();
        });
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(held);
        told.recv().expect("it forks now");
        forks.join().expect("nothing failed");
        drop(steady());
    }
}
