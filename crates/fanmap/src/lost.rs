//! What is known of a worker process that ended while it ran a task.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a worker process ended.
///
/// ```
/// use fanmap::Exit;
///
/// assert_eq!(Exit::Code(3).to_string(), "exit code 3");
/// assert_eq!(Exit::Signal(11).to_string(), "signal 11 (SIGSEGV)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody could tell: what supervised it ended as well.
    Unknown,
}

impl Exit {
    /// By SIGKILL, which the system sends when memory runs out.
    pub(crate) const KILLED: Self = Exit::Signal(9);
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "signal {number} ({name})"),
                None => write!(f, "signal {number}"),
            },
            Exit::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// How a worker process ended, and what is known of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) exit: Exit,
    /// In bytes.
    pub(crate) peak_memory: Option<u64>,
    pub(crate) out_of_memory: bool,
}

impl Death {
    /// One that nobody saw.
    pub(crate) const UNSEEN: Self = Self {
        exit: Exit::Unknown,
        peak_memory: None,
        out_of_memory: false,
    };
}

/// The call that a task was, as far as its parent still has it.
///
/// It comes with a [`WorkerLost`], whose example shows it, and with an [`Overdue`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The function's name.
    pub function: Arc<str>,
    /// The encoded arguments of the run that the task was sent with.
    pub arguments: Arc<Vec<u8>>,
    /// Which of them is the task's.
    pub place: u32,
    /// How many they are.
    pub total: u32,
}

/// A task that ran for longer than it may, and was ended with its worker process.
///
/// ```
/// use fanmap::{ErrorKind, ProcessPool};
/// use std::time::Duration;
///
/// fn stuck(_: u32) {
///     loop {
///         std::thread::park();
///     }
/// }
/// fanmap::register!(stuck);
///
/// fanmap::init();
/// let pool = ProcessPool::builder().workers(1).task_timeout(Duration::from_millis(20)).build()?;
/// let error = pool.submit(stuck, 3)?.wait().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TaskTimeout);
/// assert!(error.message().contains("ran for longer than 20ms")); // as `Overdue` says it
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overdue {
    /// The worker's process id.
    pub pid: u32,
    /// How long the task might run.
    pub limit: Duration,
    /// What it was.
    pub call: Call,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (function, limit) = (&self.call.function, self.limit);
        write!(
            f,
            "`{function}` ran for longer than {limit:?} and was ended, with its worker process"
        )
    }
}

/// A worker process that ended while it ran a task.
///
/// ```
/// use fanmap::{ErrorKind, Exit, ProcessPool};
///
/// fn careless(n: u32) -> u32 {
///     if n == 3 { std::process::abort() } else { n }
/// }
/// fanmap::register!(careless);
///
/// fanmap::init();
/// let error = ProcessPool::new(1)?.submit(careless, 3)?.wait().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::WorkerLost);
/// let lost = error.worker().expect("it was a worker that was lost");
/// assert_eq!(lost.exit, Exit::Signal(6));
/// assert_eq!(lost.exit.to_string(), "signal 6 (SIGABRT)");
/// assert!(lost.call.function.ends_with("careless"));
/// assert!(!lost.out_of_memory && lost.memory_limit.is_none());
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLost {
    /// The worker's process id.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// The most memory that it had at a time (resident), in bytes, if that is known.
    pub peak_memory: Option<u64>,
    /// Whether the system has likely killed it because memory ran out: it was ended by SIGKILL, and its cgroup has counted
    /// such a kill.
    pub out_of_memory: bool,
    /// How much memory of its own it might have, in bytes, if that was limited.
    pub memory_limit: Option<u64>,
    /// What the task raised when it was refused memory past that limit, encoded: then its worker was replaced for it.
    pub refused: Option<Vec<u8>>,
    /// Whether it was ended since it wrote nonsense into the memory that it shares with its parent.
    pub corrupt: bool,
    /// What it ran.
    pub call: Call,
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, function) = (self.pid, &self.call.function);
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        if self.refused.is_some() {
            write!(f, "`{function}` went past the memory limit of its worker process {pid}")?;
        } else {
            let exit = self.exit;
            write!(
                f,
                "the worker process {pid} ended abruptly while it ran `{function}`: {exit}"
            )?;
        }
        if self.out_of_memory {
            f.write_str(", likely out of memory")?;
        }
        if self.corrupt {
            f.write_str(", since it had written nonsense into the memory that it shares with its parent")?;
        }
        if let Some(bytes) = self.peak_memory {
            write!(f, "; it had used up to {} MiB of memory", mib(bytes))?;
        }
        match self.memory_limit {
            Some(bytes) => write!(f, ", and its own was limited to {} MiB", mib(bytes)),
            None => Ok(()),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}
