//! The messages on the control socket.
//!
//! The parent invites: [`Invitation`] carries a worker's link and bells as descriptors. A worker that the parent started
//! itself reads the one that is meant for it; a template reads many, forks a worker for each, and reports what became of
//! them with [`Report`]s. The end of the socket tells a template that its parent is gone. A worker that the parent cannot
//! end itself, since there was no room for its descriptor, it has the template end ([`Order`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fanmap_shm::bell::Bell;
use fanmap_shm::link::Link;
use fanmap_shm::process::{Ended, Process};
use fanmap_shm::socket::Socket;

use crate::lost::Exit;

/// All that a new worker needs to join a pool.
#[derive(Debug)]
pub struct Invitation {
    pub(crate) key: u64,
    pub(crate) index: u32,
    pub(crate) parent: u32,
    /// Mapped only by the worker itself: a mapping would not survive the template's fork.
    pub(crate) link: OwnedFd,
    pub(crate) my_bell: Bell,
    pub(crate) parent_bell: Bell,
    /// The memories that items and functions come in, and that results go to.
    pub(crate) items: OwnedFd,
    pub(crate) results: OwnedFd,
    /// How much of the latter the worker keeps.
    pub(crate) result_bytes: u64,
    /// How much memory of its own it may have between tasks, and at any time.
    pub(crate) max_memory: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    /// Descriptors that came along for the handler.
    pub(crate) extra: Vec<OwnedFd>,
}

/// What a worker is told of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memories<'a> {
    /// Where items come in, and where results go to.
    pub(crate) items: BorrowedFd<'a>,
    pub(crate) results: BorrowedFd<'a>,
    /// How many bytes of the latter are kept.
    pub(crate) result_bytes: u64,
    /// See [`ProcessConfig`](crate::config::ProcessConfig).
    pub(crate) max_memory: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
}

impl Invitation {
    /// The process that supervises the worker.
    #[must_use]
    pub fn parent(&self) -> u32 {
        self.parent
    }

    /// The worker's number, from 0: no two workers that a pool has at a time have the same.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Takes the descriptors that came along for the handler, in the order they were given.
    #[must_use]
    pub fn take_extra(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.extra)
    }

    /// Sends an invitation to join a pool of this process.
    pub(crate) fn send(
        socket: &Socket,
        (key, index): (u64, u32),
        link: &Link,
        (worker_bell, parent_bell): (&Bell, &Bell),
        memories: Memories<'_>,
        extra: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let parent = u64::from(std::process::id());
        let Memories { items, results, .. } = memories;
        let limits = [memories.max_memory, memories.memory_limit].map(|limit| limit.unwrap_or(0));
        let message = [key, index.into(), parent, memories.result_bytes, limits[0], limits[1]];
        let message = message.map(u64::to_ne_bytes).concat();
        let mut fds: Vec<BorrowedFd<'_>> = vec![link.as_fd(), worker_bell.as_fd(), parent_bell.as_fd(), items, results];
        fds.extend(extra);
        socket.send(&message, &fds)
    }

    /// For whom the message is that an invitation began with.
    pub(crate) fn key_of(message: &[u8]) -> Option<u64> {
        longs::<6>(message).map(|[key, ..]| key)
    }

    /// Reads an invitation.
    pub(crate) fn read(message: &[u8], fds: Vec<OwnedFd>) -> io::Result<Self> {
        let broken = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a broken invitation came over the control socket",
            )
        };
        let [key, index, parent, result_bytes, max_memory, memory_limit] = longs(message).ok_or_else(broken)?;
        let limit = |bytes| Some(bytes).filter(|bytes| *bytes > 0);
        let mut fds = fds.into_iter();
        let mut fd = || fds.next().ok_or_else(broken);
        let (link, mine, parents, items, results) = (fd()?, fd()?, fd()?, fd()?, fd()?);
        Ok(Self {
            key,
            index: u32::try_from(index).map_err(|_| broken())?,
            parent: u32::try_from(parent).map_err(|_| broken())?,
            link,
            my_bell: Bell::from_fd(mine),
            parent_bell: Bell::from_fd(parents),
            items,
            results,
            result_bytes,
            max_memory: limit(max_memory),
            memory_limit: limit(memory_limit),
            extra: fds.collect(),
        })
    }
}

/// What a template is told to do with a worker: end it.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) key: u64,
}

impl Order {
    pub(crate) fn send(&self, socket: &Socket) -> io::Result<()> {
        socket.send(&self.key.to_ne_bytes(), &[])
    }

    /// Reads it; `None` if the message is something else.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        longs(message).map(|[key]| Self { key })
    }
}

/// What a template tells its parent.
#[derive(Debug)]
pub(crate) enum Report {
    /// The worker `key` runs.
    Started {
        /// The worker.
        key: u64,
        /// Its process id.
        pid: u32,
        /// The process. `None`: there was no room for its descriptor.
        process: Option<Process>,
    },
    /// The worker `key` could not be started.
    Failed {
        /// The worker.
        key: u64,
        /// The operating system's number of the error.
        errno: i32,
    },
    /// The worker `key` has ended.
    Ended {
        /// The worker.
        key: u64,
        /// How.
        exit: Exit,
        /// The most memory that it had, in bytes, if that is known.
        peak_memory: Option<u64>,
    },
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Exit::Code(code),
            Ended::Signal(signal) => Exit::Signal(signal),
        }
    }
}

