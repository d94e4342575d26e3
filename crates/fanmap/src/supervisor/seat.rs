//! The parent's record of one worker: its link, what it was sent, how far it is.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanmap_shm::bell::Bell;
use fanmap_shm::link::{Link, WORDS};
use fanmap_shm::process::Process;
use fanmap_shm::ring::Corrupt;
use fanmap_shm::socket::Socket;
use fanmap_shm::word::{Phase, State, Word};

use crate::config::ProcessConfig;
use crate::error::{Error, ErrorKind};
use crate::lost::{Death, Exit, WorkerLost};
use crate::memory::{Lease, Ledger, Message};
use crate::outcome::Outcome;
use crate::output::Feed;
use crate::supervisor::job::{Job, Packed, Place, Sink, same_sink};
use crate::supervisor::launcher::Launched;
use crate::supervisor::policy;
use crate::transport::frame::Kind;
use crate::transport::stream::{Body, FrameReader, FrameWriter, no_body};

/// How long a worker may take for its end before it is made to go on, in case somebody has stopped it. Much longer, and the
/// end of a pool seems to hang; shorter is of no use.
const URGE_AFTER: Duration = Duration::from_secs(1);

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Invited; not yet ready.
    Starting,
    /// Takes tasks.
    Ready,
    /// Finishes what it has, then ends.
    Leaving,
}

/// A chunk that the worker was sent and is not through with.
struct Sent {
    job: Arc<Job>,
    slot: u32,
    /// How many of its tasks the worker has answered for.
    answered: u32,
    /// How many it may start: the others were cut off.
    limit: u32,
}

/// What is left of a worker that has ended.
pub(super) struct Remains {
    /// Tasks that ended with it.
    pub(super) lost: Vec<Cut>,
    /// Tasks for others to do: not started, or so tiny that their results were not published yet.
    pub(super) unfinished: Vec<Cut>,
}

/// Some tasks of a job, by number within it.
pub(super) type Cut = (Arc<Job>, Range<u32>);

/// What a worker said.
pub(super) enum Said {
    /// It is ready for tasks.
    Ready,
    /// It cannot get ready, and why.
    Refused(Vec<u8>),
    /// Tasks of a job ended: those of the range.
    Finished(Cut, Outcome<Message, Vec<u8>>),
    /// A task of a job failed so, and is to be tried again if its sink has that.
    Failed(Cut, Outcome<Message, Vec<u8>>),
    /// It needs a blob no more.
    Returned(Arc<Lease>),
    /// It has more memory than it may and ends; these it has not started.
    Left(Vec<Cut>),
}

/// One worker, seen from the parent.
pub(super) struct Seat {
    pub(super) key: u64,
    /// The worker's number among those that there are.
    pub(super) index: u32,
    pub(super) link: Arc<Link>,
    pub(super) bell: Bell,
    pub(super) stage: Stage,
    /// Its number, once it has started.
    pid: Option<u32>,
    /// The process, once it is known. Shared so that the supervisor can wait for it without the pool's lock. Of one that has
    /// started there is none if there was no room for its descriptor: then the template alone can end it, and tells of its
    /// end.
    pub(super) process: Option<Arc<Process>>,
    /// Its descriptor has shown its end.
    pub(super) gone: bool,
    /// Since when it has nothing left to do but end.
    leaves_since: Option<Instant>,
    /// It has been made to go on since then.
    urged: bool,
    /// It is to be killed, as soon as its process is known.
    doomed: bool,
    /// The template was asked to kill it.
    handed_over: bool,
    /// It has written nonsense, and is ended for that.
    pub(super) corrupt: bool,
    /// How much memory of its own it may have.
    pub(super) memory_limit: Option<u64>,
    /// The limit that the task that it ran has gone past: it is ended for that.
    pub(super) overdue: Option<Duration>,
    /// How it ended, once that is known.
    pub(super) death: Option<Death>,
    /// Held open for as long as the worker may live.
    _control: Option<Socket>,
    calls: FrameWriter,
    replies: FrameReader,
    blobs: Ledger,
    /// Where it writes to, until its end is settled.
    _feed: Option<Feed>,
    in_flight: VecDeque<Sent>,
    /// How many tasks it has and has not answered for.
    load: usize,
    free_slots: Vec<u32>,
    known: HashSet<u64>,
    /// Whether it has said that it is ready, or why it cannot be.
    prepared: bool,
    /// How many tasks it was sent that were not taken back.
    sent: u64,
    /// Whether it has answered for a task.
    worked: bool,
    max_tasks: Option<u64>,
}

