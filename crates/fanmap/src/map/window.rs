//! How far the input is read ahead of the consumer. Pure: numbers in, numbers out.

use std::time::Duration;

/// The bound on what is in flight: read, and not yet handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The most items.
    pub max_items: usize,
    /// The most bytes, as encoded; threads encode nothing.
    pub max_bytes: usize,
}

impl Window {
    /// A bound on items alone.
    #[must_use]
    pub const fn of_items(max_items: usize) -> Self {
        Self {
            max_items,
            max_bytes: usize::MAX,
        }
    }

    /// Whether one more may be read when so many items and bytes are in flight.
    ///
    /// How large an item is shows only once it was read, so the bytes may go past the bound by one item. With nothing in
    /// flight there is always room: an item larger than the whole window still gets through.
    #[must_use]
    pub const fn has_room(&self, items: usize, bytes: usize) -> bool {
        items == 0 || (items < self.max_items && bytes < self.max_bytes)
    }
}

/// How much work there should be for each worker when the consumer comes back.
///
/// Shorter, and the workers run dry while the consumer does something else with a result, or the system lets it wait;
/// longer, and more results are kept (or thrown away, if the consumer stops early) for nothing.
const AHEAD: Duration = Duration::from_millis(50);

/// The most items read ahead unless the user says otherwise.
///
/// Fewer, and tasks of a few microseconds do not last while the consumer is away; more, and items that are small to us
/// but large in memory (each may be a path to a gigabyte) make memory grow before anybody has looked at the first.
const MOST: usize = 4096;

/// How many items to read ahead where the user did not say: 50 ms of work for each worker (`AHEAD`).
///
/// At least two for each worker and one more, so that each has its next when it ends one and the consumer holds one; at most
/// 4096 (`MOST`). As long as `mean_task` is not known, the least: the first tasks tell.
#[must_use]
pub fn items_for(workers: usize, mean_task: Option<Duration>) -> usize {
    let least = workers.saturating_mul(2).saturating_add(1);
    let wanted = match mean_task {
        None => 0,
        Some(mean) => {
            let per_worker = AHEAD.as_nanos() / mean.as_nanos().max(1);
            usize::try_from(per_worker)
                .unwrap_or(usize::MAX)
                .saturating_mul(workers)
        }
    };
    // In this order: with thousands of workers, keeping them busy comes before the cap.
    wanted.min(MOST).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_tasks_are_read_further_ahead_than_long_ones() {
        assert_eq!(items_for(4, None), 9);
        assert_eq!(items_for(4, Some(Duration::from_millis(1))), 200);
        assert_eq!(items_for(4, Some(Duration::from_secs(1))), 9);
        assert_eq!(items_for(4, Some(Duration::ZERO)), MOST);
        assert_eq!(items_for(5000, Some(Duration::ZERO)), 10_001);
    }

    #[test]
    fn an_item_larger_than_the_window_gets_through_alone() {
        let window = Window {
            max_items: 3,
            max_bytes: 100,
        };
        assert!(window.has_room(0, 1_000));
        assert!(window.has_room(2, 99));
        assert!(!window.has_room(2, 100));
        assert!(!window.has_room(3, 0));
    }

    proptest! {
        #[test]
        fn every_worker_has_its_next_item(workers in 1usize..10_000, nanos in any::<u64>()) {
            let items = items_for(workers, Some(Duration::from_nanos(nanos)));
            prop_assert!(items > 2 * workers);
            prop_assert!(items <= MOST.max(2 * workers + 1));
        }
    }
}
