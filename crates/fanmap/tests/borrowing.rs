//! Calls that lend what is alive around them: `scope` and `map_vec`.

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use fanmap::{ErrorKind, Pending, ThreadPool, map_vec, scope};
use proptest::prelude::*;

/// Counts those of its kind that are alive.
struct Counted<'a>(&'a AtomicUsize, usize);

impl<'a> Counted<'a> {
    fn new(alive: &'a AtomicUsize, value: usize) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(alive, value)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_borrow_and_a_scope_ends_after_the_last() {
    let ended = AtomicUsize::new(0);
    let (enter, entered) = mpsc::channel();
    scope(|s| {
        for _ in 0..20 {
            let (enter, ended) = (enter.clone(), &ended);
            // Nobody keeps the future.
            drop(s.submit(move || {
                enter.send(()).unwrap();
                thread::yield_now();
                ended.fetch_add(1, Ordering::Relaxed);
            }));
        }
        entered.recv().unwrap();
    });
    assert_eq!(ended.load(Ordering::Relaxed), 20);
}

#[test]
fn a_scope_waits_for_its_tasks_whatever_is_leaked() {
    let pool = ThreadPool::new(2).unwrap();
    let (read, ended) = (Cell::new(0), AtomicUsize::new(0));
    pool.scope(|s| {
        mem::forget(s.submit(|| ended.fetch_add(1, Ordering::Relaxed)).unwrap());
        let input = (0..1000).inspect(|_| read.set(read.get() + 1));
        let mut map = s.map(input, |_| ended.fetch_add(1, Ordering::Relaxed));
        assert!(map.next().unwrap().is_ok());
        mem::forget(map);
    });
    assert_eq!(ended.load(Ordering::Relaxed), 1 + read.get());
}

#[test]
fn a_scope_that_panics_waits_for_its_tasks_first() {
    let pool = ThreadPool::new(1).unwrap();
    let (open, gate) = mpsc::channel::<()>();
    let ended = AtomicUsize::new(0);
    let gate = Mutex::new(gate);
    let opener = thread::spawn({
        let (told, tell) = mpsc::channel();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|s| {
                drop(s.submit(|| {
                    told.send(()).unwrap();
                    gate.lock().unwrap().recv().unwrap_err();
                    ended.fetch_add(1, Ordering::Relaxed);
                }));
                tell.recv().unwrap();
                drop(open);
                panic!("the scope's own");
            })
        }));
        move || panicked.is_err()
    });
    assert!(opener.join().unwrap());
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_in_a_task_is_its_futures_and_no_other() {
    let text = "out of luck".to_owned();
    let (failed, fine) = scope(|s| {
        let failed = s.submit(|| panic!("{text}")).unwrap();
        let fine = s.submit(|| text.len()).unwrap();
        (failed.wait(), fine.wait())
    });
    let error = failed.map(|(): ()| 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.message().contains("out of luck"), "{error}");
    assert_eq!(fine, Ok(11));
}

#[test]
fn tasks_submit_tasks_to_their_scope() {
    let pool = ThreadPool::new(1).unwrap();
    let ran = Mutex::new(Vec::new());
    pool.scope(|s| {
        let ran = &ran;
        drop(s.submit(move || {
            // In place: the only worker is this one.
            s.submit(|| ran.lock().unwrap().push("inner")).unwrap().wait().unwrap();
            ran.lock().unwrap().push("outer");
        }));
    });
    assert_eq!(*ran.lock().unwrap(), ["inner", "outer"]);
}

#[test]
fn results_that_borrow_come_out_of_a_scope() {
    let words = ["a".to_owned(), "bc".to_owned()];
    let firsts: Vec<&str> = scope(|s| s.map(&words, |word| &word[..1]).collect::<Result<_, _>>()).unwrap();
    assert_eq!(firsts, ["a", "b"]);
}

