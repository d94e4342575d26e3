//! What a pool's lock protects: the queue, the seats, and what is owed to the sinks.
//!
//! Nothing here waits, starts anything or calls out: ends are collected and handed over once the lock is released.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::Retries;
use crate::lost::{Death, Exit, Overdue, WorkerLost};
use crate::memory::{Lease, Ledger, Message};
use crate::outcome::Outcome;
use crate::supervisor::job::{Broken, End, Job, Place, Sink, Wanted, same_sink};
use crate::supervisor::launcher::Start;
use crate::supervisor::policy;
use crate::supervisor::seat::{Cut, Said, Seat, Stage};
use crate::transport::stream::Body;

/// Whether a pool takes tasks.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It does.
    Open,
    /// It finishes what it has, then ends its workers.
    Closing,
    /// It cannot go on.
    Broken(Arc<Broken>),
}

/// What new workers are told first.
#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    pub(super) body: Body,
    /// Descriptors that go with it.
    pub(super) fds: Arc<Vec<OwnedFd>>,
}

/// An end that is owed to a sink, for `count` tasks. It holds their job, which may be the last to hold what it was sent with.
pub(super) struct Owed {
    job: Arc<Job>,
    first: u64,
    count: u32,
    end: End,
}

impl Owed {
    /// The end of some tasks of a job.
    fn new(job: &Arc<Job>, tasks: Range<u32>, end: End) -> Self {
        Self {
            job: Arc::clone(job),
            first: job.key + u64::from(tasks.start),
            count: tasks.end - tasks.start,
            end: job.told(end),
        }
    }

    fn deliver(self) {
        self.job.sink.finished(self.first, self.count, self.end);
    }
}

/// Hands ends over. Never under the pool's lock: the sinks may call the pool.
pub(super) fn deliver(owed: Vec<Owed>) {
    let of_map = |one: &Owed| one.job.sink.wanted() == Wanted::Together;
    let (of_maps, others): (Vec<_>, Vec<_>) = owed.into_iter().partition(of_map);
    others.into_iter().for_each(Owed::deliver);
    // From the back: the one that a map's consumer waits for comes last, and wakes it once for all.
    of_maps.into_iter().rev().for_each(Owed::deliver);
}

/// How the supervisor sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Until a worker says something.
    Asleep,
    /// For so long, or until a worker has run out of work.
    Dozing(Duration),
    /// For so long: somebody else hears the workers.
    Unarmed(Duration),
}

impl Rest {
    pub(super) fn limit(self) -> Option<Duration> {
        match self {
            Rest::Asleep => None,
            Rest::Dozing(limit) | Rest::Unarmed(limit) => Some(limit),
        }
    }
}

/// What was heard of workers, by how soon it was wanted.
#[derive(Default)]
struct Heard {
    at_once: bool,
    /// How long such tasks take, by the longest mean.
    soon: Option<Duration>,
    together: Option<Duration>,
    later: Option<Duration>,
    /// Whether results were encoded together that had gathered for a while.
    in_runs: bool,
}

impl Heard {
    fn note(&mut self, (job, tasks): &Cut) {
        let mean = job.function.mean_task().unwrap_or(Duration::MAX);
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        self.in_runs |= count > 1 && !policy::is_short(mean, count);
        match job.sink.wanted() {
            Wanted::AtOnce => self.at_once = true,
            Wanted::Soon => self.soon = self.soon.max(Some(mean)),
            Wanted::Together => self.together = self.together.max(Some(mean)),
            Wanted::Later => self.later = self.later.max(Some(mean)),
        }
    }
}

/// How the start of a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The system refused something that it takes.
    Refused,
    /// It ran, and ended before it was ready.
    Ended,
}

/// What goes once the lock is released: memory may go back to the system with it, which takes time.
#[derive(Default)]
pub(super) struct Freed {
    /// Of blobs that workers need no more.
    leases: Vec<Arc<Lease>>,
    /// Of workers that have ended.
    ledgers: Vec<Ledger>,
}

impl Freed {
    /// Lets it go. Never under the pool's lock.
    pub(super) fn let_go(self) {
        drop(self.leases);
        self.ledgers.into_iter().for_each(Ledger::close);
    }
}

