//! The pool of processes, with real processes.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fanmap::bytes::{Chunk, End, Handler, Message, ProcessConfig, Sink, Start};
use fanmap::{Buffer, ErrorKind, Joined, Pending, ProcessPool, Retries};
use proptest::prelude::*;

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn fail_on_odd(x: u64) -> u64 {
    assert!(x % 2 == 0, "{x} is odd");
    x
}

fn die_on_three(x: u64) -> u64 {
    if x == 3 {
        std::process::abort();
    }
    x
}

fn my_pid((): ()) -> u32 {
    std::process::id()
}

/// Waits for the pipe (any file) to have an end: a task that runs until the test says so.
fn wait_for_file(path: String) -> u32 {
    // Opening a FIFO for reading waits until somebody opens it for writing.
    std::fs::File::open(path).expect("the test made the pipe");
    std::process::id()
}

/// Keeps so many bytes for ever.
fn hoard(bytes: usize) -> u32 {
    static KEPT: std::sync::Mutex<Vec<Vec<u8>>> = std::sync::Mutex::new(Vec::new());
    KEPT.lock().unwrap().push(vec![1; bytes]);
    std::process::id()
}

fn zeros(size: usize) -> Buffer<u8> {
    vec![0; size].into()
}

fanmap::register!(
    zeros,
    square,
    echo,
    fail_on_odd,
    die_on_three,
    my_pid,
    wait_for_file,
    hoard
);

/// What the workers run: this test binary, with arguments that name this test.
#[test]
fn worker_entry() {
    if std::env::var_os("FANMAP_TEST_DEADLY").is_some() {
        let invitation = fanmap::bytes::accept().unwrap().unwrap();
        let _ = fanmap::bytes::serve(invitation, &mut Deadly);
    }
    if std::env::var_os("FANMAP_TEST_IDLE").is_some() {
        let invitation = fanmap::bytes::accept().unwrap().unwrap();
        let _ = fanmap::bytes::serve(invitation, &mut Idle);
        std::process::exit(0);
    }
    fanmap::init();
}

/// A worker that ends when it is sent its first task, before it starts it.
struct Deadly;

impl Handler for Deadly {
    fn setup(&mut self, _: Vec<u8>) -> Result<(), Vec<u8>> {
        Ok(())
    }

    fn define(&mut self, _: u64, _: Message) {
        std::process::exit(7);
    }

    fn forget(&mut self, _: u64) {}

    fn run(&mut self, _: u64, _: Message, _: &mut Chunk<'_>) -> Result<(), fanmap::Error> {
        unreachable!("it has ended")
    }
}

/// A worker that has done each task when it starts it. It is not ready before it could open the file that it is told of.
struct Idle;

impl Handler for Idle {
    fn setup(&mut self, gate: Vec<u8>) -> Result<(), Vec<u8>> {
        if !gate.is_empty() {
            std::fs::File::open(String::from_utf8(gate).unwrap()).unwrap();
        }
        Ok(())
    }

    fn define(&mut self, _: u64, _: Message) {}

    fn forget(&mut self, _: u64) {}

    fn run(&mut self, _: u64, _: Message, chunk: &mut Chunk<'_>) -> Result<(), fanmap::Error> {
        while chunk.start(self).is_some() {
            chunk.ended();
            chunk.values(self, 1, Vec::new())?;
        }
        Ok(())
    }
}

/// What makes a worker out of this test binary, with a variable of its environment that says which.
fn worker_with(variable: &'static str) -> Start {
    Start::Direct(Box::new(move || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["worker_entry", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(variable, "1");
        command
    }))
}

/// Tells a test which of its tasks have ended, and holds all but one of them until it is told not to.
struct Holds {
    needed: u64,
    holds: std::sync::atomic::AtomicBool,
    told: mpsc::Sender<u64>,
}

impl Sink for Holds {
    fn finished(&self, first: u64, count: u32, end: End) {
        assert!(matches!(end, End::Outcome(fanmap::Outcome::Value(_))), "{end:?}");
        (first..first + u64::from(count)).for_each(|key| self.told.send(key).unwrap());
    }

