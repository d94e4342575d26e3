//! The promises of the thread pool, against the plain `map` and against the system's own view of our threads.
//!
//! Nothing here sleeps: tasks are held at a [`Gate`] and let through.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fanmap::{Error, ErrorKind, Future, Job, Joined, Pending, Rejected, Seat, ThreadPool, When, as_completed, wait};
use proptest::prelude::*;

/// Holds whoever passes until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    open: bool,
    waiting: usize,
}

impl Gate {
    fn pass(&self) {
        let (state, moved) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        moved.notify_all();
        let _state = moved.wait_while(state, |state| !state.open).unwrap();
    }

    fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Returns when so many have come to the gate.
    fn wait_for(&self, count: usize) {
        let (state, moved) = &*self.0;
        let state = state.lock().unwrap();
        let _state = moved.wait_while(state, |state| state.waiting < count).unwrap();
    }
}

fn closed(pool: &ThreadPool) {
    pool.close(Pending::Finish);
    assert_eq!(pool.join(None), Joined::All);
    assert_eq!(pool.workers(), 0);
}

/// A pool of one whose worker is held at the gate.
fn blocked_pool() -> (ThreadPool, Gate, Future<()>) {
    let pool = ThreadPool::new(1).unwrap();
    let gate = Gate::default();
    let held = pool.submit({
        let gate = gate.clone();
        move || gate.pass()
    });
    gate.wait_for(1);
    (pool, gate, held.unwrap())
}

fn work(n: i64) -> i64 {
    assert!(n % 7 != 3, "seven and three: {n}");
    n * n - 1
}

/// What a plain map would give, with panics as outcomes.
fn sequential(items: &[i64]) -> Vec<Result<i64, u64>> {
    let bad = |n: i64| n % 7 == 3;
    items
        .iter()
        .enumerate()
        .map(|(i, &n)| if bad(n) { Err(i as u64) } else { Ok(work(n)) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parallel_equals_sequential(
        items in prop::collection::vec(any::<i16>().prop_map(i64::from), 0..200),
        workers in 1usize..6,
        window in prop::option::of(1usize..40),
    ) {
        let pool = ThreadPool::new(workers).unwrap();
        let mut map = pool.map(items.clone(), work);
        if let Some(window) = window {
            map = map.window(window).unwrap();
        }
        let parallel: Vec<_> = map
            .map(|result| result.map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Panicked);
                error.item().unwrap()
            }))
            .collect();
        prop_assert_eq!(parallel, sequential(&items));
        prop_assert!(pool.workers() <= workers);
        closed(&pool);
    }

    #[test]
    fn a_cancelled_task_never_runs_and_any_other_runs_once(tasks in 1usize..100, workers in 1usize..4) {
        let pool = ThreadPool::new(workers).unwrap();
        let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..tasks).map(|_| AtomicUsize::new(0)).collect());
        let futures: Vec<_> = (0..tasks)
            .map(|task| {
                let runs = Arc::clone(&runs);
                pool.submit(move || runs[task].fetch_add(1, Ordering::Relaxed)).unwrap()
            })
            .collect();
        let cancelled: Vec<_> = futures.iter().rev().map(Future::cancel).collect();
        closed(&pool);
        for (task, was_cancelled) in cancelled.into_iter().rev().enumerate() {
            prop_assert_eq!(runs[task].load(Ordering::Relaxed), usize::from(!was_cancelled));
            prop_assert_eq!(futures[task].is_cancelled(), was_cancelled);
            prop_assert!(futures[task].is_done());
        }
    }
}

#[test]
fn a_map_reads_no_further_ahead_than_its_window() {
    let pool = ThreadPool::new(2).unwrap();
    let read = Rc::new(RefCell::new(0));
    let input = {
        let read = Rc::clone(&read);
        (0..).inspect(move |_| *read.borrow_mut() += 1)
    };
    let mut map = pool.map(input, |n: u64| n).window(5).unwrap();
    assert_eq!(*read.borrow(), 0, "a map is lazy");
    for taken in 0..100 {
        assert_eq!(map.next(), Some(Ok(taken)));
        assert!(
            *read.borrow() <= taken + 1 + 5,
            "{} read for {taken} taken",
            read.borrow()
        );
    }
}

