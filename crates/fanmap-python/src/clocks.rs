//! What a call takes: the time that passes, and the processor's.

use pyo3::prelude::*;

use fanmap_shm::clock::{nanos, process_nanos, thread_nanos, times_slept};

/// How long a call must take, in nanoseconds, for a look at what other threads did meanwhile: it takes time itself.
const LOOK: u64 = 1_000_000;

/// Started before a call, by the thread that makes it.
#[pyclass(frozen, module = "fanmap._native")]
pub(crate) struct Clocks {
    pub(crate) began: u64,
    slept: i64,
    process: u64,
    thread: u64,
}

/// What the call has taken, in nanoseconds.
pub(crate) struct Took {
    pub(crate) wall: u64,
    /// Of processors' time.
    pub(crate) cpu: u64,
    /// The thread's own processor time at the end.
    pub(crate) thread: u64,
}

impl Clocks {
    pub(crate) fn start() -> Self {
        Self {
            slept: times_slept(),
            process: process_nanos(),
            thread: thread_nanos(),
            began: nanos(),
        }
    }

    /// With `alone`, what other threads computed meanwhile is the call's.
    pub(crate) fn stop(&self, alone: bool) -> Took {
        let passed = nanos() - self.began;
        let thread = thread_nanos();
        let cpu = thread - self.thread;
        // If it never gave its processor away itself, it waited for others' work to leave it, if at all.
        let wall = if cpu > 0 && times_slept() == self.slept {
            passed.min(cpu)
        } else {
            passed
        };
        let process = if alone && wall > LOOK {
            process_nanos() - self.process
        } else {
            0
        };
        // More than one core can do in that time was computed by threads of its own, as those of BLAS.
        let cpu = if process > wall + wall * 3 / 10 {
            process
        } else {
            cpu.min(wall)
        };
        Took { wall, cpu, thread }
    }
}

#[pymethods]
impl Clocks {
    #[new]
    fn new() -> Self {
        Self::start()
    }

    /// Seconds that have passed, and seconds of processor time for it: in all threads, if it was `alone`.
    #[pyo3(signature = (*, alone=true))]
    fn read(&self, alone: bool) -> (f64, f64) {
        let took = self.stop(alone);
        (seconds(took.wall), seconds(took.cpu))
    }
}

pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
