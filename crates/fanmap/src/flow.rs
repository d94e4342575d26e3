//! What flows through a map over threads: items to the helpers, results to the consumer. (A map over processes has the results
//! alone.)
//!
//! # Protocol
//! [`Items`] come through a [`pipe`](mod@crate::pipe). The reader puts them in one by one, so that an item which is there is never
//! kept from a thread that has nothing to do, and takes no lock for it. A *helper*, a job on the pool, takes them out by the run,
//! under a mutex that only helpers meet at: as many as are some microseconds of work by the measured mean, so that tiny tasks do not
//! pay for the meeting. A helper is counted by [`Items::push`], which says that one is to be brought, and counted off by itself
//! when it finds nothing. Both change the count under the mutex; the reader looks at it without, after its item is in, and
//! the helper looks for items once more after it is counted off, with a fence in between on either side. So an item that was
//! pushed always has a helper that will look again. Who cannot bring one, or has one that will never run, says so
//! ([`Items::lose_helper`]), and gets the items that have nobody if it was the last.
//!
//! [`Results`] are under another one. They are put in by the run, and handed out in order, or as they come. Who puts in the
//! run that the consumer's turn is at (its *head*; as they come, any run is) sets `ready`, which the consumer looks at without
//! a lock between two reads of its input. It waits on an event whose epoch it read before it looked under the lock and
//! left its note there; who finds the note takes it out and moves the epoch, after the results are in. So no wake-up is lost.
//!
//! What came from another process is put in as it came, and decoded by the consumer once it takes it ([`Run`]).
//!
//! A wake-up costs as much as many tiny tasks. So the note says how many results to wait for, beside the head, before one is
//! due; a helper that has no more to do wakes the consumer for less, and the consumer itself waits for more than one result
//! only for a short time (see [`GATHER`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::pipe::{Inlet, Outlet, pipe};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Event, Mutex, MutexGuard, Ordering, Wake, fence};

/// How much work a helper takes at a time, of plenty. Less, and it shows that a run costs a microsecond beside its tasks; more,
/// and items wait longer behind one that is unexpectedly slow.
const RUN: Duration = Duration::from_micros(40);

/// How much it takes though little is there. Less, and where the reader is hardly faster than the helpers they meet it at each
/// turn, which slows it down further; more, and a map's end is less even.
const SHORTEST_RUN: Duration = Duration::from_micros(10);

/// The most items of a run: where one is slow that should have been tiny, so many at most wait with it.
const LONGEST_RUN: usize = 512;

/// How long a consumer waits for more than one result, where tasks are small. Less, and its wake-ups take a core from the helpers
/// for some 30 us each, which shows; more, and people see results late.
pub(crate) const GATHER: Duration = Duration::from_millis(5);

/// Tasks that take less are small. Those of more are so few in the time that waiting for several would save little.
pub(crate) const SMALL: Duration = Duration::from_millis(2);

/// How many results the consumer takes out together, if they were put in by less. Fewer, and it meets those who put in one by one
/// at each; more, and they are moved once more for nothing.
const AT_ONCE: usize = 32;

/// Items that no helper has taken.
pub(crate) struct Items<T> {
    open: Mutex<Outlet<T>>,
    /// How many helpers are counted. Written under the lock.
    helpers: AtomicUsize,
    /// Of a task. `u64::MAX`: not known.
    mean_nanos: AtomicU64,
}

impl<T> Items<T> {
    /// None, and the end of the pipe that they are to come through.
    pub(crate) fn new() -> (Inlet<T>, Self) {
        let (inlet, outlet) = pipe();
        let items = Self {
            open: Mutex::new(outlet),
            helpers: AtomicUsize::new(0),
            mean_nanos: AtomicU64::new(u64::MAX),
        };
        (inlet, items)
    }

    /// Adds an item. True: bring one more helper, which counts from now on. There are at most `most`.
    #[must_use]
    pub(crate) fn push(&self, inlet: &mut Inlet<T>, item: T, most: usize) -> bool {
        inlet.push(item);
        self.helpers.load(Ordering::Relaxed) < most && self.count_helper(most)
    }

    fn count_helper(&self, most: usize) -> bool {
        let _open = lock(&self.open);
        let helpers = self.helpers.load(Ordering::Relaxed);
        if helpers < most {
            self.helpers.store(helpers + 1, Ordering::Relaxed);
        }
        helpers < most
    }

