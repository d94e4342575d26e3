//! A chunk of tasks while a worker runs it.
//!
//! # Protocol
//! The handler asks for each task with [`Chunk::start`], runs it, and says so with [`Chunk::ended`]. It may keep the
//! results of tiny tasks for a moment, to encode them together; when `ended` says that it is time, and when `start` has no
//! more, it gives what it has with [`Chunk::values`] or [`Chunk::raised`], in order. A task that took long ends such a
//! moment at once, so its result never waits for the next task, and it is never run again: only tiny tasks whose results
//! were not given yet are, should the worker die.
//!
//! Before the last results are published the state word steps to DONE (see `fanmap_shm::word`); after them the word is the
//! parent's. If that step fails the parent has given up on the chunk: nothing more is published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanmap_shm::link::Link;
use fanmap_shm::process;
use fanmap_shm::ring::Corrupt;
use fanmap_shm::word::{Step, Word};

use super::{Handler, Worker, nonsense};
use crate::error::{Error, ErrorKind};
use crate::memory::{Load, Memory};
use crate::transport::frame::{Kind, Part};

/// A task that takes less may be run again if the worker dies before its result is published. Much more, and people would
/// see work done twice; much less, and results could not be published together.
const TINY: Duration = Duration::from_micros(50);

/// For how long results of tiny tasks are kept. Shorter, and the parent is woken for a handful; longer, and a consumer
/// waits for what is long done.
pub(crate) const KEPT: Duration = Duration::from_micros(200);

/// A chunk of tasks while a [`Handler`] runs it.
pub struct Chunk<'w> {
    worker: &'w mut Worker,
    link: Arc<Link>,
    slot: usize,
    id: u64,
    part: Part,
    /// Whether the tasks' time is limited.
    limited: bool,
    kept: bool,
    /// How many tasks were started, have ended, and have had their results given.
    started: u32,
    ended: u32,
    given: u32,
    /// When the clock was last looked at: at the end of a task, or the start of one.
    mark: Instant,
    /// The ticker when the last one ended, or the one that runs started; and when results were last given.
    tick: u64,
    given_tick: u64,
    /// How long the tasks ran whose results were not given, up to `mark`; and how many had ended then.
    nanos: u64,
    timed: u32,
    /// Whether the last one was tiny.
    tiny: bool,
    condemned: bool,
    /// The word is the parent's again.
    through: bool,
}

impl<'w> Chunk<'w> {
    pub(super) fn new(
        worker: &'w mut Worker,
        slot: u32,
        id: u64,
        part: Part,
        how: (bool, bool),
    ) -> Result<Self, Error> {
        let link = Arc::clone(&worker.link);
        let slot = slot as usize;
        if link.word(slot).is_none() {
            return Err(nonsense(Corrupt));
        }
        let now = Instant::now();
        worker.ticker.learn(now);
        let tick = worker.ticker.read();
        Ok(Self {
            worker,
            link,
            slot,
            id,
            part,
            limited: how.0,
            kept: how.1,
            started: 0,
            ended: 0,
            given: 0,
            mark: now,
            tick,
            given_tick: tick,
            nanos: 0,
            timed: 0,
            tiny: true,
            condemned: false,
            through: false,
        })
    }

