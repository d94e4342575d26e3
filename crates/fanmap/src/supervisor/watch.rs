//! The supervisor's thread: it starts workers, hears them, settles what becomes of tasks when one ends, and sleeps.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fanmap_shm::bell::Bell;
use fanmap_shm::blob::Blobs;
use fanmap_shm::link::Link;
use fanmap_shm::mapping;
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::process::Process;
use fanmap_shm::signals;

use crate::error::{Error, ErrorKind};
use crate::lost::{Death, Exit};
use crate::memory::Ledger;
use crate::oom::Kills;
use crate::supervisor::job::Broken;
use crate::supervisor::launcher::{self, Launcher, Start};
use crate::supervisor::seat::{Seat, Stage};
use crate::supervisor::shared::Shared;
use crate::supervisor::state::{self, Failure, Phase, Rest, State};
use crate::transport::control::{Memories, Report};

/// For how long an idle pool keeps memory warm for large buffers. Shorter, and a program that maps every few seconds writes
/// to fresh pages each time, which takes ten times as long; longer, and it holds memory that others could use.
const WARM_TIME: Duration = Duration::from_secs(5);

/// Has the workers started that there should be.
pub(super) fn start_workers(shared: &Arc<Shared>, state: &mut State) -> Result<(), Error> {
    if state.starts() > 0 {
        supervise(shared, state)?;
        shared.bell.ring();
    } else if state.starts_again().is_some_and(|at| state.sleeps_beyond(at)) {
        shared.bell.ring();
    }
    Ok(())
}

/// Starts the supervisor unless it runs.
pub(super) fn supervise(shared: &Arc<Shared>, state: &mut State) -> Result<(), Error> {
    if state.supervised {
        return Ok(());
    }
    let start = state
        .start
        .take()
        .ok_or_else(|| Error::new(ErrorKind::Broken, "the pool has no way to start workers"))?;
    // One that ended for idleness has nothing left to do but return.
    state.thread = None;
    let handed = Arc::new(Mutex::new(Some(start)));
    let (taken, own) = (Arc::clone(&handed), Arc::clone(shared));
    let spawned = thread::Builder::new()
        .name("fanmap-supervisor".to_owned())
        .spawn(move || {
            let start = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(start) = start {
                Supervisor::new(own, start).run();
            }
        });
    match spawned {
        Ok(thread) => {
            state.thread = Some(thread);
            state.supervised = true;
            Ok(())
        }
        Err(cause) => {
            state.start = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(Error::os("start the thread that supervises the workers", cause))
        }
    }
}

/// The workers whose ends are waited for, and until when.
type Watched = (Vec<(u64, Arc<Process>)>, Option<Instant>);

/// What one look at everything found.
#[must_use]
struct Turn {
    /// How many workers to start.
    starts: usize,
    /// Whether nothing is left to supervise.
    done: bool,
    /// Whether no end was handed over: a sink may have submitted or cancelled something, so look again before leaving.
    settled: bool,
}

/// The supervisor's thread.
struct Supervisor {
    shared: Arc<Shared>,
    start: Start,
    launcher: Option<Launcher>,
    kills: Kills,
}

impl Supervisor {
    fn new(shared: Arc<Shared>, start: Start) -> Self {
        Self {
            shared,
            start,
            launcher: None,
            kills: Kills::from_now(),
        }
    }

