//! The worker's side of a pool: join by an [`Invitation`], then serve chunks of tasks until told to leave.
//!
//! # Protocol
//! One thread owns the worker's ends of the link. It reads frames in order; a task's function runs between two steps of
//! its chunk's state word (see `fanmap_shm::word`, and [`Chunk`]). A worker that is condemned finds that it cannot make the
//! next step, and ends without touching another task. It sleeps only when the ring of calls is empty (or the ring of
//! replies full), having raised its flag and looked once more; the parent rings after publishing a call and after making
//! room. A task may close descriptors that are not its own, a bell's among them: a worker that finds that it can ring or
//! be rung no more ends, and the parent takes what it had published, as after any death.
//!
//! It cannot outlive its parent: the kernel kills it when the thread that started it ends.
//!
//! | module | what it is |
//! |---|---|
//! | [`chunk`] | a chunk while it runs: starting its tasks, giving their results |
//! | [`thrift`] | how much memory the worker may have |
//! | [`template`] | the process that forks workers |

mod chunk;
mod template;
mod thrift;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fanmap_shm::bell::Bell;
use fanmap_shm::blob::Blobs;
use fanmap_shm::clock::Ticker;
use fanmap_shm::link::Link;
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process;
use fanmap_shm::ring::Corrupt;
use fanmap_shm::socket::Received;

use crate::error::{Error, ErrorKind};
use crate::memory::{Ledger, Load, Memory, Message};
use crate::transport::control::Invitation;
use crate::transport::frame::Kind;
use crate::transport::stream::{Frame, FrameReader, FrameWriter, no_body};

pub use chunk::Chunk;
pub(crate) use chunk::KEPT;
pub use template::{Request, Template};
use thrift::Thrift;

/// What a worker does with what it is sent. Bytes in, bytes out: what they mean is the handler's.
pub trait Handler {
    /// Get ready. `Err` is sent to the parent as the reason why this worker cannot live.
    fn setup(&mut self, body: Vec<u8>) -> Result<(), Vec<u8>>;

    /// From now on `function` means `body`.
    fn define(&mut self, function: u64, body: Message);

    /// `function` will not be called again.
    fn forget(&mut self, function: u64);

    /// Call `function` for the tasks of a chunk, whose arguments are in `body`: see [`Chunk`] for what is to be done.
    ///
    /// # Errors
    /// Those of the chunk's methods, handed on: this worker cannot go on then.
    fn run(&mut self, function: u64, body: Message, chunk: &mut Chunk<'_>) -> Result<(), Error>;

    /// Run `wait`, which sleeps until there is something to do. A place to let go of an interpreter's lock.
    fn sleep(&mut self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// A signal handler ran on this thread while it slept.
    fn interrupted(&mut self) {}

    /// The worker has more memory than it may keep between tasks, and will be replaced for it: a place to let go of what is
    /// not needed.
    fn tidy(&mut self) {}
}

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The parent has no more work for this worker.
    Dismissed,
    /// The handler could not get ready.
    Refused,
    /// The task that ran was given up by the parent, which is about to kill this process.
    Condemned,
    /// It has more memory than it may; the parent knows.
    Outgrown,
}

/// Serves the pool that sent `invitation` until told to leave.
///
/// # Errors
/// A parent that writes nonsense, or a descriptor that cannot be waited for.
pub fn serve(invitation: Invitation, handler: &mut dyn Handler) -> Result<Left, Error> {
    Worker::join(invitation)?.serve(handler)
}

struct Worker {
    link: Arc<Link>,
    my_bell: Bell,
    parent_bell: Bell,
    calls: FrameReader,
    replies: FrameWriter,
    ticker: Ticker,
    /// Whether the last wait was short.
    lingers: bool,
    /// What results are written to that are too large for the ring.
    memory: Arc<Memory>,
    blobs: Ledger,
    thrift: Thrift,
}

impl Worker {
    fn join(invitation: Invitation) -> Result<Self, Error> {
        // It may not be allowed to; then whom the system ends first is the system's to say.
        let _ = process::go_first();
        let shared = |cause| Error::os("map the memory shared with the pool", cause);
        let link = Arc::new(Link::open(invitation.link).map_err(shared)?);
        let (calls, replies) = link
            .worker_ends()
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "an invitation can be followed only once"))?;
        Ok(Self {
            calls: FrameReader::new(calls),
            replies: FrameWriter::new(replies),
            link,
            my_bell: invitation.my_bell,
            parent_bell: invitation.parent_bell,
            ticker: Ticker::new(),
            lingers: false,
            memory: Memory::open(invitation.results, invitation.result_bytes).map_err(shared)?,
            blobs: Ledger::new(Arc::new(Blobs::open(invitation.items).map_err(shared)?), None),
            // Last: what the pool itself needs is there then.
            thrift: Thrift::new(invitation.max_memory, invitation.memory_limit)?,
        })
    }

    fn serve(mut self, handler: &mut dyn Handler) -> Result<Left, Error> {
        loop {
            let (kind, body, blobs) = self.next(handler)?;
            let body = self.blobs.receive(body, blobs).map_err(nonsense)?;
            match kind {
                Kind::Setup => match handler.setup(body.bytes) {
                    Ok(()) => self.reply(Kind::Ready, Load::default(), handler)?,
                    Err(why) => {
                        self.reply(Kind::Refused, why.into(), handler)?;
                        return Ok(Left::Refused);
                    }
                },
                Kind::Define { id } => handler.define(id, body),
                Kind::Forget { id } => handler.forget(id),
                Kind::Call {
                    slot,
                    id,
                    function,
                    part,
                    limited,
                    kept,
                } => {
                    let mut chunk = Chunk::new(&mut self, slot, id, part, (limited, kept))?;
                    handler.run(function, body, &mut chunk)?;
                    if !chunk.finish(handler)? {
                        return Ok(Left::Condemned);
                    }
                    if self.is_over(handler) {
                        self.reply(Kind::Quit, Load::default(), handler)?;
                        return Ok(Left::Outgrown);
                    }
                }
                Kind::Return { offset } => drop(self.blobs.returned(offset).map_err(nonsense)?),
                Kind::Cool => self.memory.cool(),
                Kind::Exit => return Ok(Left::Dismissed),
                _ => return Err(nonsense(Corrupt)),
            }
        }
    }

    /// Whether it is to start no more tasks, since it has more memory than it may.
    fn is_over(&mut self, handler: &mut dyn Handler) -> bool {
        let tick = self.ticker.read();
        self.thrift.is_over(&self.ticker, tick, handler)
    }

    /// The next frame, waiting for it.
    fn next(&mut self, handler: &mut dyn Handler) -> Result<Frame, Error> {
        loop {
            let frame = self.calls.next().map_err(nonsense)?;
            if self.calls.must_ring_for_space() {
                self.wake_parent()?;
            }
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.wait(handler, |worker| worker.calls.has_input())?;
        }
    }

    /// Sends a frame whole, waiting for room if need be, and wakes the parent if it sleeps.
    fn reply(&mut self, kind: Kind, load: Load, handler: &mut dyn Handler) -> Result<(), Error> {
        for offset in self.blobs.returns() {
            self.replies.push(Kind::Return { offset }, no_body(), 0);
        }
        let (body, blobs, leases) = load.pack();
        self.blobs.lend(&leases);
        leases.iter().for_each(|lease| lease.hand_over());
        self.replies.push(kind, body.into(), blobs);
        loop {
            let progress = self.replies.flush().map_err(nonsense)?;
            if progress && self.link.parent_asleep().must_ring() {
                self.wake_parent()?;
            }
            if self.replies.is_flushed() {
                return Ok(());
            }
            self.wait(handler, |worker| worker.replies.has_room())?;
        }
    }

    /// Rings for the parent, or this worker must end: that is heard of without a bell.
    fn wake_parent(&self) -> Result<(), Error> {
        let rung = self.parent_bell.try_ring();
        rung.map_err(|cause| Error::os("wake the parent process", cause))
    }

    /// Sleeps until rung, unless `ready` after raising the flag; or only lingers, where the wait is likely to be short.
    fn wait(&mut self, handler: &mut dyn Handler, ready: impl Fn(&Self) -> Result<bool, Corrupt>) -> Result<(), Error> {
        let since = Instant::now();
        if self.lingers && linger(since, || ready(self)).map_err(nonsense)? {
            return Ok(());
        }
        self.link.worker_asleep().arm();
        if !ready(self).map_err(nonsense)? {
            if self.link.parent_asleep().must_ring_at_rest() {
                self.wake_parent()?;
            }
            let bell = &self.my_bell;
            let mut woken = Ok(Ready::TimedOut);
            handler.sleep(&mut || woken = poll::wait(&[bell.as_fd()], None));
            match woken.map_err(|cause| Error::os("wait for work", cause))? {
                Ready::Interrupted => handler.interrupted(),
                Ready::Some(_) | Ready::TimedOut => bell.hush(),
            }
        }
        self.link.worker_asleep().disarm();
        self.lingers = since.elapsed() < SHORT_WAIT;
        Ok(())
    }
}