impl Seat {
    /// A worker that is being started; `setup` is the first thing that it reads.
    pub(super) fn new(
        (key, index): (u64, u32),
        link: Arc<Link>,
        bell: Bell,
        launched: Launched,
        setup: Body,
        (blobs, feed): (Ledger, Option<Feed>),
        config: &ProcessConfig,
    ) -> Result<Self, Error> {
        let (calls, replies) = link
            .parent_ends()
            .ok_or_else(|| Error::new(ErrorKind::Os, "a fresh link has both its ends"))?;
        let mut seat = Self {
            key,
            index,
            bell,
            stage: Stage::Starting,
            pid: launched.process.as_ref().map(Process::pid),
            process: launched.process.map(Arc::new),
            gone: false,
            leaves_since: None,
            urged: false,
            doomed: false,
            handed_over: false,
            corrupt: false,
            memory_limit: config.memory_limit,
            overdue: None,
            death: None,
            _control: launched.control,
            calls: FrameWriter::new(calls),
            replies: FrameReader::new(replies),
            blobs,
            _feed: feed,
            in_flight: VecDeque::new(),
            load: 0,
            free_slots: (0..WORDS as u32).rev().collect(),
            known: HashSet::new(),
            prepared: false,
            sent: 0,
            worked: false,
            max_tasks: config.max_tasks,
            link,
        };
        seat.calls.push(Kind::Setup, setup, 0);
        seat.flush();
        Ok(seat)
    }

    /// How many tasks it has, the one that runs included.
    pub(super) fn load(&self) -> usize {
        self.load
    }

    /// How many tasks it can be sent when `credit` may be with it.
    pub(super) fn room(&self, credit: usize) -> u32 {
        if self.stage != Stage::Ready || !self.calls.is_flushed() || self.free_slots.is_empty() {
            return 0;
        }
        let room = u32::try_from(policy::refill(self.load, credit)).unwrap_or(u32::MAX);
        match self.max_tasks {
            None => room,
            Some(most) => room.min(u32::try_from(most.saturating_sub(self.sent)).unwrap_or(u32::MAX)),
        }
    }

    /// Whether it has hardly anything to do behind what it is at.
    pub(super) fn runs_low(&self) -> bool {
        self.in_flight.len() < 2
    }

