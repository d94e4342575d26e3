//! What the pool's threads share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanmap_shm::bell::Bell;
use fanmap_shm::event::Event;

use crate::config::ProcessConfig;
use crate::error::{Error, ErrorKind};
use crate::memory::Memory;
use crate::supervisor::job::Forgotten;
use crate::supervisor::state::State;

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Rung by workers that have something to say, and by threads that need the supervisor.
    pub(super) bell: Arc<Bell>,
    /// Moves on when the supervisor ends.
    pub(super) ended: Event,
    /// Moves on after each turn of the supervisor's.
    pub(super) turned: Event,
    pub(super) forgotten: Arc<Forgotten>,
    /// What functions and arguments are written to that are too large for the rings.
    pub(super) memory: Arc<Memory>,
    pub(super) config: ProcessConfig,
    /// The process that the pool belongs to. In a child that it forks, the lock may be held by a thread that is not there.
    pub(super) owner: u32,
}

impl Shared {
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        if std::process::id() != self.owner {
            return Err(Error::new(
                ErrorKind::Broken,
                "this pool belongs to the process that made it; make a new one after a fork",
            ));
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.config)
    }
}
