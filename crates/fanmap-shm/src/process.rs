//! Starting, watching and ending processes.
//!
//! A process is watched through a pidfd: a descriptor that becomes readable when the process ends and that can never come
//! to mean another process, as a number can.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use libc::{rusage, siginfo_t};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};

use crate::fd::Fd;
use crate::signals;
use crate::socket::Socket;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exiting with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// What is left of a process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// How it ended.
    pub ended: Ended,
    /// The most memory that it had at a time, in bytes: resident, and its own or one of its ended children's. One that was
    /// executed begins with that of the process that started it.
    pub peak_memory: u64,
}

/// A process, by a descriptor that means it and no other.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: Fd,
}

impl Process {
    /// A child of this process (or, racing with its end, of another one: see [`Process::from_fd`]).
    pub fn open(pid: u32) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty())?;
        Ok(Self::from_fd(pid, pidfd))
    }

    /// The process behind a pidfd that its parent passed.
    #[must_use]
    pub fn from_fd(pid: u32, pidfd: OwnedFd) -> Self {
        let pidfd = pidfd.into();
        Self { pid, pidfd }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once (SIGKILL). Ending one that has ended is no error.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// Has it go on if it was stopped (SIGCONT).
    pub fn resume(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::CONT);
    }

    /// Takes the exit status of a child of this process that has ended, so that no zombie is left. `None` if it runs, or
    /// if somebody else took the status first.
    #[must_use]
    pub fn reap(&self) -> Option<Remains> {
        let (mut info, mut usage) = (MaybeUninit::<siginfo_t>::zeroed(), MaybeUninit::<rusage>::zeroed());
        // The system call, whose last argument the library's function leaves out.
        // SAFETY: both structures are the kernel's, writable, and of the types that it fills in.
        let done = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                self.pidfd.as_fd().as_raw_fd(),
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOHANG,
                usage.as_mut_ptr(),
            )
        };
        if done != 0 {
            return None;
        }
        // SAFETY: all bytes of both are initialized, by us and then by the kernel, and any are valid for integers. For a child
        // that has ended the fields of `siginfo_t` that `si_pid` and `si_status` read are set; else they are zero.
        let (pid, status, info, usage) = unsafe {
            let (info, usage) = (info.assume_init(), usage.assume_init());
            (info.si_pid(), info.si_status(), info, usage)
        };
        let ended = match info.si_code {
            _ if pid == 0 => return None,
            libc::CLD_EXITED => Ended::Code(status),
            libc::CLD_KILLED | libc::CLD_DUMPED => Ended::Signal(status),
            _ => return None,
        };
        let peak_memory = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
        Some(Remains { ended, peak_memory })
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The most memory that this process had at a time, in bytes.
#[must_use]
pub fn own_peak_memory() -> Option<u64> {
    in_status(&own_status()?, "VmHWM:")
}

/// How much memory this process has of its own, in bytes: what it has written to that is no file's and shared with nobody
/// by intent, be it in memory or swapped out. Programs' files and shared memory do not count. It takes some 30 us.
#[must_use]
pub fn own_memory() -> Option<u64> {
    let status = own_status()?;
    Some(in_status(&status, "RssAnon:")? + in_status(&status, "VmSwap:").unwrap_or(0))
}

fn own_status() -> Option<String> {
    std::fs::read_to_string("/proc/self/status").ok()
}

/// A size in `/proc/[pid]/status`, in bytes.
fn in_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A limit on the memory of this process, which the system holds: what goes past it is refused (ENOMEM) where it is asked
/// for. It is on what is mapped to be written to by this process alone (RLIMIT_DATA), used or not.
#[derive(Debug)]
pub struct DataLimit {
    before: Rlimit,
}

impl DataLimit {
    /// From here on the process may have so many bytes more than it has now, and so may each that it starts. A lower limit
    /// that was there stays.
    ///
    /// # Errors
    /// The system does not tell what the process has, or refuses.
    pub fn of_more(bytes: u64) -> io::Result<Self> {
        let now = own_status().and_then(|status| in_status(&status, "VmData:"));
        let now = now.ok_or_else(|| io::Error::other("/proc/self/status does not tell the size of the data"))?;
        let before = rustix::process::getrlimit(Resource::Data);
        let wanted = now.saturating_add(bytes);
        let current = Some(before.current.map_or(wanted, |limit| limit.min(wanted)));
        rustix::process::setrlimit(Resource::Data, Rlimit { current, ..before })?;
        Ok(Self { before })
    }

