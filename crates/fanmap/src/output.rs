//! What worker processes write: read as it comes, and kept until the program takes it.
//!
//! A worker gets three channels with its invitation: a stream for its standard output, one for its standard error, and the
//! pool's channel for messages (log records). Whether it writes to them or to the streams that it was started with is
//! the handler's affair. A pool's [`Outlet`] has the other ends.
//!
//! # Who does what
//! * **The drain** is one thread with all signals blocked, started by the first [`Outlet::watch`]. It sleeps in `poll` on all
//!   channels and a bell, and moves what comes into a queue: lines of a stream whole, messages as they are. It needs nothing of
//!   the program's, so a worker that writes never waits for an interpreter.
//! * **Takers** are the program's: [`Outlet::wait`] until something is there, [`Outlet::take`] some of it. Who took a task's
//!   outcome first calls [`Outlet::drain`]: all that the task had written by then is in its channels, or in the queue.
//! * **The supervisor** opens channels for a worker and drops its [`Feed`] when the worker has ended. What the worker had
//!   written last is read then, before anybody hears of its end.
//!
//! All of it is behind one lock, which is never held while waiting, and beneath which no other is taken.
//!
//! # Why memory is bounded and nobody waits for ever
//! When the queue is [`FULL`], the drain reads no more; workers that write wait then, as they would for a slow terminal. If
//! nothing is taken for [`PATIENCE`], it reads on and drops what comes, and the next to take is told how much. A line that
//! is longer than [`LONGEST`] comes in pieces.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fanmap_shm::bell::Bell;
use fanmap_shm::event::{Event, Wake};
use fanmap_shm::fd::Fd;
use fanmap_shm::pipe::{self, CAPACITY, Got, Reader};
use fanmap_shm::poll::{self, Ready};
use fanmap_shm::signals;

/// How many bytes may wait to be taken. Fewer, and workers wait for a program that is busy for a moment; more is memory for
/// what nobody reads.
const FULL: usize = 4 << 20;

/// For how long nothing is dropped though nobody takes anything. Shorter, and a program that computes without giving its
/// interpreter away loses what its workers say; longer, and workers stand still for nobody.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a line may be and come whole, in bytes.
const LONGEST: usize = 1 << 20;

/// How much is taken at a time, about: so that a taker that is slow is seen to move.
const TAKEN: usize = 64 * 1024;

/// How many messages are read at a time. More than fit into the channel: else some of those that had been sent could be left.
const MESSAGES: usize = 1024;

/// What kind of channel something came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output, in lines.
    Out,
    /// Standard error, in lines.
    Err,
    /// Messages, whole.
    Message,
}

/// Something that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// By which channel it came.
    pub channel: Channel,
    /// The worker's index; 0 for messages, which say it themselves.
    pub worker: u32,
    /// A message, or lines, the last of which is ended unless it is too long to be whole.
    pub bytes: Vec<u8>,
}

struct Source {
    key: u64,
    channel: Channel,
    worker: u32,
    /// Shared with the drain while that waits for it.
    reader: Arc<Reader>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

#[derive(Default)]
struct State {
    sources: Vec<Source>,
    /// Where workers send messages.
    messages: Option<Fd>,
    queue: VecDeque<Written>,
    bytes: usize,
    /// Since when it has been full and nothing was taken.
    full_since: Option<Instant>,
    /// Whether what comes is dropped.
    stuck: bool,
    dropped: u64,
    closed: bool,
    drain: Option<JoinHandle<()>>,
}

/// Where a pool's workers write to.
pub struct Outlet {
    state: Mutex<State>,
    bell: Bell,
    came: Event,
}

/// A worker's channels. Dropped when the worker has ended: what it had written is taken over then.
pub(crate) struct Feed {
    key: u64,
    outlet: Arc<Outlet>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.outlet.end(|source| source.key == self.key);
    }
}

