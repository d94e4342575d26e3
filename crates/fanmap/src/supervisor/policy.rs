//! The supervisor's decisions, as pure functions.

use std::time::Duration;

use crate::config::Retries;
use crate::worker::KEPT;

/// How much work to send ahead to one worker. Less, and a worker of tiny tasks runs dry while the parent's thread waits
/// for its turn on a busy core; more only makes taking back dearer when another worker falls idle.
const AHEAD: Duration = Duration::from_millis(8);

/// The most tasks with one worker, however little they take.
const MOST_AHEAD: usize = 1 << 16;

/// How many workers in a row may end before they were ready. One can be bad luck (the machine short of memory for a
/// moment); more means that no worker can live here, and starting them for ever would hide why.
const FAILED_STARTS: u32 = 3;

/// For how long no worker is started after one could not be, where others work; and how often that doubles at most. Shorter, and
/// the tries take time from those that work; longer, and a pool stays small after the machine was short of something for a
/// moment.
const PAUSE: Duration = Duration::from_millis(100);
const DOUBLINGS: u32 = 8;

/// How many workers in a row may end, for each that there may be, while they have tasks and before one of those has ended. All
/// at once can be killed by the same event; again and again means that no task will ever be done here.
const FRUITLESS_ROUNDS: usize = 3;

/// How many tasks may be with one worker at a time, the one that runs included.
///
/// `mean` is what tasks of this kind have taken so far; `growing` says that more workers could still be started. As long
/// as nothing is known of the tasks and they could, nobody is sent a second one: it would wait behind the first instead of
/// waking a worker of its own.
pub(super) fn credit(mean: Option<Duration>, growing: bool) -> usize {
    match mean {
        None if growing => 1,
        None => 2,
        Some(mean) => {
            let fit = AHEAD.as_nanos() / mean.as_nanos().max(1);
            let least = if growing { 1 } else { 2 };
            usize::try_from(fit).unwrap_or(usize::MAX).clamp(least, MOST_AHEAD)
        }
    }
}

/// A credit of which at least `together` tasks are sent at a time.
pub(super) fn credit_for(credit: usize, together: u32) -> usize {
    match together {
        0 | 1 => credit,
        // Twice as many: there is room again when half of it is used up.
        _ => credit.max(2 * together as usize),
    }
}

/// How many tasks to send now to a worker that has `load`: none until half of its credit is used up, or the worker of tiny
/// tasks would be sent them one by one.
pub(super) fn refill(load: usize, credit: usize) -> usize {
    if load <= credit / 2 { credit - load } else { 0 }
}

/// How many workers to start now, for `queued` tasks that nobody has, when `unused` workers are starting or idle,
/// `wanted` more were asked for, and `present` of at most `limit` are there.
pub(super) fn starts(queued: usize, unused: usize, wanted: usize, present: usize, limit: usize) -> usize {
    (queued.saturating_sub(unused) + wanted).min(limit.saturating_sub(present))
}

/// How much work a run has that tasks may join. Less, and each task bears more of what a message costs; more, and what is left of
/// a run is more often to be taken back.
const RUN: Duration = Duration::from_micros(50);

/// How many bytes of arguments. More would do no better.
pub(super) const RUN_BYTES: usize = 16 << 10;

/// Whether another task may join a run in the queue that has `count` tasks, which take so long each, and so many bytes.
pub(super) fn grows(mean: Option<Duration>, count: u32, bytes: usize) -> bool {
    mean.is_some_and(|mean| is_short(mean, count.saturating_add(1))) && bytes < RUN_BYTES
}

/// Whether so many tasks are no more than a run has.
pub(super) fn is_short(mean: Duration, count: u32) -> bool {
    mean.saturating_mul(count) <= RUN
}

/// How many of the `waiting` tasks of a busy worker an idle one takes.
pub(super) fn share(waiting: usize) -> usize {
    waiting.div_ceil(2)
}

