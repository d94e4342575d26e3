//! The process pool in bytes, for bindings to other languages.
//!
//! [`Pool`] moves functions, arguments and results as bytes between a parent and its supervised workers; a [`Handler`] in
//! the worker gives them meaning. [`ProcessPool`](crate::ProcessPool) is built on it, with functions registered by name and
//! values encoded by serde; the Python package is built on it, with pickle.
//!
//! A worker is a program that calls [`accept`] and [`serve`], or a child that a [`Template`] forked.

pub use crate::config::{ProcessConfig, Retries};
pub use crate::memory::{Attached, Load, Memory, Message, Parcel, Returns};
pub use crate::output::{Channel, Outlet, Written};
pub use crate::supervisor::job::{Broken, End, Function, Sink, Wanted};
pub use crate::supervisor::launcher::{MakeCommand, Start, TemplateProcess};
pub use crate::supervisor::{Attention, Pool, Ticket};
pub use crate::transport::control::Invitation;
pub use crate::worker::{Chunk, Handler, Left, Request, Template, accept, serve};
pub use fanmap_shm::arena::Grant;
pub use fanmap_shm::blob::{BlobRef, Blobs};
pub use fanmap_shm::fd::forsake_all;
pub use fanmap_shm::fork::steady;
pub use fanmap_shm::mapping::{Access, Mapping, after_fork, before_fork};
pub use fanmap_shm::process::{Process, empty_stdin, line_buffer_stdout};
pub use fanmap_shm::socket::Socket;
