//! The parent's record of one worker: its link, what it was sent, how far it is.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use fanmap_shm::bell::Bell;
use fanmap_shm::link::{Link, WORDS};
use fanmap_shm::process::Process;
use fanmap_shm::ring::Corrupt;
use fanmap_shm::socket::Socket;
use fanmap_shm::word::State;

use crate::error::{Error, ErrorKind};
use crate::outcome::{Exit, Outcome};
use crate::supervisor::job::{Job, Place};
use crate::supervisor::launcher::Launched;
use crate::transport::frame::Kind;
use crate::transport::stream::{Body, FrameReader, FrameWriter, no_body};

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

/// A task that the worker was sent and has not answered for.
struct Sent {
    job: Arc<Job>,
    slot: u32,
}

/// What a worker said.
pub(super) enum Said {
    /// It is ready for tasks.
    Ready,
    /// It cannot get ready, and why.
    Refused(Vec<u8>),
    /// A task ended.
    Finished(Arc<Job>, Outcome<Vec<u8>, Vec<u8>>),
}

/// One worker, seen from the parent.
pub(super) struct Seat {
    pub(super) key: u64,
    pub(super) link: Arc<Link>,
    pub(super) bell: Bell,
    pub(super) stage: Stage,
    /// The process, once it is known. Shared so that the supervisor can wait for it without the pool's lock.
    pub(super) process: Option<Arc<Process>>,
    /// Its descriptor has shown its end.
    pub(super) gone: bool,
    /// It is to be killed, as soon as its process is known.
    doomed: bool,
    /// How it ended, once that is known.
    pub(super) exit: Option<Exit>,
    /// Held open for as long as the worker may live.
    _control: Option<Socket>,
    calls: FrameWriter,
    replies: FrameReader,
    in_flight: VecDeque<Sent>,
    free_slots: Vec<u32>,
    known: HashSet<u64>,
    sent: u64,
    max_tasks: Option<u64>,
}

impl Seat {
    /// A worker that is being started; `setup` is the first thing that it reads.
    pub(super) fn new(
        key: u64,
        link: Arc<Link>,
        bell: Bell,
        launched: Launched,
        setup: Body,
        max_tasks: Option<u64>,
    ) -> Result<Self, Error> {
        let (calls, replies) = link
            .parent_ends()
            .ok_or_else(|| Error::new(ErrorKind::Os, "a fresh link has both its ends"))?;
        let mut seat = Self {
            key,
            bell,
            stage: Stage::Starting,
            process: launched.process.map(Arc::new),
            gone: false,
            doomed: false,
            exit: None,
            _control: launched.control,
            calls: FrameWriter::new(calls),
            replies: FrameReader::new(replies),
            in_flight: VecDeque::new(),
            free_slots: (0..WORDS as u32).rev().collect(),
            known: HashSet::new(),
            sent: 0,
            max_tasks,
            link,
        };
        seat.calls.push(Kind::Setup, setup);
        seat.flush();
        Ok(seat)
    }

    /// How many tasks it has, the one that runs included.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it can be sent a task when `credit` may be with it.
    pub(super) fn has_room(&self, credit: usize) -> bool {
        self.stage == Stage::Ready && self.load() < credit && self.calls.is_flushed() && !self.free_slots.is_empty()
    }