#[test]
fn an_endless_map_can_be_left_and_its_tasks_end_with_it() {
    let pool = ThreadPool::new(3).unwrap();
    let captured = Arc::new(());
    let witness = Arc::downgrade(&captured);
    let firsts: Vec<_> = pool
        .map(0u64.., move |n| {
            let _keep = &captured;
            n + 1
        })
        .take(10_000)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(firsts, (1..=10_000).collect::<Vec<_>>());
    closed(&pool);
    assert_eq!(pool.queued(), 0);
    assert!(witness.upgrade().is_none(), "something still holds the function");
}

#[test]
fn a_dropped_map_cancels_what_has_not_started() {
    let pool = ThreadPool::new(2).unwrap();
    let (first, others) = (Gate::default(), Gate::default());
    let ran = Arc::new(AtomicUsize::new(0));
    let task = {
        let (first, others, ran) = (first.clone(), others.clone(), Arc::clone(&ran));
        move |n| {
            if n == 0 {
                first.pass()
            } else {
                others.pass()
            }
            ran.fetch_add(1, Ordering::Relaxed);
        }
    };
    // The head is let through only once many more have been sent.
    let input = (0..100).inspect(|n| {
        if *n == 20 {
            first.open()
        }
    });
    let mut map = pool.map(input, task).window(50).unwrap();
    assert_eq!(map.next(), Some(Ok(())));
    drop(map);
    others.open();
    closed(&pool);
    assert!(
        ran.load(Ordering::Relaxed) <= 3,
        "the head, and the two that were running"
    );
}

#[test]
fn a_map_on_a_closed_pool_gives_what_was_sent_then_the_error() {
    let pool = ThreadPool::new(1).unwrap();
    let mut map = pool.map(0..10, |n| n).window(2).unwrap();
    assert_eq!(map.next(), Some(Ok(0)));
    pool.close(Pending::Finish);
    let rest: Vec<_> = map.collect();
    let (last, sent) = rest.split_last().unwrap();
    let error = last.clone().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.item(), Some(rest.len() as u64));
    assert!(sent.iter().enumerate().all(|(i, result)| *result == Ok(i as i32 + 1)));
}

#[test]
fn a_map_inside_a_task_of_its_own_pool_runs_in_place() {
    let pool = Arc::new(ThreadPool::new(1).unwrap());
    let inner = Arc::clone(&pool);
    let nested = pool.submit(move || {
        assert!(inner.on_worker());
        let here = thread::current().id();
        inner
            .map(0..50, move |n| (n, thread::current().id() == here))
            .collect::<Result<Vec<_>, _>>()
    });
    let results = nested.unwrap().wait().unwrap().unwrap();
    assert_eq!(results, (0..50).map(|n| (n, true)).collect::<Vec<_>>());
    assert!(!pool.on_worker());
}

#[test]
fn the_shared_pool_maps_inside_a_map() {
    let nested: Result<Vec<u64>, Error> =
        fanmap::map(0..20u64, |n| fanmap::map(0..=n, |m| m).map(Result::unwrap).sum()).collect();
    assert_eq!(nested.unwrap(), (0..20).map(|n| n * (n + 1) / 2).collect::<Vec<u64>>());
}

#[test]
fn a_blocked_worker_wastes_only_its_thread() {
    let pool = ThreadPool::new(2).unwrap();
    let gate = Gate::default();
    let held = pool
        .submit({
            let gate = gate.clone();
            move || gate.pass()
        })
        .unwrap();
    gate.wait_for(1);
    let sum: u64 = pool.map(0..1000u64, |n| n).map(Result::unwrap).sum();
    assert_eq!(sum, 499_500);
    assert!(held.is_running());
    gate.open();
    held.wait().unwrap();
}

#[test]
fn tasks_that_wait_for_each_other_get_a_worker_each() {
    let pool = ThreadPool::new(8).unwrap();
    assert_eq!(pool.workers(), 0);
    let here = Arc::new(Barrier::new(3));
    let both: Vec<_> = (0..2)
        .map(|_| {
            let here = Arc::clone(&here);
            pool.submit(move || here.wait().is_leader()).unwrap()
        })
        .collect();
    assert_eq!(pool.workers(), 2);
    here.wait();
    drop(both);
    closed(&pool);
}

