//! The worker's side of a pool: join by an [`Invitation`], then serve tasks until told to leave.
//!
//! # Protocol
//! One thread owns the worker's ends of the link. It reads frames in order; a task's function runs between the two steps
//! of its state word, QUEUED to STARTED before and STARTED to DONE after (see `fanmap_shm::word`). The reply is published
//! only after DONE: a worker that is condemned finds that it cannot make that step and ends without a reply and without
//! touching another task. It sleeps only when the ring of calls is empty (or the ring of replies full), having raised its
//! flag and looked once more; the parent rings after publishing a call and after making room.
//!
//! It cannot outlive its parent: the kernel kills it when the thread that started it ends.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use fanmap_shm::bell::Bell;
use fanmap_shm::link::Link;
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process::{self, Process};
use fanmap_shm::ring::Corrupt;
use fanmap_shm::socket::{Received, Socket};

use crate::error::{Error, ErrorKind};
use crate::outcome::Exit;
use crate::transport::control::{Invitation, Report};
use crate::transport::frame::Kind;
use crate::transport::stream::{FrameReader, FrameWriter};

/// What a worker does with what it is sent. Bytes in, bytes out: what they mean is the handler's.
pub trait Handler {
    /// Get ready. `Err` is sent to the parent as the reason why this worker cannot live.
    fn setup(&mut self, body: Vec<u8>) -> Result<(), Vec<u8>>;

    /// From now on `function` means `body`.
    fn define(&mut self, function: u64, body: Vec<u8>);

    /// `function` will not be called again.
    fn forget(&mut self, function: u64);

    /// Call `function` on an argument: the value, or what it raised.
    fn call(&mut self, function: u64, argument: Vec<u8>) -> Result<Vec<u8>, Vec<u8>>;

    /// Run `wait`, which sleeps until there is something to do. A place to let go of an interpreter's lock.
    fn sleep(&mut self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// A signal handler ran on this thread while it slept.
    fn interrupted(&mut self) {}
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
}

impl Worker {
    fn join(invitation: Invitation) -> Result<Self, Error> {
        let link =
            Link::open(invitation.link).map_err(|cause| Error::os("map the memory shared with the pool", cause))?;
        let link = Arc::new(link);
        let (calls, replies) = link
            .worker_ends()
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "an invitation can be followed only once"))?;
        Ok(Self {
            calls: FrameReader::new(calls),
            replies: FrameWriter::new(replies),
            link,
            my_bell: invitation.my_bell,
            parent_bell: invitation.parent_bell,
        })
    }

    fn serve(mut self, handler: &mut dyn Handler) -> Result<Left, Error> {
        loop {
            let (kind, body) = self.next(handler)?;
            match kind {
                Kind::Setup => match handler.setup(body) {
                    Ok(()) => self.reply(Kind::Ready, Vec::new(), handler)?,
                    Err(why) => {
                        self.reply(Kind::Refused, why, handler)?;
                        return Ok(Left::Refused);
                    }
                },
                Kind::Define { id } => handler.define(id, body),
                Kind::Forget { id } => handler.forget(id),
                Kind::Call { slot, id, function } => {
                    if !self.run(slot, id, function, body, handler)? {
                        return Ok(Left::Condemned);
                    }
                }
                Kind::Exit => return Ok(Left::Dismissed),
                _ => return Err(nonsense(Corrupt)),
            }
        }
    }

    /// Runs one task; false if the parent gave it up meanwhile.
    fn run(
        &mut self,
        slot: u32,
        id: u64,
        function: u64,
        argument: Vec<u8>,
        handler: &mut dyn Handler,
    ) -> Result<bool, Error> {
        let link = Arc::clone(&self.link);
        let word = link.word(slot as usize).ok_or_else(|| nonsense(Corrupt))?;
        if !word.start() {
            self.reply(Kind::Skipped { id }, Vec::new(), handler)?;
            return Ok(true);
        }
        let started = Instant::now();
        let result = handler.call(function, argument);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if !word.finish() {
            return Ok(false);
        }
        match result {
            Ok(value) => self.reply(Kind::Value { id, nanos }, value, handler)?,
            Err(raised) => self.reply(Kind::Raised { id, nanos }, raised, handler)?,
        }
        Ok(true)
    }

    /// The next frame, waiting for it.
    fn next(&mut self, handler: &mut dyn Handler) -> Result<(Kind, Vec<u8>), Error> {
        loop {
            let frame = self.calls.next().map_err(nonsense)?;
            if self.calls.must_ring_for_space() {
                self.parent_bell.ring();
            }
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.wait(handler, |worker| worker.calls.has_input())?;
        }
    }

    /// Sends a frame whole, waiting for room if need be, and wakes the parent if it sleeps.
    fn reply(&mut self, kind: Kind, body: Vec<u8>, handler: &mut dyn Handler) -> Result<(), Error> {
        self.replies.push(kind, body.into());
        loop {
            let progress = self.replies.flush().map_err(nonsense)?;
            if progress && self.link.parent_asleep().must_ring() {
                self.parent_bell.ring();
            }
            if self.replies.is_flushed() {
                return Ok(());
            }
            self.wait(handler, |worker| worker.replies.has_room())?;
        }
    }

    /// Sleeps until rung, unless `ready` after raising the flag.
    fn wait(&mut self, handler: &mut dyn Handler, ready: impl Fn(&Self) -> Result<bool, Corrupt>) -> Result<(), Error> {
        self.link.worker_asleep().arm();
        if !ready(self).map_err(nonsense)? {
            let bell = &self.my_bell;
            let mut woken = Ok(Ready::TimedOut);
            handler.sleep(&mut || woken = poll::wait(&[bell.as_fd()], None));
            match woken.map_err(|cause| Error::os("wait for work", cause))? {
                Ready::Interrupted => handler.interrupted(),
                Ready::Some(_) | Ready::TimedOut => bell.hush(),
            }
        }
        self.link.worker_asleep().disarm();
        Ok(())
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
            Received::Closed => return Ok(None),
            Received::Empty => {
                let _ = poll::wait(&[socket.as_fd()], None).map_err(os)?;
            }
        }
    }
}

