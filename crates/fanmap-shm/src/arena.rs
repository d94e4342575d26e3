//! Who has which bytes of a large sparse file: an allocator of ranges. Pure: it knows offsets, not memory.
//!
//! The side that writes blobs ([`crate::blob`]) has the arena of their memory to itself, so nothing of it is shared and
//! a peer that dies at any instruction leaves nothing half done. It promises:
//!
//! - **Nobody waits.** A range is given at once, warm or fresh, whatever the other side holds.
//! - **A bound.** What is idle and warm, and what is in flight, stay under a bound together as long as idle ranges can
//!   make up for it: [`Arena::trim`] says which of them to give back to the system, the least recently used first. What
//!   was handed to the user is the user's, and counts no more.
//! - **Nonsense is harmless.** To free what is not allocated is refused and changes nothing: frees come from the peer.
//!
//! # Warm and fresh
//! The pages of a freed range stay where they are, for the next blob of about its size: taking fresh pages from the
//! system costs ten times a copy into warm ones. A fresh range is cut from the space's untouched end, and a range that
//! was given back is not used again: the space is so large (2^62 bytes; a program would need years to write as much)
//! that it needs no list of holes. Where the user has limited the size of files it is smaller, and once it is used up
//! [`Arena::allocate`] gives only warm ranges.
//!
//! Neighbours are never merged either. A program sends blobs of the same few sizes over and over; a range that comes
//! back as it went finds both sides' mappings of it still in place.

use std::collections::{HashMap, VecDeque};

/// Every range begins and ends at a multiple of this: the largest page of the systems we run on, so that both sides can
/// map it whatever theirs is. Only address space is lost to rounding up, no memory: pages are taken as they are
/// touched.
pub const GRAIN: u64 = 1 << 16;

/// A warm range may exceed the need by a quarter. If it had to fit exactly, blobs of slightly different sizes would cut
/// each other's ranges to pieces; were more allowed, small blobs would sit on the pages that a large one could use.
const SLACK: u64 = 4;

/// Some bytes of the space: `len` of them, from `offset`. Both are multiples of [`GRAIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins. It names the range while that is allocated.
    pub offset: u64,
    /// How many bytes there are.
    pub len: u64,
}

/// A range for a new blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Grant {
    /// At least as long as was asked for.
    pub range: Range,
    /// Whether its pages are there already.
    pub warm: bool,
}

/// How many bytes there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Free, but still with their pages.
    pub idle: u64,
    /// Allocated, and the pool's own.
    pub in_flight: u64,
    /// Allocated, and in the hands of the user.
    pub handed: u64,
}

/// An allocator of ranges.
#[derive(Debug)]
pub struct Arena {
    /// Where the untouched rest of the space begins.
    fresh: u64,
    /// Where the space ends.
    end: u64,
    bound: u64,
    /// By offset: the length, and whether the user has it.
    taken: HashMap<u64, (u64, bool)>,
    /// Free ranges with their pages, the least recently used first. It is searched from end to end: the bound keeps it
    /// to some thousands of ranges even if all are the smallest, and that search is cheap beside the copy of any blob.
    idle: VecDeque<Range>,
    usage: Usage,
}

impl Arena {
    /// The arena of a space of `space` bytes, all untouched, with `bound` bytes for what is idle or in flight.
    #[must_use]
    pub fn new(space: u64, bound: u64) -> Self {
        Self {
            fresh: 0,
            end: space - space % GRAIN,
            bound,
            taken: HashMap::new(),
            idle: VecDeque::new(),
            usage: Usage::default(),
        }
    }

    /// A range of at least `len` bytes; the pool's own until it is handed over or freed. `None` if the space is used up
    /// (or `len` is 0): then the bytes must travel in another way.
    #[must_use]
    pub fn allocate(&mut self, len: u64) -> Option<Grant> {
        let len = len.checked_next_multiple_of(GRAIN).filter(|len| *len > 0)?;
        let grant = self.take_idle(len).map(|range| Grant { range, warm: true });
        let grant = grant.or_else(|| self.take_fresh(len).map(|range| Grant { range, warm: false }))?;
        self.taken.insert(grant.range.offset, (grant.range.len, false));
        self.usage.in_flight += grant.range.len;
        Some(grant)
    }

    /// The range at `offset` is the user's now. False if it is not the pool's own.
    pub fn hand_over(&mut self, offset: u64) -> bool {
        match self.taken.get_mut(&offset) {
            Some((len, handed)) if !*handed => {
                *handed = true;
                self.usage.in_flight -= *len;
                self.usage.handed += *len;
                true
            }
            _ => false,
        }
    }

