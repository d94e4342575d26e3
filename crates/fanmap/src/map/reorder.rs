//! Results that come in any order, given out in the order of their items. Pure: no lock, no wait.

use std::collections::BTreeMap;

/// What came for the items between the next to be given out (the head) and the last that was read. One value may stand
/// for a run of items.
#[derive(Debug)]
pub struct Reorder<T> {
    /// By the index of the first item: of how many it is, and the value.
    values: BTreeMap<u64, (u64, T)>,
    head: u64,
    reserved: u64,
    /// How many items there are values for.
    filled: u64,
}

impl<T> Reorder<T> {
    /// Nothing reserved; the first item will have index 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: BTreeMap::new(),
            head: 0,
            reserved: 0,
            filled: 0,
        }
    }

    /// Makes `count` places at the end of the order, and gives the first's index.
    pub fn reserve(&mut self, count: u64) -> u64 {
        let first = self.reserved;
        self.reserved += count;
        first
    }

    /// Puts a value in the places of `count` items from `first` on.
    ///
    /// Gives back a value that has no place: one was never reserved, is filled already, or was popped or cleared.
    pub fn put(&mut self, first: u64, count: u64, value: T) -> Option<T> {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.reserved) else {
            return Some(value);
        };
        let before = self.values.range(..end).next_back();
        if count == 0 || first < self.head || before.is_some_and(|(start, (len, _))| start + len > first) {
            return Some(value);
        }
        self.filled += count;
        self.values.insert(first, (count, value));
        None
    }

    /// Takes the head's value, if it is there, with the number of its items, and moves on past them.
    pub fn pop_head(&mut self) -> Option<(u64, T)> {
        if !self.head_is_ready() {
            return None;
        }
        let (_, (count, value)) = self.values.pop_first()?;
        self.head += count;
        self.filled -= count;
        Some((count, value))
    }

    /// Whether the head's value is there.
    #[must_use]
    pub fn head_is_ready(&self) -> bool {
        self.values
            .first_key_value()
            .is_some_and(|(first, _)| *first == self.head)
    }

    /// The index of the head: how many items' values were popped or cleared.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many places are reserved and not popped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        usize::try_from(self.reserved - self.head).unwrap_or(usize::MAX)
    }

    /// How many of them are filled.
    #[must_use]
    pub fn ready(&self) -> usize {
        usize::try_from(self.filled).unwrap_or(usize::MAX)
    }

    /// Gives up every place, and hands back the values there were. Indices go on from where they were.
    pub fn clear(&mut self) -> Vec<T> {
        self.head = self.reserved;
        self.filled = 0;
        std::mem::take(&mut self.values)
            .into_values()
            .map(|(_, value)| value)
            .collect()
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
        let mut order = Reorder::new();
        assert_eq!(order.put(0, 1, 'x'), Some('x'), "never reserved");
        assert_eq!(order.reserve(4), 0);
        assert_eq!(order.put(1, 2, 'a'), None);
        for (first, count) in [(1, 1), (2, 1), (0, 2), (0, 4), (2, 2), (3, 2), (3, 0)] {
            assert_eq!(order.put(first, count, 'b'), Some('b'), "{first} {count}");
        }
        assert_eq!(order.put(0, 1, 'c'), None);
        assert_eq!(order.pop_head(), Some((1, 'c')));
        assert_eq!(order.put(0, 1, 'd'), Some('d'), "popped");
        assert_eq!(order.put(u64::MAX, 1, 'e'), Some('e'));
        assert_eq!(order.pop_head(), Some((2, 'a')));
        assert_eq!(order.pop_head(), None);
    }

    #[test]
    fn after_clearing_indices_go_on() {
        let mut order = Reorder::new();
        assert_eq!((order.reserve(1), order.reserve(1)), (0, 1));
        assert_eq!(order.put(1, 1, 'b'), None);
        assert_eq!(order.clear(), ['b']);
        assert_eq!(order.put(0, 1, 'a'), Some('a'));
        assert_eq!(
            (order.outstanding(), order.ready(), order.reserve(1), order.head()),
            (0, 0, 2, 2)
        );
    }

    proptest! {
        #[test]
        fn whatever_order_they_come_in_they_leave_in_order(
            (runs, arrivals) in prop::collection::vec(1u64..5, 0..40).prop_flat_map(|runs| {
                let arrivals = (0..runs.len()).collect::<Vec<_>>();
                (Just(runs), Just(arrivals).prop_shuffle())
            }),
        ) {
            let mut order = Reorder::new();
            let firsts: Vec<u64> = runs.iter().map(|count| order.reserve(*count)).collect();
            let (mut left, mut came) = (Vec::new(), 0);
            for at in arrivals {
                prop_assert_eq!(order.put(firsts[at], runs[at], at), None);
                came += runs[at];
                while let Some((count, at)) = order.pop_head() {
                    prop_assert_eq!(count, runs[at]);
                    left.push(at);
                }
                let gone: u64 = left.iter().map(|at| runs[*at]).sum();
                prop_assert_eq!(order.ready() as u64 + gone, came);
            }
            prop_assert_eq!(left, (0..runs.len()).collect::<Vec<_>>());
        }
    }
}