/// What the lock protects.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) queue: VecDeque<Arc<Job>>,
    /// Tasks to be tried again: by when that is, and by their ids.
    pub(super) resting: BTreeMap<(Instant, u64), Arc<Job>>,
    pub(super) seats: Vec<Seat>,
    pub(super) owed: Vec<Owed>,
    pub(super) freed: Freed,
    pub(super) setup: Setup,
    /// What starts workers, while no supervisor has it.
    pub(super) start: Option<Start>,
    /// The supervisor's thread, while it runs and until somebody joins it.
    pub(super) thread: Option<JoinHandle<()>>,
    /// Whether the supervisor runs.
    pub(super) supervised: bool,
    /// Since when there has been nothing to do.
    pub(super) idle_since: Option<Instant>,
    pub(super) next_id: u64,
    /// Since the supervisor last went to sleep.
    heard: Heard,
    /// Whether the last look of a thread that was about to wait found something: it is at work, and will look again.
    looked: bool,
    /// When the supervisor wakes up by itself, as of its last look; `None` for never.
    pub(super) sleeps_until: Option<Instant>,
    /// How many workers to start beyond what the queue asks for.
    wanted: usize,
    /// How many workers in a row could not be started, or ended before they were ready.
    failed_starts: u32,
    /// No worker is started before this, as long as there is one: the last could not be.
    paused_until: Option<Instant>,
    /// How many workers in a row ended with tasks of which none had started, since the last task ended.
    fruitless: usize,
    limit: usize,
}