#[test]
fn a_panic_among_many_tiny_tasks_is_its_own_item_s_alone() {
    const ITEMS: u64 = 20_000;
    let pool = ThreadPool::new(2).unwrap();
    let map = pool.map(0..ITEMS, |item| {
        assert!(item % 1000 != 999, "no item {item}");
        item
    });
    for (index, result) in (0..).zip(map) {
        if index % 1000 == 999 {
            let error = result.unwrap_err();
            assert_eq!(
                (error.item(), error.message()),
                (Some(index), &*format!("the task panicked: no item {index}"))
            );
        } else {
            assert_eq!(result, Ok(index));
        }
    }
    closed(&pool);
}

#[test]
fn workers_outlive_panics_and_tell_them() {
    let pool = ThreadPool::new(1).unwrap();
    let one = pool.submit(|| thread::current().id()).unwrap().wait().unwrap();
    let panicked = pool.submit(|| panic!("no {}", "way")).unwrap();
    let error = panicked.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.message().contains("no way"));
    assert_eq!(pool.submit(|| thread::current().id()).unwrap().wait(), Ok(one));
}

#[test]
fn closing_to_finish_runs_what_was_submitted() {
    let (pool, gate, held) = blocked_pool();
    let later: Vec<_> = (0..10).map(|n| pool.submit(move || n).unwrap()).collect();
    pool.close(Pending::Finish);
    assert_eq!(pool.submit(|| ()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.join(Some(Instant::now())), Joined::TimedOut);
    gate.open();
    assert_eq!(pool.join(None), Joined::All);
    held.wait().unwrap();
    assert_eq!(
        later.into_iter().map(Future::wait).collect::<Vec<_>>(),
        (0..10).map(Ok).collect::<Vec<_>>()
    );
}

#[test]
fn closing_to_cancel_cancels_all_but_the_running() {
    let (pool, gate, held) = blocked_pool();
    let later: Vec<_> = (0..10).map(|n| pool.submit(move || n).unwrap()).collect();
    pool.close(Pending::Cancel);
    assert!(later.iter().all(Future::is_cancelled));
    assert!(held.is_running() && !held.cancel());
    pool.close(Pending::Cancel);
    gate.open();
    assert_eq!(pool.join(None), Joined::All);
    assert_eq!(held.wait(), Ok(()));
}

#[test]
fn a_dropped_pool_finishes_what_was_submitted() {
    let (pool, gate, held) = blocked_pool();
    let later = pool.submit(|| 1).unwrap();
    drop(pool);
    gate.open();
    held.wait().unwrap();
    assert_eq!(later.wait(), Ok(1));
}

#[test]
fn after_a_join_no_thread_is_left() {
    let pool = ThreadPool::builder().workers(4).name("gone").build().unwrap();
    let all_here = Arc::new(Barrier::new(4));
    for future in (0..4).map(|_| {
        let all_here = Arc::clone(&all_here);
        pool.submit(move || all_here.wait().is_leader()).unwrap()
    }) {
        drop(future);
    }
    closed(&pool);
    // The system lets us join a thread a moment before it takes it off its list.
    for _ in 0..100_000 {
        if threads_named("gone").is_empty() {
            return;
        }
        thread::yield_now();
    }
    panic!("still there: {:?}", threads_named("gone"));
}

#[test]
fn idle_workers_end_and_come_back() {
    let pool = ThreadPool::builder()
        .workers(2)
        .idle(Duration::from_millis(1))
        .build()
        .unwrap();
    for round in 0..3 {
        assert_eq!(pool.submit(move || round).unwrap().wait(), Ok(round));
        assert_eq!(pool.join(None), Joined::All, "the idle time is over by itself");
    }
}

#[test]
fn an_idle_pool_uses_no_processor() {
    let pool = ThreadPool::builder().workers(3).name("idler").build().unwrap();
    let all_here = Arc::new(Barrier::new(3));
    let futures: Vec<_> = (0..3)
        .map(|_| {
            let all_here = Arc::clone(&all_here);
            pool.submit(move || all_here.wait().is_leader()).unwrap()
        })
        .collect();
    assert!(wait(futures, When::All, None).1.is_empty());
    let tasks = threads_named("idler");
    assert_eq!(tasks.len(), 3);
    let look = || tasks.iter().map(|task| switches(task)).collect::<Vec<_>>();
    // They have told their results and may still be on their way to sleep: a thread that polls never gets there.
    let slept_through = (0..10).any(|_| {
        let before = look();
        let other = ThreadPool::new(2).unwrap();
        let sum: u64 = other
            .map(0..40u64, |n| (0..200_000).fold(n, |a, b| a ^ (b * n)))
            .map(Result::unwrap)
            .sum();
        assert!(sum > 0);
        before == look()
    });
    assert!(slept_through, "the threads of the idle pool never rest: {:?}", look());
    drop(pool);
}

/// Our threads whose name begins with `prefix`, as their directories in /proc.
fn threads_named(prefix: &str) -> Vec<String> {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().path().to_string_lossy().into_owned())
        .filter(|task| fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name.starts_with(prefix)))
        .collect()
}