    fn holds(&self, first: u64, count: u32) -> bool {
        self.holds.load(std::sync::atomic::Ordering::SeqCst)
            && !(first..first + u64::from(count)).contains(&self.needed)
    }
}

#[test]
fn what_is_held_back_waits_in_the_queue_and_others_pass_it() {
    for closes in [false, true] {
        let config = ProcessConfig {
            workers: 1,
            ..Default::default()
        };
        let pool = fanmap::bytes::Pool::new(config, worker_with("FANMAP_TEST_IDLE")).unwrap();
        let function = pool.function("f", Vec::new()).unwrap();
        let (told, heard) = mpsc::channel();
        let sink = |needed, holds: bool| {
            std::sync::Arc::new(Holds {
                needed,
                holds: holds.into(),
                told: told.clone(),
            })
        };
        let (held, free) = (sink(2, true), sink(0, false));
        for key in 0..4 {
            pool.submit_run(&function, Vec::new(), 1, held.clone(), key).unwrap();
        }
        pool.submit_run(&function, Vec::new(), 1, free.clone(), 9).unwrap();
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], [2, 9]);
        assert!(heard.try_recv().is_err());
        if closes {
            pool.close(Pending::Finish);
        } else {
            held.holds.store(false, std::sync::atomic::Ordering::SeqCst);
            pool.resume();
        }
        let rest: Vec<u64> = (0..3).map(|_| heard.recv().unwrap()).collect();
        assert_eq!(rest, [0, 1, 3]);
        pool.close(Pending::Finish);
        assert_eq!(pool.join(None), Joined::All);
    }
}

#[test]
fn tasks_can_be_taken_back_one_by_one_until_the_first_worker_is_ready() {
    let gate = Gate::new("reclaim");
    let config = ProcessConfig {
        workers: 1,
        ..Default::default()
    };
    let pool = fanmap::bytes::Pool::new(config, worker_with("FANMAP_TEST_IDLE")).unwrap();
    pool.set_setup(gate.path().into_bytes(), Vec::new()).unwrap();
    let function = pool.function("f", Vec::new()).unwrap();
    let (told, heard) = mpsc::channel();
    let sink = |told: &mpsc::Sender<u64>| -> std::sync::Arc<dyn Sink> {
        std::sync::Arc::new(Holds {
            needed: 0,
            holds: false.into(),
            told: told.clone(),
        })
    };
    let (ours, others) = (sink(&told), sink(&told));
    pool.submit_run(&function, Vec::new(), 1, others, 9).unwrap();
    pool.submit_run(&function, Vec::new(), 3, ours.clone(), 0).unwrap();
    pool.submit_run(&function, Vec::new(), 1, ours.clone(), 3).unwrap();
    assert_eq!((pool.reclaim(&ours), pool.reclaim(&ours)), (Some(0), Some(1)));
    assert!(heard.try_recv().is_err(), "nobody is told of those");
    gate.open();
    let done: Vec<u64> = (0..3).map(|_| heard.recv().unwrap()).collect();
    assert_eq!(done, [9, 2, 3]);
    pool.submit_run(&function, Vec::new(), 1, ours.clone(), 4).unwrap();
    assert_eq!(pool.reclaim(&ours), None, "a worker is there");
    assert_eq!(heard.recv().unwrap(), 4);
    pool.close(Pending::Finish);
    assert_eq!(pool.join(None), Joined::All);
}

#[test]
fn a_pool_that_closes_ends_though_its_last_task_is_taken_back() {
    let config = ProcessConfig {
        workers: 1,
        ..Default::default()
    };
    let gate = Gate::new("reclaim-last");
    let pool = fanmap::bytes::Pool::new(config, worker_with("FANMAP_TEST_IDLE")).unwrap();
    pool.set_setup(gate.path().into_bytes(), Vec::new()).unwrap();
    let function = pool.function("f", Vec::new()).unwrap();
    let sink: std::sync::Arc<dyn Sink> = std::sync::Arc::new(Tell(mpsc::channel().0));
    pool.submit_run(&function, Vec::new(), 1, sink.clone(), 0).unwrap();
    pool.close(Pending::Finish);
    assert_eq!(pool.reclaim(&sink), Some(0));
    assert_eq!(pool.join(None), Joined::All);
}

/// Tells a test how its one task ended.
struct Tell(mpsc::Sender<End>);