/// The template's side of its control socket: what a single-threaded process needs to fork workers on request.
///
/// It waits for invitations, for the ends of the workers that it forked, which it reports, and for the end of its parent.
#[derive(Debug)]
pub struct Template {
    socket: Socket,
    parent: Process,
    children: Vec<(u64, Process)>,
}

/// What [`Template::wait`] found.
#[derive(Debug)]
#[must_use]
pub enum Request {
    /// Fork a worker, let the child follow the invitation, and tell the parent with [`Template::forked`].
    Fork(Invitation),
    /// A signal handler ran on this thread.
    Interrupted,
    /// The parent is gone or needs no more workers: exit.
    Leave,
}

impl Template {
    /// The template behind standard input, in a process that `parent` started.
    ///
    /// # Errors
    /// Standard input is not a control socket, or the parent has ended.
    pub fn adopt(parent: u32) -> Result<Self, Error> {
        let socket = process::adopt_control_socket().map_err(|cause| Error::os("start the template process", cause))?;
        Self::over(socket, parent)
    }

    /// The template over `socket`, in a process that `parent` forked.
    ///
    /// # Errors
    /// The parent has ended.
    pub fn over(socket: Socket, parent: u32) -> Result<Self, Error> {
        let parent = Process::open(parent).map_err(|cause| Error::os("watch the parent process", cause))?;
        Ok(Self {
            socket,
            parent,
            children: Vec::new(),
        })
    }

    /// Waits for the next thing to do, reporting ended workers meanwhile.
    ///
    /// # Errors
    /// A control socket that brings nonsense.
    pub fn wait(&mut self) -> Result<Request, Error> {
        let os = |cause| Error::os("wait for the parent process", cause);
        loop {
            let mut fds = vec![self.socket.as_fd(), self.parent.as_fd()];
            fds.extend(self.children.iter().map(|(_, child)| child.as_fd()));
            let ready = match poll::wait(&fds, None).map_err(os)? {
                Ready::Some(ready) => ready,
                Ready::Interrupted => return Ok(Request::Interrupted),
                Ready::TimedOut => continue,
            };
            for at in ready.iter().rev().filter_map(|at| at.checked_sub(2)) {
                let (key, child) = self.children.swap_remove(at);
                let exit = child.reap().map_or(Exit::Unknown, Exit::from);
                // A parent that is gone shows in the poll above.
                let _ = Report::Ended { key, exit }.send(&self.socket);
            }
            if ready.contains(&1) {
                return Ok(Request::Leave);
            }
            if ready.contains(&0) {
                match self.socket.receive().map_err(os)? {
                    Received::Message(message, fds) => {
                        return Ok(Request::Fork(Invitation::read(&message, fds).map_err(os)?));
                    }
                    Received::Closed => return Ok(Request::Leave),
                    Received::Empty => {}
                }
            }
        }
    }

    /// Reports that the invitation `key` was followed by the child `pid`, or why it could not be.
    ///
    /// # Errors
    /// The child cannot be watched.
    pub fn forked(&mut self, key: u64, child: Result<u32, i32>) -> Result<(), Error> {
        let report = match child {
            Ok(pid) => Report::Started {
                key,
                process: Process::open(pid).map_err(|cause| Error::os("watch a worker process", cause))?,
            },
            Err(errno) => Report::Failed { key, errno },
        };
        // A parent that is gone shows at the next wait.
        let _ = report.send(&self.socket);
        if let Report::Started { key, process } = report {
            self.children.push((key, process));
        }
        Ok(())
    }
}

impl Invitation {
    /// Which worker this is to be, for [`Template::forked`].
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// In a worker that a template forked: binds its life to the template's. False if that has ended already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bind_to(&self, template: u32) -> Result<bool, Error> {
        process::die_with_parent(template).map_err(|cause| Error::os("bind the worker to its template", cause))
    }
}
