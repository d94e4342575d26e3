//! Functions that worker processes know by name.
//!
//! A function cannot travel to another process, but its name can, if the same program runs there. [`register!`](crate::register) writes a
//! function down at link time; [`init`] turns the program into a worker when a pool has started it as one.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fanmap_shm::fd::forsake_inherited;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::buffer;
use crate::error::{Error, ErrorKind};
use crate::memory::{Load, Memory, Message, Parcel};
use crate::outcome::Panic;
use crate::worker::{self, Chunk, Handler};

/// The variable that tells a program that it was started as a worker, and by which process.
pub(crate) const WORKER_VARIABLE: &str = "FANMAP_WORKER_OF";

/// Calls a function on an encoded argument, which may take its buffers out of those that came with it, and appends its result.
type Run = fn(&[u8], &mut Vec<Parcel>, &Arc<Memory>, &mut Load) -> Result<(), Raised>;

/// One registered function. Made by [`register!`](crate::register).
#[derive(Debug)]
pub struct Entry {
    name: fn() -> &'static str,
    run: Run,
}

/// What went wrong in a worker, as it travels back.
#[derive(Debug, Serialize, Deserialize)]
pub enum Raised {
    /// The function panicked and said this.
    Panic(String),
    /// The argument or the result could not be encoded or decoded, or the function is not known there.
    Codec(String),
}

impl From<Raised> for Error {
    fn from(raised: Raised) -> Self {
        match raised {
            Raised::Panic(message) => Panic::new(message).into(),
            Raised::Codec(message) => Error::new(ErrorKind::Codec, message),
        }
    }
}

inventory::collect!(Entry);

impl Entry {
    /// For [`register!`](crate::register).
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: fn() -> &'static str, run: Run) -> Self {
        Self { name, run }
    }
}

/// Runs a registered function on an encoded argument. For [`register!`](crate::register).
#[doc(hidden)]
pub fn call<A: DeserializeOwned, R: Serialize>(
    f: impl Fn(A) -> R,
    argument: &[u8],
    blobs: &mut Vec<Parcel>,
    memory: &Arc<Memory>,
    results: &mut Load,
) -> Result<(), Raised> {
    let codec = |what: &str, why| Raised::Codec(format!("the task's {what}: {why}"));
    catch_unwind(AssertUnwindSafe(|| {
        let argument = buffer::decode(argument, blobs).map_err(|why| codec("argument could not be decoded", why))?;
        buffer::encode(&f(argument), memory, results).map_err(|why| codec("result could not be encoded", why))
    }))
    .unwrap_or_else(|payload| Err(Raised::Panic(Panic::from_payload(&*payload).message().to_owned())))
}

/// Whether a function of this name is registered in this program.
pub(crate) fn is_registered(name: &str) -> bool {
    find(name).is_some()
}

fn find(name: &str) -> Option<Run> {
    inventory::iter::<Entry>
        .into_iter()
        .find(|entry| (entry.name)() == name)
        .map(|entry| entry.run)
}

/// Registers functions for [`ProcessPool`](crate::ProcessPool)s: at module level, once for each function.
///
/// A function takes one argument (several: a tuple) that serde can decode, and returns what serde can encode.
///
/// ```
/// fn square(x: u64) -> u64 {
///     x * x
/// }
/// fanmap::register!(square);
///
/// fanmap::init();
/// assert_eq!(fanmap::ProcessPool::new(1)?.submit(square, 3)?.wait()?, 9);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[macro_export]
macro_rules! register {
    ($($function:path),+ $(,)?) => {
        $(
            $crate::__private::submit! {
                $crate::__private::Entry::new(
                    || ::std::any::type_name_of_val(&$function),
                    |argument, blobs, memory, results| {
                        $crate::__private::call($function, argument, blobs, memory, results)
                    },
                )
            }
        )+
    };
}

/// The test function that is a worker. Made by [`test_worker!`](crate::test_worker).
#[derive(Debug)]
pub struct TestWorker {
    path: &'static str,
}

inventory::collect!(TestWorker);

impl TestWorker {
    /// For [`test_worker!`](crate::test_worker).
    #[doc(hidden)]
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path }
    }
}

/// What a test program is started with as a worker; nothing if this is none.
pub(crate) fn test_worker_args() -> Vec<String> {
    let Some(worker) = inventory::iter::<TestWorker>.into_iter().next() else {
        return Vec::new();
    };
    // The name of the crate is no part of a test's name.
    let test = worker.path.split_once("::").map_or(worker.path, |(_, test)| test);
    [test, "--exact", "--nocapture", "--test-threads=1"]
        .map(String::from)
        .to_vec()
}

