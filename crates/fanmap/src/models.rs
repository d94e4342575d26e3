//! Loom models of what threads meet at: every interleaving of a few steps.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p fanmap --lib --release`

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::brake::Brake;
use crate::flow::{Items, Results};
use crate::lend::{Places, lending};
use crate::queue::{Joined, Next, Offer, Pending, Place, Queue};
use crate::task::Job;

/// What workers have published.
#[derive(Default)]
struct Outcomes(Mutex<Vec<u32>>, Condvar);

impl Outcomes {
    fn publish(&self, job: u32) {
        self.0.lock().unwrap().push(job);
        self.1.notify_all();
    }

    fn wait_for(&self, job: u32) {
        let mut published = self.0.lock().unwrap();
        while !published.contains(&job) {
            published = self.1.wait(published).unwrap();
        }
    }

    fn sorted(&self) -> Vec<u32> {
        let mut published = self.0.lock().unwrap().clone();
        published.sort_unstable();
        published
    }
}

/// A worker as `Seat::run` is one: it rests before it publishes.
fn work(queue: &Queue<u32>, outcomes: &Outcomes) {
    let mut place = Place::Idle;
    while let Next::Job(job) = queue.next(place, 0) {
        let rests = queue.rest();
        outcomes.publish(job);
        place = if rests { Place::Idle } else { Place::Busy };
        if let Some(job) = queue.try_next(place) {
            outcomes.publish(job);
            place = Place::Busy;
        }
    }
}

/// Offers a job, bringing the worker that is wanted.
fn submit(queue: &Arc<Queue<u32>>, outcomes: &Arc<Outcomes>, job: u32) -> Option<thread::JoinHandle<()>> {
    match queue.offer(job, true) {
        Offer::Taken => None,
        Offer::NeedsWorker(job, _) => {
            let (queue2, outcomes2) = (Arc::clone(queue), Arc::clone(outcomes));
            let worker = thread::spawn(move || work(&queue2, &outcomes2));
            assert!(matches!(queue.offer(job, true), Offer::Taken), "its place is reserved");
            Some(worker)
        }
        Offer::Refused(..) => panic!("the queue is open"),
    }
}

fn end(queue: &Queue<u32>, workers: Vec<Option<thread::JoinHandle<()>>>) {
    assert!(queue.close(Pending::Finish).is_empty());
    assert!(matches!(queue.join(None), Joined::All));
    workers.into_iter().flatten().for_each(|worker| worker.join().unwrap());
}

#[test]
fn every_job_is_run_once_and_the_workers_end() {
    loom::model(|| {
        let (queue, outcomes) = (Arc::new(Queue::new(1, None)), Arc::default());
        let workers = vec![submit(&queue, &outcomes, 1), submit(&queue, &outcomes, 2)];
        end(&queue, workers);
        assert_eq!(outcomes.sorted(), [1, 2]);
    });
}

#[test]
fn two_workers_share_the_jobs_and_no_wake_up_is_lost() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (queue, outcomes) = (Arc::new(Queue::new(2, None)), Arc::default());
        let workers = vec![submit(&queue, &outcomes, 1), submit(&queue, &outcomes, 2)];
        // Both are published although nobody closes the queue: neither waits for a wake-up that went elsewhere.
        outcomes.wait_for(1);
        outcomes.wait_for(2);
        end(&queue, workers);
        assert_eq!(outcomes.sorted(), [1, 2]);
    });
}

#[test]
fn who_has_an_outcome_finds_its_worker_idle() {
    loom::model(|| {
        let (queue, outcomes) = (Arc::new(Queue::new(2, None)), Arc::default());
        let first = submit(&queue, &outcomes, 1);
        outcomes.wait_for(1);
        let second = submit(&queue, &outcomes, 2);
        assert!(second.is_none(), "no other worker is wanted");
        end(&queue, vec![first]);
        assert_eq!(outcomes.sorted(), [1, 2]);
    });
}

#[test]
fn a_worker_that_is_lost_leaves_no_job_behind() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, None));
        assert!(matches!(queue.offer(1, true), Offer::NeedsWorker(..)));
        let lost = {
            let queue = Arc::clone(&queue);
            // Its thread could not be brought.
            thread::spawn(move || Vec::from(queue.leave(Place::Idle, 0)))
        };
        let handed_back = match queue.offer(1, false) {
            Offer::Taken => None,
            Offer::Refused(job, _) | Offer::NeedsWorker(job, _) => Some(job),
        };
        let orphans = lost.join().unwrap();
        assert_eq!(handed_back.is_some(), orphans.is_empty());
        assert_eq!((queue.workers(), queue.len()), (0, 0));
    });
}

