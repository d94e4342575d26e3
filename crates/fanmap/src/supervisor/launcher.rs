//! How worker processes come to be: started one by one by the parent, or forked by a template.
//!
//! | | direct | template |
//! |---|---|---|
//! | a worker is a child of | the parent | the template |
//! | it is invited over | a control socket of its own | the template's control socket |
//! | its end shows in | its pidfd | its pidfd, which the template passed |
//! | how it ended is told by | `waitid` | the template |
//! | it dies with | the supervisor's thread | the template, which dies with the parent |

use std::fmt;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::Arc;

use fanmap_shm::bell::Bell;
use fanmap_shm::link::Link;
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process::{self, Process};
use fanmap_shm::socket::{Received, Socket};

use crate::error::Error;
use crate::lost::Exit;
use crate::transport::control::{Invitation, Memories, Order, Report};

/// Builds the command of a process that is started by the pool.
pub type MakeCommand = Box<dyn Fn() -> Command + Send>;

/// How a pool gets its workers.
pub enum Start {
    /// Each worker is a program of its own, which calls [`accept`](crate::bytes::accept) first.
    Direct(MakeCommand),
    /// One program that runs a [`Template`](crate::bytes::Template). It is started again if it dies.
    Template(MakeCommand),
    /// A template that was forked already. It cannot be started again.
    Forked(Option<TemplateProcess>),
}

/// A template that runs. Dropping it ends it.
#[derive(Debug)]
pub struct TemplateProcess {
    process: Arc<Process>,
    /// Open for as long as the template is wanted.
    socket: Option<Socket>,
    /// The process that may end it: a copy of this in a child that was forked means nothing.
    owner: u32,
}

impl TemplateProcess {
    /// The template `process`, a child of this process, behind `socket`.
    #[must_use]
    pub fn new(process: Process, socket: Socket) -> Self {
        Self {
            process: Arc::new(process),
            socket: Some(socket),
            owner: std::process::id(),
        }
    }

    fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("it is taken at the end alone")
    }

    /// Ends it. How it ended comes back, which is its own doing if it had.
    fn end(&mut self) -> Exit {
        if self.socket.take().is_none() || std::process::id() != self.owner {
            return Exit::Unknown;
        }
        // It has nothing left to do or to lose; waiting for it to notice could be waiting for a stopped process.
        self.process.kill();
        while let Ok(Ready::Interrupted) = poll::wait(&[self.process.as_fd()], None) {}
        self.process
            .reap()
            .map_or(Exit::Unknown, |remains| remains.ended.into())
    }
}

impl Drop for TemplateProcess {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Start::Direct(_) => "Direct",
            Start::Template(_) => "Template",
            Start::Forked(_) => "Forked",
        })
    }
}

impl Start {
    /// What starts workers from now on.
    pub(super) fn open(&mut self) -> Result<Launcher, Error> {
        let os = |cause| Error::os("start the process that forks workers", cause);
        match self {
            Start::Direct(_) => Ok(Launcher::Direct),
            Start::Template(command) => {
                let (process, socket) = process::spawn(command()).map_err(os)?;
                Ok(Launcher::Template(TemplateProcess::new(process, socket)))
            }
            Start::Forked(template) => match template.take() {
                Some(template) => Ok(Launcher::Template(template)),
                None => Err(Error::os(
                    "start more workers",
                    "the process forked for them has ended, and its state at the fork with it; make a new executor",
                )),
            },
        }
    }
}

/// What starts workers, once it runs itself. Dropped after the workers have ended, it leaves no zombie.
#[derive(Debug)]
pub(super) enum Launcher {
    /// The supervisor's own thread.
    Direct,
    /// A template process.
    Template(TemplateProcess),
}

/// A worker that is being started.
#[derive(Debug, Default)]
pub(super) struct Launched {
    /// The process, if it is known already.
    pub(super) process: Option<Process>,
    /// The worker's own control socket.
    pub(super) control: Option<Socket>,
}

/// The template is gone, and every worker with it.
#[derive(Debug)]
pub(super) struct TemplateGone;

impl Launcher {
    /// Starts a worker and invites it.
    pub(super) fn launch(
        &self,
        start: &Start,
        who: (u64, u32),
        link: &Link,
        bells: (&Bell, &Bell),
        memories: Memories<'_>,
        extra: &[BorrowedFd<'_>],
    ) -> Result<Launched, Error> {
        let os = |cause| Error::os("start a worker process", cause);
        match (self, start) {
            (Launcher::Template(template), _) => {
                match Invitation::send(template.socket(), who, link, bells, memories, extra) {
                    // It has ended, which will show, and be told.
                    Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {}
                    sent => sent.map_err(os)?,
                }
                Ok(Launched::default())
            }
            (Launcher::Direct, Start::Direct(command)) => {
                let (process, control) = process::spawn(command()).map_err(os)?;
                if Invitation::send(&control, who, link, bells, memories, extra).is_err() {
                    // Most likely it has ended already. Either way its end will show, and be told like any other.
                    process.kill();
                }
                Ok(Launched {
                    process: Some(process),
                    control: Some(control),
                })
            }
            (Launcher::Direct, _) => unreachable!("a launcher belongs to the start that opened it"),
        }
    }

    /// Ends it; how the template had ended, if there is one.
    pub(super) fn end(self) -> Exit {
        match self {
            Launcher::Direct => Exit::Unknown,
            Launcher::Template(mut template) => template.end(),
        }
    }

    /// The descriptor on which reports arrive.
    pub(super) fn reports_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Launcher::Direct => None,
            Launcher::Template(template) => Some(template.socket().as_fd()),
        }
    }

    /// The next report that has arrived.
    pub(super) fn report(&self) -> Result<Option<Report>, TemplateGone> {
        let Launcher::Template(template) = self else {
            return Ok(None);
        };
        match template.socket().receive() {
            Ok(Received::Empty) => Ok(None),
            // A template that talks nonsense is as good as dead; dropping it makes it so.
            Ok(Received::Message(message, fds)) => Report::read(&message, Some(fds)).map(Some).ok_or(TemplateGone),
            Ok(Received::Stripped(message)) => Report::read(&message, None).map(Some).ok_or(TemplateGone),
            Ok(Received::Closed) | Err(_) => Err(TemplateGone),
        }
    }

    /// Has the template end a worker of its own.
    pub(super) fn end_worker(&self, key: u64) {
        if let Launcher::Template(template) = self {
            // It may have ended, and its workers with it.
            let _ = Order { key }.send(template.socket());
        }
    }

    /// Has the template go on if it was stopped: who ends the pool waits for its reports.
    pub(super) fn resume(&self) {
        if let Launcher::Template(template) = self {
            template.process.resume();
        }
    }

    /// How a worker ended whose descriptor shows that it has, and its most memory if that is known. `None`: the template
    /// will report it.
    pub(super) fn exit_of(&self, process: &Process) -> Option<(Exit, Option<u64>)> {
        match self {
            Launcher::Direct => Some(process.reap().map_or((Exit::Unknown, None), |remains| {
                // What it had when it began was ours. If that was more than it ever had itself, nobody knows what it had.
                let own = Some(remains.peak_memory).filter(|peak| Some(*peak) > process::own_peak_memory());
                (remains.ended.into(), own)
            })),
            Launcher::Template(_) => None,
        }
    }
}
