//! `fanmap._native`: the engine as Python sees it.
//!
//! It converts, detaches from the interpreter, calls the engine, and converts back. Names, docstrings for users and every
//! decision that needs Python live in the package `fanmap`; nothing here is public.
//!
//! | module | what it is |
//! |---|---|
//! | [`buffer`] | large buffers: Python's into blobs, and blobs as Python's |
//! | [`context`] | calls in a context of their own |
//! | [`convert`] | the engine's errors and ends as Python objects |
//! | [`wait`] | waits that see Ctrl-C |
//! | [`future`] | what a future is: its state, its outcome, and the waits for it |
//! | [`call`] | one submitted call, as a thread runs it |
//! | [`threads`] | the pool of threads |
//! | [`processes`] | the pool of processes, from the parent's side |
//! | [`thread_map`], [`process_map`] | a map, over either |
//! | [`clocks`] | what a call takes |
//! | [`plain`] | a plain iterator that gives a map's results for a while |
//! | [`stash`] | results that came together or are made one by one, handed out |
//! | [`worker`] | a worker process and the template that forks it |
//!
//! # Threads and the interpreter
//! Engine threads never attach to the interpreter: what they have for Python they leave where a Python thread finds it
//! ([`future::Core`], [`processes::Completions`], [`process_map::ProcessRun`]). Worker threads of a [`threads::ThreadPool`] are Python's own, attached
//! once for their whole life. No lock of the engine or of this crate is held while Python code runs or the interpreter is
//! waited for.
//!
//! # Free-threaded builds
//! Every class is frozen; what changes is behind a mutex or an atomic of its own, named at the field. Nothing relies on the
//! interpreter's lock.

#![deny(unsafe_code)]

mod buffer;
mod call;
mod calls;
mod clocks;
mod context;
mod convert;
mod future;
mod numbers;
mod plain;
mod process_map;
mod processes;
mod stash;
mod thread_map;
mod threads;
mod wait;
mod worker;

use pyo3::prelude::*;

/// The engine beneath the package `fanmap`. Private.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::clocks::Clocks;
    #[pymodule_export]
    use super::convert::Tried;
    #[pymodule_export]
    use super::future::FutureBase;
    #[pymodule_export]
    use super::numbers::{pack_numbers, unpack_numbers};
    #[pymodule_export]
    use super::process_map::ProcessRun;
    #[pymodule_export]
    use super::processes::{Completions, Function, ProcessPool, Terms};
    #[pymodule_export]
    use super::stash::{Stash, are_atoms, is_atom};
    #[pymodule_export]
    use super::thread_map::ThreadRun;
    #[pymodule_export]
    use super::threads::{Seat, ThreadPool};
    #[pymodule_export]
    use super::worker::{
        Invitation, Template, accept, after_fork, before_fork, control_pair, empty_stdin, forsake_all,
        line_buffer_stdout, serve,
    };

    use pyo3::prelude::*;

    /// How many tasks can compute at the same time here: affinity and the cgroup's quota count.
    #[pyfunction]
    fn cpu_count() -> usize {
        fanmap::cpus::available()
    }

    /// What the cgroup grants: cores, perhaps a fraction, and bytes of memory; `None` is no limit.
    #[pyfunction]
    fn cgroup_limits() -> (Option<f64>, Option<u64>) {
        let limits = fanmap::cgroup::Limits::of_this_process();
        (limits.cores, limits.memory)
    }
}
