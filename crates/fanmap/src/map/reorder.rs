//! Results that come in any order, given out in the order of their items. Pure: no lock, no wait.

use std::collections::VecDeque;

/// A ring of slots for the items between the next to be given out (the head) and the last that was read.
#[derive(Debug)]
pub struct Reorder<T> {
    slots: VecDeque<Option<T>>,
    /// The index of `slots[0]`.
    head: u64,
    filled: usize,
}

impl<T> Reorder<T> {
    /// An empty ring, whose first item will have index 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            head: 0,
            filled: 0,
        }
    }

    /// Makes a slot at the end of the order, and gives its index.
    pub fn reserve(&mut self) -> u64 {
        self.slots.push_back(None);
        self.head + (self.slots.len() as u64 - 1)
    }

    /// Fills the slot of `index`.
    ///
    /// Gives back a value that has no place: its slot was never reserved, is filled already, or was popped or cleared.
    pub fn put(&mut self, index: u64, value: T) -> Option<T> {
        let slot = index
            .checked_sub(self.head)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| self.slots.get_mut(offset));
        match slot {
            Some(slot @ None) => {
                *slot = Some(value);
                self.filled += 1;
                None
            }
            Some(Some(_)) | None => Some(value),
        }
    }

    /// Takes the head's value, if it is there, and moves on to the next.
    pub fn pop_head(&mut self) -> Option<T> {
        if !self.head_is_ready() {
            return None;
        }
        self.head += 1;
        self.filled -= 1;
        self.slots.pop_front().flatten()
    }

    /// Whether the head's value is there.
    #[must_use]
    pub fn head_is_ready(&self) -> bool {
        matches!(self.slots.front(), Some(Some(_)))
    }

    /// The index of the head: how many values were popped or cleared.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many slots are reserved and not popped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// How many of them are filled.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.filled
    }

    /// Gives up every slot, and hands back the values there were. Indices go on from where they were.
    pub fn clear(&mut self) -> Vec<T> {
        self.head += self.slots.len() as u64;
        self.filled = 0;
        std::mem::take(&mut self.slots).into_iter().flatten().collect()
    }
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_without_a_place_is_given_back() {
        let mut ring = Reorder::new();
        assert_eq!(ring.put(0, 'x'), Some('x'), "never reserved");
        assert_eq!(ring.reserve(), 0);
        assert_eq!(ring.put(0, 'a'), None);
        assert_eq!(ring.put(0, 'b'), Some('b'), "filled already");
        assert_eq!(ring.pop_head(), Some('a'));
        assert_eq!(ring.put(0, 'c'), Some('c'), "popped");
        assert_eq!(ring.put(u64::MAX, 'd'), Some('d'));
    }

    #[test]
    fn after_clearing_indices_go_on() {
        let mut ring = Reorder::new();
        assert_eq!((ring.reserve(), ring.reserve()), (0, 1));
        assert_eq!(ring.put(1, 'b'), None);
        assert_eq!(ring.clear(), ['b']);
        assert_eq!(ring.put(0, 'a'), Some('a'));
        assert_eq!(
            (ring.outstanding(), ring.ready(), ring.reserve(), ring.head()),
            (0, 0, 2, 2)
        );
    }

    proptest! {
        #[test]
        fn whatever_order_they_come_in_they_leave_in_order(
            arrivals in (0u64..60).prop_flat_map(|n| Just((0..n).collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let mut ring = Reorder::new();
            for index in 0..arrivals.len() as u64 {
                prop_assert_eq!(ring.reserve(), index);
            }
            let mut left = Vec::new();
            for (came, index) in arrivals.iter().enumerate() {
                prop_assert_eq!(ring.put(*index, *index), None);
                while let Some(value) = ring.pop_head() {
                    left.push(value);
                }
                prop_assert_eq!(ring.ready() + left.len(), came + 1);
                prop_assert_eq!(ring.outstanding() + left.len(), arrivals.len());
            }
            prop_assert_eq!(left, (0..arrivals.len() as u64).collect::<Vec<_>>());
        }
    }
}