const STARTED: u64 = 1;
const FAILED: u64 = 2;
const CODE: u64 = 3;
const SIGNAL: u64 = 4;
const UNKNOWN: u64 = 5;

impl Report {
    pub(crate) fn send(&self, socket: &Socket) -> io::Result<()> {
        let (tag, key, value, peak) = match self {
            Report::Started { key, pid, .. } => (STARTED, key, i64::from(*pid), 0),
            Report::Failed { key, errno } => (FAILED, key, i64::from(*errno), 0),
            Report::Ended { key, exit, peak_memory } => {
                let (tag, value) = match exit {
                    Exit::Code(code) => (CODE, *code),
                    Exit::Signal(signal) => (SIGNAL, *signal),
                    Exit::Unknown => (UNKNOWN, 0),
                };
                (tag, key, i64::from(value), peak_memory.unwrap_or(0))
            }
        };
        let message = [tag, *key, value as u64, peak].map(u64::to_ne_bytes).concat();
        match self {
            Report::Started {
                process: Some(process), ..
            } => socket.send(&message, &[process.as_fd()]),
            _ => socket.send(&message, &[]),
        }
    }

    /// What the message says, or `None` if it is nonsense. `fds` is `None` if what came with it is lost.
    pub(crate) fn read(message: &[u8], fds: Option<Vec<OwnedFd>>) -> Option<Self> {
        let [tag, key, value, peak] = longs(message)?;
        let value = i32::try_from(value as i64).ok()?;
        let exit = match tag {
            STARTED => {
                let pid = u32::try_from(value).ok()?;
                let process = match fds {
                    Some(fds) => Some(Process::from_fd(pid, fds.into_iter().next()?)),
                    None => None,
                };
                return Some(Report::Started { key, pid, process });
            }
            FAILED => return Some(Report::Failed { key, errno: value }),
            CODE => Exit::Code(value),
            SIGNAL => Exit::Signal(value),
            UNKNOWN => Exit::Unknown,
            _ => return None,
        };
        let peak_memory = Some(peak).filter(|peak| *peak > 0);
        Some(Report::Ended { key, exit, peak_memory })
    }
}

/// `N` numbers and nothing more.
fn longs<const N: usize>(message: &[u8]) -> Option<[u64; N]> {
    (message.len() == 8 * N)
        .then(|| std::array::from_fn(|at| u64::from_ne_bytes(std::array::from_fn(|k| message[8 * at + k]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanmap_shm::socket::Received;

    fn message(socket: &Socket) -> (Vec<u8>, Vec<OwnedFd>) {
        match socket.receive().unwrap() {
            Received::Message(bytes, fds) => (bytes, fds),
            other => panic!("expected a message, not {other:?}"),
        }
    }

    #[test]
    fn an_invitation_arrives_with_all_its_descriptors() {
        let (ours, theirs) = Socket::pair().unwrap();
        let (link, one, two) = (Link::create().unwrap(), Bell::new().unwrap(), Bell::new().unwrap());
        let extra = Bell::new().unwrap();
        let memories = Memories {
            items: link.as_fd(),
            results: link.as_fd(),
            result_bytes: 7,
            max_memory: None,
            memory_limit: Some(9),
        };
        Invitation::send(&ours, (9, 4), &link, (&one, &two), memories, &[extra.as_fd()]).unwrap();
        let (bytes, fds) = message(&theirs);
        let mut invitation = Invitation::read(&bytes, fds).unwrap();
        assert_eq!((invitation.key, invitation.index()), (9, 4));
        assert_eq!(invitation.parent(), std::process::id());
        assert_eq!(invitation.result_bytes, 7);
        assert_eq!((invitation.max_memory, invitation.memory_limit), (None, Some(9)));
        assert_eq!(invitation.take_extra().len(), 1);
    }

    #[test]
    fn reports_come_back_as_they_were_and_nonsense_is_refused() {
        let (ours, theirs) = Socket::pair().unwrap();
        for (exit, peak) in [
            (Exit::Code(3), Some(7)),
            (Exit::Signal(11), None),
            (Exit::Unknown, None),
        ] {
            let report = Report::Ended {
                key: 4,
                exit,
                peak_memory: peak,
            };
            report.send(&ours).unwrap();
            let (bytes, fds) = message(&theirs);
            let Some(Report::Ended {
                key: 4,
                exit: seen,
                peak_memory,
            }) = Report::read(&bytes, Some(fds))
            else {
                panic!("another report")
            };
            assert_eq!((seen, peak_memory), (exit, peak));
        }
        assert!(Report::read(&[0; 32], Some(Vec::new())).is_none());
        assert!(Report::read(b"short", Some(Vec::new())).is_none());
        let started = [1u64, 4, 7, 0].map(u64::to_ne_bytes).concat();
        assert!(
            Report::read(&started, Some(Vec::new())).is_none(),
            "no descriptor came with it"
        );
        let lost = Report::read(&started, None);
        let Some(Report::Started {
            key: 4,
            pid: 7,
            process: None,
        }) = lost
        else {
            panic!("the rest is known all the same: {lost:?}")
        };
    }
}