    /// The range at `offset` is free: idle and warm. False if there was none. To be followed by [`Arena::trim`].
    pub fn free(&mut self, offset: u64) -> bool {
        let Some((len, handed)) = self.taken.remove(&offset) else {
            return false;
        };
        if handed {
            self.usage.handed -= len;
        } else {
            self.usage.in_flight -= len;
        }
        self.usage.idle += len;
        self.idle.push_back(Range { offset, len });
        true
    }

    /// Idle ranges that exceed the bound. The arena has forgotten them: their pages are for the caller to give back.
    #[must_use]
    pub fn trim(&mut self) -> Vec<Range> {
        let mut excess = Vec::new();
        while self.usage.idle + self.usage.in_flight > self.bound {
            let Some(range) = self.idle.pop_front() else { break };
            self.usage.idle -= range.len;
            excess.push(range);
        }
        excess
    }

    /// All idle ranges, when the pool has been idle for a while: as [`Arena::trim`] with a bound of nothing.
    #[must_use]
    pub fn cool(&mut self) -> Vec<Range> {
        self.usage.idle = 0;
        self.idle.drain(..).collect()
    }

    /// How many bytes there are of each kind.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The shortest idle range that is long enough, the most recently used of several (its bytes may still be in the
    /// processor's caches). What exceeds the need by much stays idle.
    fn take_idle(&mut self, len: u64) -> Option<Range> {
        let fits = self.idle.iter().enumerate().filter(|(_, range)| range.len >= len);
        let at = fits.rev().min_by_key(|(_, range)| range.len).map(|(at, _)| at)?;
        let range = &mut self.idle[at];
        if range.len - len <= len / SLACK {
            let range = self.idle.remove(at)?;
            self.usage.idle -= range.len;
            return Some(range);
        }
        let front = Range {
            offset: range.offset,
            len,
        };
        range.offset += len;
        range.len -= len;
        self.usage.idle -= len;
        Some(front)
    }