#[test]
fn everything_a_task_had_is_dropped_before_its_scope_ends() {
    let alive = AtomicUsize::new(0);
    for _ in 0..100 {
        scope(|s| {
            let captured = Counted::new(&alive, 0);
            let alive = &alive;
            // The result of the first is nobody's, the other is never handed out.
            drop(s.submit(move || Counted::new(alive, captured.1)));
            let mut map = s.map(0..10, |n| Counted::new(alive, n));
            let _ = map.next();
        });
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_closed_pool_refuses_what_a_scope_submits_and_the_scope_ends() {
    let pool = ThreadPool::new(1).unwrap();
    pool.close(Pending::Finish);
    let number = 1;
    pool.scope(|s| {
        assert_eq!(s.submit(|| number).unwrap_err().kind(), ErrorKind::Closed);
        let error = s.map([1, 2], |n| n + number).next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::Closed, Some(0)));
    });
    assert_eq!(
        pool.map_vec(0..100, |n| n + number).unwrap(),
        (1..101).collect::<Vec<_>>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_vec_equals_the_plain_maps(items in prop::collection::vec(any::<u8>(), 0..2000), workers in 1usize..5) {
        let pool = ThreadPool::new(workers).unwrap();
        let text = |n: &u8| n.to_string();
        let plain: Vec<String> = items.iter().map(text).collect();
        prop_assert_eq!(pool.map_vec(&items, text).unwrap(), plain);
        let len = i64::try_from(items.len()).unwrap();
        prop_assert_eq!(pool.map_vec(-5..len, |n| n * 2).unwrap(), (-5..len).map(|n| n * 2).collect::<Vec<_>>());
        prop_assert_eq!(pool.map_vec(&items[..], |_| ()).unwrap().len(), items.len());
    }

    #[test]
    fn a_panic_in_a_vec_is_the_first_items_and_nothing_is_lost(bad in prop::collection::btree_set(0usize..3000, 1..5)) {
        let alive = AtomicUsize::new(0);
        let error = map_vec(0..3000usize, |n| {
            let value = Counted::new(&alive, n);
            assert!(!bad.contains(&n), "{n} is bad");
            value
        })
        .map(|values| values.len())
        .unwrap_err();
        let first = *bad.first().unwrap();
        prop_assert_eq!(error.item(), Some(first as u64));
        prop_assert!(error.message().ends_with(&format!("{first} is bad")), "{}", error);
        prop_assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn values_of_a_vec_are_dropped_once() {
    let alive = AtomicUsize::new(0);
    let values = map_vec(0..5000usize, |n| Counted::new(&alive, n)).unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 5000);
    assert!(values.iter().map(|value| value.1).eq(0..5000));
    drop(values);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_vec_is_shared_by_the_threads_of_its_pool() {
    // Each item waits for the other: it takes two threads, the calling one among them.
    let pool = ThreadPool::new(2).unwrap();
    let barrier = std::sync::Barrier::new(2);
    let threads = pool
        .map_vec(0..2, |_| {
            barrier.wait();
            thread::current().id()
        })
        .unwrap();
    assert_ne!(threads[0], threads[1]);
    assert!(threads.contains(&thread::current().id()));
}

#[test]
fn a_vec_inside_a_vec_needs_no_free_thread() {
    let pool = Arc::new(ThreadPool::new(2).unwrap());
    let sums = pool.map_vec(0..20u64, |n| pool.map_vec(0..n, |m| m).unwrap().iter().sum::<u64>());
    assert_eq!(sums.unwrap(), (0..20).map(|n| (0..n).sum()).collect::<Vec<u64>>());
    let inner = Arc::clone(&pool);
    let inside = pool.submit(move || inner.map_vec(0..9, |n| n + 1)).unwrap();
    assert_eq!(inside.wait().unwrap().unwrap().len(), 9);
}

#[test]
fn waiting_never_runs_another_task_on_the_waiters_stack() {
    thread_local! {
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }
    let pool = Arc::new(ThreadPool::new(2).unwrap());
    let futures: Vec<_> = (0..50)
        .map(|_| {
            let other = Arc::clone(&pool);
            pool.submit(move || {
                assert!(!INSIDE.replace(true), "two tasks on one stack");
                // Whatever this waits for, it is no task of the pool that came later.
                let lengths = other.scope(|s| s.map(["a", "bc"], str::len).collect::<Result<Vec<_>, _>>());
                assert!(INSIDE.replace(false));
                lengths
            })
            .unwrap()
        })
        .collect();
    for future in futures {
        assert_eq!(future.wait().unwrap(), Ok(vec![1, 2]));
    }
}