impl Outlet {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            bell: Bell::new()?,
            came: Event::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Channels for a new worker: what is to be dropped at its end, and the ends for it to write to, in the order of
    /// [`Channel`].
    pub(crate) fn open(self: &Arc<Self>, (key, worker): (u64, u32)) -> io::Result<(Feed, [OwnedFd; 3])> {
        let (out, to_out) = pipe::stream()?;
        let (err, to_err) = pipe::stream()?;
        let mut state = self.lock();
        let messages = match &state.messages {
            Some(messages) => messages.as_fd().try_clone_to_owned()?,
            None => {
                let (reader, write) = pipe::messages()?;
                let kept = write.try_clone()?;
                // No worker has this key: it ends with the outlet.
                state.sources.push(Source::new(u64::MAX, Channel::Message, 0, reader));
                state.messages = Some(kept.into());
                write
            }
        };
        state.sources.push(Source::new(key, Channel::Out, worker, out));
        state.sources.push(Source::new(key, Channel::Err, worker, err));
        drop(state);
        self.bell.ring();
        let outlet = Arc::clone(self);
        Ok((Feed { key, outlet }, [to_out, to_err, messages]))
    }

    /// Has what workers write read from now on. False if it is closed.
    ///
    /// # Errors
    /// The thread for it cannot be started.
    pub fn watch(self: &Arc<Self>) -> io::Result<bool> {
        let mut state = self.lock();
        if state.drain.is_none() && !state.closed {
            let own = Arc::clone(self);
            let builder = thread::Builder::new().name("fanmap-output".to_owned());
            state.drain = Some(builder.spawn(move || own.run())?);
        }
        Ok(!state.closed)
    }

    /// Reads what workers have written by now.
    pub fn drain(&self) {
        let mut state = self.lock();
        // Who asks is about to take.
        state.stuck = false;
        let fds: Vec<BorrowedFd<'_>> = state.sources.iter().map(|source| source.reader.as_fd()).collect();
        let Ok(Ready::Some(ready)) = poll::wait(&fds, Some(Instant::now())) else {
            return;
        };
        // From the back: what is over is taken out.
        let mut buffer = vec![0; CAPACITY];
        ready.into_iter().rev().for_each(|at| state.read(at, &mut buffer));
    }

    /// Takes something of what has come, in the order in which each worker wrote it; and how many bytes were dropped before.
    pub fn take(&self) -> (Vec<Written>, u64) {
        let mut state = self.lock();
        let was_full = state.full_since.is_some();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < TAKEN {
            let Some(written) = state.queue.pop_front() else {
                break;
            };
            bytes += written.bytes.len();
            taken.push(written);
        }
        state.bytes -= bytes;
        state.stuck = false;
        state.full_since = (state.bytes >= FULL).then(Instant::now);
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        if was_full {
            self.bell.ring();
        }
        (taken, dropped)
    }

    /// Waits until something can be taken, or there will never be anything any more: then false. `None`: a signal came.
    pub fn wait(&self) -> Option<bool> {
        loop {
            let epoch = self.came.epoch();
            let state = self.lock();
            if !state.queue.is_empty() || state.dropped > 0 {
                return Some(true);
            }
            if state.closed {
                return Some(false);
            }
            drop(state);
            if self.came.wait(epoch, None) == Wake::Interrupted {
                return None;
            }
        }
    }

    /// No worker is left and none will come: what they wrote is taken over, and nothing is left of the channels and the drain.
    pub(crate) fn close(&self) {
        self.end(|_| true);
        let mut state = self.lock();
        state.closed = true;
        state.messages = None;
        let drain = state.drain.take();
        drop(state);
        self.bell.ring();
        if let Some(drain) = drain {
            // It is about to see that, and waits for nothing else.
            let _ = drain.join();
        }
        self.came.notify();
    }

    /// Takes over what was written to some channels, and closes them.
    fn end(&self, which: impl Fn(&Source) -> bool) {
        let mut state = self.lock();
        let mut buffer = Vec::new();
        for at in (0..state.sources.len()).rev() {
            if which(&state.sources[at]) {
                buffer.resize(CAPACITY, 0);
                let count = state.sources.len();
                state.read(at, &mut buffer);
                // Unless it was over already.
                if state.sources.len() == count {
                    state.remove(at);
                }
            }
        }
        drop(state);
        // So that the drain lets go of them too.
        self.bell.ring();
        self.came.notify();
    }

