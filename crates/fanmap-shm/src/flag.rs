//! The sleep and wake-up handshake between two sides that share memory.
//!
//! A system call to wake the other side is dear, so it is made only when the other side sleeps, or is about to. One side
//! (the sleeper) owns the flag's rising edge, the other (the ringer) its falling edge:
//!
//! ```text
//! sleeper                               ringer
//! arm():    flag = 1; fence(SeqCst)     (publish something)
//! look once more for work               must_ring(): fence(SeqCst); flag was 1, now 0?
//! none: wait on the descriptor            yes: write to the descriptor
//! disarm(): flag = 0
//! ```
//!
//! Why nothing is lost: the two fences are totally ordered. If the sleeper's comes first, the ringer reads 1 and rings. If
//! the ringer's comes first, the sleeper's second look sees what was published. The descriptor counts, so a ring that
//! comes between the second look and the wait makes the wait return at once. A ring too many (the sleeper disarmed in
//! between) costs one empty turn of the sleeper's loop and is harmless.
//!
//! A sleeper that will look again by itself, soon, dozes: only a ringer that comes to rest itself rings then
//! ([`Flag::must_ring_at_rest`]). What a lost ring could cost there is the rest of that time.
//!
//! Whatever a broken peer writes into the word, the worst is a ring too many or a peer that is never rung.

use crate::sync::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const DOZING: u32 = 2;

/// A word that says "ring me, I may be asleep". All-zero memory is a disarmed flag.
#[repr(transparent)]
#[derive(Debug)]
pub struct Flag(AtomicU32);

impl Default for Flag {
    fn default() -> Self {
        Self(AtomicU32::new(AWAKE))
    }
}

impl Flag {
    /// The sleeper: from here on a publisher rings. Look for work once more after this, and only then wait.
    pub fn arm(&self) {
        self.0.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper: from here on only a peer that comes to rest itself rings. For a sleep that ends by itself, soon.
    pub fn doze(&self) {
        self.0.store(DOZING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper: awake again.
    pub fn disarm(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// The ringer, after publishing: whether the other side must be woken. At most one caller is told so per arming.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) == ASLEEP && self.0.swap(AWAKE, Ordering::Relaxed) == ASLEEP
    }

    /// The ringer, about to rest: whether the other side dozes, and must be woken now.
    #[must_use]
    pub fn must_ring_at_rest(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) == DOZING && self.0.swap(AWAKE, Ordering::Relaxed) == DOZING
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_dozes_is_rung_only_by_one_that_comes_to_rest() {
        let flag = Flag::default();
        assert!(!flag.must_ring() && !flag.must_ring_at_rest());
        flag.arm();
        assert!(!flag.must_ring_at_rest());
        assert!(flag.must_ring() && !flag.must_ring());
        flag.doze();
        assert!(!flag.must_ring());
        assert!(flag.must_ring_at_rest() && !flag.must_ring_at_rest());
    }
}
