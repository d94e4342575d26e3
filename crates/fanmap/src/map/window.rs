//! How far the input is read ahead of the consumer. Pure: numbers in, numbers out.

use std::time::Duration;

/// The bound on what is in flight: read, and not yet handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The most items.
    pub max_items: usize,
    /// The most bytes, as encoded; threads encode nothing.
    pub max_bytes: usize,
    /// So many items may be in flight however large they are.
    pub least_items: usize,
}

impl Window {
    /// A bound on items alone.
    #[must_use]
    pub const fn of_items(max_items: usize) -> Self {
        Self {
            max_items,
            max_bytes: usize::MAX,
            least_items: 1,
        }
    }

    /// What a user asked for: 0 is no bound.
    #[must_use]
    pub const fn of_user(items: usize) -> Self {
        Self::of_items(if items == 0 { usize::MAX } else { items })
    }

    /// Whether one more may be read when so many items and bytes are in flight.
    ///
    /// How large an item is shows only once it was read, so the bytes may go past the bound by one item. With nothing in
    /// flight there is always room: an item larger than the whole window still gets through.
    #[must_use]
    pub const fn has_room(&self, items: usize, bytes: usize) -> bool {
        items == 0 || (items < self.max_items && (bytes < self.max_bytes || items < self.least_items))
    }

    /// How many items to read next, at most `run`, when so many items and bytes are in flight. 0: none before another
    /// result was handed out.
    ///
    /// While there is something to do it waits until a whole run fits, or a quarter of the window: items read one by one,
    /// as one result after the other is handed out, would travel one by one.
    #[must_use]
    pub fn next_run(&self, items: usize, bytes: usize, run: usize) -> usize {
        if !self.has_room(items, bytes) {
            return 0;
        }
        let room = self.max_items.saturating_sub(items).max(1);
        let least = run.min(self.max_items / 4).max(1);
        if room < least && items > 0 { 0 } else { room.min(run) }
    }
}

/// How much work a run of items read together should be. Shorter, and its message costs more than it carries; longer, and
/// it must be decoded by two workers more often, when a part of it is taken back from the one that has it.
const RUN: Duration = Duration::from_millis(1);

/// The most items of a run. More would save nothing more.
const LONGEST_RUN: usize = 4096;