impl Sink for Tell {
    fn finished(&self, _: u64, _: u32, end: End) {
        self.0.send(end).unwrap();
    }
}

/// Cancels its one task once more when it hears that it was cancelled, as another thread may at the same time.
struct CancelsToo {
    ticket: std::sync::OnceLock<fanmap::bytes::Ticket>,
    told: mpsc::Sender<Option<bool>>,
}

impl Sink for CancelsToo {
    fn finished(&self, _: u64, _: u32, _: End) {
        let told = self.ticket.get().map(fanmap::bytes::Ticket::cancel);
        self.told.send(told).unwrap();
    }
}

#[test]
fn who_cancels_a_task_that_another_is_just_cancelling_is_told_that_it_is_cancelled() {
    let never = || std::process::Command::new("/bin/cat");
    let pool = fanmap::bytes::Pool::new(ProcessConfig::default(), Start::Direct(Box::new(never))).unwrap();
    let function = pool.function("f", Vec::new()).unwrap();
    let (told, heard) = mpsc::channel();
    let sink = std::sync::Arc::new(CancelsToo {
        ticket: std::sync::OnceLock::new(),
        told,
    });
    let ticket = pool.submit(&function, Vec::new(), sink.clone(), 0).unwrap();
    sink.ticket.set(ticket.clone()).unwrap();
    assert!(ticket.cancel());
    assert_eq!(heard.recv().unwrap(), Some(true));
    pool.end_workers(true);
    assert_eq!(pool.join(None), Joined::All);
    assert!(heard.try_recv().is_err(), "it is told once");
}

/// Why a pool of `start` broke, which it must with its first task.
fn why_broken(workers: usize, start: Start) -> String {
    let config = ProcessConfig {
        workers,
        ..Default::default()
    };
    let pool = fanmap::bytes::Pool::new(config, start).unwrap();
    let (tell, told) = mpsc::channel();
    let function = pool.function("f", Vec::new()).unwrap();
    let ticket = pool.submit(&function, Vec::new(), std::sync::Arc::new(Tell(tell)), 0);
    let reason = match ticket.map(|_| told.recv_timeout(Duration::from_secs(60)).unwrap()) {
        Ok(End::Broken(broken)) => broken.reason.clone(),
        Ok(end) => panic!("it has not broken, but {end:?}"),
        Err(error) => panic!("it was refused: {error}"),
    };
    assert_eq!(
        pool.submit(&function, Vec::new(), std::sync::Arc::new(Tell(mpsc::channel().0)), 0)
            .unwrap_err()
            .kind(),
        ErrorKind::Broken
    );
    pool.close(Pending::Finish);
    assert_eq!(pool.join(None), Joined::All);
    reason
}

#[test]
fn workers_that_end_before_they_start_a_task_are_not_replaced_for_ever() {
    for workers in 1..3 {
        let reason = why_broken(workers, worker_with("FANMAP_TEST_DEADLY"));
        assert!(reason.contains(&format!("{} times", 3 * workers)), "{reason}");
        assert!(reason.contains("exit code 7"), "{reason}");
    }
}

#[test]
fn a_program_that_cannot_be_started_breaks_the_pool_and_is_named() {
    let missing = || std::process::Command::new("/no/such/program");
    for start in [Start::Direct(Box::new(missing)), Start::Template(Box::new(missing))] {
        let reason = why_broken(2, start);
        assert!(reason.contains("/no/such/program: No such file"), "{reason}");
    }
}

#[test]
fn a_template_that_ends_again_and_again_breaks_the_pool_with_its_exit() {
    let fails = || {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "exit 9"]);
        command
    };
    let reason = why_broken(2, Start::Template(Box::new(fails)));
    assert!(reason.contains("exit code 9"), "{reason}");
}

fn pool(workers: usize) -> ProcessPool {
    builder().workers(workers).build().unwrap()
}

fn builder() -> fanmap::ProcessPoolBuilder {
    ProcessPool::builder().worker_args(["worker_entry", "--exact", "--nocapture", "--test-threads=1"])
}

fn end(pool: &ProcessPool) {
    pool.close(Pending::Finish);
    assert_eq!(pool.join(None), Joined::All);
    assert_eq!(pool.workers(), []);
}