    fn run(&self) {
        signals::block_all();
        let mut buffer = vec![0; CAPACITY];
        loop {
            let (readers, deadline) = {
                let state = self.lock();
                match state.full_since {
                    _ if state.closed => return,
                    Some(since) if !state.stuck => (Vec::new(), since.checked_add(PATIENCE)),
                    _ => (
                        state.sources.iter().map(|source| Arc::clone(&source.reader)).collect(),
                        None,
                    ),
                }
            };
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.bell.as_fd()];
            fds.extend(readers.iter().map(|reader| reader.as_fd()));
            let Ok(woken) = poll::wait(&fds, deadline) else {
                return; // no memory: takers still drain
            };
            let mut state = self.lock();
            match woken {
                Ready::Some(ready) => {
                    if ready.contains(&0) {
                        self.bell.hush();
                    }
                    for reader in ready.iter().filter_map(|at| readers.get(at.wrapping_sub(1))) {
                        let is_it = |source: &Source| Arc::ptr_eq(&source.reader, reader);
                        if let Some(at) = state.sources.iter().position(is_it) {
                            state.read(at, &mut buffer);
                        }
                    }
                }
                Ready::TimedOut => state.stuck = state.full_since.is_some(),
                Ready::Interrupted => {}
            }
            let any = !state.queue.is_empty();
            drop(state);
            if any {
                self.came.notify();
            }
        }
    }
}

impl Source {
    fn new(key: u64, channel: Channel, worker: u32, reader: Reader) -> Self {
        Self {
            key,
            channel,
            worker,
            reader: Arc::new(reader),
            begun: Vec::new(),
        }
    }
}

impl State {
    /// Reads what a channel has, and takes it out if nobody is left to write to it.
    fn read(&mut self, at: usize, buffer: &mut [u8]) {
        let source = &self.sources[at];
        let (channel, reader) = (source.channel, Arc::clone(&source.reader));
        let times = if channel == Channel::Message { MESSAGES } else { 1 };
        for _ in 0..times {
            match reader.read(buffer) {
                Got::Some(count) if channel == Channel::Message => self.push(channel, 0, buffer[..count].to_vec()),
                Got::Some(count) => self.add(at, &buffer[..count]),
                Got::Empty => return,
                // An empty message. While this side has an end to send into, the channel is never over.
                Got::Over if channel == Channel::Message && self.messages.is_some() => {}
                Got::Over => return self.remove(at),
            }
        }
    }