/// The new mean of task times after `count` more took `total` together.
pub(super) fn mean(before: Option<Duration>, total: Duration, count: u32) -> Duration {
    let latest = total / count.max(1);
    match before {
        None => latest,
        // An eighth of the way for one task: a single slow one does not make the next hundred look slow. A run of many
        // tells as much as the many do.
        Some(before) => (before * 7 + latest * count) / (7 + count),
    }
}

/// For how long a task rests that has failed, after it had been tried again `tries` times. `None`: it is not any more.
pub(super) fn rest(retries: &Retries, tries: usize) -> Option<Duration> {
    if tries >= retries.count as usize {
        return None;
    }
    // Nothing stays nothing, though the power may overflow.
    if retries.wait.is_zero() {
        return Some(Duration::ZERO);
    }
    let grown = retries.wait.as_secs_f64() * retries.factor.powi(i32::try_from(tries).unwrap_or(i32::MAX));
    let rest = Duration::try_from_secs_f64(grown).unwrap_or(Duration::MAX);
    Some(rest.min(retries.max_wait))
}

/// How long to let results gather at most. Each look at them takes a core from a worker for some 30 us: shorter, and that
/// shows; longer, and people see results late.
const NAP: Duration = Duration::from_millis(3);

/// For how long to let results gather while `busy` workers, each with `load` tasks or more that take so long, go on: not so
/// long that one might run dry. `None` where it would not bring more than one.
pub(super) fn nap(mean: Duration, load: usize, busy: usize) -> Option<Duration> {
    let (load, busy) = (u32::try_from(load).ok()?, u32::try_from(busy).ok()?);
    let nap = NAP.min(mean.saturating_mul(load) / 2);
    (mean.max(KEPT).saturating_mul(2) <= nap.saturating_mul(busy)).then_some(nap)
}

/// To be woken takes longer than tasks of this time: looked at one by one, each result would cost more than its task.
const TINY: Duration = Duration::from_micros(10);

/// How many of them each busy worker must have left. Fewer, and it has run out before its results have gathered.
const FEW: usize = 8;

/// The same for results of tiny tasks that come one by one, where that is `None`: until a worker has run out, which rings, or
/// for as long as a worker that encodes its results together keeps them.
pub(super) fn nap_of_singles(mean: Duration, load: usize) -> Option<Duration> {
    (mean <= TINY && load >= FEW).then_some(KEPT)
}

/// For how long to let ends gather that nobody waits for; whoever comes to wait ends it. Shorter, and a program that submits
/// thousands of tiny tasks pays a wake-up for a handful of them; longer, and callers who only look see an old state.
const UNASKED: Duration = Duration::from_millis(1);

/// The same for ends that are wanted later, of tasks that take so long. `None` for those so long that few would gather.
pub(super) fn nap_unasked(mean: Duration) -> Option<Duration> {
    (mean.saturating_mul(2) <= UNASKED).then_some(UNASKED)
}

/// For how long the supervisor leaves the workers to a thread that looks itself before it waits. Shorter, and the two meet at the
/// pool's lock all the time; longer, and the ends of others' tasks come late should that thread turn to something else.
pub(super) const LEFT_ALONE: Duration = KEPT;

/// Whether the pool must give up after so many workers in a row ended before they were ready.
pub(super) fn gives_up(failed_starts: u32) -> bool {
    failed_starts >= FAILED_STARTS
}

/// For how long to start none after so many starts in a row have failed, of which at least one has.
pub(super) fn pause(failed_starts: u32) -> Duration {
    PAUSE * 2u32.pow(failed_starts.saturating_sub(1).min(DOUBLINGS))
}