/// A named pipe in a directory of its own.
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("fanmap-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(directory.join("gate"))
            .status()
            .unwrap();
        assert!(made.success());
        Self(directory)
    }

    fn path(&self) -> String {
        self.0.join("gate").to_str().unwrap().to_owned()
    }

    fn directory(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }

    /// Waits until somebody waits at the gate, and lets them through.
    fn open(&self) {
        drop(std::fs::File::options().write(true).open(self.path()).unwrap());
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What its descriptors are, beside the streams.
fn descriptors((): ()) -> Vec<String> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let others = listed.filter(|entry| !["0", "1", "2"].iter().any(|stream| entry.file_name() == *stream));
    let meant = others.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    meant.map(|path| path.display().to_string()).collect()
}

fanmap::register!(descriptors);

#[test]
fn a_worker_keeps_no_descriptor_of_its_parents_open() {
    // Not closed on exec, as what C libraries open often is.
    let (mut reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::empty())
        .map(|(reader, writer)| (std::fs::File::from(reader), writer))
        .unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let pipe = std::fs::read_link(link).unwrap().display().to_string();
    let pool = pool(1);
    let held = pool.submit(descriptors, ()).unwrap().wait().unwrap();
    assert!(
        held.iter().any(|meant| meant.contains("eventfd")),
        "its own are there: {held:?}"
    );
    assert!(!held.contains(&pipe), "{held:?}");
    // So the pipe ends with the last writer here, though the worker lives.
    drop(writer);
    let (done, ended) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let read = std::io::Read::read(&mut reader, &mut [0]).unwrap();
        done.send(read).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(0));
    reading.join().unwrap();
    assert_eq!(pool.workers().len(), 1);
    end(&pool);
}

#[test]
fn a_task_runs_in_another_process() {
    let pool = pool(1);
    let pid = pool.submit(my_pid, ()).unwrap().wait().unwrap();
    assert_ne!(pid, std::process::id());
    assert_eq!(pool.workers(), [pid]);
    end(&pool);
}

#[test]
fn results_of_a_storm_come_while_a_task_among_them_waits() {
    let pool = pool(1);
    let gate = Gate::new("storm");
    let storm = |first: u64| {
        let tasks = (first..first + 500).map(|n| pool.submit(square, n).unwrap());
        tasks.collect::<Vec<_>>()
    };
    // Until they are known to be tiny.
    for future in storm(0) {
        future.wait().unwrap();
    }
    let before = storm(0);
    let waiting = pool.submit(wait_for_file, gate.path()).unwrap();
    let behind = storm(500);
    for (n, future) in (0..).zip(before) {
        assert_eq!(future.wait(), Ok(n * n));
    }
    gate.open();
    waiting.wait().unwrap();
    for (n, future) in (500..).zip(behind) {
        assert_eq!(future.wait(), Ok(n * n));
    }
    end(&pool);
}

#[test]
fn a_long_argument_and_result_pass_whole() {
    let pool = pool(1);
    let long: Vec<u8> = (0..5_000_000u32).map(|k| (k * 7) as u8).collect();
    assert!(pool.submit(echo, long.clone()).unwrap().wait().unwrap() == long);
    end(&pool);
}

#[test]
fn tiny_tasks_that_travel_together_fail_alone() {
    let pool = pool(2);
    let items = (4..2000).chain([3]).chain(2000..4000);
    let results: Vec<_> = pool.map(items.clone(), die_on_three).unwrap().collect();
    for (result, item) in results.into_iter().zip(items.clone()) {
        match result {
            Ok(value) => assert_eq!(value, item),
            Err(error) => assert_eq!((error.kind(), item), (ErrorKind::WorkerLost, 3)),
        }
    }
    let results: Vec<_> = pool.map(items.clone(), fail_on_odd).unwrap().collect();
    for (index, (result, item)) in results.into_iter().zip(items).enumerate() {
        match result {
            Ok(value) => assert_eq!((value, item % 2), (item, 0)),
            Err(error) => assert!(
                item % 2 == 1
                    && error.item() == Some(index as u64)
                    && error.message().contains(&format!("{item} is odd")),
                "{error}"
            ),
        }
    }
}