#[test]
fn closing_races_with_offering_and_each_job_is_run_or_refused() {
    loom::model(|| {
        let (queue, outcomes) = (Arc::new(Queue::new(1, None)), Arc::<Outcomes>::default());
        let worker = submit(&queue, &outcomes, 1);
        let closing = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || Vec::from(queue.close(Pending::Cancel)))
        };
        let refused = matches!(queue.offer(2, true), Offer::Refused(..));
        let cancelled = closing.join().unwrap();
        assert!(matches!(queue.join(None), Joined::All));
        worker.into_iter().for_each(|worker| worker.join().unwrap());
        let mut all = outcomes.sorted();
        all.extend(cancelled);
        all.extend(refused.then_some(2));
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn what_is_lent_is_gone_when_the_call_returns() {
    struct Touch<'a>(&'a AtomicUsize);
    impl Job for Touch<'_> {
        fn run(self: Box<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn discard(self: Box<Self>) {
            self.0.fetch_add(10, Ordering::Relaxed);
        }
    }
    loom::model(|| {
        let touched = AtomicUsize::new(0);
        let threads = lending(|lender| {
            let (run, discarded) = (
                lender.lend(Box::new(Touch(&touched))),
                lender.lend(Box::new(Touch(&touched))),
            );
            [
                thread::spawn(move || run.run()),
                thread::spawn(move || discarded.discard()),
            ]
        });
        // Relaxed: the count orders it.
        assert_eq!(touched.load(Ordering::Relaxed), 11);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn every_place_is_written_by_one() {
    struct Fill<'a>(&'a Places<usize>);
    impl Job for Fill<'_> {
        fn run(self: Box<Self>) {
            while let Some(mut run) = self.0.claim(2) {
                let range = run.range();
                run.fill(range);
            }
        }
        fn discard(self: Box<Self>) {}
    }
    loom::model(|| {
        let places = Places::new(3).unwrap();
        let other = lending(|lender| {
            let job = lender.lend(Box::new(Fill(&places)));
            let other = thread::spawn(move || job.run());
            Box::new(Fill(&places)).run();
            other
        });
        assert_eq!(places.finish(), Some(vec![0, 1, 2]));
        other.join().unwrap();
    });
}

/// A helper as `map::threads` has it.
fn help(items: &Items<u32>, results: &Results<u32>) {
    let mut run = Vec::new();
    let Some(mut first) = items.claim(&mut run) else { return };
    loop {
        let done: Vec<u32> = run.drain(..).collect();
        let next = items.claim(&mut run);
        results.put(first, done, next.is_none());
        match next {
            Some(next) => first = next,
            None => return,
        }
    }
}

#[test]
fn a_waiting_consumer_gets_every_result_of_a_map_in_order() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    for together in [1, 2] {
        model.check(move || {
            let (mut inlet, items) = Items::new();
            let (items, results) = (Arc::new(items), Arc::new(Results::new()));
            let mut helpers = Vec::new();
            for item in 0..2 {
                if items.push(&mut inlet, item, 2) {
                    let (items, results) = (Arc::clone(&items), Arc::clone(&results));
                    helpers.push(thread::spawn(move || help(&items, &results)));
                }
            }
            let mut got = Vec::new();
            while got.len() < 2 {
                // A model has no clock: whoever waits for more than the head relies on helpers that have no more to do.
                if !results.is_ready() {
                    let _ = results.wait(together, None);
                }
                got.extend(results.take());
            }
            assert_eq!(got, [0, 1]);
            helpers.into_iter().for_each(|helper| helper.join().unwrap());
        });
    }
}

/// The helper finds nothing and is counted off while the reader puts an item in: one of the two sees the other.
#[test]
fn an_item_that_is_read_has_a_helper_that_will_look() {
    loom::model(|| {
        let (mut inlet, items) = Items::new();
        let items = Arc::new(items);
        assert!(items.push(&mut inlet, 1, 1));
        let helper = {
            let items = Arc::clone(&items);
            thread::spawn(move || {
                let (mut run, mut taken) = (Vec::new(), Vec::new());
                while items.claim(&mut run).is_some() {
                    taken.append(&mut run);
                }
                taken
            })
        };
        let bring = items.push(&mut inlet, 2, 1);
        let mut taken = helper.join().unwrap();
        if bring {
            let mut run = Vec::new();
            while items.claim(&mut run).is_some() {
                taken.append(&mut run);
            }
        }
        assert_eq!(taken, [1, 2]);
    });
}

/// The supervisor asks for the second task, which the consumer will wait for, while the consumer takes the first's result.
#[test]
fn what_a_brake_holds_is_looked_at_again() {
    loom::model(|| {
        let (brake, head) = (Arc::new(Brake::new(1, 10)), Arc::new(AtomicUsize::new(0)));
        brake.came(1, 20);
        brake.came(1, 20);
        let consumer = {
            let (brake, head) = (Arc::clone(&brake), Arc::clone(&head));
            thread::spawn(move || {
                head.store(1, Ordering::Relaxed);
                brake.taken(1, 20)
            })
        };
        let holds = || brake.holds(|| head.load(Ordering::Relaxed) == 1);
        let held = holds();
        let asked_again = consumer.join().unwrap();
        assert!(!held || asked_again, "the task waits, and nobody looks");
        assert!(!holds(), "the consumer waits for it");
    });
}