    fn take_fresh(&mut self, len: u64) -> Option<Range> {
        let rest = self.end - self.fresh;
        if len > rest {
            return None;
        }
        let offset = self.fresh;
        self.fresh += len;
        Some(Range { offset, len })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 1 << 40;

    fn allocate(arena: &mut Arena, len: u64) -> Range {
        arena.allocate(len).unwrap().range
    }

    #[test]
    fn a_freed_range_is_used_again_while_warm() {
        let mut arena = Arena::new(SPACE, 100 * GRAIN);
        let first = arena.allocate(5 * GRAIN - 1).unwrap();
        assert_eq!((first.range.offset, first.range.len, first.warm), (0, 5 * GRAIN, false));
        assert!(arena.free(0));
        let again = arena.allocate(4 * GRAIN).unwrap();
        assert_eq!((again.range, again.warm), (first.range, true));
    }

    #[test]
    fn a_range_much_too_large_is_split_and_the_rest_stays_warm() {
        let mut arena = Arena::new(SPACE, 100 * GRAIN);
        allocate(&mut arena, 10 * GRAIN);
        assert!(arena.free(0));
        let small = arena.allocate(GRAIN).unwrap();
        assert_eq!((small.range.len, small.warm), (GRAIN, true));
        let rest = arena.allocate(9 * GRAIN).unwrap();
        assert_eq!((rest.range.offset, rest.warm), (GRAIN, true));
    }

    #[test]
    fn the_best_fit_is_the_shortest_and_the_last_used() {
        let mut arena = Arena::new(SPACE, 1000 * GRAIN);
        let ranges = [8, 4, 4, 16].map(|grains| allocate(&mut arena, grains * GRAIN));
        for range in ranges {
            assert!(arena.free(range.offset));
        }
        assert_eq!(allocate(&mut arena, 4 * GRAIN), ranges[2]);
        assert_eq!(allocate(&mut arena, 4 * GRAIN), ranges[1]);
        assert_eq!(allocate(&mut arena, 7 * GRAIN), ranges[0]);
    }

    #[test]
    fn what_exceeds_the_bound_goes_back_oldest_first() {
        let mut arena = Arena::new(SPACE, 3 * GRAIN);
        let ranges = [(); 4].map(|()| allocate(&mut arena, GRAIN));
        for range in ranges {
            assert!(arena.free(range.offset));
        }
        assert_eq!(arena.trim(), [ranges[0]]);
        assert_eq!(arena.usage().idle, 3 * GRAIN);
        assert_eq!(arena.cool(), ranges[1..]);
        assert_eq!(arena.usage(), Usage::default());
    }

    #[test]
    fn what_the_user_holds_counts_no_more() {
        let mut arena = Arena::new(SPACE, GRAIN);
        let (users, own) = (allocate(&mut arena, 50 * GRAIN), allocate(&mut arena, GRAIN));
        assert!(arena.hand_over(users.offset) && !arena.hand_over(users.offset));
        assert!(arena.free(own.offset));
        assert_eq!(arena.trim(), []);
        assert!(arena.free(users.offset));
        assert_eq!(arena.trim().len(), 2);
    }

    #[test]
    fn past_the_bound_ranges_are_given_and_go_back_at_once() {
        let mut arena = Arena::new(SPACE, GRAIN);
        let ranges = [(); 10].map(|()| allocate(&mut arena, GRAIN));
        for range in &ranges[..9] {
            assert!(arena.free(range.offset));
            assert_eq!(arena.trim(), [*range]);
        }
        assert!(arena.free(ranges[9].offset));
        assert_eq!(arena.trim(), []);
    }

    #[test]
    fn a_used_up_space_gives_only_what_is_warm() {
        let mut arena = Arena::new(2 * GRAIN + 1, 100 * GRAIN);
        allocate(&mut arena, 2 * GRAIN);
        assert_eq!(arena.allocate(1), None);
        assert!(arena.free(0));
        assert!(arena.allocate(1).unwrap().warm);
        assert_eq!(arena.allocate(0), None);
        assert_eq!(arena.allocate(u64::MAX), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u64),
        /// Of the allocated ranges, one; or an offset that is nonsense.
        HandOver(prop::sample::Index),
        Free(prop::sample::Index),
        FreeNonsense(u64),
        Trim,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..40 * GRAIN).prop_map(Step::Allocate),
            1 => any::<prop::sample::Index>().prop_map(Step::HandOver),
            3 => any::<prop::sample::Index>().prop_map(Step::Free),
            1 => any::<u64>().prop_map(Step::FreeNonsense),
            2 => Just(Step::Trim),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn ranges_never_overlap_all_come_back_and_the_bound_holds(steps in steps(), bound in 0..100 * GRAIN) {
            let mut arena = Arena::new(SPACE, bound);
            let mut held: Vec<Range> = Vec::new();
            let mut gone: Vec<Range> = Vec::new();
            let mut ever = 0;
            for step in steps {
                match step {
                    Step::Allocate(len) => {
                        let grant = arena.allocate(len).unwrap();
                        prop_assert!(grant.range.len >= len && grant.range.len <= len + len / SLACK + 2 * GRAIN);
                        prop_assert!(grant.range.offset % GRAIN == 0 && grant.range.len % GRAIN == 0);
                        for other in held.iter().chain(&gone) {
                            prop_assert!(
                                grant.range.offset + grant.range.len <= other.offset
                                    || other.offset + other.len <= grant.range.offset,
                                "{grant:?} and {other:?} overlap"
                            );
                        }
                        ever += if grant.warm { 0 } else { grant.range.len };
                        held.push(grant.range);
                    }
                    Step::HandOver(which) if !held.is_empty() => {
                        let _ = arena.hand_over(which.get(&held).offset);
                    }
                    Step::Free(which) if !held.is_empty() => {
                        let range = held.swap_remove(which.index(held.len()));
                        prop_assert!(arena.free(range.offset));
                        prop_assert!(!arena.free(range.offset));
                    }
                    Step::FreeNonsense(offset) => {
                        if held.iter().all(|range| range.offset != offset) {
                            let before = arena.usage();
                            prop_assert!(!arena.free(offset));
                            prop_assert_eq!(arena.usage(), before);
                        }
                    }
                    Step::Trim => {
                        gone.extend(arena.trim());
                        let usage = arena.usage();
                        prop_assert!(usage.idle == 0 || usage.idle + usage.in_flight <= bound);
                    }
                    Step::HandOver(_) | Step::Free(_) => {}
                }
                let (usage, gone) = (arena.usage(), gone.iter().map(|range| range.len).sum::<u64>());
                prop_assert_eq!(usage.in_flight + usage.handed, held.iter().map(|range| range.len).sum::<u64>());
                prop_assert_eq!(usage.idle + usage.in_flight + usage.handed + gone, ever);
            }
            for range in held {
                prop_assert!(arena.free(range.offset));
            }
            gone.extend(arena.cool());
            prop_assert_eq!(arena.usage(), Usage::default());
            gone.sort_by_key(|range| range.offset);
            prop_assert!(gone.windows(2).all(|two| two[0].offset + two[0].len == two[1].offset));
            prop_assert_eq!(gone.iter().map(|range| range.len).sum::<u64>(), ever);
        }
    }
}
