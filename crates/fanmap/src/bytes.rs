//! The process pool in bytes, for bindings to other languages.
//!
//! [`Pool`] moves functions, arguments and results as bytes between a parent and its supervised workers; a [`Handler`] in
//! the worker gives them meaning. [`ProcessPool`](crate::ProcessPool) is built on it, with functions registered by name and
//! values encoded by serde; the Python package is built on it, with pickle.
//!
//! A worker is a program that calls [`accept`] and [`serve`], or a child that a [`Template`] forked.
//!
//! # A pool, and a worker
//! | in the parent | |
//! |---|---|
//! | [`Pool`], [`ProcessConfig`], [`Start`] | the workers, what is asked of them, and how they come to be |
//! | [`Function`], [`Load`], [`Memory`] | what they are to call, on what, and where its large buffers go |
//! | [`Ticket`], [`Sink`], [`End`], [`Wanted`], [`Retries`] | a task, where its end goes, how soon, and whether it is tried again |
//! | [`Outlet`], [`Written`], [`Channel`] | what workers write, where the parent takes it |
//!
//! | in a worker | |
//! |---|---|
//! | [`Invitation`] | what the worker is told and given by its pool |
//! | [`Handler`], [`Chunk`], [`Message`], [`Parcel`] | what gives bytes a meaning; the tasks that it is to run; their arguments and buffers |
//! | [`Template`], [`Request`] | the process that forks workers, and what it is asked for |
//!
//! ```
//! use std::process::Command;
//! use std::sync::Arc;
//! use std::sync::mpsc::{Sender, channel};
//!
//! use fanmap::Outcome;
//! use fanmap::bytes::{Chunk, End, Handler, Left, Message, Pool, ProcessConfig, Sink, Start, accept, serve};
//!
//! /// A worker that knows the function `upper`, in whatever language bytes are text.
//! struct Upper;
//!
//! impl Handler for Upper {
//!     fn setup(&mut self, _body: Vec<u8>) -> Result<(), Vec<u8>> {
//!         Ok(()) // or why this worker cannot live
//!     }
//!     fn define(&mut self, _function: u64, body: Message) {
//!         assert_eq!(body.bytes, b"upper");
//!     }
//!     fn forget(&mut self, _function: u64) {}
//!     fn run(&mut self, _function: u64, body: Message, chunk: &mut Chunk<'_>) -> Result<(), fanmap::Error> {
//!         while chunk.start(self).is_some() {
//!             let result = body.bytes.to_ascii_uppercase();
//!             chunk.ended();
//!             chunk.values(self, 1, result)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! /// Hands on how a task ended.
//! struct Tell(Sender<End>);
//!
//! impl Sink for Tell {
//!     fn finished(&self, _first: u64, _count: u32, end: End) {
//!         let _ = self.0.send(end);
//!     }
//! }
//!
//! if std::env::var_os("UPPER_WORKER").is_some() {
//!     let Some(invitation) = accept()? else { return Ok(()) };
//!     assert_eq!(serve(invitation, &mut Upper)?, Left::Dismissed);
//!     return Ok(());
//! }
//! let program = std::env::current_exe().expect("a program knows its file");
//! let worker = move || {
//!     let mut command = Command::new(&program);
//!     command.env("UPPER_WORKER", "1");
//!     command
//! };
//! let config = ProcessConfig { workers: 1, ..Default::default() };
//! let pool = Pool::new(config, Start::Direct(Box::new(worker)))?;
//! let upper = pool.function("upper", b"upper".to_vec())?;
//! let (tell, told) = channel();
//! let ticket = pool.submit(&upper, b"bytes".to_vec(), Arc::new(Tell(tell)), 0)?;
//! match told.recv() {
//!     Ok(End::Outcome(Outcome::Value(message))) => assert_eq!(message.bytes, b"BYTES"),
//!     other => panic!("{other:?}"),
//! }
//! assert!(ticket.has_ended() && !ticket.cancel());
//! # Ok::<(), fanmap::Error>(())
//! ```

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