/// Whether the pool must give up after so many of at most `limit` workers in a row ended with tasks of which none had
/// started, and not one task ended meanwhile.
pub(super) fn is_fruitless(deaths: usize, limit: usize) -> bool {
    deaths >= FRUITLESS_ROUNDS * limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slow_tasks_are_sent_one_ahead_and_tiny_ones_many() {
        assert_eq!(credit(None, false), 2);
        assert_eq!(credit(Some(Duration::from_secs(1)), false), 2);
        assert_eq!(credit(Some(Duration::from_micros(100)), false), 80);
        assert_eq!(credit(Some(Duration::ZERO), false), MOST_AHEAD);
        assert_eq!(credit(None, true), 1);
        assert_eq!(credit(Some(Duration::from_secs(1)), true), 1);
        assert_eq!((credit_for(7, 1), credit_for(7, 3), credit_for(7, 4)), (7, 7, 8));
    }

    #[test]
    fn results_gather_only_where_several_come_and_no_worker_runs_dry() {
        let ms = Duration::from_millis;
        assert_eq!(nap(ms(1), 8, 2), Some(NAP));
        assert_eq!(nap(ms(20), 2, 2), None);
        assert_eq!(nap(ms(1), 1, 1), None);
        assert_eq!(
            nap(Duration::from_nanos(100), 10_000, 2),
            Some(Duration::from_micros(500))
        );
        let tiny = Duration::from_nanos(100);
        assert_eq!((nap(tiny, 100, 2), nap_of_singles(tiny, 100)), (None, Some(KEPT)));
        assert_eq!((nap_of_singles(tiny, 3), nap_of_singles(ms(1), 100)), (None, None));
    }

    #[test]
    fn rests_grow_up_to_the_longest_and_end_with_the_count() {
        let ms = Duration::from_millis;
        let retries = |count, wait, factor| Retries::new(count).wait(wait).factor(factor).max_wait(ms(350));
        let rests = |retries: Retries| (0..6).map_while(move |tries| rest(&retries, tries)).collect::<Vec<_>>();
        assert_eq!(rests(retries(4, ms(100), 2.0)), [ms(100), ms(200), ms(350), ms(350)]);
        assert_eq!(rests(retries(2, ms(100), 1.0)), [ms(100), ms(100)]);
        assert_eq!(rests(retries(3, Duration::ZERO, f64::MAX)), [Duration::ZERO; 3]);
        assert_eq!(rests(retries(3, ms(1), f64::MAX)), [ms(1), ms(350), ms(350)]);
        assert!(rests(retries(0, ms(1), 2.0)).is_empty());
    }

    #[test]
    fn pauses_between_starts_that_fail_grow_up_to_half_a_minute() {
        let pauses = [1, 2, 3, 9, 10, u32::MAX].map(|failed| pause(failed).as_millis());
        assert_eq!(pauses, [100, 200, 400, 25_600, 25_600, 25_600]);
    }

    proptest! {
        #[test]
        fn never_more_workers_than_asked_for_nor_than_there_is_a_need_of(
            queued in 0usize..100, unused in 0usize..20, wanted in 0usize..20, present in 0usize..20, limit in 1usize..20,
        ) {
            let count = starts(queued, unused, wanted, present, limit);
            prop_assert!(count <= queued + wanted);
            prop_assert!(count == 0 || present + count <= limit);
            prop_assert!(count > 0 || (queued <= unused && wanted == 0) || present >= limit);
        }

        #[test]
        fn a_worker_with_nothing_is_always_sent_something(load in 0usize..100, credit in 1usize..100) {
            let tasks = refill(load, credit);
            prop_assert!(load + tasks <= load.max(credit));
            prop_assert!(load > 0 || tasks == credit);
        }

        #[test]
        fn who_is_sent_anything_is_sent_as_many_as_asked_for(load in 0usize..200, credit in 1usize..100, together in 2u32..50) {
            let tasks = refill(load, credit_for(credit, together));
            prop_assert!(tasks == 0 || tasks >= together as usize);
        }

        #[test]
        fn an_idle_worker_always_gets_something(waiting in 1usize..200) {
            prop_assert!((1..=waiting).contains(&share(waiting)));
        }

        #[test]
        fn the_mean_stays_between_its_parts(
            before in 0u64..1_000_000_000, task in 0u64..1_000_000_000, count in 1u32..10_000,
        ) {
            let (before, task) = (Duration::from_nanos(before), Duration::from_nanos(task));
            let after = mean(Some(before), task * count, count);
            prop_assert!(after <= before.max(task) && after + Duration::from_nanos(1) >= before.min(task));
        }
    }
}