    /// Moves the next run of items into `run`, which is empty, and gives the index of the first. `None`: there is none, and
    /// the helper that asks counts no more.
    pub(crate) fn claim(&self, run: &mut Vec<T>) -> Option<u64> {
        let mut open = lock(&self.open);
        let helpers = self.helpers.load(Ordering::Relaxed);
        if open.len() == 0 {
            self.helpers.store(helpers - 1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if open.len() == 0 {
                return None;
            }
            self.helpers.store(helpers, Ordering::Relaxed);
        }
        let (first, count) = (open.taken(), run_for(self.mean_task(), open.len(), helpers));
        open.take(count, run);
        Some(first)
    }

    /// A helper that was counted will do no more. If it was the last: the items that now have nobody, and the first's index.
    #[must_use]
    pub(crate) fn lose_helper(&self) -> (u64, Vec<T>) {
        let mut open = lock(&self.open);
        let helpers = self.helpers.load(Ordering::Relaxed) - 1;
        self.helpers.store(helpers, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let (first, mut items) = (open.taken(), Vec::new());
        if helpers == 0 {
            open.take(usize::MAX, &mut items);
        }
        (first, items)
    }

    /// Takes out what no helper has taken.
    #[must_use]
    pub(crate) fn clear(&self) -> Vec<T> {
        let mut items = Vec::new();
        lock(&self.open).take(usize::MAX, &mut items);
        items
    }

    /// What a task has taken lately.
    pub(crate) fn mean_task(&self) -> Option<Duration> {
        match self.mean_nanos.load(Ordering::Relaxed) {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// A run of `count` tasks took so long.
    pub(crate) fn took(&self, time: Duration, count: usize) {
        // Two helpers at a time may lose one's answer: the next comes soon.
        let mean = moving_mean(self.mean_task(), time / u32::try_from(count).unwrap_or(u32::MAX));
        let nanos = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX - 1);
        self.mean_nanos.store(nanos, Ordering::Relaxed);
    }
}

/// How many items a helper takes, of so many that wait for so many helpers: half its share, so that runs get shorter when the
/// items come to an end and the helpers end together; but [`SHORTEST_RUN`] to [`RUN`] of work.
fn run_for(mean: Option<Duration>, waiting: usize, helpers: usize) -> usize {
    let fit = |work: Duration| {
        let fit = mean.map_or(1, |mean| work.as_nanos() / mean.as_nanos().max(1));
        usize::try_from(fit).unwrap_or(LONGEST_RUN).clamp(1, LONGEST_RUN)
    };
    let share = waiting.div_ceil(2 * helpers.max(1));
    share.clamp(fit(SHORTEST_RUN), fit(RUN)).min(waiting)
}

/// The mean of what was measured so far, where the last few count most: inputs change as they go.
fn moving_mean(mean: Option<Duration>, latest: Duration) -> Duration {
    match mean {
        None => latest,
        Some(mean) => mean - mean / 8 + latest / 8,
    }
}

/// Results that the consumer has not taken.
pub(crate) struct Results<R> {
    landed: Mutex<Landed<R>>,
    /// Whether the head is there, as a hint that needs no lock. Written under it.
    ready: AtomicBool,
    /// Written under the lock, and only ever set.
    closed: AtomicBool,
    changed: Event,
}

/// Results of items that stand one after the other.
pub(crate) enum Run<R> {
    /// Here they are.
    Here(Vec<R>),
    /// So many, to be decoded, in the thread that takes them.
    Sealed(usize, Box<dyn FnOnce() -> Vec<R> + Send>),
}

impl<R> From<Vec<R>> for Run<R> {
    fn from(results: Vec<R>) -> Self {
        Run::Here(results)
    }
}

impl<R> Run<R> {
    fn len(&self) -> usize {
        match self {
            Run::Here(results) => results.len(),
            Run::Sealed(count, _) => *count,
        }
    }

    fn open(self) -> Vec<R> {
        match self {
            Run::Here(results) => results,
            Run::Sealed(_, open) => open(),
        }
    }
}

struct Landed<R> {
    /// By the index of the first result.
    runs: BTreeMap<u64, Run<R>>,
    /// How many results these are.
    count: usize,
    /// The index that the next result must have. `None`: they leave as they come.
    turn: Option<u64>,
    /// How many results a consumer waits for, beside the head.
    awaited: Option<usize>,
}

impl<R> Landed<R> {
    fn is_ready(&self) -> bool {
        match (self.runs.first_key_value(), self.turn) {
            (Some((first, _)), Some(turn)) => *first == turn,
            (first, _) => first.is_some(),
        }
    }
}

impl<R> Results<R> {
    /// None, to be handed out in order.
    pub(crate) fn new() -> Self {
        Self {
            landed: Mutex::new(Landed {
                runs: BTreeMap::new(),
                count: 0,
                turn: Some(0),
                awaited: None,
            }),
            ready: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            changed: Event::new(),
        }
    }

    /// From now on results leave as they come. To be called before the first is put in.
    pub(crate) fn as_they_come(&self) {
        lock(&self.landed).turn = None;
    }

    /// Puts in the results of the items from `first` on. With `last`, whoever puts them in will put in no more for now.
    ///
    /// What nobody will ask for is dropped.
    pub(crate) fn put(&self, first: u64, results: impl Into<Run<R>>, last: bool) {
        let results = results.into();
        if results.len() == 0 {
            return;
        }
        let mut landed = lock(&self.landed);
        if self.is_closed() {
            drop(landed);
            return drop(results);
        }
        landed.count += results.len();
        landed.runs.insert(first, results);
        if !landed.is_ready() {
            return;
        }
        self.ready.store(true, Ordering::Relaxed);
        if landed.awaited.is_some_and(|awaited| last || landed.count >= awaited) {
            landed.awaited = None;
            drop(landed);
            self.changed.notify();
        }
    }

    /// Whether results can be taken.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The next results, as many as were put in together, and of small runs several; empty if there are none.
    pub(crate) fn take(&self) -> Vec<R> {
        let mut landed = lock(&self.landed);
        let (mut first, mut others, mut count) = (None, Vec::new(), 0);
        while landed.is_ready() && count < AT_ONCE {
            let (_, run) = landed.runs.pop_first().expect("the head is there");
            count += run.len();
            landed.count -= run.len();
            landed.turn = landed.turn.map(|turn| turn + run.len() as u64);
            match first {
                None => first = Some(run),
                Some(_) => others.push(run),
            }
        }
        self.ready.store(landed.is_ready(), Ordering::Relaxed);
        drop(landed);
        let mut results = first.map_or_else(Vec::new, Run::open);
        results.extend(others.into_iter().flat_map(Run::open));
        results
    }

    /// Waits until the head is there and with it `together` results, or until the deadline, or a signal. The caller looks
    /// what came of it.
    pub(crate) fn wait(&self, together: usize, deadline: Option<Instant>) -> Wake {
        let epoch = self.changed.epoch();
        let mut landed = lock(&self.landed);
        if landed.is_ready() {
            return Wake::Notified;
        }
        landed.awaited = Some(together);
        drop(landed);
        self.changed.wait(epoch, deadline)
    }

    /// Drops what is there and what comes.
    pub(crate) fn close(&self) {
        let mut landed = lock(&self.landed);
        self.closed.store(true, Ordering::Relaxed);
        let runs = std::mem::take(&mut landed.runs);
        drop(landed);
        drop(runs);
    }

    /// Whether it was closed: a task whose result would go here need not run.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_run_is_some_microseconds_of_work_and_shorter_where_little_is_left() {
        assert_eq!(run_for(None, 100, 2), 1);
        assert_eq!(run_for(Some(us(1)), 1000, 2), 40);
        assert_eq!(run_for(Some(us(1)), 80, 2), 20);
        assert_eq!(run_for(Some(us(1)), 24, 2), 10);
        assert_eq!(run_for(Some(us(1)), 5, 2), 5);
        assert_eq!(run_for(Some(us(8)), 5, 2), 2);
        assert_eq!(run_for(Some(us(500)), 100, 2), 1);
        assert_eq!(run_for(Some(Duration::ZERO), 1 << 20, 2), LONGEST_RUN);
    }

    #[test]
    fn the_mean_follows_what_comes() {
        assert_eq!(moving_mean(None, us(8)), us(8));
        assert_eq!(moving_mean(Some(us(8)), us(8)), us(8));
        let late = (0..64).fold(us(800), |mean, _| moving_mean(Some(mean), us(8)));
        assert!(late < us(9), "{late:?}");
    }

    #[test]
    fn items_are_claimed_in_order_and_those_of_the_last_helper_are_handed_back() {
        let (mut inlet, items) = Items::new();
        let mut push = |item, most| items.push(&mut inlet, item, most);
        assert!(push('a', 2) && push('b', 2) && !push('c', 2));
        let mut run = Vec::new();
        assert_eq!((items.claim(&mut run), run.as_slice()), (Some(0), &['a'][..]));
        assert_eq!(items.lose_helper(), (1, vec![]));
        assert_eq!(items.lose_helper(), (1, vec!['b', 'c']));
        assert!(push('d', 2));
        run.clear();
        assert_eq!((items.claim(&mut run), run.as_slice()), (Some(3), &['d'][..]));
        assert_eq!(items.claim(&mut run), None);
        assert!(push('e', 1), "the helper that found nothing counts no more");
    }

    #[test]
    fn what_is_sealed_is_opened_by_who_takes_it() {
        let (results, opened) = (Results::new(), std::sync::Arc::new(AtomicBool::new(false)));
        let told = std::sync::Arc::clone(&opened);
        let open = move || {
            told.store(true, Ordering::Relaxed);
            vec!['b', 'c']
        };
        results.put(1, Run::Sealed(2, Box::new(open)), true);
        results.put(0, vec!['a'], true);
        results.put(3, vec!['d'], true);
        assert!(results.is_ready() && !opened.load(Ordering::Relaxed));
        assert_eq!(results.take(), ['a', 'b', 'c', 'd']);
    }

    #[test]
    fn results_leave_in_order_or_as_they_come() {
        for in_order in [true, false] {
            let results = Results::new();
            if !in_order {
                results.as_they_come();
            }
            results.put(2, vec!['c', 'd'], false);
            assert_eq!(results.is_ready(), !in_order);
            if in_order {
                assert_eq!(results.take(), []);
                results.put(0, vec!['a', 'b'], false);
                assert_eq!(results.take(), ['a', 'b', 'c', 'd']);
            } else {
                assert_eq!(results.take(), ['c', 'd']);
            }
            assert!(!results.is_ready());
            assert_eq!(results.wait(1, Some(Instant::now())), Wake::TimedOut);
            results.close();
            results.put(4, vec!['e'], true);
            assert_eq!(results.take(), []);
        }
    }
}