    fn run(mut self) {
        signals::block_all();
        if matches!(self.start, Start::Template(_)) {
            // If that fails, it is tried again for the first worker, and told.
            self.launcher = self.start.open().ok();
        }
        loop {
            let turn = self.turn();
            for _ in 0..turn.starts {
                self.start_worker();
            }
            self.shared.turned.notify();
            if turn.done && turn.settled && self.leave() {
                return;
            }
            // Nothing would wake one who has nothing left to wait for: it looks again until it may leave.
            if turn.starts == 0 && !turn.done {
                self.sleep();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at everything.
    fn turn(&mut self) -> Turn {
        let forgotten = self.shared.forgotten.take();
        let mut state = self.lock();
        state.seats.iter().for_each(Seat::disarm);
        state.listen();
        state.expire();
        state.bury();
        state.rouse();
        state.unpause();
        if !forgotten.is_empty() {
            state.seats.iter_mut().for_each(|seat| seat.forget(&forgotten));
        }
        state.dispatch();
        let starts = state.starts();
        let idle = state.idle_since;
        let expired = self.idle_deadline(idle).is_some_and(|at| at <= Instant::now());
        let finishing = !matches!(state.phase, Phase::Open) || expired;
        if finishing && idle.is_some() && starts == 0 {
            state.seats.iter_mut().for_each(Seat::dismiss);
        }
        let time = self.shared.config.exit_time;
        state.seats.iter_mut().for_each(|seat| seat.hurry(time));
        let doomed = state.seats.iter_mut().filter_map(Seat::hand_over);
        let handed_over: Vec<_> = doomed.collect();
        let done = finishing && idle.is_some() && starts == 0 && state.seats.is_empty();
        let cools = self.cool_deadline(&state).is_some_and(|at| at <= Instant::now());
        if cools {
            // First, so that what waited for forks to end is returned as well.
            mapping::settle();
            state.seats.iter_mut().for_each(Seat::cool);
        }
        let owed = std::mem::take(&mut state.owed);
        let freed = std::mem::take(&mut state.freed);
        drop(state);
        if let Some(launcher) = &self.launcher {
            handed_over.into_iter().for_each(|key| launcher.end_worker(key));
            if finishing {
                launcher.resume();
            }
        }
        let settled = owed.is_empty();
        state::deliver(owed);
        // Last, for nobody waits for it.
        freed.let_go();
        if cools {
            self.shared.memory.cool();
        }
        Turn { starts, done, settled }
    }

    /// When memory that is kept warm for large buffers goes back to the system, if there is any.
    fn cool_deadline(&self, state: &State) -> Option<Instant> {
        let warm = self.shared.memory.is_warm() || state.seats.iter().any(Seat::may_be_warm);
        state.idle_since.filter(|_| warm)?.checked_add(WARM_TIME)
    }

    fn idle_deadline(&self, idle_since: Option<Instant>) -> Option<Instant> {
        idle_since?.checked_add(self.shared.config.idle?)
    }

    fn start_worker(&mut self) {
        if let Err(error) = self.try_start_worker() {
            let mut state = self.lock();
            state.launched();
            state.start_failed(&error.to_string(), Failure::Refused);
        }
    }

    fn try_start_worker(&mut self) -> Result<(), Error> {
        if self.launcher.is_none() {
            self.launcher = Some(self.start.open()?);
        }
        let launcher = self.launcher.as_ref().expect("it was just opened");
        let (setup, who) = {
            let mut state = self.lock();
            (state.setup.clone(), (state.next_id(), state.free_index()))
        };
        let os = |cause| Error::os("make the shared memory of a worker", cause);
        let link = Arc::new(Link::create().map_err(os)?);
        let bell = Bell::new().map_err(os)?;
        let results = Arc::new(Blobs::create().map_err(os)?);
        let bells = (&bell, &*self.shared.bell);
        let config = &self.shared.config;
        let bytes = config.blob_bytes / 2 / config.workers as u64;
        let memories = Memories {
            items: self.shared.memory.as_fd(),
            results: results.as_fd(),
            result_bytes: bytes,
            max_memory: config.max_memory,
            memory_limit: config.memory_limit,
        };
        let feed = self.shared.outlet.as_ref().map(|outlet| outlet.open(who)).transpose();
        let (feed, channels) = feed
            .map_err(|cause| Error::os("make the channels that a worker writes to", cause))?
            .unzip();
        let channels = channels.iter().flatten();
        let extra: Vec<_> = channels.chain(setup.fds.iter()).map(AsFd::as_fd).collect();
        let launched = launcher.launch(&self.start, who, &link, bells, memories, &extra)?;
        let blobs = Ledger::new(results, Some(Arc::clone(&self.shared.bell)));
        let mut seat = Seat::new(who, link, bell, launched, setup.body, (blobs, feed), config)?;
        let mut state = self.lock();
        if matches!(state.phase, Phase::Broken(_)) {
            // Those that were there have been ended meanwhile, and it would wait for work.
            seat.kill();
        }
        state.seats.push(seat);
        state.launched();
        Ok(())
    }

    /// Nothing is left to supervise: ends the launcher, then itself, unless something came up meanwhile.
    fn leave(&mut self) -> bool {
        drop(self.launcher.take());
        let shared = Arc::clone(&self.shared);
        let lock = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        if !state.queue.is_empty() {
            return false;
        }
        let start = std::mem::replace(&mut self.start, Start::Forked(None));
        if matches!(state.phase, Phase::Open) {
            state.start = Some(start);
        } else {
            // It never starts anything again. A template that was never used ends here; and among what new workers were
            // told are copies of the program's own descriptors, whose ends somebody may be waiting for.
            let setup = std::mem::take(&mut state.setup);
            drop(state);
            drop((start, setup));
            shared.close_outlet();
            state = lock();
        }
        state.supervised = false;
        drop(state);
        // No worker is there to be sent anything soon.
        shared.memory.cool();
        shared.ended.notify();
        shared.turned.notify();
        true
    }

    /// Sleeps until something happens, and notes which workers have ended.
    fn sleep(&mut self) {
        let Some((processes, deadline)) = self.arm() else {
            return;
        };
        let reports = self.launcher.as_ref().and_then(Launcher::reports_fd);
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.shared.bell.as_fd()];
        fds.extend(processes.iter().map(|(_, process)| process.as_fd()));
        fds.extend(reports);
        let woken = poll::wait(&fds, deadline);
        self.shared.dozing.store(false, Ordering::SeqCst);
        let ready = match woken {
            Ok(Ready::Some(ready)) => ready,
            Ok(Ready::TimedOut | Ready::Interrupted) => return,
            Err(cause) => {
                let reason = Error::os("wait for the worker processes", cause).to_string();
                let exit = self.launcher.take().map_or(Exit::Unknown, Launcher::end);
                let end = death(exit, None, &mut self.kills);
                let mut state = self.lock();
                state.break_down(Broken { reason, refusal: None });
                // Nothing can be waited for any more, their ends neither: those of a template end with it.
                for seat in &mut state.seats {
                    seat.gone = true;
                    seat.death = seat.death.or(Some(end));
                }
                return;
            }
        };
        if ready.contains(&0) {
            self.shared.bell.hush();
        }
        for (key, process) in ready.iter().filter_map(|at| processes.get(at.wrapping_sub(1))) {
            let exit = self.launcher.as_ref().and_then(|launcher| launcher.exit_of(process));
            let death = exit.map(|(exit, peak_memory)| death(exit, peak_memory, &mut self.kills));
            let mut state = self.lock();
            if let Some(seat) = state.seats.iter_mut().find(|seat| seat.key == *key) {
                seat.gone = true;
                seat.death = seat.death.or(death);
            }
        }
        if reports.is_some() && ready.contains(&(processes.len() + 1)) {
            self.read_reports();
        }
    }

    /// Raises every flag and looks once more. `None` if there is something to do; else what to wait for.
    fn arm(&self) -> Option<Watched> {
        let mut state = self.lock();
        let rest = match state.rest() {
            Rest::Dozing(_) | Rest::Unarmed(_) if !self.shared.may_doze() => Rest::Asleep,
            rest => rest,
        };
        let armed = match rest {
            Rest::Asleep => state.seats.iter().all(|seat| seat.arm(false)),
            Rest::Dozing(_) => state.seats.iter().all(|seat| seat.arm(true)),
            Rest::Unarmed(_) => true,
        };
        if !armed {
            self.shared.dozing.store(false, Ordering::SeqCst);
            return None;
        }
        let nap = rest.limit().and_then(|nap| Instant::now().checked_add(nap));
        // Until it has come: those that were told to leave then are waited for without it.
        let stays = |seat: &Seat| seat.stage != Stage::Leaving;
        let deadline = if state.seats.iter().any(stays) {
            self.idle_deadline(state.idle_since)
        } else {
            None
        };
        let time = self.shared.config.exit_time;
        let leaving = state.seats.iter().filter_map(|seat| seat.leave_by(time));
        let limits = state.seats.iter().filter_map(Seat::deadline);
        let rested = state.resting.keys().next().map(|(until, _)| *until);
        let others = [deadline, self.cool_deadline(&state), nap, rested, state.starts_again()];
        let others = others.into_iter().flatten();
        let deadline = leaving.chain(limits).chain(others).min();
        let processes = state
            .seats
            .iter()
            .filter(|seat| !seat.gone)
            .filter_map(|seat| Some((seat.key, Arc::clone(seat.process.as_ref()?))))
            .collect();
        state.sleeps_until = deadline;
        Some((processes, deadline))
    }

    fn read_reports(&mut self) {
        while let Some(launcher) = &self.launcher {
            match launcher.report() {
                Ok(None) => return,
                Ok(Some(report)) => self.note(report),
                Err(launcher::TemplateGone) => {
                    let exit = self.launcher.take().map_or(Exit::Unknown, Launcher::end);
                    self.lock().template_gone(exit);
                }
            }
        }
    }

    fn note(&mut self, report: Report) {
        let death = match &report {
            Report::Ended { exit, peak_memory, .. } => Some(death(*exit, *peak_memory, &mut self.kills)),
            _ => None,
        };
        let mut state = self.lock();
        let key = match &report {
            Report::Started { key, .. } | Report::Failed { key, .. } | Report::Ended { key, .. } => *key,
        };
        let Some(at) = state.seats.iter().position(|seat| seat.key == key) else {
            return;
        };
        match report {
            Report::Started { pid, process, .. } => {
                state.seats[at].started(pid, process);
                if !matches!(state.phase, Phase::Open) {
                    // Who ended the pool had those go on that were stopped, and did not know of this one.
                    state.seats[at].resume();
                }
            }
            Report::Ended { .. } => state.seats[at].ended(death),
            Report::Failed { errno, .. } => {
                state.seats.remove(at);
                let why = std::io::Error::from_raw_os_error(errno);
                state.start_failed(&format!("forking it failed: {why}"), Failure::Refused);
            }
        }
    }
}

/// What is known of a worker that has ended.
fn death(exit: Exit, peak_memory: Option<u64>, kills: &mut Kills) -> Death {
    Death {
        exit,
        peak_memory,
        out_of_memory: exit == Exit::KILLED && kills.take(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use fanmap_shm::process;
    use fanmap_shm::socket::{Received, Socket};
    use rustix::process::{Pid, WaitOptions};

    use super::*;
    use crate::config::ProcessConfig;
    use crate::queue::Pending;
    use crate::supervisor::job::{End, Sink};
    use crate::supervisor::launcher::TemplateProcess;
    use crate::supervisor::pool::Pool;
    use crate::transport::control::Invitation;

    struct Deaf;

    impl Sink for Deaf {
        fn finished(&self, _first: u64, _count: u32, _end: End) {}
    }

    #[test]
    fn a_worker_that_was_stopped_before_its_pool_knew_of_it_does_not_keep_that_from_ending() {
        // The test is the template: another process stands for it, which can be killed.
        let (socket, template) = Socket::pair().unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("600");
        let stand_in = TemplateProcess::new(process::spawn(sleep).unwrap().0, socket);
        let config = ProcessConfig {
            workers: 1,
            ..Default::default()
        };
        let pool = Pool::new(config, Start::Forked(Some(stand_in))).unwrap();
        let function = pool.function("f", Vec::new()).unwrap();
        drop(pool.submit(&function, Vec::new(), Arc::new(Deaf), 0).unwrap());
        let _ = poll::wait(&[template.as_fd()], None).unwrap();
        let Received::Message(message, fds) = template.receive().unwrap() else {
            panic!("no invitation")
        };
        let key = Invitation::read(&message, fds).unwrap().key();

        let worker = Command::new("sh").args(["-c", "kill -STOP $$"]).spawn().unwrap().id();
        let pid = Pid::from_raw(worker.try_into().unwrap());
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        let seen = Process::open(worker).unwrap();
        let report = Report::Started {
            key,
            pid: worker,
            process: Some(Process::open(worker).unwrap()),
        };
        pool.close(Pending::Finish);
        report.send(&template).unwrap();
        let limit = Instant::now() + Duration::from_secs(30);
        let woken = poll::wait(&[seen.as_fd()], Some(limit)).unwrap();
        seen.kill();
        assert_eq!(woken, Ready::Some(vec![0]), "it is still stopped");
        drop(template);
        let _ = pool.join(None);
    }
}