/// How often the thread has been switched out, and its processor time in ticks.
fn switches(task: &str) -> (Vec<String>, Vec<String>) {
    let status = fs::read_to_string(format!("{task}/status")).unwrap();
    let switches = status
        .lines()
        .filter(|line| line.contains("ctxt_switches"))
        .map(str::to_owned)
        .collect();
    let stat = fs::read_to_string(format!("{task}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    (
        switches,
        after_name.split(' ').skip(11).take(2).map(str::to_owned).collect(),
    )
}

#[test]
fn engine_threads_take_no_signals() {
    let pool = ThreadPool::builder().workers(1).name("deaf").build().unwrap();
    let blocked = pool
        .submit(|| {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:"))
                .unwrap()
                .trim()
                .to_owned();
            u64::from_str_radix(&mask, 16).unwrap()
        })
        .unwrap()
        .wait()
        .unwrap();
    for signal in [1, 2, 10, 15, 17] {
        assert!(
            blocked & (1 << (signal - 1)) != 0,
            "signal {signal} is not blocked: {blocked:x}"
        );
    }
}

#[test]
fn bad_arguments_are_refused_at_the_call() {
    for error in [
        ThreadPool::new(0).unwrap_err(),
        ThreadPool::builder().idle(Duration::ZERO).build().unwrap_err(),
        ThreadPool::new(1).unwrap().map(0..1, |n| n).window(0).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(ThreadPool::new(0).unwrap_err().to_string().contains("at least 1"));
}

#[test]
fn futures_are_waited_for_together() {
    let (pool, gate, held) = blocked_pool();
    let fast = ThreadPool::new(1).unwrap();
    let quick = fast.submit(|| ()).unwrap();
    let (done, pending) = wait([held, quick], When::FirstCompleted, None);
    assert_eq!((done.len(), pending.len()), (1, 1));
    let failing = fast.submit(|| panic!("first error")).unwrap();
    let (done, pending) = wait(pending.into_iter().chain([failing]), When::FirstError, None);
    assert_eq!((done.len(), pending.len()), (1, 1));
    gate.open();
    assert_eq!(as_completed(pending).map(Future::wait).collect::<Vec<_>>(), [Ok(())]);
    drop(pool);
}

#[test]
fn callbacks_run_on_the_thread_that_ends_the_task() {
    let (pool, gate, held) = blocked_pool();
    let later = pool.submit(|| ()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = |what: &'static str| {
        let told = Arc::clone(&told);
        move || told.lock().unwrap().push((what, thread::current().id()))
    };
    held.on_done(tell("first"));
    held.on_done(tell("second"));
    later.on_done(tell("cancelled"));
    assert!(later.cancel());
    gate.open();
    closed(&pool);
    let told = told.lock().unwrap();
    assert_eq!(told[0], ("cancelled", thread::current().id()));
    assert_eq!([told[1].0, told[2].0], ["first", "second"]);
    assert_ne!(told[1].1, thread::current().id());
}

/// A job that says what became of it.
struct Told(Arc<Mutex<Vec<String>>>);

impl Job for Told {
    fn run(self: Box<Self>) {
        self.0.lock().unwrap().push("run".to_owned());
    }
    fn discard(self: Box<Self>) {
        self.0.lock().unwrap().push("discarded".to_owned());
    }
    fn fail(self: Box<Self>, why: &Error) {
        self.0.lock().unwrap().push(why.to_string());
    }
}

#[test]
fn the_caller_may_bring_the_threads() {
    let mine: Arc<Mutex<Vec<thread::JoinHandle<()>>>> = Arc::default();
    let pool = ThreadPool::builder()
        .workers(2)
        .spawn_with({
            let mine = Arc::clone(&mine);
            Box::new(move |mut seat: Seat| {
                let name = format!("mine-{}", seat.index());
                let thread = thread::Builder::new().name(name).spawn(move || {
                    while let Some(job) = seat.next_job() {
                        job.run();
                        while let Some(job) = seat.try_next_job() {
                            job.run();
                        }
                    }
                });
                mine.lock().unwrap().push(thread.unwrap());
                Ok(())
            })
        })
        .build()
        .unwrap();
    let names: Vec<_> = pool
        .map(0..100, |_| thread::current().name().map(str::to_owned))
        .map(|name| name.unwrap().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| name == "mine-0" || name == "mine-1"),
        "{names:?}"
    );
    closed(&pool);
    for thread in mine.lock().unwrap().drain(..) {
        thread.join().unwrap();
    }
}

#[test]
fn a_job_nobody_can_run_is_handed_back() {
    let pool = ThreadPool::builder()
        .workers(2)
        .spawn_with(Box::new(|_seat| Err(fanmap::Panic::new("no threads today").into())))
        .build()
        .unwrap();
    let told = Arc::default();
    let Rejected { job, error } = pool.execute(Box::new(Told(Arc::clone(&told)))).unwrap_err();
    assert!(error.to_string().contains("no threads today"));
    job.run();
    assert_eq!(*told.lock().unwrap(), ["run"]);
    assert_eq!((pool.workers(), pool.queued()), (0, 0));
    closed(&pool);
}

#[test]
fn a_seat_that_fails_breaks_the_pool_for_every_job() {
    let seats: Arc<Mutex<Vec<Seat>>> = Arc::default();
    let pool = ThreadPool::builder()
        .workers(1)
        .spawn_with({
            let seats = Arc::clone(&seats);
            Box::new(move |seat| {
                seats.lock().unwrap().push(seat);
                Ok(())
            })
        })
        .build()
        .unwrap();
    let told = Arc::default();
    pool.execute(Box::new(Told(Arc::clone(&told)))).unwrap();
    pool.execute(Box::new(Told(Arc::clone(&told)))).unwrap();
    let seat = seats.lock().unwrap().pop().unwrap();
    seat.fail(fanmap::Panic::new("the initializer").into());
    assert_eq!(told.lock().unwrap().len(), 2);
    assert!(told.lock().unwrap().iter().all(|what| what.contains("the initializer")));
    let rejected = pool.execute(Box::new(Told(told))).unwrap_err();
    assert!(rejected.error.to_string().contains("the initializer"));
    assert_eq!(pool.join(None), Joined::All);
}

#[test]
fn jobs_left_by_the_last_lost_worker_fail() {
    let seats: Arc<Mutex<Vec<Seat>>> = Arc::default();
    let pool = ThreadPool::builder()
        .workers(1)
        .spawn_with({
            let seats = Arc::clone(&seats);
            Box::new(move |seat| {
                seats.lock().unwrap().push(seat);
                Ok(())
            })
        })
        .build()
        .unwrap();
    let told = Arc::default();
    pool.execute(Box::new(Told(Arc::clone(&told)))).unwrap();
    drop(seats.lock().unwrap().pop());
    assert!(told.lock().unwrap()[0].contains("last worker was lost"));
    pool.close(Pending::Cancel);
    assert_eq!(pool.join(None), Joined::All);
}

#[test]
fn many_submitters_and_cancellers_lose_nothing() {
    let pool = ThreadPool::new(3).unwrap();
    let ran = AtomicUsize::new(0);
    let ran = Arc::new(ran);
    let cancelled: usize = thread::scope(|scope| {
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let futures: Vec<_> = (0..500)
                        .map(|_| {
                            let ran = Arc::clone(&ran);
                            pool.submit(move || {
                                ran.fetch_add(1, Ordering::Relaxed);
                            })
                            .unwrap()
                        })
                        .collect();
                    futures.iter().step_by(3).filter(|future| future.cancel()).count()
                })
            })
            .collect();
        submitters.into_iter().map(|submitter| submitter.join().unwrap()).sum()
    });
    closed(&pool);
    assert_eq!(ran.load(Ordering::Relaxed) + cancelled, 2000);
}