impl State {
    pub(super) fn new(limit: usize, at_once: bool, start: Start) -> Self {
        Self {
            phase: Phase::Open,
            queue: VecDeque::new(),
            resting: BTreeMap::new(),
            seats: Vec::new(),
            owed: Vec::new(),
            freed: Freed::default(),
            setup: Setup::default(),
            start: Some(start),
            thread: None,
            supervised: false,
            idle_since: None,
            next_id: 0,
            heard: Heard::default(),
            looked: false,
            sleeps_until: None,
            wanted: if at_once { limit } else { 0 },
            failed_starts: 0,
            paused_until: None,
            fruitless: 0,
            limit,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Gives queued tasks to workers with room, then lets idle workers take from busy ones.
    pub(super) fn dispatch(&mut self) {
        self.send_queued();
        while self.queue.iter().all(|job| self.holds(job)) && self.take_back_for_the_idle() {
            self.send_queued();
        }
        let waits = !self.queue.is_empty() || !self.resting.is_empty();
        let busy = waits || self.seats.iter().any(|seat| seat.load() > 0);
        self.idle_since = if busy {
            None
        } else {
            self.idle_since.or_else(|| Some(Instant::now()))
        };
    }

    fn send_queued(&mut self) {
        let grows = self.present() < self.limit && self.paused_until.is_none();
        let growing = grows || self.seats.iter().any(|seat| seat.stage == Stage::Starting);
        let mut at = 0;
        while let Some(job) = self.queue.get(at) {
            if job.has_ended() {
                self.queue.remove(at);
                continue;
            }
            if self.holds(job) {
                at += 1;
                continue;
            }
            let credit = policy::credit(job.function.mean_task(), growing);
            let credit = policy::credit_for(credit, job.sink.together());
            // One that grows stays until it is wanted.
            let grows = at + 1 == self.queue.len() && job.grows();
            let wants = |seat: &&mut Seat| seat.room(credit) > 0 && (!grows || seat.runs_low());
            let roomy = self.seats.iter_mut().filter(wants);
            let Some(seat) = roomy.min_by_key(|seat| seat.load()) else {
                return;
            };
            let (room, count) = (seat.room(credit), job.count());
            if room >= count {
                if let Some(job) = self.queue.remove(at) {
                    seat.send(job);
                }
                continue;
            }
            // A run is cut to what the worker has room for.
            let (head, rest) = (
                job.cut(self.next_id + 1, 0..room),
                job.cut(self.next_id + 2, room..count),
            );
            self.next_id += 2;
            seat.send(head);
            self.queue[at] = rest;
        }
    }

    /// Whether a queued job is to stay where it is. One that a closing pool finishes is not.
    fn holds(&self, job: &Job) -> bool {
        matches!(self.phase, Phase::Open) && job.sink.holds(job.key, job.count())
    }

    /// One idle worker gets half of what waits at the worker where most waits. False if there is nobody to give or take.
    fn take_back_for_the_idle(&mut self) -> bool {
        if !self.seats.iter().any(Seat::is_idle) {
            return false;
        }
        // One that is being ended gives as well: what it has not started others can do.
        let fullest = self
            .seats
            .iter_mut()
            .filter(|seat| seat.load() > 1)
            .max_by_key(|seat| seat.waiting());
        let Some(seat) = fullest else {
            return false;
        };
        let taken = seat.take_back(policy::share(seat.waiting()));
        let any = !taken.is_empty();
        for cut in taken {
            let job = self.own(cut);
            self.queue.push_back(job);
        }
        any
    }

    /// Tasks that were cut off a job, as a job that nobody has. One that was cut off whole stays the same: tickets know it.
    fn own(&mut self, (job, tasks): Cut) -> Arc<Job> {
        if tasks.len() == job.count() as usize {
            job.move_to(Place::Queued);
            return job;
        }
        let id = self.next_id();
        job.cut(id, tasks)
    }

    /// How many workers are there, those that are about to leave included: a successor starts when one has ended, or there
    /// would be more than there may be, and more than there are indices.
    pub(super) fn present(&self) -> usize {
        self.seats.len()
    }

    /// The lowest index that no worker has.
    pub(super) fn free_index(&self) -> u32 {
        let taken = |index| self.seats.iter().any(|seat| seat.index == index);
        (0..)
            .find(|index| !taken(*index))
            .expect("there are fewer workers than numbers")
    }

    /// How many workers to start now.
    pub(super) fn starts(&self) -> usize {
        if self.paused_until.is_some() { 0 } else { self.missing() }
    }

    /// When workers are to be started that could not be so far.
    pub(super) fn starts_again(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.missing() > 0)
    }

    /// What could not be started may be tried again: its time has come, or there is no other worker.
    pub(super) fn unpause(&mut self) {
        let rests =
            |until: &Instant| *until > Instant::now() && self.seats.iter().any(|seat| seat.stage == Stage::Ready);
        self.paused_until = self.paused_until.filter(rests);
    }

    /// How many workers there should be beside those that there are.
    fn missing(&self) -> usize {
        // The common case first: this is asked at every submit.
        if matches!(self.phase, Phase::Broken(_)) || self.present() >= self.limit {
            return 0;
        }
        let unused = self
            .seats
            .iter()
            .filter(|seat| seat.stage == Stage::Starting || seat.is_idle())
            .count();
        // The first task of a worker is about to start, if it has not yet: only those behind it wait for anybody.
        let waiting: usize = self
            .seats
            .iter()
            .map(|seat| seat.waiting().min(seat.load().saturating_sub(1)))
            .sum();
        let queued = self.queue.iter().filter(|job| !self.holds(job));
        let queued: usize = queued.map(|job| job.count() as usize).take(self.limit).sum();
        // A pool that ends its workers needs no more than its tasks do.
        let wanted = if matches!(self.phase, Phase::Open) {
            self.wanted
        } else {
            0
        };
        policy::starts(queued + waiting, unused, wanted, self.present(), self.limit)
    }

    /// One more worker, unless one has done something and is idle. One that is new may be there for an earlier wish: so
    /// many wishes are so many workers, however long those take to start.
    pub(super) fn want_worker(&mut self) {
        if !self.seats.iter().any(|seat| seat.is_idle() && seat.has_worked()) {
            self.wanted = self.limit.min(self.wanted + 1);
        }
    }

    /// A worker was launched, or could not be.
    pub(super) fn launched(&mut self) {
        self.wanted = self.wanted.saturating_sub(1);
    }

    /// Whether every worker that there should be has a process, as far as is known.
    pub(super) fn are_all_started(&self) -> bool {
        !self.supervised || (self.starts() == 0 && self.seats.iter().all(|seat| seat.pid().is_some()))
    }

    /// Reads what every worker has said.
    pub(super) fn listen(&mut self) {
        let mut refusal = None;
        let mut said = Vec::new();
        for seat in &mut self.seats {
            seat.listen(&mut said);
        }
        for one in said {
            match one {
                Said::Ready => (self.failed_starts, self.paused_until) = (0, None),
                Said::Refused(why) => refusal = Some(why),
                Said::Returned(lease) => self.freed.leases.push(lease),
                Said::Left(cuts) => self.requeue(cuts),
                Said::Finished(tasks, outcome) => {
                    self.heard.note(&tasks);
                    self.fruitless = 0;
                    self.answered(tasks, outcome);
                }
                Said::Failed(task, outcome) => {
                    self.heard.note(&task);
                    self.fruitless = 0;
                    self.failed(task, outcome);
                }
            }
        }
        if let Some(why) = refusal {
            self.break_down(Broken {
                reason: "a worker process could not get ready".to_owned(),
                refusal: Some(why),
            });
        }
    }

    /// Whether the supervisor would oversleep the end of a task that may take so long and starts now.
    pub(super) fn oversleeps(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        end.is_some_and(|end| self.sleeps_beyond(end))
    }

    /// Whether the supervisor, left alone, sleeps for longer than until then.
    pub(super) fn sleeps_beyond(&self, then: Instant) -> bool {
        self.sleeps_until.is_none_or(|until| until > then)
    }

    /// Ends the workers whose task has run out of time.
    pub(super) fn expire(&mut self) {
        self.seats.iter_mut().for_each(Seat::expire);
    }

    /// Tasks that have rested wait for a worker.
    pub(super) fn rouse(&mut self) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > Instant::now() {
                return;
            }
            let job = first.remove();
            job.move_to(Place::Queued);
            self.queue.push_front(job);
        }
    }

    /// Settles the tasks of workers that have ended and whose exit is known.
    pub(super) fn bury(&mut self) {
        let mut at = 0;
        while at < self.seats.len() {
            let Some(death) = self.seats[at].death.filter(|_| self.seats[at].gone) else {
                at += 1;
                continue;
            };
            let mut seat = self.seats.remove(at);
            let remains = seat.bury();
            let pid = seat.pid().unwrap_or(0);
            if !remains.lost.is_empty() {
                self.fruitless = 0;
            } else if !remains.unfinished.is_empty() && (seat.corrupt || !seat.was_killed()) {
                self.fruitless += 1;
            }
            let again = |retries: &Retries| match seat.overdue {
                Some(_) => retries.timed_out,
                None => retries.lost,
            };
            let how = |call| match seat.overdue {
                Some(limit) => Outcome::TimedOut(Arc::new(Overdue { pid, limit, call })),
                None => Outcome::Lost(Arc::new(WorkerLost {
                    pid,
                    exit: death.exit,
                    peak_memory: death.peak_memory,
                    out_of_memory: death.out_of_memory && !seat.corrupt,
                    memory_limit: seat.memory_limit,
                    refused: None,
                    corrupt: seat.corrupt,
                    call,
                })),
            };
            for (job, tasks) in remains.lost {
                if job.sink.retries().is_some_and(again) {
                    for task in tasks {
                        self.failed((Arc::clone(&job), task..task + 1), how(job.call(task)));
                    }
                } else {
                    let job = self.own((job, tasks));
                    self.end(&job, End::Outcome(how(job.call(0))));
                }
            }
            self.requeue(remains.unfinished);
            if seat.stage == Stage::Starting {
                let why = format!("a worker process ended before it was ready: {}", death.exit);
                self.start_failed(&why, Failure::Ended);
            }
            if policy::is_fruitless(self.fruitless, self.limit) {
                let (times, exit) = (self.fruitless, death.exit);
                self.break_down(Broken {
                    reason: format!(
                        "worker processes ended again and again ({times} times) before they started a task; the last time: {exit}"
                    ),
                    refusal: None,
                });
            }
            // Only now: what it had said was heard, so all that came is known.
            self.freed.ledgers.push(seat.into_ledger());
        }
    }

    /// Tasks that a worker leaves to others: they come first.
    fn requeue(&mut self, cuts: Vec<Cut>) {
        for cut in cuts.into_iter().rev() {
            let job = self.own(cut);
            self.queue.push_front(job);
        }
    }

    /// Looks what workers have said, for a thread that is about to wait. False: nothing, and the supervisor will hear at once
    /// what they say next.
    pub(super) fn look(&mut self) -> bool {
        self.listen();
        self.dispatch();
        self.looked = !self.owed.is_empty() || !self.seats.iter().all(|seat| seat.arm(false));
        self.looked
    }

    /// For how long the results that come next may gather.
    fn nap(&self) -> Option<Duration> {
        let heard = &self.heard;
        if heard.at_once {
            return None;
        }
        let loads = self.seats.iter().map(Seat::load).filter(|load| *load > 0);
        let least = loads.clone().min().unwrap_or(0);
        let singles = |mean| policy::nap_of_singles(mean, least).filter(|_| !heard.in_runs);
        let soon = heard.soon.map(singles);
        let together = heard.together.map(|mean| {
            let nap = policy::nap(mean, least, loads.count());
            nap.or_else(|| singles(mean))
        });
        let later = heard.later.map(policy::nap_unasked);
        // Where several were heard, what suits all.
        [soon, together, later].into_iter().flatten().min()?
    }

    /// How the supervisor is to sleep now that it is to.
    pub(super) fn rest(&mut self) -> Rest {
        let nap = self.nap();
        self.heard = Heard::default();
        match nap {
            _ if std::mem::take(&mut self.looked) => Rest::Unarmed(policy::LEFT_ALONE),
            Some(nap) => Rest::Dozing(nap),
            None => Rest::Asleep,
        }
    }

    /// A worker could not be started, or ended before it was ready.
    pub(super) fn start_failed(&mut self, why: &str, how: Failure) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        if self.seats.iter().any(|seat| seat.stage == Stage::Ready) {
            // Those that live carry on.
            if how == Failure::Ended && policy::gives_up(self.failed_starts) {
                // Beside them there is no room for another.
                self.limit = self.present().max(1);
            } else {
                self.paused_until = Instant::now().checked_add(policy::pause(self.failed_starts));
            }
            return;
        }
        if policy::gives_up(self.failed_starts) {
            let times = self.failed_starts;
            self.break_down(Broken {
                reason: format!("no worker process could be started ({times} tries); the last time, {why}"),
                refusal: None,
            });
        }
    }

    /// The template is gone, by this exit. Its workers die with it; how they ended will not be told.
    pub(super) fn template_gone(&mut self, exit: Exit) {
        // Those that were never reported died with the template, or were never forked. Few have had anything to do: who was
        // ready before the template could tell of it.
        self.seats.retain(|seat| seat.process.is_some() || seat.load() > 0);
        for seat in &mut self.seats {
            seat.gone |= seat.process.is_none();
            seat.death = seat.death.or(Some(Death::UNSEEN));
            seat.kill();
        }
        self.failed_starts += 1;
        if policy::gives_up(self.failed_starts) {
            self.break_down(Broken {
                reason: format!("the process that forks the workers ended again and again; the last time: {exit}"),
                refusal: None,
            });
        }
    }

    /// Gives up: every worker is killed and every task that is not done fails.
    pub(super) fn break_down(&mut self, broken: Broken) {
        self.give_up(broken);
        self.seats.iter_mut().for_each(Seat::kill);
    }

    /// Every task that is not done fails, and no more are taken. The workers are the caller's to end.
    pub(super) fn give_up(&mut self, broken: Broken) {
        if matches!(self.phase, Phase::Broken(_)) {
            return;
        }
        let broken = Arc::new(broken);
        self.phase = Phase::Broken(Arc::clone(&broken));
        let remains: Vec<_> = self.seats.iter_mut().map(Seat::bury).collect();
        let cuts = remains
            .into_iter()
            .flat_map(|one| one.lost.into_iter().chain(one.unfinished));
        let mut jobs: Vec<_> = cuts.map(|cut| self.own(cut)).collect();
        jobs.extend(std::mem::take(&mut self.queue));
        jobs.extend(std::mem::take(&mut self.resting).into_values());
        for job in jobs {
            self.end(&job, End::Broken(Arc::clone(&broken)));
        }
    }

    /// Cancels every task that has not started, or is to be tried again; those that run are not tried again.
    pub(super) fn cancel_waiting(&mut self) {
        self.seats.iter().for_each(Seat::forgo);
        let mut jobs: Vec<_> = std::mem::take(&mut self.queue).into();
        jobs.extend(std::mem::take(&mut self.resting).into_values());
        let cuts: Vec<_> = self
            .seats
            .iter_mut()
            .flat_map(|seat| seat.take_back(usize::MAX))
            .collect();
        jobs.extend(cuts.into_iter().map(|cut| self.own(cut)));
        for job in jobs {
            self.end(&job, End::Outcome(Outcome::Cancelled));
        }
    }

    /// Cancels every task with this sink that has not started, or is to be tried again; with `kill`, workers that run one are
    /// ended.
    pub(super) fn cancel_of(&mut self, sink: &Arc<dyn Sink>, kill: bool) {
        let (mut of_sink, others) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|job| same_sink(&job.sink, sink));
        self.queue = others;
        let (resting, others) = std::mem::take(&mut self.resting)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, job)| same_sink(&job.sink, sink));
        self.resting = others;
        of_sink.extend(resting.into_values());
        for seat in &mut self.seats {
            for (job, tasks) in seat.take_back_of(sink, kill) {
                self.owed.push(Owed::new(&job, tasks, End::Outcome(Outcome::Cancelled)));
            }
        }
        for job in of_sink {
            self.end(&job, End::Outcome(Outcome::Cancelled));
        }
    }

    /// Takes the first queued task with this sink out, unless a worker is there that could have it: then nobody does it
    /// but who asks, and its sink is told nothing. Its key.
    pub(super) fn reclaim(&mut self, sink: &Arc<dyn Sink>) -> Option<u64> {
        if self.seats.iter().any(|seat| seat.stage == Stage::Ready) {
            return None;
        }
        let waits = |job: &Arc<Job>| same_sink(&job.sink, sink) && !job.has_ended();
        let at = self.queue.iter().position(waits)?;
        let job = Arc::clone(&self.queue[at]);
        if job.count() > 1 {
            let id = self.next_id();
            self.queue[at] = job.cut(id, 1..job.count());
        } else {
            self.queue.remove(at);
        }
        job.move_to(Place::Ended);
        Some(job.key)
    }

    /// Cancels one task: true if it will never run, or never again.
    pub(super) fn cancel(&mut self, job: &Arc<Job>) -> bool {
        match job.move_to(Place::Cancelled) {
            Place::Queued => {}
            Place::Resting(until) => {
                self.resting.remove(&(until, job.id));
            }
            Place::Sent { link, slot, seat } => {
                if !self.seat(seat).is_some_and(|seat| seat.cancel(job)) {
                    job.move_to(Place::Sent { link, slot, seat });
                    return false;
                }
            }
            // By another thread, whose it is to tell.
            Place::Cancelled => return true,
            Place::Ended => {
                job.move_to(Place::Ended);
                return false;
            }
        }
        self.owe(job, End::Outcome(Outcome::Cancelled));
        true
    }

    /// Gives up on one task: cancels it if it has not started, and ends its worker if it runs. False if it has ended.
    pub(super) fn kill(&mut self, job: &Arc<Job>) -> bool {
        if self.cancel(job) {
            return true;
        }
        match job.move_to(Place::Cancelled) {
            Place::Sent { link, slot, seat } => {
                if !self.seat(seat).is_some_and(|seat| seat.condemn(job)) {
                    job.move_to(Place::Sent { link, slot, seat });
                    return false;
                }
            }
            other => {
                job.move_to(other);
                return false;
            }
        }
        self.owe(job, End::Outcome(Outcome::Cancelled));
        true
    }

    fn seat(&mut self, key: u64) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.key == key)
    }

    /// A worker has answered for some tasks of a job.
    fn answered(&mut self, (job, tasks): Cut, outcome: Outcome<Message, Vec<u8>>) {
        if job.has_ended() {
            return;
        }
        if tasks.end == job.count() {
            job.move_to(Place::Ended);
        }
        self.owed.push(Owed::new(&job, tasks, End::Outcome(outcome)));
    }

    /// A task failed so, and may be tried again.
    fn failed(&mut self, (job, task): Cut, outcome: Outcome<Message, Vec<u8>>) {
        if job.has_ended() {
            return;
        }
        if task.end == job.count() {
            // That was the last of its tasks. If it is the only one, the job goes on.
            job.move_to(Place::Ended);
        }
        let job = self.own((job, task));
        match job.try_again(outcome) {
            Err(outcome) => self.end(&job, End::Outcome(outcome)),
            Ok(rest) => match Instant::now().checked_add(rest).filter(|_| !rest.is_zero()) {
                None => self.queue.push_front(job),
                Some(until) => {
                    job.move_to(Place::Resting(until));
                    self.resting.insert((until, job.id), job);
                }
            },
        }
    }

    /// The end of a job, unless it has had one.
    fn end(&mut self, job: &Arc<Job>, end: End) {
        if job.has_ended() {
            return;
        }
        job.move_to(match end {
            End::Outcome(Outcome::Cancelled) => Place::Cancelled,
            _ => Place::Ended,
        });
        self.owe(job, end);
    }

    fn owe(&mut self, job: &Arc<Job>, end: End) {
        self.owed.push(Owed::new(job, 0..job.count(), end));
    }
}
