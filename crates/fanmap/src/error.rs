//! The one error type of the crate.
//!
//! Every fallible call returns [`Error`]; [`Error::kind`] tells what kind of thing happened, the message says what, to
//! which item where there is one, and what to do.

use std::fmt;
use std::sync::Arc;

use crate::lost::WorkerLost;

/// What kind of thing went wrong.
///
/// ```
/// use fanmap::ErrorKind;
///
/// let results: Vec<_> = fanmap::map(["7", "seven"], |word| word.parse::<u32>().unwrap()).collect();
/// let told: Vec<Option<ErrorKind>> = results.iter().map(|result| result.as_ref().err().map(|error| error.kind())).collect();
/// assert_eq!(told, [None, Some(ErrorKind::Panicked)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument cannot be used as it is.
    InvalidInput,
    /// The executor has been shut down and takes no more tasks.
    Closed,
    /// The executor cannot go on: its workers cannot live.
    Broken,
    /// The task's function panicked.
    Panicked,
    /// The task was cancelled before it ran.
    Cancelled,
    /// The wait ran out of time; the task goes on.
    Timeout,
    /// The task ran out of time and was ended.
    TaskTimeout,
    /// The worker that ran the task ended before the task did.
    WorkerLost,
    /// A signal arrived while waiting.
    Interrupted,
    /// An argument or a result could not be encoded or decoded.
    Codec,
    /// The operating system refused something.
    Os,
}

/// An error of this crate: a [`kind`](Error::kind) and a sentence.
///
/// ```
/// let error = fanmap::ThreadPool::new(0).unwrap_err();
/// assert_eq!(error.kind(), fanmap::ErrorKind::InvalidInput);
/// assert!(error.message().contains("at least 1"));
///
/// let errors: Vec<_> = fanmap::map(["7", "seven"], |word| word.parse::<u32>().unwrap()).filter_map(Result::err).collect();
/// assert_eq!(errors[0].item(), Some(1));
/// assert!(errors[0].to_string().starts_with("item 1: the task panicked"));
/// assert!(errors[0].worker().is_none()); // it is there
///
/// let mine = fanmap::Error::new(fanmap::ErrorKind::Codec, "no header");
/// assert_eq!(mine.to_string(), "no header");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    // Elsewhere, so that a `Result` with it is hardly larger than its value.
    inner: Box<Inner>,
}

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    message: String,
    item: Option<u64>,
    worker: Option<Arc<WorkerLost>>,
}

impl Error {
    /// An error of `kind` that says `message`: for who brings the crate something that can fail.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            message: message.into(),
            item: None,
            worker: None,
        };
        Self { inner: Box::new(inner) }
    }

    /// An operating system's refusal, with what was being done.
    pub(crate) fn os(doing: &str, cause: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Os, format!("could not {doing}: {cause}"))
    }

    /// The same error, naming the item (its index in the input) that it happened to.
    #[must_use]
    pub(crate) fn at_item(mut self, index: u64) -> Self {
        self.inner.item = Some(index);
        self
    }

    /// The same error, of a task that had been tried before, and what that came to.
    #[must_use]
    pub(crate) fn after(mut self, earlier: &[Self]) -> Self {
        for (at, error) in earlier.iter().enumerate() {
            let told = format!("; attempt {} failed: {}", at + 1, error.message());
            self.inner.message.push_str(&told);
        }
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The index of the item in the input of a map, if the error belongs to one.
    #[must_use]
    pub fn item(&self) -> Option<u64> {
        self.inner.item
    }

    /// What is known of the worker process, if that is what was lost.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerLost> {
        self.inner.worker.as_deref()
    }

    /// The sentence, without the item.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }
}

impl From<Arc<WorkerLost>> for Error {
    fn from(lost: Arc<WorkerLost>) -> Self {
        let mut error = Self::new(ErrorKind::WorkerLost, lost.to_string());
        error.inner.worker = Some(lost);
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner.item {
            Some(index) => write!(f, "item {index}: {}", self.inner.message),
            None => f.write_str(&self.inner.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {}
