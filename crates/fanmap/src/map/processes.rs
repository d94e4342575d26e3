//! The map over a pool of processes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ordered::Ordered;
use super::{Finished, Map};
use crate::error::Error;
use crate::executor::processes::{ProcessPool, decode, encode};
use crate::supervisor::Ticket;
use crate::supervisor::job::{End, Function, Sink};

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
        let sink = Arc::new(Put {
            function: Arc::clone(&function),
            results: Arc::clone(&results),
        });
        let core = Arc::clone(self.core());
        let mut sent = Sent::default();
        let feed = move |item: I::Item, index| {
            let sink = Arc::clone(&sink) as Arc<dyn Sink>;
            sent.push(core.pool.submit(&function, encode(&item)?, sink, index)?);
            Ok(())
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
    fn finished(&self, key: u64, end: End) {
        let finished = decode(end).map(|outcome| Finished {
            outcome,
            took: self.function.mean_task(),
        });
        self.results.put(key, finished);
    }
}

/// The tasks of a map that may not have ended. Dropping it with the map cancels those that have not started.
#[derive(Default)]
struct Sent(VecDeque<Ticket>);

impl Sent {
    fn push(&mut self, ticket: Ticket) {
        while self.0.front().is_some_and(Ticket::has_ended) {
            self.0.pop_front();
        }
        self.0.push_back(ticket);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // From the back: or each one cancelled would make room for the next to start.
        for ticket in self.0.drain(..).rev() {
            ticket.cancel();
        }
    }
}
