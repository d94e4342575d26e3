//! Deadlines as the kernel's relative time-outs.

use std::time::Instant;

use rustix::fs::Timespec;

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
    let left = left.min(std::time::Duration::from_secs(365 * 24 * 3600));
    Timespec::try_from(left).ok()
}