#[test]
fn unordered_results_come_as_they_are_there() {
    let pool = ThreadPool::new(2).unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let mut map = pool
        .map(0..20u64, move |n| {
            if n == 0 {
                held.pass();
            }
            n
        })
        .unordered();
    let mut seen: Vec<u64> = map.by_ref().take(19).collect::<Result<_, _>>().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (1..20).collect::<Vec<_>>());
    gate.open();
    assert_eq!(map.next(), Some(Ok(0)));
    assert_eq!(map.next(), None);
}

#[test]
fn unordered_errors_tell_their_item() {
    let mut failed: Vec<_> = fanmap::map(0..50, work)
        .unordered()
        .filter_map(|result| result.err()?.item())
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, (0..50).filter(|n| n % 7 == 3).collect::<Vec<_>>());
}

#[test]
fn a_map_out_of_time_ends_with_an_error_and_starts_nothing_more() {
    let pool = ThreadPool::new(1).unwrap();
    let gate = Gate::default();
    let ran = Arc::new(AtomicUsize::new(0));
    let task = {
        let (gate, ran) = (gate.clone(), Arc::clone(&ran));
        move |n: u64| {
            if n == 1 {
                gate.pass();
            }
            ran.fetch_add(1, Ordering::Relaxed);
            n
        }
    };
    let mut map = pool.map(0.., task).timeout(Duration::from_millis(20));
    assert_eq!(map.next(), Some(Ok(0)));
    let error = map.next().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::Timeout, Some(1)));
    assert_eq!(map.next(), None);
    gate.open();
    closed(&pool);
    assert_eq!(ran.load(Ordering::Relaxed), 2, "the first, and the one that ran");
}

