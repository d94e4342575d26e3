//! The template's side of its control socket: what a single-threaded process needs to fork workers on request.

use std::os::fd::AsFd;

use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process::{self, Process};
use fanmap_shm::socket::{Received, Socket};

use crate::error::Error;
use crate::lost::Exit;
use crate::transport::control::{Invitation, Order, Report};

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
    /// The template behind standard input, in a process that `parent` started. `None` if that has ended meanwhile: the
    /// process must exit.
    ///
    /// # Errors
    /// Standard input is not a control socket, or the parent cannot be watched.
    pub fn adopt(parent: u32) -> Result<Option<Self>, Error> {
        let socket = process::adopt_control_socket().map_err(|cause| Error::os("start the template process", cause))?;
        // The supervisor's thread has started it, and outlives it.
        Self::over(socket, parent, true)
    }

    /// The template over `socket`, in a process that `parent` forked. `None` if that has ended meanwhile: the process must
    /// exit.
    ///
    /// It watches its parent; but somebody may have stopped this process when that is killed. So where the thread that forked
    /// it ends with the parent only, it is `bound`: the system ends it then.
    ///
    /// # Errors
    /// The parent cannot be watched.
    pub fn over(socket: Socket, parent: u32, bound: bool) -> Result<Option<Self>, Error> {
        let watch = |cause| Error::os("watch the parent process", cause);
        if bound && !process::die_with_parent(parent).map_err(watch)? {
            return Ok(None);
        }
        let parent = match Process::open(parent) {
            Ok(parent) => parent,
            Err(cause) if cause.raw_os_error() == Some(NO_PROCESS) => return Ok(None),
            Err(cause) => return Err(watch(cause)),
        };
        Ok(Some(Self {
            socket,
            parent,
            children: Vec::new(),
        }))
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
                let remains = child.reap();
                let report = Report::Ended {
                    key,
                    exit: remains.map_or(Exit::Unknown, |remains| remains.ended.into()),
                    peak_memory: remains.map(|remains| remains.peak_memory),
                };
                // A parent that is gone shows in the poll above.
                let _ = report.send(&self.socket);
            }
            if ready.contains(&1) {
                return Ok(Request::Leave);
            }
            if ready.contains(&0) {
                match self.socket.receive().map_err(os)? {
                    Received::Message(message, fds) => match Order::read(&message) {
                        Some(Order { key }) => self.end(key),
                        None => return Ok(Request::Fork(Invitation::read(&message, fds).map_err(os)?)),
                    },
                    // A program that forks with a full table has a template with one.
                    Received::Stripped(message) => {
                        if let Some(key) = Invitation::key_of(&message) {
                            let _ = Report::Failed { key, errno: TABLE_FULL }.send(&self.socket);
                        }
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
    /// The child can neither be watched nor ended.
    pub fn forked(&mut self, key: u64, child: Result<u32, i32>) -> Result<(), Error> {
        let report = match child.map(|pid| (pid, Process::open(pid))) {
            Ok((pid, Ok(process))) => Report::Started {
                key,
                pid,
                process: Some(process),
            },
            Ok((pid, Err(cause))) => {
                process::end_child(pid).map_err(|cause| Error::os("end a worker that cannot be watched", cause))?;
                let errno = cause.raw_os_error().unwrap_or(TABLE_FULL);
                Report::Failed { key, errno }
            }
            Err(errno) => Report::Failed { key, errno },
        };
        // A parent that is gone shows at the next wait.
        let _ = report.send(&self.socket);
        if let Report::Started {
            key,
            process: Some(process),
            ..
        } = report
        {
            self.children.push((key, process));
        }
        Ok(())
    }

    fn end(&self, key: u64) {
        if let Some((_, child)) = self.children.iter().find(|(of, _)| *of == key) {
            child.kill();
        }
    }
}

/// There is no room for another descriptor (EMFILE).
const TABLE_FULL: i32 = 24;

/// There is no such process (ESRCH).
const NO_PROCESS: i32 = 3;

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