    /// Whether it has nothing to do and could be sent a task.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Ready && self.in_flight.is_empty()
    }

    /// Whether it was ever sent a task.
    pub(super) fn has_worked(&self) -> bool {
        self.sent > 0
    }

    /// Whether it has nothing left to do but end.
    pub(super) fn is_spent(&self) -> bool {
        self.stage == Stage::Leaving && self.in_flight.is_empty()
    }

    /// Sends a task. Only when [`Seat::has_room`].
    pub(super) fn send(&mut self, job: Arc<Job>) {
        let slot = self.free_slots.pop().expect("a seat with room has a free slot");
        if self.known.insert(job.function.id) {
            self.calls
                .push(Kind::Define { id: job.function.id }, Arc::clone(&job.function.body));
        }
        self.link
            .word(slot as usize)
            .expect("slots come from the range of words")
            .queue();
        let kind = Kind::Call {
            slot,
            id: job.id,
            function: job.function.id,
        };
        self.calls.push(kind, Arc::clone(&job.argument));
        job.move_to(Place::Sent {
            link: Arc::clone(&self.link),
            slot,
            seat: self.key,
        });
        self.in_flight.push_back(Sent { job, slot });
        self.sent += 1;
        if self.max_tasks.is_some_and(|most| self.sent >= most) {
            self.dismiss();
        }
        self.flush();
    }

    /// Tells the worker to finish what it has and end.
    pub(super) fn dismiss(&mut self) {
        if self.stage != Stage::Leaving {
            self.stage = Stage::Leaving;
            self.calls.push(Kind::Exit, no_body());
            self.flush();
        }
    }

    /// Tells the worker that functions will not be called again.
    pub(super) fn forget(&mut self, functions: &[u64]) {
        for id in functions {
            if self.known.remove(id) {
                self.calls.push(Kind::Forget { id: *id }, no_body());
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
            Err(Corrupt) => self.kill(),
        }
    }

    /// Ends the worker at once. What becomes of its tasks is settled when its end shows.
    pub(super) fn kill(&mut self) {
        self.stage = Stage::Leaving;
        self.doomed = true;
        if let Some(process) = &self.process {
            process.kill();
        }
    }

    /// Asks the worker to end; its own handlers decide.
    pub(super) fn terminate(&mut self) {
        self.stage = Stage::Leaving;
        match &self.process {
            Some(process) => process.terminate(),
            // There is nobody to ask yet.
            None => self.doomed = true,
        }
    }

    /// The worker's process is known now.
    pub(super) fn started(&mut self, process: Process) {
        if self.doomed {
            process.kill();
        }
        self.process = Some(Arc::new(process));
    }

    /// Its number, once it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid())
    }

    /// Before sleeping: raises the flag that makes the worker ring; false if it has said something meanwhile.
    pub(super) fn arm(&self) -> bool {
        self.link.parent_asleep().arm();
        matches!(self.replies.has_input(), Ok(false))
    }

    /// Reads what the worker has said. A worker that talks nonsense is ended.
    pub(super) fn listen(&mut self, said: &mut Vec<Said>) {
        self.link.parent_asleep().disarm();
        loop {
            match self.replies.next() {
                Ok(Some((kind, body))) => match self.understand(kind, body) {
                    Ok(Some(one)) => said.push(one),
                    Ok(None) => {}
                    Err(Corrupt) => return self.kill(),
                },
                Ok(None) => break,
                Err(Corrupt) => return self.kill(),
            }
        }
        if self.replies.must_ring_for_space() {
            self.bell.ring();
        }
        self.flush();
    }

    fn understand(&mut self, kind: Kind, body: Vec<u8>) -> Result<Option<Said>, Corrupt> {
        Ok(match kind {
            Kind::Ready => {
                if self.stage == Stage::Starting {
                    self.stage = Stage::Ready;
                }
                Some(Said::Ready)
            }
            Kind::Refused => Some(Said::Refused(body)),
            Kind::Skipped { id } => {
                let state = self.front(id, &[State::Cancelled, State::TakenBack])?;
                let sent = self.settle();
                debug_assert!(state == State::TakenBack || sent.job.has_ended());
                None
            }
            Kind::Value { id, nanos } => {
                self.front(id, &[State::Done])?;
                let sent = self.settle();
                sent.job.function.took(nanos);
                Some(Said::Finished(sent.job, Outcome::Value(body)))
            }
            Kind::Raised { id, nanos } => {
                self.front(id, &[State::Done])?;
                let sent = self.settle();
                sent.job.function.took(nanos);
                Some(Said::Finished(sent.job, Outcome::Raised(body)))
            }
            _ => return Err(Corrupt),
        })
    }

    /// A worker answers for its tasks in order: the state of the one at the front, which must be `id` and in one of the
    /// states `allowed`.
    fn front(&self, id: u64, allowed: &[State]) -> Result<State, Corrupt> {
        let front = self.in_flight.front().ok_or(Corrupt)?;
        let state = self.state_of(front);
        (front.job.id == id && allowed.contains(&state))
            .then_some(state)
            .ok_or(Corrupt)
    }

    fn settle(&mut self) -> Sent {
        let sent = self.in_flight.pop_front().expect("`front` has looked at it");
        if let Some(word) = self.link.word(sent.slot as usize) {
            word.free();
        }
        self.free_slots.push(sent.slot);
        sent
    }

    fn state_of(&self, sent: &Sent) -> State {
        self.link
            .word(sent.slot as usize)
            .map_or(State::Free, |word| word.state())
    }

    /// How many of its tasks have not started.
    pub(super) fn waiting(&self) -> usize {
        self.in_flight
            .iter()
            .filter(|sent| self.state_of(sent) == State::Queued)
            .count()
    }

    /// Takes back up to `count` tasks that have not started, the last ones first. In the order they were sent.
    pub(super) fn take_back(&mut self, count: usize) -> Vec<Arc<Job>> {
        let mut taken = Vec::new();
        for sent in self.in_flight.iter().rev() {
            if taken.len() == count {
                break;
            }
            if self.link.word(sent.slot as usize).is_some_and(|word| word.take_back()) {
                sent.job.move_to(Place::Queued);
                taken.push(Arc::clone(&sent.job));
            }
        }
        taken.reverse();
        taken
    }

    /// The worker has ended: the tasks that are lost with it, and those that it had not started, in order.
    pub(super) fn bury(&mut self) -> (Vec<Arc<Job>>, Vec<Arc<Job>>) {
        let (mut lost, mut unstarted) = (Vec::new(), Vec::new());
        for sent in std::mem::take(&mut self.in_flight) {
            match self
                .link
                .word(sent.slot as usize)
                .map_or(State::Free, |word| word.state())
            {
                State::Queued => {
                    sent.job.move_to(Place::Queued);
                    unstarted.push(sent.job);
                }
                State::Started | State::Done => lost.push(sent.job),
                // Cancelled and condemned ones were settled by whoever did it, taken back ones are elsewhere. A word of
                // nonsense comes from a worker that broke the link: its task is lost.
                State::Cancelled | State::Condemned | State::TakenBack => {}
                State::Free => lost.push(sent.job),
            }
        }
        (lost, unstarted)
    }
}
