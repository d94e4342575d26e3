//! What became of a task: five different things, never mixed up.

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::lost::{Overdue, WorkerLost};

/// What became of one task.
///
/// `T` is the function's value, `E` what it raised: a [`Panic`] over threads, encoded bytes over processes.
///
/// ```
/// use fanmap::{ErrorKind, Outcome, Panic};
///
/// let outcomes = [Outcome::Value(42), Outcome::Raised(Panic::new("no")), Outcome::Cancelled];
/// let kinds = outcomes.map(|outcome| outcome.into_result().map_err(|error| error.kind()));
/// assert_eq!(kinds, [Ok(42), Err(ErrorKind::Panicked), Err(ErrorKind::Cancelled)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T, E = Panic> {
    /// The function returned.
    Value(T),
    /// The function raised (or panicked).
    Raised(E),
    /// The task was cancelled before it started.
    Cancelled,
    /// The task ran for longer than it may, and was ended.
    TimedOut(Arc<Overdue>),
    /// The worker ended before the task did.
    Lost(Arc<WorkerLost>),
}

impl<T> Outcome<T> {
    /// The value, or the error that says what happened instead.
    pub fn into_result(self) -> Result<T, Error> {
        match self {
            Outcome::Value(value) => Ok(value),
            Outcome::Raised(panic) => Err(panic.into()),
            Outcome::Cancelled => Err(cancelled()),
            Outcome::TimedOut(overdue) => Err(Error::new(ErrorKind::TaskTimeout, overdue.to_string())),
            Outcome::Lost(lost) => Err(lost.into()),
        }
    }
}

/// What is told of a task that never ran.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the task was cancelled before it ran")
}

/// A panic of a task's function, as its message.
///
/// ```
/// use fanmap::Panic;
///
/// let payload = std::panic::catch_unwind(|| panic!("{} is odd", 3)).unwrap_err();
/// assert_eq!(Panic::from_payload(&*payload).message(), "3 is odd");
/// assert_eq!(Panic::new("3 is odd"), Panic::from_payload(&*payload));
/// ```
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