/// For how long a worker lingers that expects a call. Shorter, and it misses the next of a program that submits one task
/// after the other; longer, and it takes time from others for nothing.
const LINGER: Duration = Duration::from_micros(50);

/// After a wait of less than this, the next one is likely to be short, too: it would have been, but for the wake-up.
const SHORT_WAIT: Duration = Duration::from_micros(100);

/// To give the core away and get it back takes this if nobody else wants it.
const YIELD: Duration = Duration::from_micros(5);

/// Looks again and again whether there is something to do, without being woken, for a short time and only as long as
/// nobody else wants the core. Whether there is.
fn linger(since: Instant, ready: impl Fn() -> Result<bool, Corrupt>) -> Result<bool, Corrupt> {
    let mut last = since;
    loop {
        if ready()? {
            return Ok(true);
        }
        thread::yield_now();
        let now = Instant::now();
        if now - last > YIELD || now - since > LINGER {
            return ready();
        }
        last = now;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.blobs.leave();
    }
}

fn nonsense(_: Corrupt) -> Error {
    Error::new(
        ErrorKind::Broken,
        "the parent of this worker process wrote nonsense into their shared memory",
    )
}

/// In a process that the pool started directly: takes the control socket from standard input, and the invitation that is
/// waiting there.
///
/// `None` if the parent ended meanwhile: the process must exit.
///
/// # Errors
/// Standard input is not the control socket of a pool.
pub fn accept() -> Result<Option<Invitation>, Error> {
    let os = |cause| Error::os("join the pool that started this process", cause);
    let socket = process::adopt_control_socket().map_err(os)?;
    loop {
        match socket.receive().map_err(os)? {
            Received::Message(message, fds) => {
                let invitation = Invitation::read(&message, fds).map_err(os)?;
                let alive = process::die_with_parent(invitation.parent).map_err(os)?;
                return Ok(alive.then_some(invitation));
            }
            Received::Stripped(_) => {
                let cause = "there is no room for the descriptors that came with its invitation: too many open files";
                return Err(Error::os("join the pool that started this process", cause));
            }
            Received::Closed => return Ok(None),
            Received::Empty => {
                let _ = poll::wait(&[socket.as_fd()], None).map_err(os)?;
            }
        }
    }
}