#[test]
fn an_item_of_an_input_that_waits_for_its_task_is_not_kept_for_others_to_join() {
    let (pool, gate) = (pool(2), Gate::new("live"));
    // Each pipe has an end once its task has begun; before, nothing else is read.
    let gates = (0..20).flat_map(|_| {
        let opened = std::iter::from_fn(|| {
            gate.open();
            None
        });
        let tiny = std::iter::repeat_n("/dev/null".to_owned(), 199);
        tiny.chain([gate.path()]).chain(opened)
    });
    let map = pool.map(gates, wait_for_file).unwrap().window(1000).unwrap();
    assert_eq!(map.filter(Result::is_ok).count(), 20 * 200);
}

#[test]
fn a_pool_whose_last_ends_a_waiting_thread_has_heard_ends_all_the_same() {
    for _ in 0..20 {
        let pool = pool(2);
        let futures: Vec<_> = (0..200).map(|x| pool.submit(square, x).unwrap()).collect();
        pool.close(Pending::Finish);
        assert!(
            futures
                .into_iter()
                .zip(0..)
                .all(|(future, x)| future.wait() == Ok(x * x))
        );
        assert_eq!(pool.join(Some(Instant::now() + Duration::from_secs(60))), Joined::All);
    }
}

#[test]
fn a_map_reads_fewer_items_ahead_that_have_large_results() {
    let pool = pool(2);
    let read = Cell::new(0);
    let sizes = (0..60).map(|_| {
        read.set(read.get() + 1);
        8 << 20
    });
    let mut taken = 0;
    for result in pool.map(sizes, zeros).unwrap() {
        assert_eq!(result.unwrap().len(), 8 << 20);
        taken += 1;
        // 64 MiB may be under way.
        assert!(read.get() - taken <= 8, "{} are read, {taken} were taken", read.get());
    }
    assert_eq!(taken, 60);
    end(&pool);
}

#[test]
fn a_panic_is_its_own_tasks_error() {
    let pool = pool(2);
    let results: Vec<_> = pool.map(0..6u64, fail_on_odd).unwrap().collect();
    for (k, result) in results.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(*value, k as u64),
            Err(error) => {
                assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(k as u64)));
                assert!(error.message().contains(&format!("{k} is odd")), "{error}");
            }
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 3);
    end(&pool);
}

#[test]
fn a_lost_worker_fails_only_its_own_task() {
    let pool = pool(2);
    let results: Vec<_> = pool.map(0..200u64, die_on_three).unwrap().collect();
    for (k, result) in results.iter().enumerate() {
        if k == 3 {
            let error = result.as_ref().unwrap_err();
            assert_eq!((error.kind(), error.item()), (ErrorKind::WorkerLost, Some(3)));
            assert!(
                error.message().contains("SIGABRT") && error.message().contains("die_on_three`"),
                "{error}"
            );
            let lost = error.worker().unwrap();
            assert!(lost.exit == fanmap::Exit::Signal(6) && !lost.out_of_memory);
            assert!(error.message().contains(&lost.pid.to_string()));
            assert!(lost.call.function.ends_with("die_on_three"));
        } else {
            assert_eq!(result, &Ok(k as u64));
        }
    }
    end(&pool);
}

#[test]
fn a_closing_pool_ends_though_its_last_worker_dies() {
    let pool = pool(1);
    let future = pool.submit(die_on_three, 3).unwrap();
    end(&pool);
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::WorkerLost);
}

#[test]
fn workers_that_are_asked_for_come_without_a_task() {
    let pool = fanmap::bytes::Pool::new(
        fanmap::bytes::ProcessConfig {
            workers: 3,
            ..Default::default()
        },
        fanmap::bytes::Start::Direct(Box::new(|| {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["worker_entry", "--exact", "--nocapture", "--test-threads=1"]);
            command.env("FANMAP_WORKER_OF", std::process::id().to_string());
            command
        })),
    )
    .unwrap();
    for _ in 0..2 {
        pool.want_worker().unwrap();
    }
    assert_eq!(pool.await_starts(None), Joined::All);
    assert_eq!(pool.workers().len(), 2);
    assert!(pool.has_worker(pool.workers()[0]));
    pool.close(Pending::Finish);
    assert_eq!(pool.join(None), Joined::All);
}

