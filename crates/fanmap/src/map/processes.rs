//! The map over a pool of processes.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ordered::Ordered;
use super::{Finished, Map};
use crate::error::Error;
use crate::executor::processes::{Core, ProcessPool, decode, encode};
use crate::supervisor::job::{End, Function, Sink, Wanted};

impl ProcessPool {
    /// Calls a registered function on each item, in the worker processes, and gives the results in the order of the items.
    ///
    /// It reads only so far ahead of the results that are asked for (see [`Map::window`]), so it takes an endless iterator
    /// too. A task that crashes its process is an `Err` in its place; the rest goes on. See [`ProcessPool`] for an example.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the function is not registered.
    pub fn map<I, F, R>(&self, items: I, function: F) -> Result<Map<I::IntoIter, R>, Error>
    where
        I: IntoIterator,
        I::Item: Serialize + 'static,
        F: Fn(I::Item) -> R,
        R: DeserializeOwned + Send + 'static,
    {
        let function = self.core().function_of(&function)?;
        let results = Arc::new(Ordered::new());
        let sent = Sent {
            core: Arc::clone(self.core()),
            sink: Arc::new(Put {
                function: Arc::clone(&function),
                results: Arc::clone(&results),
            }),
        };
        let feed = move |item: I::Item, index| {
            let pool = &sent.core.pool;
            pool.submit_run(&function, encode(&item)?, 1, Arc::clone(&sent.sink), index)
        };
        Ok(Map::new(items.into_iter(), Box::new(feed), results, self.max_workers()))
    }
}

/// Puts results in their places.
struct Put<R> {
    function: Arc<Function>,
    results: Arc<Ordered<Result<Finished<R>, Error>>>,
}

impl<R: DeserializeOwned + Send> Sink for Put<R> {
    fn finished(&self, first: u64, count: u32, end: End) {
        // One by one: runs are of one task here, but what was cancelled or lost may have been several.
        for key in first..first + u64::from(count) {
            let finished = decode(&end).map(|outcome| Finished {
                outcome,
                took: self.function.mean_task(),
            });
            self.results.put(key, 1, finished);
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted::Together
    }
}

/// What a map has sent. Dropping it with the map cancels what has not started.
struct Sent {
    core: Arc<Core>,
    sink: Arc<dyn Sink>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.core.pool.cancel(&self.sink, false);
    }
}