/// Makes [`ProcessPool`](crate::ProcessPool)s work in tests: at module level, once in a test program.
///
/// Tests have no `main` in which to call [`init`]. This adds a test function, `fanmap_test_worker`, that calls it; workers are
/// the test program, told to run that test alone. Anywhere else than in tests it is nothing.
///
/// ```
/// fn square(x: u64) -> u64 {
///     x * x
/// }
/// fanmap::register!(square);
///
/// #[cfg(test)]
/// mod tests {
///     fanmap::test_worker!();
///
///     #[test]
///     fn squares_come_from_another_process() {
///         let pool = fanmap::ProcessPool::new(1).unwrap();
///         assert_eq!(pool.submit(super::square, 3).unwrap().wait(), Ok(9));
///     }
/// }
/// ```
#[expect(
    clippy::test_attr_in_doctest,
    reason = "it is what the example shows; tests/processes.rs runs the same"
)]
#[macro_export]
macro_rules! test_worker {
    () => {
        #[cfg(test)]
        #[test]
        fn fanmap_test_worker() {
            $crate::init();
        }

        #[cfg(test)]
        $crate::__private::submit! {
            $crate::__private::TestWorker::new(concat!(module_path!(), "::fanmap_test_worker"))
        }
    };
}

/// The first line of `main` in a program that uses [`ProcessPool`](crate::ProcessPool): in a worker process it does the
/// worker's work and never returns, anywhere else it does nothing.
///
/// A worker has the standard output and error of its parent, an empty standard input, and none of the other descriptors
/// that its parent had open for programs which it starts.
///
/// ```
/// fanmap::init();
/// // the program
/// ```
pub fn init() {
    let parent = std::env::var(WORKER_VARIABLE)
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    // The variable is inherited by what a worker starts itself; only the pool's own child is a worker.
    if parent != Some(std::os::unix::process::parent_id()) {
        return;
    }
    // Of a pipe that the program has open, or a lock: it is not the worker's, and would be kept by it. Where it cannot be let
    // go of it does no harm to the tasks.
    let _ = forsake_inherited();
    let served = match worker::accept() {
        Ok(Some(invitation)) => worker::serve(invitation, &mut Functions::default()).map(|_| ()),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        eprintln!("fanmap: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// What a worker knows: the functions that it was sent the names of. Results of tiny tasks are kept for a moment and given together
/// ([`Chunk`]), in their order; one with buffers beside it is the last of its message.
#[derive(Default)]
struct Functions(std::collections::HashMap<u64, Result<Run, String>>);

impl Handler for Functions {
    fn setup(&mut self, _body: Vec<u8>) -> Result<(), Vec<u8>> {
        Ok(())
    }

    fn define(&mut self, function: u64, body: Message) {
        let name = String::from_utf8_lossy(&body.bytes);
        let found = find(&name)
            .ok_or_else(|| format!("the worker's program does not know the function `{name}`: is it another program?"));
        self.0.insert(function, found);
    }

    fn forget(&mut self, function: u64) {
        self.0.remove(&function);
    }

    fn run(&mut self, function: u64, mut body: Message, chunk: &mut Chunk<'_>) -> Result<(), Error> {
        let mut arguments = buffer::values(&body.bytes).zip(0..);
        let (mut results, mut count) = (Load::default(), 0);
        while let Some(place) = chunk.start(self) {
            let argument = arguments.find(|(_, at)| *at == place);
            let before = results.bytes.len();
            let result = match (self.0.get(&function), argument) {
                (Some(Ok(run)), Some((argument, _))) => run(argument, &mut body.blobs, chunk.memory(), &mut results),
                (Some(Err(why)), _) => Err(Raised::Codec(why.clone())),
                (None, _) => Err(Raised::Codec("the worker was never sent this function".to_owned())),
                (_, None) => Err(Raised::Codec("the task's argument did not come".to_owned())),
            };
            let due = chunk.ended();
            count += u32::from(result.is_ok());
            if let Err(raised) = result {
                results.bytes.truncate(before);
                give(self, chunk, &mut results, &mut count)?;
                let again = matches!(raised, Raised::Panic(_));
                chunk.raised(self, postcard::to_allocvec(&raised).unwrap_or_default(), again)?;
            } else if due || !results.blobs.is_empty() || results.bytes.len() >= MUCH {
                give(self, chunk, &mut results, &mut count)?;
            }
        }
        give(self, chunk, &mut results, &mut count)
    }
}

/// How many bytes of results are kept to be given together. More would hold up those who could take them; less, and each costs
/// the price of many.
const MUCH: usize = 64 << 10;

/// Gives the results of the tasks that have returned and are kept, if there are any.
fn give(handler: &mut Functions, chunk: &mut Chunk<'_>, results: &mut Load, count: &mut u32) -> Result<(), Error> {
    match mem::take(count) {
        0 => Ok(()),
        count => chunk.values(handler, count, mem::take(results)),
    }
}
