//! Deadlines as the kernel's relative time-outs, intervals too short to be worth a look at the clock, and what a thread has used.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::fs::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// The time left until `at`, or `None` if it has passed.
///
/// A deadline further away than the kernel can express is cut to the longest it can: the caller's loop looks again.
#[must_use]
pub fn until(at: Instant) -> Option<Timespec> {
    let left = at.checked_duration_since(Instant::now())?;
    if left.is_zero() {
        return None;
    }
    // A year and more is "for ever" to every caller, and stays far from overflow in the kernel.
    let left = left.min(Duration::from_secs(365 * 24 * 3600));
    Timespec::try_from(left).ok()
}

/// The clock that all processes of a machine share, in nanoseconds since some time. It never goes back.
#[must_use]
pub fn nanos() -> u64 {
    read(ClockId::Monotonic)
}

/// The same, up to some milliseconds late, and read in a few nanoseconds.
#[must_use]
pub fn coarse_nanos() -> u64 {
    read(ClockId::MonotonicCoarse)
}

/// The processor time of the calling thread, in nanoseconds.
#[must_use]
pub fn thread_nanos() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// The processor time of all threads of the process that there are or were, in nanoseconds.
#[must_use]
pub fn process_nanos() -> u64 {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// How often the calling thread has given its processor away itself, to wait for something.
#[must_use]
pub fn times_slept() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes a whole `rusage` to memory that is one, and keeps no pointer to it. Should it refuse, which it has
    // no reason to, the zeroes are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw
}

/// Tells whether an interval was short, in a quarter of the time that a look at the clock takes: by the processor's own
/// counter, where there is one. It is a bound and not a measure; it learns how fast the counter is.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    began: Instant,
    began_ticks: u64,
    per_micro: u64,
}

/// Before it is known how fast the counter is: no processor's counts slower than the clock of this many MHz. Too small a
/// number only means to look at the clock more often.
const SLOWEST_PER_MICRO: u64 = 500;

/// The counter is compared with the clock over at least this: less, and the look at the clock itself would count.
const CALIBRATION: Duration = Duration::from_millis(1);

impl Ticker {
    /// One that knows nothing of the counter yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            began_ticks: ticks(),
            per_micro: SLOWEST_PER_MICRO,
        }
    }

    /// The counter now.
    #[must_use]
    pub fn read(&self) -> u64 {
        ticks()
    }

    /// Whether the counter moved on from `earlier` to `later` in surely less than `time`.
    #[must_use]
    pub fn within(&self, earlier: u64, later: u64, time: Duration) -> bool {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        later.wrapping_sub(earlier) < micros.saturating_mul(self.per_micro)
    }

    /// Learns from a look at the clock.
    pub fn learn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < CALIBRATION {
            return;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        // A tenth less, so that a short interval is not taken for shorter than it was.
        self.per_micro = (ticks().wrapping_sub(self.began_ticks) / micros * 9 / 10).max(1);
    }
}

impl Default for Ticker {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: reading the time stamp counter touches nothing; user code may do so on every Linux unless a process has
    // forbidden it to itself (PR_SET_TSC), which ends it at the first look at the clock as well.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    use std::sync::LazyLock;
    static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(ZERO.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_uses_its_processor_and_one_that_waits_gives_it_away() {
        let (used_by_all, used, slept) = (process_nanos(), thread_nanos(), times_slept());
        while thread_nanos() < used + 1_000_000 {}
        assert!(process_nanos() >= used_by_all + 1_000_000);
        std::thread::sleep(Duration::from_millis(1));
        assert!(times_slept() > slept);
        assert!(coarse_nanos() <= nanos());
    }

    #[test]
    fn what_took_longer_is_never_within() {
        let mut ticker = Ticker::new();
        for micros in [20, 200, 2000] {
            let time = Duration::from_micros(micros);
            let (started, earlier) = (Instant::now(), ticker.read());
            while started.elapsed() < time {
                std::hint::spin_loop();
            }
            assert!(!ticker.within(earlier, ticker.read(), time), "{micros} us");
            ticker.learn(Instant::now());
        }
        let earlier = ticker.read();
        assert!(ticker.within(earlier, earlier + 1, Duration::from_micros(20)));
    }
}
