//! The operating system beneath [`fanmap`](https://docs.rs/fanmap): the only crate of the project that talks to it.
//!
//! Everything here is mechanism: it knows nothing of tasks' functions, of pools or of Python. In order, each file knowing
//! only those before it:
//!
//! | module | what it is |
//! |---|---|
//! | [`sync`] | the atomics, real or loom's |
//! | [`ring`] | a byte stream between one producer and one consumer, over borrowed memory |
//! | [`flag`] | the sleep and wake-up handshake |
//! | [`word`] | the state word of one task |
//! | [`arena`] | who has which bytes of a blobs' memory |
//! | [`fd`] | the engine's descriptors, and a fork of the user's program |
//! | [`fork`] | a fork of the user's program finds no thread in the middle of something |
//! | [`clock`], [`event`] | deadlines; a wait that returns when a signal arrives |
//! | [`signals`] | engine threads take no signals |
//! | [`bell`], [`poll`] | eventfd; waiting for several descriptors |
//! | [`segment`] | sealed anonymous shared memory |
//! | `window` | a piece of a file, mapped |
//! | `witness` | whether a fork of the user's program has ended |
//! | [`blob`] | large buffers in shared memory, beside the rings |
//! | [`mapping`] | a blob in this process's memory |
//! | [`link`] | one worker's segment: two rings, their flags and the state words |
//! | [`socket`] | messages with descriptors |
//! | [`pipe`] | what other processes write, read without waiting |
//! | [`process`] | starting, watching and ending processes |
//!
//! `ring`, `flag` and `word` are algorithms over memory that somebody lends them, so loom checks what runs; `arena` is
//! arithmetic. Only Linux is there today; another system is another set of the files below `arena`.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod arena;
pub mod flag;
pub mod ring;
pub mod sync;
pub mod word;

#[cfg(not(loom))]
pub mod bell;
#[cfg(not(loom))]
pub mod blob;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
pub mod event;
#[cfg(not(loom))]
pub mod fd;
#[cfg(not(loom))]
pub mod fork;
#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
pub mod mapping;
#[cfg(not(loom))]
pub mod pipe;
#[cfg(not(loom))]
pub mod poll;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod signals;
#[cfg(not(loom))]
pub mod socket;
#[cfg(not(loom))]
mod window;
#[cfg(not(loom))]
mod witness;

#[cfg(all(test, loom))]
mod models;