    /// How many arguments the chunk's body holds; those of its tasks are some of them.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.part.total
    }

    /// Whether the parent may send the arguments again: what is written to them must stay here.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// The next task, as the place of its argument in the body. `None`: run no more, give what was not given.
    pub fn start(&mut self, handler: &mut dyn Handler) -> Option<u32> {
        if self.condemned || self.started == self.part.count {
            return None;
        }
        let worker = &mut *self.worker;
        if self.started > 0 && worker.thrift.is_over(&worker.ticker, self.tick, handler) {
            return None;
        }
        if self.limited {
            self.link.mark_start();
        }
        match self.word().start(self.started) {
            Step::Run => {
                self.started += 1;
                Some(self.part.first + self.started - 1)
            }
            Step::Over => None,
            Step::Condemned => {
                self.condemned = true;
                None
            }
        }
    }

    /// Until [`Chunk::start_clock`], the time of the task that was started does not count: its function is loaded first, which
    /// may take long, and is no fault of the task's.
    pub fn hold_clock(&mut self) {
        if self.limited {
            self.link.unmark_start();
        }
    }

    /// What was done since the task was started does not count as its time.
    pub fn start_clock(&mut self) {
        if self.limited {
            self.link.mark_start();
        }
        self.mark = Instant::now();
        self.tick = self.worker.ticker.read();
    }

    /// The task has ended. Whether it is time to give its result, and those kept before it.
    pub fn ended(&mut self) -> bool {
        let (ticker, tick) = (&self.worker.ticker, self.worker.ticker.read());
        self.tiny = ticker.within(self.tick, tick, TINY);
        let due = !self.tiny || !ticker.within(self.given_tick, tick, KEPT);
        self.tick = tick;
        self.ended += 1;
        due
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        self.nanos += u64::try_from((now - self.mark).as_nanos()).unwrap_or(u64::MAX / 2);
        (self.mark, self.timed) = (now, self.ended);
    }

    /// Where to write buffers of a result that are too large for the ring.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.worker.memory
    }

    /// The next `count` tasks returned: their values, encoded together.
    ///
    /// # Errors
    /// A parent that writes nonsense.
    pub fn values(&mut self, handler: &mut dyn Handler, count: u32, body: impl Into<Load>) -> Result<(), Error> {
        let id = self.id;
        self.give(handler, count, body.into(), |nanos, last| Kind::Values {
            id,
            count,
            nanos,
            last,
        })
    }

    /// The next task raised: what, encoded. With `again` it is worth another try, where tasks are tried again.
    ///
    /// # Errors
    /// A parent that writes nonsense.
    pub fn raised(&mut self, handler: &mut dyn Handler, body: Vec<u8>, again: bool) -> Result<(), Error> {
        let id = self.id;
        self.give(handler, 1, body.into(), |nanos, last| Kind::Raised {
            id,
            nanos,
            last,
            again,
        })
    }

    /// If memory is limited, it is not any more, and no further task will be started: for a task that was refused some, so that
    /// there is enough to say so. False if there was no limit.
    #[must_use]
    pub fn lift_limit(&mut self) -> bool {
        self.worker.thrift.lift()
    }

    /// The next task went past the limit of memory, which was lifted: what it raised then, encoded.
    ///
    /// # Errors
    /// A parent that writes nonsense.
    pub fn outgrown(&mut self, handler: &mut dyn Handler, body: Vec<u8>) -> Result<(), Error> {
        let (id, memory) = (self.id, process::own_peak_memory().unwrap_or(0));
        self.give(handler, 1, body.into(), |_, last| Kind::Outgrown { id, memory, last })
    }

    fn give(
        &mut self,
        handler: &mut dyn Handler,
        count: u32,
        body: Load,
        kind: impl FnOnce(u64, bool) -> Kind,
    ) -> Result<(), Error> {
        let pending = self.ended - self.given;
        if count == 0 || count > pending {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a handler gives the results of the tasks that have ended, once each",
            ));
        }
        if self.condemned {
            return Ok(());
        }
        if self.timed < self.ended {
            self.look_at_the_clock();
        }
        let nanos = self.nanos * u64::from(count) / u64::from(pending);
        self.nanos -= nanos;
        self.given += count;
        self.given_tick = self.tick;
        let last = self.given == self.part.count;
        if last && !self.close() {
            return Ok(());
        }
        self.worker.reply(kind(nanos, last), body, handler)
    }

    /// Nothing runs any more, and nothing will be started: false if the parent gave up on the chunk before.
    fn close(&mut self) -> bool {
        self.through = self.word().finish(self.tiny);
        self.condemned = !self.through;
        self.through
    }

    /// After the handler is through: false if the worker is condemned.
    pub(super) fn finish(mut self, handler: &mut dyn Handler) -> Result<bool, Error> {
        if self.condemned || self.through {
            return Ok(self.through);
        }
        if self.given < self.started {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a handler gives the results of all tasks that it started",
            ));
        }
        if self.worker.is_over(handler) {
            return Ok(true); // the rest is taken back once the parent hears of it
        }
        if !self.close() {
            return Ok(false);
        }
        self.worker
            .reply(Kind::Over { id: self.id }, Load::default(), handler)?;
        Ok(true)
    }

    fn word(&self) -> &Word {
        self.link.word(self.slot).expect("`new` has looked")
    }
}