#[test]
fn a_worker_is_replaced_after_its_tasks() {
    let pool = builder().workers(1).max_tasks_per_worker(2).build().unwrap();
    let pids: Vec<u32> = pool.map([(); 6], my_pid).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 3);
    for pair in pids.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    end(&pool);
}

#[test]
fn a_worker_that_has_too_much_memory_between_tasks_is_replaced() {
    let pool = builder().workers(1).max_memory_per_worker(16 << 20).build().unwrap();
    let sizes = [40 << 20, 1, 1, 40 << 20, 1, 40 << 20];
    let pids: Vec<u32> = pool.map(sizes, hoard).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!((pids[1], pids[4]), (pids[3], pids[5]));
    end(&pool);
}

#[test]
fn a_task_that_goes_past_the_memory_limit_is_lost_alone_and_told_the_limit() {
    let pool = builder().workers(1).worker_memory_limit(64 << 20).build().unwrap();
    let results: Vec<_> = pool.map([1, 90 << 20, 1], hoard).unwrap().collect();
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::WorkerLost, Some(1)));
    assert_eq!(error.worker().unwrap().memory_limit, Some(64 << 20));
    assert!(error.message().contains("limited to 64 MiB"), "{error}");
    end(&pool);
    for nonsense in [builder().worker_memory_limit(64), builder().max_memory_per_worker(0)] {
        let error = nonsense.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("bytes"), "{error}");
    }
}

#[test]
fn a_waiting_task_is_cancelled_exactly_and_a_running_one_is_not() {
    let (pool, gate) = (pool(1), Gate::new("cancel"));
    let running = pool.submit(wait_for_file, gate.path()).unwrap();
    let waiting = pool.submit(square, 3).unwrap();
    assert!(waiting.cancel());
    assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    gate.open();
    let pid = running.wait().unwrap();
    assert_eq!(pool.submit(my_pid, ()).unwrap().wait().unwrap(), pid);
    end(&pool);
}

#[test]
fn nothing_waits_behind_a_slow_task_while_a_worker_is_idle() {
    let (pool, gate) = (pool(2), Gate::new("slow"));
    // Both workers are up and have done a task, so tasks are sent ahead from now on.
    pool.map(0..8u64, square).unwrap().for_each(drop);
    let slow = pool.submit(wait_for_file, gate.path()).unwrap();
    let others: Vec<_> = (0..40u64).map(|k| pool.submit(square, k).unwrap()).collect();
    for (k, other) in others.into_iter().enumerate() {
        assert_eq!(other.wait().unwrap(), (k * k) as u64);
    }
    assert!(!slow.is_done());
    gate.open();
    slow.wait().unwrap();
    end(&pool);
}

