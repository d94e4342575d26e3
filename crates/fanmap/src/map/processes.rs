//! The map over a pool of processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Feed, Map};
use crate::config::Retries;
use crate::error::Error;
use crate::executor::processes::{Core, ProcessPool, Terms, decode, decode_values};
use crate::flow::{Results, Run};
use crate::memory::Load;
use crate::outcome::Outcome;
use crate::supervisor::job::{End, Function, Sink, Wanted};

impl ProcessPool {
    /// Calls a registered function on each item, in the worker processes, and gives the results in the order of the items.
    ///
    /// It reads only so far ahead of the results that are asked for (see [`Map::window`]), so it takes an endless iterator
    /// too. A task that crashes its process is an `Err` in its place; the rest goes on. See [`ProcessPool`] for an example.
    ///
    /// Tasks of a few microseconds travel together. Those that had ended when another one crashed their process, a moment later,
    /// may be run again, as their results are lost; any other task runs once.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the function is not registered.
    ///
    /// ```
    /// fn cube(n: i64) -> i64 {
    ///     n * n * n
    /// }
    /// fanmap::register!(cube);
    ///
    /// fanmap::init();
    /// let pool = fanmap::ProcessPool::new(2)?;
    /// let cubes = pool.map(1.., cube)?.take(3).collect::<Result<Vec<i64>, _>>()?;
    /// assert_eq!(cubes, [1, 8, 27]);
    /// # Ok::<(), fanmap::Error>(())
    /// ```
    pub fn map<I, F, R>(&self, items: I, function: F) -> Result<Map<'static, I::IntoIter, R>, Error>
    where
        I: IntoIterator,
        I::Item: Serialize + 'static,
        F: Fn(I::Item) -> R,
        R: DeserializeOwned + Send + 'static,
    {
        let function = self.core().function_of(&function)?;
        let results = Arc::new(Results::new());
        let result_bytes = Arc::new(AtomicUsize::new(0));
        let feed = Sent {
            core: Arc::clone(self.core()),
            sink: Arc::new(Put {
                terms: Arc::clone(&self.core().terms),
                results: Arc::clone(&results),
                bytes: Arc::clone(&result_bytes),
            }),
            function,
            load: Load::default(),
            item_bytes: 0,
            result_bytes,
        };
        Ok(Map::new(items.into_iter(), Box::new(feed), results, self.max_workers()))
    }
}

/// Puts results in their places.
struct Put<R> {
    terms: Arc<Terms>,
    results: Arc<Results<Result<R, Error>>>,
    /// The encoded size of a result, lately; 0 before the first. Written by the supervisor alone.
    bytes: Arc<AtomicUsize>,
}

impl<R: DeserializeOwned + Send + 'static> Sink for Put<R> {
    fn finished(&self, first: u64, count: u32, mut end: End) {
        let size = match &end {
            End::Outcome(Outcome::Value(message)) => message.size() / count as usize,
            _ => 0,
        };
        let size = lately(self.bytes.load(Ordering::Relaxed), size);
        self.bytes.store(size.max(1), Ordering::Relaxed);
        let at_item = move |(result, index): (Result<R, Error>, u64)| result.map_err(|error| error.at_item(index));
        let run = match end {
            End::Outcome(Outcome::Value(message)) => Run::Sealed(
                count as usize,
                Box::new(move || {
                    decode_values(message, count)
                        .into_iter()
                        .zip(first..)
                        .map(at_item)
                        .collect()
                }),
            ),
            _ => {
                let all = (0..count).map(|_| decode(&mut end).and_then(Outcome::into_result));
                Run::Here(all.zip(first..).map(at_item).collect())
            }
        };
        self.results.put(first, run, true);
    }

    fn wanted(&self) -> Wanted {
        Wanted::Together
    }

    fn time_limit(&self) -> Option<Duration> {
        self.terms.time_limit
    }

    fn retries(&self) -> Option<&Retries> {
        self.terms.retries.as_ref()
    }
}

/// What a map has sent. Dropping it with the map cancels what has not started.
struct Sent {
    core: Arc<Core>,
    function: Arc<Function>,
    sink: Arc<dyn Sink>,
    /// What the next item is encoded into.
    load: Load,
    /// The encoded size of an item, and of a result, lately.
    item_bytes: usize,
    result_bytes: Arc<AtomicUsize>,
}

impl<T: Serialize> Feed<T> for Sent {
    fn send(&mut self, item: T, index: u64) -> Result<(), Error> {
        self.load.clear();
        self.core.encode(&item, &mut self.load)?;
        self.item_bytes = lately(self.item_bytes, self.load.size());
        self.core
            .pool
            .submit_next(&self.function, &mut self.load, &self.sink, index)
    }

    fn look(&self) -> bool {
        self.core.pool.look()
    }

    fn bytes_each(&self) -> usize {
        self.item_bytes
            .saturating_add(self.result_bytes.load(Ordering::Relaxed))
    }

    fn mean_task(&self) -> Option<Duration> {
        // What is read ahead before a result's size is known may be large: so few, as if nothing were known.
        let known = self.result_bytes.load(Ordering::Relaxed) > 0;
        self.function.mean_task().filter(|_| known)
    }
}

/// A mean of sizes in which the last few count most, and a larger one at once: what is read ahead has it soon.
fn lately(mean: usize, latest: usize) -> usize {
    latest.max(mean - mean / 8 + latest / 8)
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.core.pool.cancel(&self.sink, false);
    }
}
