//! Results that come in any order, given out in the order of their items, or as they come. Pure: no lock, no wait.

use std::collections::BTreeMap;
use std::ops::Range;

/// What came for the items between the next to be given out (the head) and the last that was read. One value may stand
/// for a run of items.
///
/// Where results leave as they come, the head is the first that is there: of several, the one of the earliest item, so that
/// none is passed over for long.
#[derive(Debug)]
pub struct Reorder<T> {
    /// By the index of the first item: of how many it is, and the value.
    values: BTreeMap<u64, (u64, T)>,
    in_order: bool,
    /// How many items' values were popped or cleared; in order, this is the head's index.
    left: u64,
    reserved: u64,
    /// How many items there are values for.
    filled: u64,
}

impl<T> Reorder<T> {
    /// Nothing reserved; the first item will have index 0. Values leave in the order of their items.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: BTreeMap::new(),
            in_order: true,
            left: 0,
            reserved: 0,
            filled: 0,
        }
    }

    /// The same, but values leave as they come.
    #[must_use]
    pub const fn as_they_come() -> Self {
        let mut order = Self::new();
        order.in_order = false;
        order
    }

    /// Makes `count` places at the end of the order, and gives the first's index.
    pub fn reserve(&mut self, count: u64) -> u64 {
        let first = self.reserved;
        self.reserved += count;
        first
    }

    /// Puts a value in the places of `count` items from `first` on.
    ///
    /// Gives back a value that has no place: one was never reserved, is filled already, or was popped or cleared. (Where
    /// values leave as they come, a place that was popped is not known any more: put each value once.)
    pub fn put(&mut self, first: u64, count: u64, value: T) -> Option<T> {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.reserved) else {
            return Some(value);
        };
        let before = self.values.range(..end).next_back();
        let gone = match self.in_order {
            true => first < self.left,
            false => self.filled + count > self.reserved - self.left,
        };
        if count == 0 || gone || before.is_some_and(|(start, (len, _))| start + len > first) {
            return Some(value);
        }
        self.filled += count;
        self.values.insert(first, (count, value));
        None
    }

    /// Takes the head's value, if it is there, with the indices of its items, and moves on past them.
    pub fn pop_head(&mut self) -> Option<(Range<u64>, T)> {
        if !self.head_is_ready() {
            return None;
        }
        let (first, (count, value)) = self.values.pop_first()?;
        self.left += count;
        self.filled -= count;
        Some((first..first + count, value))
    }

    /// Whether the head's value is there.
    #[must_use]
    pub fn head_is_ready(&self) -> bool {
        self.values
            .first_key_value()
            .is_some_and(|(first, _)| !self.in_order || *first == self.left)
    }

    /// How many items' values were popped or cleared. In order, this is the head's index.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether somebody who waits for the head would be glad of a value for the items from `first` on.
    #[must_use]
    pub fn is_awaited(&self, first: u64) -> bool {
        !self.in_order || first == self.left
    }

    /// Whether the head is one of `count` items from `first` on, and no other value will do.
    #[must_use]
    pub fn needs(&self, first: u64, count: u64) -> bool {
        self.in_order && (first..first.saturating_add(count)).contains(&self.left)
    }

    /// How many places are reserved and not popped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        usize::try_from(self.reserved - self.left).unwrap_or(usize::MAX)
    }

    /// How many of them are filled.
    #[must_use]
    pub fn ready(&self) -> usize {
        usize::try_from(self.filled).unwrap_or(usize::MAX)
    }

    /// Gives up every place, and hands back the values there were. Indices go on from where they were.
    pub fn clear(&mut self) -> Vec<T> {
        self.left = self.reserved;
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
        assert_eq!(order.pop_head(), Some((0..1, 'c')));
        assert_eq!(order.put(0, 1, 'd'), Some('d'), "popped");
        assert_eq!(order.put(u64::MAX, 1, 'e'), Some('e'));
        assert_eq!(order.pop_head(), Some((1..3, 'a')));
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
            (order.outstanding(), order.ready(), order.reserve(1), order.left()),
            (0, 0, 2, 2)
        );
    }

    #[test]
    fn as_they_come_a_value_leaves_when_it_is_there() {
        let mut order = Reorder::as_they_come();
        assert_eq!(order.reserve(6), 0);
        assert_eq!(order.put(3, 2, 'b'), None);
        assert!(order.is_awaited(5) && order.head_is_ready() && !order.needs(0, 6));
        assert_eq!(order.put(4, 2, 'x'), Some('x'), "filled already");
        assert_eq!(order.put(5, 2, 'x'), Some('x'), "never reserved");
        assert_eq!(order.pop_head(), Some((3..5, 'b')));
        assert_eq!((order.outstanding(), order.ready(), order.left()), (4, 0, 2));
        assert_eq!((order.put(5, 1, 'c'), order.put(0, 1, 'a')), (None, None));
        assert_eq!(
            order.pop_head(),
            Some((0..1, 'a')),
            "of two that are there the earlier item's"
        );
        assert_eq!(order.clear(), ['c']);
        assert_eq!(order.put(1, 1, 'd'), Some('d'), "cleared");
        assert_eq!(
            (order.outstanding(), order.reserve(1), order.put(6, 1, 'e')),
            (0, 6, None)
        );
        assert_eq!(order.pop_head(), Some((6..7, 'e')));
    }

    proptest! {
        #[test]
        fn as_they_come_each_leaves_once_and_at_once(
            arrivals in (1usize..40).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let mut order = Reorder::as_they_come();
            order.reserve(arrivals.len() as u64);
            for (gone, at) in arrivals.iter().enumerate() {
                let first = *at as u64;
                prop_assert_eq!(order.put(first, 1, at), None);
                prop_assert_eq!(order.pop_head(), Some((first..first + 1, at)));
                prop_assert_eq!(order.outstanding() + gone + 1, arrivals.len());
            }
            prop_assert_eq!(order.pop_head(), None);
        }

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
                while let Some((items, at)) = order.pop_head() {
                    prop_assert_eq!(items, firsts[at]..firsts[at] + runs[at]);
                    left.push(at);
                }
                let gone: u64 = left.iter().map(|at| runs[*at]).sum();
                prop_assert_eq!(order.ready() as u64 + gone, came);
            }
            prop_assert_eq!(left, (0..runs.len()).collect::<Vec<_>>());
        }
    }
}
