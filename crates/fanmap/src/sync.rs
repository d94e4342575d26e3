//! What threads meet with: the standard library's lock and the engine's event, or loom's when a model is being checked.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use self::cell::UnsafeCell;

#[cfg(not(loom))]
pub(crate) use fanmap_shm::event::{Event, Wake};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

#[cfg(loom)]
pub(crate) use self::model::{Event, Wake};

/// The standard library's cell with the face of loom's, which sees who looks at it when.
#[cfg(not(loom))]
mod cell {
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
            look(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

/// `fanmap_shm::event` as loom can follow it: the same promises over a lock, without signals and deadlines.
#[cfg(loom)]
mod model {
    use std::time::Instant;

    use loom::sync::{Condvar, Mutex};

    #[expect(dead_code, reason = "a model has no clock and no signals")]
    pub(crate) enum Wake {
        Notified,
        TimedOut,
        Interrupted,
    }

    pub(crate) struct Event(Mutex<u32>, Condvar);

    impl Event {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(0), Condvar::new())
        }

        pub(crate) fn epoch(&self) -> u32 {
            *self.0.lock().expect("nothing panics under this lock")
        }

        pub(crate) fn wait(&self, epoch: u32, _never: Option<Instant>) -> Wake {
            let mut now = self.0.lock().expect("nothing panics under this lock");
            while *now == epoch {
                now = self.1.wait(now).expect("nothing panics under this lock");
            }
            Wake::Notified
        }

        pub(crate) fn notify(&self) {
            *self.0.lock().expect("nothing panics under this lock") += 1;
            self.1.notify_all();
        }
    }
}
