//! How many workers this machine, or the part of it we were given, can keep busy.

use std::thread;

use rustix::thread::sched_getaffinity;

use crate::cgroup::Limits;

/// The number of tasks that can compute at the same time here, at least 1.
///
/// It honours the process's CPU affinity and the quota of its cgroup (v1 and v2, with those above it; rounded down), so a
/// container that was given two cores of sixty-four gets 2.
///
/// ```
/// use fanmap::cpus;
///
/// assert!(1 <= cpus::available() && cpus::available() <= cpus::affinity());
/// assert!(cpus::default_threads() <= cpus::available() + 4);
/// ```
#[must_use]
pub fn available() -> usize {
    within(affinity(), Limits::of_this_process().cores)
}

/// The number of cores that the calling thread may run on, whatever the quota.
#[must_use]
pub fn affinity() -> usize {
    match sched_getaffinity(None) {
        Ok(set) => set.count() as usize,
        // More cores than the set has places for, or a system that will not say: one worker is always right, if slow.
        Err(_) => thread::available_parallelism().map_or(1, usize::from),
    }
}

/// So many cores, as far as the quota goes.
fn within(cores: usize, quota: Option<f64>) -> usize {
    // Rounded down: a worker more than there is time for slows the others down, and all wait for the slowest.
    let whole = quota.map_or(usize::MAX, |quota| quota as usize);
    cores.min(whole).max(1)
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
        assert!(available() <= affinity());
        assert!((1..=32).contains(&default_threads()));
    }

    #[test]
    fn a_quota_is_rounded_down_to_whole_cores_and_never_to_none() {
        assert_eq!(within(64, None), 64);
        assert_eq!(within(64, Some(2.0)), 2);
        assert_eq!(within(64, Some(2.9)), 2);
        assert_eq!(within(1, Some(2.9)), 1);
        assert_eq!(within(64, Some(0.3)), 1);
    }
}