    /// More of a stream: the lines that it ends are whole.
    fn add(&mut self, at: usize, bytes: &[u8]) {
        let source = &mut self.sources[at];
        let lines = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                let mut lines = std::mem::replace(&mut source.begun, bytes[end + 1..].to_vec());
                lines.extend_from_slice(&bytes[..=end]);
                lines
            }
            None => {
                source.begun.extend_from_slice(bytes);
                if source.begun.len() < LONGEST {
                    return;
                }
                std::mem::take(&mut source.begun)
            }
        };
        let (channel, worker) = (source.channel, source.worker);
        self.push(channel, worker, lines);
    }

    fn push(&mut self, channel: Channel, worker: u32, bytes: Vec<u8>) {
        if self.stuck {
            self.dropped += bytes.len() as u64;
            return;
        }
        self.bytes += bytes.len();
        if self.bytes >= FULL && self.full_since.is_none() {
            self.full_since = Some(Instant::now());
        }
        self.queue.push_back(Written { channel, worker, bytes });
    }

    /// Nothing comes from it any more: a line that was begun is ended.
    fn remove(&mut self, at: usize) {
        let mut source = self.sources.remove(at);
        if !source.begun.is_empty() {
            source.begun.push(b'\n');
            self.push(source.channel, source.worker, source.begun);
        }
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    use fanmap_shm::socket::Socket;

    fn outlet() -> Arc<Outlet> {
        Arc::new(Outlet::new().unwrap())
    }

    fn files(ends: [OwnedFd; 3]) -> [File; 3] {
        ends.map(File::from)
    }

    fn bytes(outlet: &Outlet) -> Vec<Vec<u8>> {
        outlet.take().0.into_iter().map(|written| written.bytes).collect()
    }

    #[test]
    fn lines_come_whole_and_in_order_from_each_worker() {
        let outlet = outlet();
        let (_one, ends) = outlet.open((1, 0)).unwrap();
        let (_two, others) = outlet.open((2, 1)).unwrap();
        let ([mut out, ..], [mut other, ..]) = (files(ends), files(others));
        out.write_all(b"a\nb\nhalf").unwrap();
        other.write_all(b"c\n").unwrap();
        outlet.drain();
        let mut first = outlet.take().0;
        first.sort_by_key(|written| written.worker);
        let lines: Vec<_> = first.iter().map(|one| (one.worker, one.bytes.as_slice())).collect();
        assert_eq!(lines, [(0, b"a\nb\n".as_slice()), (1, b"c\n".as_slice())]);
        out.write_all(b" whole\n").unwrap();
        outlet.drain();
        assert_eq!(bytes(&outlet), [b"half whole\n"]);
        outlet.close();
    }

    #[test]
    fn what_a_worker_wrote_last_is_there_when_it_has_ended_though_others_could_still_write() {
        let outlet = outlet();
        let (feed, ends) = outlet.open((1, 0)).unwrap();
        let [_out, mut err, mut messages] = files(ends);
        err.write_all(b"dying").unwrap();
        messages.write_all(b"record").unwrap();
        drop(feed);
        outlet.close();
        assert_eq!(bytes(&outlet), [b"dying\n".as_slice(), b"record"]);
        assert_eq!(outlet.wait(), Some(false));
        assert!(err.write_all(b"too late\n").is_err());
    }

    #[test]
    fn an_empty_message_is_none_and_does_not_end_the_channel() {
        let outlet = outlet();
        let (_feed, [_out, _err, messages]) = outlet.open((1, 0)).unwrap();
        let messages = Socket::from_fd(messages);
        for message in [b"one".as_slice(), b"", b"two"] {
            messages.send(message, &[]).unwrap();
        }
        outlet.drain();
        assert_eq!(bytes(&outlet), [b"one", b"two"]);
        messages.send(b"three", &[]).unwrap();
        outlet.drain();
        assert_eq!(bytes(&outlet), [b"three"]);
        outlet.close();
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_pieces_none_of_which_is_lost() {
        let outlet = outlet();
        assert!(outlet.watch().unwrap());
        let (feed, ends) = outlet.open((1, 0)).unwrap();
        let line = vec![b'x'; LONGEST * 5 / 2];
        let [mut out, ..] = files(ends);
        let (written, expected) = (line.clone(), line.len() + 1);
        let writer = thread::spawn(move || out.write_all(&written).unwrap());
        let mut got = Vec::new();
        while got.len() + LONGEST / 2 < expected - 1 {
            assert_eq!(outlet.wait(), Some(true));
            got.extend(bytes(&outlet).concat());
        }
        writer.join().unwrap();
        drop(feed);
        outlet.close();
        while outlet.wait() == Some(true) {
            got.extend(bytes(&outlet).concat());
        }
        assert_eq!((got.len(), got.pop()), (expected, Some(b'\n')));
    }

    #[test]
    fn nobody_waits_for_one_who_does_not_take_for_long() {
        let mut state = State::default();
        let line = || vec![b'x'; FULL];
        state.push(Channel::Out, 0, line());
        assert!(state.full_since.is_some() && state.dropped == 0);
        // As the drain finds when its patience is at its end.
        state.stuck = true;
        state.push(Channel::Out, 0, line());
        let outlet = outlet();
        *outlet.lock() = state;
        let (taken, dropped) = outlet.take();
        assert_eq!((taken.len(), dropped), (1, FULL as u64));
        let state = outlet.lock();
        assert!(!state.stuck && state.full_since.is_none() && state.bytes == 0);
    }

    #[test]
    fn a_full_queue_makes_writers_wait_until_something_is_taken() {
        let outlet = outlet();
        assert!(outlet.watch().unwrap());
        let (_feed, ends) = outlet.open((1, 0)).unwrap();
        let [mut out, ..] = files(ends);
        let line = [b"y".repeat(1023), vec![b'\n']].concat();
        // Three times what may wait.
        let lines = 3 * FULL / line.len();
        let writer = thread::spawn(move || (0..lines).for_each(|_| out.write_all(&line).unwrap()));
        let mut came = 0;
        while came < lines * 1024 {
            assert_eq!(outlet.wait(), Some(true));
            assert!(outlet.lock().bytes <= FULL + CAPACITY);
            let (taken, dropped) = outlet.take();
            assert_eq!(dropped, 0);
            came += taken.iter().map(|written| written.bytes.len()).sum::<usize>();
        }
        writer.join().unwrap();
        outlet.close();
    }
}