    /// Whether it has nothing to do and could be sent a task.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Ready && self.in_flight.is_empty()
    }

    /// Whether it has had a task that was not taken back.
    pub(super) fn has_worked(&self) -> bool {
        self.sent > 0
    }

    /// Whether it has nothing left to do but end.
    pub(super) fn is_spent(&self) -> bool {
        self.stage == Stage::Leaving && self.in_flight.is_empty()
    }

    /// Sends a job. Only when there is [`Seat::room`] for it.
    pub(super) fn send(&mut self, job: Arc<Job>) {
        let slot = self.free_slots.pop().expect("a seat with room has a free slot");
        self.return_blobs();
        if self.known.insert(job.function.id) {
            let kind = Kind::Define { id: job.function.id };
            self.push(kind, &job.function.message);
        }
        self.link
            .word(slot as usize)
            .expect("slots come from the range of words")
            .queue(job.count());
        let kind = Kind::Call {
            slot,
            id: job.id,
            function: job.function.id,
            part: job.part,
            limited: job.sink.time_limit().is_some(),
            kept: job.sink.retries().is_some(),
        };
        self.push(kind, &job.message);
        job.move_to(Place::Sent {
            link: Arc::clone(&self.link),
            slot,
            seat: self.key,
        });
        self.load += job.count() as usize;
        self.sent += u64::from(job.count());
        self.in_flight.push_back(Sent {
            slot,
            answered: 0,
            limit: job.count(),
            job,
        });
        self.flush();
    }

    fn push(&mut self, kind: Kind, message: &Packed) {
        self.blobs.lend(&message.leases);
        self.calls.push(kind, Arc::clone(&message.body), message.blobs);
    }

    /// Tells the worker, with what is sent next, which of its blobs are needed no more.
    fn return_blobs(&mut self) {
        for offset in self.blobs.returns() {
            self.calls.push(Kind::Return { offset }, no_body(), 0);
        }
    }

    /// Whether the worker may keep memory warm for large results.
    pub(super) fn may_be_warm(&self) -> bool {
        self.blobs.has_come()
    }

    /// Tells the worker to keep none, if it may.
    pub(super) fn cool(&mut self) {
        if self.blobs.has_come() {
            self.return_blobs();
            let _ = self.blobs.take_came();
            self.calls.push(Kind::Cool, no_body(), 0);
            self.flush();
        }
    }

    /// Tells the worker to finish what it has and end.
    pub(super) fn dismiss(&mut self) {
        if self.stage != Stage::Leaving {
            self.stage = Stage::Leaving;
            self.calls.push(Kind::Exit, no_body(), 0);
            self.flush();
            self.resume();
        }
    }

    /// Has the worker go on if it was stopped: whoever ends the pool waits for it.
    pub(super) fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    /// A worker that has nothing left to do but end has `time` for it, if that is limited, and is killed then. Should
    /// somebody have stopped it meanwhile, it goes on after a second.
    pub(super) fn hurry(&mut self, time: Option<Duration>) {
        if !self.is_spent() || self.doomed {
            return;
        }
        let now = Instant::now();
        let since = *self.leaves_since.get_or_insert(now);
        let kill = time.and_then(|time| since.checked_add(time));
        if kill.is_some_and(|at| at <= now) {
            self.kill();
            return;
        }
        if !self.urged && since + URGE_AFTER <= now {
            self.urged = true;
            self.resume();
        }
    }

    /// When a worker that has nothing left to do but end is to be hurried, if it has not ended by then.
    pub(super) fn leave_by(&self, time: Option<Duration>) -> Option<Instant> {
        let since = self.leaves_since.filter(|_| !self.doomed)?;
        let kill = time.and_then(|time| since.checked_add(time));
        let urge = (!self.urged).then(|| since + URGE_AFTER);
        kill.into_iter().chain(urge).min()
    }

    /// Tells the worker that functions will not be called again.
    pub(super) fn forget(&mut self, functions: &[u64]) {
        for id in functions {
            if self.known.remove(id) {
                self.calls.push(Kind::Forget { id: *id }, no_body(), 0);
            }
        }
        // What is pushed must be on its way: a seat with a backlog is sent no task.
        self.flush();
    }

    /// Writes what fits of what was pushed, and wakes the worker if it sleeps. A worker that broke the ring is ended.
    pub(super) fn flush(&mut self) {
        match self.calls.flush() {
            Ok(true) if self.link.worker_asleep().must_ring() => self.bell.ring(),
            Ok(_) => {}
            Err(Corrupt) => self.give_up(),
        }
    }

    /// Ends a worker that has written nonsense.
    fn give_up(&mut self) {
        self.corrupt = true;
        self.kill();
    }

    /// Ends the worker at once. What becomes of its tasks is settled when its end shows.
    pub(super) fn kill(&mut self) {
        self.stage = Stage::Leaving;
        self.doomed = true;
        if let Some(process) = &self.process {
            process.kill();
        }
    }

    /// Whether this side has killed it.
    pub(super) fn was_killed(&self) -> bool {
        self.doomed
    }

    /// Asks the worker to end; its own handlers decide.
    pub(super) fn terminate(&mut self) {
        self.stage = Stage::Leaving;
        match &self.process {
            Some(process) => {
                process.terminate();
                process.resume();
            }
            // There is nobody to ask yet.
            None => self.doomed = true,
        }
    }

    /// The worker has started, as this process.
    pub(super) fn started(&mut self, pid: u32, process: Option<Process>) {
        self.pid = Some(pid);
        self.process = process.map(Arc::new);
        if let (Some(process), true) = (&self.process, self.doomed) {
            process.kill();
        }
    }

    /// The worker has ended, as its template has seen.
    pub(super) fn ended(&mut self, death: Option<Death>) {
        self.death = death;
        // The descriptor of one that has one shows it, too.
        self.gone |= self.process.is_none();
    }

    /// Its key, once, if it is the template that has to kill it.
    pub(super) fn hand_over(&mut self) -> Option<u64> {
        let only_the_template_can = self.pid.is_some() && self.process.is_none();
        let hands_over = self.doomed && !self.gone && only_the_template_can && !self.handed_over;
        self.handed_over |= hands_over;
        hands_over.then_some(self.key)
    }

    /// Its number, once it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Before sleeping: raises the flag that makes the worker ring; false if it has said something meanwhile.
    pub(super) fn arm(&self, nap: bool) -> bool {
        if nap {
            self.link.parent_asleep().doze();
        } else {
            self.link.parent_asleep().arm();
        }
        // Of one that is being killed only the end is awaited; its last words are read then.
        self.doomed || matches!(self.replies.has_input(), Ok(false))
    }

    /// The supervisor is awake.
    pub(super) fn disarm(&self) {
        self.link.parent_asleep().disarm();
    }

    /// Reads what the worker has said. A worker that talks nonsense is ended.
    pub(super) fn listen(&mut self, said: &mut Vec<Said>) {
        loop {
            match self.replies.next() {
                Ok(Some((kind, body, blobs))) => match self.understand(kind, body, blobs) {
                    Ok(Some(one)) => said.push(one),
                    Ok(None) => {}
                    Err(Corrupt) => return self.give_up(),
                },
                Ok(None) => break,
                Err(Corrupt) => return self.give_up(),
            }
        }
        if self.replies.must_ring_for_space() {
            self.bell.ring();
        }
        self.return_blobs();
        self.flush();
    }

    fn understand(&mut self, kind: Kind, body: Vec<u8>, blobs: u32) -> Result<Option<Said>, Corrupt> {
        Ok(match kind {
            // Once: it is the answer to the first that it was sent.
            Kind::Ready if !std::mem::replace(&mut self.prepared, true) => {
                if self.stage == Stage::Starting {
                    self.stage = Stage::Ready;
                }
                Some(Said::Ready)
            }
            Kind::Refused if !std::mem::replace(&mut self.prepared, true) => Some(Said::Refused(body)),
            Kind::Values { id, count, nanos, last } => {
                // First: once it is answered for, a task has no end but this one.
                let message = self.blobs.receive(body, blobs)?;
                let cut = self.answer(id, count, Some(nanos), last)?;
                Some(Said::Finished(cut, Outcome::Value(message)))
            }
            Kind::Raised { id, nanos, last, again } => {
                let cut = self.answer(id, 1, Some(nanos), last)?;
                let again = again && cut.0.sink.retries().is_some_and(|retries| retries.raised);
                let said = if again { Said::Failed } else { Said::Finished };
                Some(said(cut, Outcome::Raised(body)))
            }
            Kind::Outgrown { id, memory, last } => {
                self.memory_limit.ok_or(Corrupt)?;
                let cut = self.answer(id, 1, None, last)?;
                let lost = WorkerLost {
                    pid: self.pid().unwrap_or(0),
                    exit: Exit::Unknown,
                    peak_memory: Some(memory).filter(|bytes| *bytes > 0),
                    out_of_memory: false,
                    memory_limit: self.memory_limit,
                    refused: Some(body),
                    corrupt: false,
                    call: cut.0.call(cut.1.start),
                };
                let again = cut.0.sink.retries().is_some_and(|retries| retries.outgrown);
                let said = if again { Said::Failed } else { Said::Finished };
                Some(said(cut, Outcome::Lost(Arc::new(lost))))
            }
            Kind::Quit => {
                let loses = |sent: &Sent| !sent.job.has_ended() && !self.lost_of(sent).is_empty();
                // One that could quit before it has done anything could be replaced for ever.
                if !self.worked || self.in_flight.iter().any(loses) {
                    return Err(Corrupt);
                }
                self.stage = Stage::Leaving;
                Some(Said::Left(self.bury().unfinished))
            }
            Kind::Over { id } => {
                let front = self.in_flight.front().ok_or(Corrupt)?;
                if front.job.id != id || front.answered != front.limit || !is_done(self.state_of(front)) {
                    return Err(Corrupt);
                }
                self.settle();
                None
            }
            Kind::Return { offset } => self.blobs.returned(offset)?.map(Said::Returned),
            _ => return Err(Corrupt),
        })
    }

    /// The worker answers for the next `count` tasks of the chunk at the front, which must be `id`: it works on its chunks in
    /// order, and answers for none that it has not started.
    fn answer(&mut self, id: u64, count: u32, nanos: Option<u64>, last: bool) -> Result<Cut, Corrupt> {
        let front = self.in_flight.front_mut().ok_or(Corrupt)?;
        let state = self.link.word(front.slot as usize).ok_or(Corrupt)?.state();
        let end = front.answered.checked_add(count).ok_or(Corrupt)?;
        if front.job.id != id || count == 0 || end > state.started || end > front.limit {
            return Err(Corrupt);
        }
        if last && (end != front.limit || !is_done(state)) {
            return Err(Corrupt);
        }
        let cut = (Arc::clone(&front.job), front.answered..end);
        front.answered = end;
        self.load -= count as usize;
        self.worked = true;
        if let Some(nanos) = nanos {
            cut.0.function.took(nanos, count);
            cut.0.sink.took(nanos, count);
        }
        if last {
            self.settle();
        }
        Ok(cut)
    }

    /// The worker is through with the chunk at the front, and looks at its word no more.
    fn settle(&mut self) {
        let Some(sent) = self.in_flight.pop_front() else {
            return;
        };
        self.word_of(&sent).free();
        self.free_slots.push(sent.slot);
        // Not before: some of what it was sent may be taken back, and then it may do others.
        if self.in_flight.is_empty() && self.max_tasks.is_some_and(|most| self.sent >= most) {
            self.dismiss();
        }
    }

    fn word_of(&self, sent: &Sent) -> &Word {
        let word = self.link.word(sent.slot as usize);
        word.expect("slots come from the range of words")
    }

    fn state_of(&self, sent: &Sent) -> State {
        self.word_of(sent).state()
    }

    /// How many of its tasks have not started.
    pub(super) fn waiting(&self) -> usize {
        self.in_flight
            .iter()
            .map(|sent| self.state_of(sent).waiting() as usize)
            .sum()
    }

    /// Takes back up to `count` tasks that have not started, the last ones first. In the order they were sent.
    pub(super) fn take_back(&mut self, count: usize) -> Vec<Cut> {
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        let mut taken = Vec::new();
        for at in (0..self.in_flight.len()).rev() {
            if left == 0 {
                break;
            }
            if self.in_flight[at].job.has_ended() {
                continue; // as in `take_back_of`
            }
            let keep = self.in_flight[at].limit.saturating_sub(left);
            let cut = self.cut_off(at, keep);
            left -= u32::try_from(cut.1.len()).unwrap_or(0).min(left);
            if !cut.1.is_empty() {
                taken.push(cut);
            }
        }
        taken.reverse();
        taken
    }

    /// What it runs is not tried again.
    pub(super) fn forgo(&self) {
        self.in_flight.iter().for_each(|sent| sent.job.forgo());
    }

    /// Takes back the tasks with this sink that have not started. With `give_up` the one that runs is given up as well, and the
    /// worker ended.
    pub(super) fn take_back_of(&mut self, sink: &Arc<dyn Sink>, give_up: bool) -> Vec<Cut> {
        let mut taken = Vec::new();
        for at in 0..self.in_flight.len() {
            let job = &self.in_flight[at].job;
            // One that was given up may look as if it waited: its worker may write what it likes until it is gone.
            if !same_sink(&job.sink, sink) || job.has_ended() {
                continue;
            }
            self.in_flight[at].job.forgo();
            taken.push(self.cut_off(at, 0));
            let sent = &self.in_flight[at];
            let word = self.link.word(sent.slot as usize);
            if give_up && sent.answered < sent.limit && word.is_some_and(Word::condemn) {
                taken.push((Arc::clone(&sent.job), sent.answered..sent.limit));
                sent.job.move_to(Place::Cancelled);
                self.kill();
            }
        }
        taken.retain(|(_, tasks)| !tasks.is_empty());
        taken
    }

    /// Takes back a job of which nothing has started: false if something has.
    pub(super) fn cancel(&mut self, job: &Arc<Job>) -> bool {
        self.position(job)
            .is_some_and(|at| self.cut_off(at, 0).1.len() == job.count() as usize)
    }

    /// Gives up a job that runs, and ends the worker: false if it does not run.
    pub(super) fn condemn(&mut self, job: &Arc<Job>) -> bool {
        let word = self.position(job).map(|at| self.in_flight[at].slot as usize);
        let condemned = word.and_then(|slot| self.link.word(slot)).is_some_and(Word::condemn);
        if condemned {
            self.kill();
        }
        condemned
    }

    /// When to look whether the task that runs has run out of time, if its time is limited.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let sent = self.in_flight.front().filter(|_| !self.doomed && !self.gone)?;
        let limit = sent.job.sink.time_limit()?;
        let state = self.state_of(sent);
        if state.phase != Phase::Open {
            return None;
        }
        let runs = state.started > sent.answered;
        let run = if runs {
            self.link.since_start()
        } else {
            Some(Duration::ZERO)
        };
        // One that claims to have started in the future could run for ever.
        let run = run.unwrap_or(limit);
        Instant::now().checked_add(limit.saturating_sub(run))
    }

    /// Ends the worker if the task that it runs has run out of time. What becomes of its tasks is settled when its end shows.
    pub(super) fn expire(&mut self) {
        if self.deadline().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let sent = self.in_flight.front().expect("there is one whose time is up");
        // If that fails, the task has just ended.
        if self.link.word(sent.slot as usize).is_some_and(Word::condemn) {
            self.overdue = sent.job.sink.time_limit();
            self.kill();
        }
    }

    /// Where a job is among those in flight. From the back: one that was taken back and came again is there twice.
    fn position(&self, job: &Arc<Job>) -> Option<usize> {
        self.in_flight.iter().rposition(|sent| Arc::ptr_eq(&sent.job, job))
    }

    /// Keeps `keep` tasks of a chunk here; those from there on, as far as they have not started, are somebody else's.
    fn cut_off(&mut self, at: usize, keep: u32) -> Cut {
        let sent = &mut self.in_flight[at];
        let word = self.link.word(sent.slot as usize);
        let tasks = word.expect("slots come from the range of words").cut(keep);
        if !tasks.is_empty() {
            // A worker that scribbles into its word is found out when it answers.
            let end = sent.limit;
            let start = tasks.start.clamp(sent.answered, end);
            sent.limit = start;
            self.load -= (end - start) as usize;
            self.sent -= u64::from(end - start);
            return (Arc::clone(&sent.job), start..end);
        }
        (Arc::clone(&sent.job), 0..0)
    }

    /// Nothing of the worker's is left but its blobs.
    pub(super) fn into_ledger(self) -> Ledger {
        self.blobs
    }

    /// The worker has ended, or nobody cares what it will do: what became of its tasks.
    pub(super) fn bury(&mut self) -> Remains {
        let (mut lost, mut unfinished) = (Vec::new(), Vec::new());
        self.load = 0;
        for sent in std::mem::take(&mut self.in_flight) {
            if sent.job.has_ended() {
                continue; // given up, or cancelled, by somebody who has told
            }
            let (answered, limit, gone) = (sent.answered, sent.limit, self.lost_of(&sent));
            unfinished.push((Arc::clone(&sent.job), answered..gone.start));
            unfinished.push((Arc::clone(&sent.job), gone.end..limit));
            lost.push((sent.job, gone));
        }
        lost.retain(|(_, tasks)| !tasks.is_empty());
        unfinished.retain(|(_, tasks)| !tasks.is_empty());
        Remains { lost, unfinished }
    }

    /// Which tasks of a chunk are lost, should the worker not go on.
    fn lost_of(&self, sent: &Sent) -> Range<u32> {
        let (answered, limit) = (sent.answered, sent.limit);
        let state = self.state_of(sent);
        let started = state.started.clamp(answered, limit);
        // The last one that was started is lost: it ran, or had run so long that it must not run again.
        match state.phase {
            Phase::Open | Phase::Done { tiny: false } if started > answered => started - 1..started,
            // It may have written to the arrays it was given.
            Phase::Done { .. } if started > answered && sent.job.message.blobs > 0 => started - 1..started,
            Phase::Open | Phase::Done { .. } => started..started,
            Phase::Condemned if self.overdue.is_some() => started.saturating_sub(1).max(answered)..started,
            // The word of a chunk that somebody has is never free, unless a worker broke it: all may have run.
            Phase::Condemned | Phase::Free => answered..limit,
        }
    }
}

/// Whether the worker is through with a chunk.
fn is_done(state: State) -> bool {
    matches!(state.phase, Phase::Done { .. })
}
