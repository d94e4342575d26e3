//! What became of a task: five different things, never mixed up.

use std::any::Any;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// What became of one task.
///
/// `T` is the function's value, `E` what it raised: a [`Panic`] over threads, encoded bytes over processes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T, E = Panic> {
    /// The function returned.
    Value(T),
    /// The function raised (or panicked).
    Raised(E),
    /// The task was cancelled before it started.
    Cancelled,
    /// The task was ended at its deadline.
    TimedOut,
    /// The worker ended before the task did.
    Lost(WorkerLost),
}

impl<T> Outcome<T> {
    /// The value, or the error that says what happened instead.
    pub fn into_result(self) -> Result<T, Error> {
        match self {
            Outcome::Value(value) => Ok(value),
            Outcome::Raised(panic) => Err(panic.into()),
            Outcome::Cancelled => Err(Error::new(ErrorKind::Cancelled, "the task was cancelled before it ran")),
            Outcome::TimedOut => Err(Error::new(
                ErrorKind::TaskTimeout,
                "the task ran out of time and was ended",
            )),
            Outcome::Lost(lost) => Err(Error::new(ErrorKind::WorkerLost, lost.to_string())),
        }
    }
}

/// A panic of a task's function, as its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    message: String,
}

impl Panic {
    /// A panic that said `message`.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// From what [`std::panic::catch_unwind`] caught.
    #[must_use]
    pub fn from_payload(payload: &(dyn Any + Send)) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_owned()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "a panic whose payload is not text".to_owned()
        };
        Self { message }
    }

    /// What it said.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Panic> for Error {
    fn from(panic: Panic) -> Self {
        Error::new(ErrorKind::Panicked, format!("the task panicked: {}", panic.message))
    }
}

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody could tell: what supervised it ended as well.
    Unknown,
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

/// A worker process that ended while it ran a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerLost {
    /// The worker's process id.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the worker process {} ended abruptly while it ran the task: {}",
            self.pid, self.exit
        )
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