#[test]
fn a_live_input_is_never_withheld() {
    // Each item is read only once the result of the one before has been handed out.
    let pool = ThreadPool::new(2).unwrap();
    let (reply, replies) = std::sync::mpsc::channel();
    let mut asked = 0;
    let input = std::iter::from_fn(move || {
        if asked > 0 {
            assert_eq!(replies.recv_timeout(Duration::from_secs(60)), Ok(asked - 1));
        }
        asked += 1;
        (asked <= 500).then_some(asked - 1)
    });
    let answer = std::sync::Mutex::new(reply);
    let results: Result<Vec<u64>, _> = pool
        .map(input, move |n| {
            answer.lock().unwrap().send(n).unwrap();
            n
        })
        .collect();
    assert_eq!(results.unwrap(), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_result_is_handed_out_although_the_task_behind_it_is_slow() {
    // Tiny tasks make long runs and late wake-ups; then one waits for what only the consumer can do.
    let pool = ThreadPool::new(2).unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let map = pool.map(0..100_000u64, move |n| {
        if n == 90_000 {
            held.pass();
        }
        n
    });
    for (expected, result) in map.enumerate() {
        assert_eq!(result, Ok(expected as u64));
        if expected == 80_000 {
            gate.open();
        }
    }
}

#[test]
fn two_maps_on_one_pool_take_turns() {
    // The first has the only thread, and never ends; its helper lets the second's go first after a while.
    let pool = ThreadPool::new(1).unwrap();
    let mut endless = pool.map(0u64.., |n| n).window(1 << 20).unwrap();
    assert_eq!(endless.next(), Some(Ok(0)));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let busy = thread::spawn(move || {
        endless
            .take_while(|result| result.is_ok() && stopped.try_recv().is_err())
            .count()
    });
    let squares: Result<Vec<u64>, _> = pool.map(0..100, |n| n * n).collect();
    assert_eq!(squares.unwrap(), (0..100).map(|n| n * n).collect::<Vec<u64>>());
    stop.send(()).unwrap();
    busy.join().unwrap();
}

#[test]
fn closing_to_cancel_ends_a_map_with_what_ran() {
    let pool = ThreadPool::new(1).unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let map = pool.map(0..10u64, move |n| {
        if n == 1 {
            held.pass()
        }
    });
    let results = thread::scope(|s| {
        let results = s.spawn(|| map.collect::<Vec<_>>());
        gate.wait_for(1);
        pool.close(Pending::Cancel);
        gate.open();
        results.join().unwrap()
    });
    assert_eq!(results[..2], [Ok(()), Ok(())]);
    let mut kinds = results[2..].iter().map(|result| result.as_ref().unwrap_err().kind());
    assert!(kinds.len() > 0);
    assert!(kinds.all(|kind| matches!(kind, ErrorKind::Cancelled | ErrorKind::Closed)));
}
