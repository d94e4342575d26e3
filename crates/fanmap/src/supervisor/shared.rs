//! What the pool's threads share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanmap_shm::bell::Bell;
use fanmap_shm::event::Event;

use crate::config::ProcessConfig;
use crate::error::{Error, ErrorKind};
use crate::memory::Memory;
use crate::output::Outlet;
use crate::supervisor::job::Forgotten;
use crate::supervisor::state::{self, State};

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Rung by workers that have something to say, and by threads that need the supervisor.
    pub(super) bell: Arc<Bell>,
    /// How many threads wait for the end of a task of theirs ([`Shared::attend`]).
    pub(super) waiting: AtomicUsize,
    /// Whether the supervisor dozes.
    pub(super) dozing: AtomicBool,
    /// Moves on when the supervisor ends.
    pub(super) ended: Event,
    /// Moves on after each turn of the supervisor's.
    pub(super) turned: Event,
    pub(super) forgotten: Arc<Forgotten>,
    /// What functions and arguments are written to that are too large for the rings.
    pub(super) memory: Arc<Memory>,
    /// Where workers write to, if they have that with their invitation.
    pub(super) outlet: Option<Arc<Outlet>>,
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

    /// See [`Pool::look`](super::Pool::look).
    pub(super) fn look(&self) -> bool {
        let Ok(mut state) = self.lock() else {
            return false;
        };
        let found = state.look();
        let (owed, freed) = (std::mem::take(&mut state.owed), std::mem::take(&mut state.freed));
        drop(state);
        state::deliver(owed);
        freed.let_go();
        found
    }

    /// No worker is left and none will come.
    pub(super) fn close_outlet(&self) {
        if let Some(outlet) = &self.outlet {
            outlet.close();
        }
    }

    /// A thread is about to wait for the end of a task: until it has, no end comes late.
    pub(super) fn attend(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.rouse();
    }

    /// What was attended has come, or is given up.
    pub(super) fn attended(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// What has come is wanted now.
    pub(super) fn rouse(&self) {
        if self.dozing.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// The supervisor is about to doze: false if it must not, for a thread waits. One that comes to wait after this look
    /// sees that it dozes: each side writes first and looks then, in one order for all.
    pub(super) fn may_doze(&self) -> bool {
        self.dozing.store(true, Ordering::SeqCst);
        let may = self.waiting.load(Ordering::SeqCst) == 0;
        if !may {
            self.dozing.store(false, Ordering::SeqCst);
        }
        may
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.config)
    }
}