#[test]
fn closing_cancels_what_has_not_started_if_asked() {
    let (pool, gate) = (pool(1), Gate::new("close"));
    let running = pool.submit(wait_for_file, gate.path()).unwrap();
    let waiting: Vec<_> = (0..5).map(|k| pool.submit(square, k).unwrap()).collect();
    // Opening the gate returns once the task waits there, so it has started; it is let through only then.
    gate.open();
    pool.close(Pending::Cancel);
    assert!(running.wait().is_ok());
    for future in waiting {
        if let Err(error) = future.wait() {
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    }
    assert_eq!(pool.submit(square, 1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.join(None), Joined::All);
}

#[test]
fn callbacks_run_when_the_task_ends() {
    let pool = pool(1);
    let (done, heard) = mpsc::channel();
    let future = pool.submit(square, 9).unwrap();
    future.on_done(move || done.send(()).unwrap());
    heard.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(future.wait().unwrap(), 81);
    end(&pool);
}

#[test]
fn a_dropped_map_leaves_the_pool_usable() {
    let pool = pool(2);
    let mut map = pool.map(0.., square).unwrap();
    assert_eq!(map.next(), Some(Ok(0)));
    drop(map);
    assert_eq!(pool.submit(square, 5).unwrap().wait(), Ok(25));
    end(&pool);
}

#[test]
fn an_unregistered_function_is_refused_at_the_call() {
    fn stranger(x: u64) -> u64 {
        x
    }
    let pool = pool(1);
    let error = pool.submit(stranger, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("register!"), "{error}");
}

#[test]
fn workers_that_cannot_live_break_the_pool() {
    let pool = ProcessPool::builder()
        .workers(2)
        .worker_args(["--no-such-option"])
        .build()
        .unwrap();
    let error = pool.submit(square, 1).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broken);
    assert!(error.message().contains("before it was ready"), "{error}");
    assert_eq!(pool.submit(square, 1).unwrap_err().kind(), ErrorKind::Broken);
    end(&pool);
}

#[test]
fn an_idle_pool_gives_its_processes_up_and_starts_them_again() {
    let pool = builder().workers(1).idle(Duration::from_millis(1)).build().unwrap();
    let first = pool.submit(my_pid, ()).unwrap().wait().unwrap();
    // Closed or not, `join` waits until the supervisor has nothing left.
    assert_eq!(pool.join(Some(Instant::now() + Duration::from_secs(60))), Joined::All);
    assert_eq!(pool.workers(), []);
    assert_ne!(pool.submit(my_pid, ()).unwrap().wait().unwrap(), first);
    end(&pool);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_parallel_map_is_the_map(items in prop::collection::vec(any::<u64>(), 0..300), workers in 1usize..4, window in 1usize..50) {
        let pool = pool(workers);
        let parallel: Result<Vec<u64>, _> = pool.map(items.clone(), square).unwrap().window(window).unwrap().collect();
        prop_assert_eq!(parallel.unwrap(), items.into_iter().map(square).collect::<Vec<_>>());
        end(&pool);
    }
}

/// The sum, the parts swapped, and what did not change.
fn swap(arrays: (Buffer<f64>, String, Buffer<u8>)) -> (f64, Buffer<u8>, String, Buffer<f64>) {
    let (numbers, text, bytes) = arrays;
    (numbers.iter().sum(), bytes, text, numbers)
}

fn refuse(_: Fussy) -> Fussy {
    Fussy
}

fanmap::register!(swap, refuse);

/// What panics when the parent decodes it.
struct Fussy;

impl serde::Serialize for Fussy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(std::process::id())
    }
}

impl<'de> serde::Deserialize<'de> for Fussy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let made_in = u32::deserialize(deserializer)?;
        assert_eq!(made_in, std::os::unix::process::parent_id(), "not in the parent");
        Ok(Fussy)
    }
}

#[test]
fn buffers_travel_whole_whatever_their_size() {
    let pool = pool(2);
    for len in [0, 1, 8191, 8192, 100_000, 1_000_000] {
        let numbers: Buffer<f64> = (0..len).map(f64::from).collect();
        let bytes: Buffer<u8> = (0..len).map(|n| n as u8).collect();
        let expected = (
            numbers.iter().sum(),
            bytes.clone(),
            "between".to_owned(),
            numbers.clone(),
        );
        let argument = (numbers, "between".to_owned(), bytes);
        let results: Vec<_> = pool.map([argument.clone(), argument], swap).unwrap().collect();
        assert!(results == [Ok(expected.clone()), Ok(expected)], "{len}");
    }
    end(&pool);
}

#[test]
fn a_panic_in_decoding_is_its_own_tasks_error() {
    let pool = pool(1);
    let error = pool.submit(refuse, Fussy).unwrap().wait().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.message().contains("not in the parent"), "{error}");
    assert_eq!(pool.submit(square, 3).unwrap().wait(), Ok(9));
    end(&pool);
}

#[test]
fn a_task_out_of_time_is_ended_and_nothing_else() {
    let gate = Gate::new("overdue");
    let limit = Duration::from_millis(50);
    let pool = builder().workers(1).task_timeout(limit).build().unwrap();
    let paths = [gate.path(), "/dev/null".to_owned()];
    let results: Vec<_> = pool.map(paths, wait_for_file).unwrap().collect();
    let error = results[0].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::TaskTimeout, Some(0)));
    assert!(results[1].is_ok());
    let late = pool.submit(wait_for_file, gate.path()).unwrap();
    assert_eq!(late.wait().unwrap_err().kind(), ErrorKind::TaskTimeout);
    end(&pool);
}