/// How many items to read and encode together, when `sent` were sent so far: a millisecond of work (`RUN`).
///
/// As long as nothing is known of the tasks it grows with what was sent. That is no risk: workers have room for few tasks
/// then, and are sent parts of a run.
#[must_use]
pub fn run_for(sent: usize, mean_task: Option<Duration>) -> usize {
    match mean_task {
        None => (sent / 8).clamp(1, LONGEST_RUN / 16),
        Some(mean) => {
            let fit = RUN.as_nanos() / mean.as_nanos().max(1);
            usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, LONGEST_RUN)
        }
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
const MOST: usize = 1 << 15;

/// How many items to read ahead where the user did not say: 50 ms of work for each worker (`AHEAD`).
///
/// At least two for each worker and one more, so that each has its next when it ends one and the consumer holds one; at most
/// 32768 (`MOST`). As long as `mean_task` is not known, the least: the first tasks tell.
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

/// How many encoded bytes of items and results may be under way at a time, for each worker. Less would make maps over large
/// arrays wait for each other; more is memory that the user never asked to spend.
const WORKER_BYTES: usize = 32 << 20;

/// The same for so many workers.
#[must_use]
pub const fn bytes_for(workers: usize) -> usize {
    workers.saturating_mul(WORKER_BYTES)
}

/// So many items ahead, but of large ones, which have so many bytes each with their results, no more than may be under way; but
/// one for each worker, and one that is read, however large.
#[must_use]
pub fn items_of_size(items: usize, workers: usize, bytes_each: usize) -> usize {
    let fit = bytes_for(workers) / bytes_each.max(1);
    items.min(fit.max(workers.saturating_add(1)))
}

/// So many items ahead, but as many as keep the workers busy when each takes `together` at a time: one such group for each
/// worker, and one that is read.
#[must_use]
pub fn items_together(items: usize, workers: usize, together: usize) -> usize {
    items.max(workers.saturating_add(1).saturating_mul(together))
}

/// How many items for each worker to read ahead where their bytes are bounded as well. Fewer, and while an item that takes
/// forty times as long as the others holds up the results, the other workers run dry; more would not help in any case
/// that we know of.
const BESIDE_A_SLOW_ONE: usize = 64;

/// For no longer than this, though: a consumer that stops early throws it away.
const LONGEST_AHEAD: Duration = Duration::from_millis(500);

/// [`items_for`] where encoded bytes are bounded, too, so that more items may be read: as many as keep the other workers busy
/// while a slow one holds up the results. As long as `mean_task` is not known, half as many.
#[must_use]
pub fn items_for_encoded(workers: usize, mean_task: Option<Duration>) -> usize {
    let each = match mean_task {
        None => BESIDE_A_SLOW_ONE / 2,
        Some(mean) => {
            let fit = LONGEST_AHEAD.as_nanos() / mean.as_nanos().max(1);
            usize::try_from(fit).unwrap_or(usize::MAX).min(BESIDE_A_SLOW_ONE)
        }
    };
    items_for(workers, mean_task).max(each.saturating_mul(workers))
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
        assert_eq!(items_for(20_000, Some(Duration::ZERO)), 40_001);
        assert_eq!(items_for_encoded(2, None), 64);
        assert_eq!(items_for_encoded(2, Some(Duration::from_millis(5))), 128);
        assert_eq!(items_for_encoded(2, Some(Duration::from_millis(100))), 10);
        assert_eq!(items_for_encoded(2, Some(Duration::from_secs(1))), 5);
        assert_eq!(items_for_encoded(2, Some(Duration::from_micros(20))), 5000);
        assert_eq!(run_for(0, Some(Duration::ZERO)), LONGEST_RUN);
        assert_eq!(run_for(0, Some(Duration::from_secs(1))), 1);
        assert_eq!((run_for(0, None), run_for(80, None)), (1, 10));
        assert_eq!((items_together(9, 2, 1), items_together(9, 2, 100)), (9, 300));
        let of_size = |bytes| items_of_size(100, 2, bytes);
        assert_eq!((of_size(0), of_size(8 << 20), of_size(1 << 30)), (100, 8, 3));
    }

    #[test]
    fn a_run_waits_until_it_fits_unless_nothing_is_in_flight() {
        let window = Window::of_items(100);
        assert_eq!(window.next_run(0, 0, 30), 30);
        assert_eq!(window.next_run(80, 0, 30), 0, "a quarter of the window is not free");
        assert_eq!(window.next_run(70, 0, 30), 30);
        assert_eq!(window.next_run(75, 0, 30), 25);
        assert_eq!(window.next_run(100, 0, 1), 0);
        assert_eq!(Window::of_items(1).next_run(0, 0, 30), 1);
        assert_eq!(Window::of_items(3).next_run(2, 0, 30), 1);
    }

    #[test]
    fn an_item_larger_than_the_window_gets_through() {
        let window = Window {
            max_items: 3,
            max_bytes: 100,
            least_items: 2,
        };
        assert!(window.has_room(0, 1_000));
        assert!(
            window.has_room(1, 1_000),
            "as many as keep the workers busy do, however large"
        );
        assert!(window.has_room(2, 99));
        assert!(!window.has_room(2, 100));
        assert!(!window.has_room(3, 0));
    }

    proptest! {
        #[test]
        fn there_is_always_something_to_read_for_an_idle_map(most in 1usize..100, run in 1usize..100, bytes in any::<usize>()) {
            let window = Window { max_items: most, max_bytes: 1, least_items: 1 };
            prop_assert!((1..=run.min(most)).contains(&window.next_run(0, bytes, run)));
        }

        #[test]
        fn every_worker_has_its_next_item(workers in 1usize..10_000, nanos in any::<u64>()) {
            let items = items_for(workers, Some(Duration::from_nanos(nanos)));
            prop_assert!(items > 2 * workers);
            prop_assert!(items <= MOST.max(2 * workers + 1));
        }
    }
}