    /// Puts the limit back that there was before.
    pub fn lift(self) {
        // It is not above the hard limit, which was not changed.
        let _ = rustix::process::setrlimit(Resource::Data, self.before);
    }
}

/// Has this process be the first that the system ends when memory runs out: its parent, which can replace it, is to live.
pub fn go_first() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
}

/// Starts `command` with one end of a control socket as its standard input; returns the other end.
///
/// A standard stream is the one descriptor that a program started in a process of many threads can be given safely: all
/// others are closed on exec. The started program takes it with [`adopt_control_socket`].
pub fn spawn(mut command: Command) -> io::Result<(Process, Socket)> {
    let (ours, theirs) = Socket::pair()?;
    let spawned = command.stdin(Stdio::from(theirs.into_fd())).spawn();
    let mut child = spawned.map_err(|cause| {
        let program = command.get_program().to_string_lossy();
        io::Error::new(cause.kind(), format!("{program}: {cause}"))
    })?;
    let process = Process::open(child.id()).inspect_err(|_| {
        // Nobody could watch it, so it is not to live, nor to stay as a zombie.
        let _ = child.kill();
        let _ = child.wait();
    })?;
    Ok((process, ours))
}

/// Ends a child of this process that has not been reaped, and reaps it: for one that cannot be watched.
pub fn end_child(pid: u32) -> io::Result<()> {
    let pid = to_pid(pid)?;
    rustix::process::kill_process(pid, Signal::KILL)?;
    while let Err(errno) = rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
        if errno != Errno::INTR {
            return Err(errno.into());
        }
    }
    Ok(())
}

/// In a process that [`spawn`] started: takes the control socket, and leaves an empty standard input in its place. From
/// here on it takes signals, which the thread that started it did not.
pub fn adopt_control_socket() -> io::Result<Socket> {
    signals::unblock_all();
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    empty_stdin()?;
    Ok(Socket::from_fd(socket))
}

/// Makes standard input an empty file, as every pool of workers does: two processes cannot share a keyboard.
pub fn empty_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(null)?)
}

/// Has C's standard output written line by line, each in one write, as Python's is: what `printf` prints is then out before
/// its task has ended, and no line is lost with a process that ends at once.
pub fn line_buffer_stdout() {
    unsafe extern "C" {
        #[link_name = "stdout"]
        static STDOUT: *mut libc::FILE;
    }
    // SAFETY: C's `stdout` is there for the whole life of the process, and without a buffer the call only says how the one
    // that it has is used.
    unsafe { libc::setvbuf(STDOUT, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

/// From here on this process is killed when the thread that started it ends. `parent` is the process that it was started
/// by; if that has ended already, this process is an orphan and must exit at once: false.
pub fn die_with_parent(parent: u32) -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    Ok(now == Some(parent))
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{self, Ready};
    use crate::socket::Received;

    #[test]
    fn a_child_is_watched_and_reaped_by_its_descriptor() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]);
        let (process, _socket) = spawn(command).unwrap();
        assert_eq!(poll::wait(&[process.as_fd()], None).unwrap(), Ready::Some(vec![0]));
        let remains = process.reap().unwrap();
        assert_eq!(remains.ended, Ended::Code(7));
        assert!(remains.peak_memory > 0 && own_peak_memory() >= own_memory() && own_memory() > Some(0));
        assert_eq!(process.reap(), None);
    }

    #[test]
    fn a_child_that_was_stopped_can_be_made_to_go_on_and_one_that_nobody_watches_be_ended() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "kill -STOP $$; exit 3"]);
        let (process, _socket) = spawn(command).unwrap();
        let stopped = rustix::process::waitid(
            rustix::process::WaitId::PidFd(process.as_fd()),
            rustix::process::WaitIdOptions::STOPPED,
        );
        assert!(stopped.unwrap().unwrap().stopped());
        process.resume();
        assert_eq!(poll::wait(&[process.as_fd()], None).unwrap(), Ready::Some(vec![0]));
        assert_eq!(process.reap().unwrap().ended, Ended::Code(3));

        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        end_child(child.id()).unwrap();
        assert!(end_child(child.id()).is_err() && child.wait().is_err());
    }

    #[test]
    fn a_killed_child_says_so_and_closes_its_socket() {
        let mut command = Command::new("/bin/cat");
        command.stdout(Stdio::null());
        let (process, socket) = spawn(command).unwrap();
        process.kill();
        assert_eq!(poll::wait(&[process.as_fd()], None).unwrap(), Ready::Some(vec![0]));
        assert_eq!(process.reap().unwrap().ended, Ended::Signal(9));
        assert!(matches!(socket.receive().unwrap(), Received::Closed));
    }
}
