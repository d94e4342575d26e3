//! How many workers this machine, or the part of it we were given, can keep busy.

use std::thread;

/// The number of tasks that can compute at the same time here, at least 1.
///
/// It honours the process's CPU affinity and the quota of its cgroup (v1 and v2, rounded down), so a container that was
/// given two cores of sixty-four gets 2.
#[must_use]
pub fn available() -> usize {
    // Where the system will not say, one worker is always right, if slow.
    thread::available_parallelism().map_or(1, usize::from)
}

/// The number of threads of a pool that did not ask for any: [`available`] + 4, at most 32.
///
/// The rule is that of Python's `concurrent.futures`: a few more threads than cores, since threads are mostly used for
/// tasks that wait; no more than 32, so that a large machine does not pay for a crowd that a small job never uses.
#[must_use]
pub fn default_threads() -> usize {
    available().saturating_add(4).min(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_room_for_a_worker() {
        assert!(available() >= 1);
        assert!((1..=32).contains(&default_threads()));
    }
}