/// Notes that it was called; how often it was by then. Each time is a file of its own, so no note is lost with a process.
fn note(directory: &str) -> usize {
    let calls = || std::fs::read_dir(directory).unwrap().flatten();
    let calls = || {
        calls()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("call"))
            .count()
    };
    let call = std::path::Path::new(directory).join(format!("call-{}", calls()));
    std::fs::File::create_new(call).unwrap();
    calls()
}

/// Fails so often, in this way, before it returns how often it was called.
fn fail_first((directory, how, times): (String, String, usize)) -> usize {
    let call = note(&directory);
    if call <= times {
        match how.as_str() {
            "panic" => panic!("call {call}"),
            "abort" => std::process::abort(),
            _ => drop(std::fs::File::open(std::path::Path::new(&directory).join("gate"))),
        }
    }
    call
}

fanmap::register!(fail_first);

#[test]
fn a_task_is_tried_again_however_it_failed() {
    let limit = Duration::from_millis(500);
    let pool = builder().workers(2).retries(2).task_timeout(limit).build().unwrap();
    let gates = ["panic", "abort", "hang"].map(|how| (Gate::new(&format!("again-{how}")), how));
    let calls = gates.iter().map(|(gate, how)| (gate.directory(), how.to_string(), 2));
    let results: Result<Vec<usize>, _> = pool.map(calls.collect::<Vec<_>>(), fail_first).unwrap().collect();
    assert_eq!(results, Ok(vec![3; 3]));
    end(&pool);
}

#[test]
fn a_task_that_fails_for_good_tells_every_attempt() {
    let gate = Gate::new("for-good");
    let pool = builder().workers(1).retries(2).build().unwrap();
    let failing = (gate.directory(), "panic".to_owned(), usize::MAX);
    let error = pool.submit(fail_first, failing).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    for told in ["call 3", "attempt 1 failed", "call 1", "attempt 2 failed", "call 2"] {
        assert!(error.message().contains(told), "{error}");
    }
    assert_eq!(note(&gate.directory()), 4);
    end(&pool);
}

#[test]
fn what_is_not_to_be_tried_again_is_run_once() {
    let again = || Retries::new(5);
    let cases = [
        ("panic", again().panicked(false), ErrorKind::Panicked),
        ("abort", again().worker_lost(false), ErrorKind::WorkerLost),
        ("hang", again().task_timeout(false), ErrorKind::TaskTimeout),
        ("panic", Retries::new(0), ErrorKind::Panicked),
    ];
    for (case, (how, retries, kind)) in cases.into_iter().enumerate() {
        let gate = Gate::new(&format!("once-{case}"));
        // The others have as long as they take: a panic may print where it came from.
        let limit = Duration::from_millis(if how == "hang" { 100 } else { 3_600_000 });
        let pool = builder()
            .workers(1)
            .task_timeout(limit)
            .retries(retries)
            .build()
            .unwrap();
        let failing = (gate.directory(), how.to_owned(), 1);
        let error = pool.submit(fail_first, failing).unwrap().wait().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(note(&gate.directory()), 2, "{how}");
        end(&pool);
    }
}

#[test]
fn a_task_that_rests_before_its_next_try_keeps_no_worker() {
    let gate = Gate::new("rests");
    let retries = Retries::new(1).wait(Duration::from_secs(3600));
    let pool = builder().workers(1).retries(retries).build().unwrap();
    let resting = pool
        .submit(fail_first, (gate.directory(), "panic".to_owned(), 1))
        .unwrap();
    assert_eq!(pool.submit(square, 3).unwrap().wait(), Ok(9));
    assert!(!resting.is_done());
    assert!(resting.cancel());
    end(&pool);
}

#[test]
fn waits_between_tries_do_not_shrink() {
    for factor in [0.5, f64::NAN, f64::INFINITY] {
        let error = builder().retries(Retries::new(1).factor(factor)).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("at least 1"), "{error}");
    }
}

mod as_in_a_users_crate {
    fanmap::test_worker!();

    #[test]
    fn a_test_needs_no_main_and_no_arguments() {
        let pool = fanmap::ProcessPool::new(1).unwrap();
        assert_eq!(pool.submit(super::square, 5).unwrap().wait(), Ok(25));
    }
}
