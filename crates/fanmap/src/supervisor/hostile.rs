//! Workers that write whatever they like: into their rings, over their positions and state words, and in messages that look
//! as they should. Each task must end exactly once all the same, and nothing may panic or be reached outside of its memory.
//!
//! A case is a list of steps, some the parent's, some a good worker's and some a bad one's. They are `cargo test`'s for a
//! moment, and `make fuzz`'s for as long as is asked for (`FANMAP_FUZZ_SECONDS`).

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanmap_shm::arena::GRAIN;
use fanmap_shm::bell::Bell;
use fanmap_shm::blob::{BlobRef, Blobs};
use fanmap_shm::link::{Link, RING_BYTES};
use fanmap_shm::mapping::Access;
use fanmap_shm::word::Step;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::job::{Broken, End, Forgotten, Function, Job, Packed, Sink};
use super::launcher::{Launched, Start};
use super::seat::Seat;
use super::state::{self, State};
use crate::config::ProcessConfig;
use crate::lost::{Death, Exit};
use crate::memory::{Ledger, Load, Memory, Message};
use crate::outcome::Outcome;
use crate::transport::control::{Invitation, Order, Report};
use crate::transport::frame::{HEADER_BYTES, Header, Kind, Part};
use crate::transport::stream::{FrameReader, FrameWriter, no_body};

/// Holds for some values, or as many as fit into the seconds that were asked for.
fn holds<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let seconds = std::env::var("FANMAP_FUZZ_SECONDS").map_or(0, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut cases = 0;
    loop {
        let config = ProptestConfig {
            failure_persistence: None,
            ..Default::default()
        };
        cases += config.cases;
        if let Err(found) = TestRunner::new(config).run(strategy, &property) {
            panic!("{found}");
        }
        if Instant::now() >= end {
            println!("{cases} cases, no finding");
            return;
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    // The parent's.
    Submit {
        tasks: u32,
        limited: bool,
        blob: bool,
    },
    Turn,
    Forget,
    Cancel {
        of_limited: bool,
        kill: bool,
    },
    CancelWaiting,
    Retire,
    // A good worker's.
    Hear,
    Ready,
    Begin,
    Answer {
        raised: bool,
    },
    Finish,
    Quit,
    GiveBack,
    // A bad one's.
    Say {
        kind: Kind,
        body: Vec<u8>,
        blobs: u32,
    },
    SayRaw {
        header: [u8; HEADER_BYTES],
        body: Vec<u8>,
    },
    /// Steps of a state word that are not its to make now.
    Misstep {
        slot: usize,
        count: u32,
        which: u8,
    },
    Scribble {
        at: usize,
        bytes: Vec<u8>,
    },
    // What becomes of it.
    Die {
        signal: bool,
    },
}

fn kinds() -> impl Strategy<Value = Kind> {
    // The ids that there are in a case are small numbers.
    let (id, count) = (0..60u64, prop_oneof![0..5u32, any::<u32>()]);
    (id, count, any::<u64>(), any::<bool>(), 0..12u8).prop_map(|(id, count, long, last, which)| match which {
        0..3 => Kind::Values {
            id,
            count,
            nanos: long,
            last,
        },
        3 => Kind::Raised {
            id,
            nanos: long,
            last,
            again: long % 2 == 0,
        },
        4 => Kind::Over { id },
        5 => Kind::Outgrown { id, memory: long, last },
        6 => Kind::Quit,
        7 => Kind::Return { offset: id * GRAIN },
        8 => Kind::Return { offset: long },
        9 => Kind::Ready,
        10 => Kind::Call {
            slot: count,
            id,
            function: 1,
            part: Part::all(1),
            limited: last,
            kept: last,
        },
        _ => Kind::Cool,
    })
}

/// A body, and how many references to blobs it ends with, or says it does.
fn bodies() -> impl Strategy<Value = (Vec<u8>, u32)> {
    let place = prop_oneof![(0..4u64).prop_map(|at| at * GRAIN), any::<u64>()];
    let len = prop_oneof![0..3 * GRAIN, any::<u64>()];
    let reference = (place, len, any::<u8>()).prop_map(|(offset, len, readonly)| {
        let mut bytes = offset.to_ne_bytes().to_vec();
        bytes.extend(len.to_ne_bytes());
        bytes.push(readonly);
        bytes
    });
    let told = prop::collection::vec(reference, 1..4).prop_map(|all| (all.concat(), all.len() as u32));
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        3 => told,
        2 => bytes.clone().prop_map(|bytes| (bytes, 0)),
        1 => (bytes, any::<u32>()),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    // What is shared begins with flags, positions and words, of which the first few are in use.
    let at = prop_oneof![4 => 0..1200usize, 1 => 0..8192usize, 1 => 0..2 * RING_BYTES];
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..16),
        (0..100u64).prop_map(|number| number.to_ne_bytes().to_vec()),
    ];
    prop_oneof![
        6 => (1..6u32, any::<bool>(), any::<bool>())
            .prop_map(|(tasks, limited, blob)| Act::Submit { tasks, limited, blob }),
        8 => Just(Act::Turn),
        1 => Just(Act::Forget),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(of_limited, kill)| Act::Cancel { of_limited, kill }),
        1 => Just(Act::CancelWaiting),
        1 => Just(Act::Retire),
        8 => Just(Act::Hear),
        3 => Just(Act::Ready),
        8 => Just(Act::Begin),
        8 => any::<bool>().prop_map(|raised| Act::Answer { raised }),
        4 => Just(Act::Finish),
        2 => Just(Act::Quit),
        2 => Just(Act::GiveBack),
        3 => (kinds(), bodies()).prop_map(|(kind, (body, blobs))| Act::Say { kind, body, blobs }),
        1 => (any::<[u8; HEADER_BYTES]>(), prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(header, body)| Act::SayRaw { header, body }),
        2 => (at, bytes).prop_map(|(at, bytes)| Act::Scribble { at, bytes }),
        3 => (0..4usize, 0..8u32, 0..6u8).prop_map(|(slot, count, which)| Act::Misstep {
            slot,
            count,
            which,
        }),
        1 => any::<bool>().prop_map(|signal| Act::Die { signal }),
    ]
}

/// Counts the ends of each task, and looks into what came with them.
struct Count {
    limit: Option<Duration>,
    ends: Mutex<HashMap<u64, u32>>,
}

impl Sink for Count {
    fn finished(&self, first: u64, count: u32, end: End) {
        let mut ends = self.ends.lock().unwrap();
        for key in first..first + u64::from(count) {
            *ends.entry(key).or_default() += 1;
        }
        if let End::Outcome(Outcome::Value(message)) = end {
            read(message);
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        self.limit
    }
}

/// Reads the first byte of all the blobs of a message, by one way or the other.
fn read(message: Message) {
    for mut parcel in message.blobs {
        let _ = parcel.read(&mut [0]);
        if let Ok((mapping, returns)) = parcel.open(Access::Shared) {
            assert_ne!(mapping.len(), 0);
            mapping.close(move |blob| returns.give(blob));
        }
    }
}

/// A chunk that a worker has heard of: id, slot, how many tasks, started, answered.
type Known = (u64, usize, u32, u32, u32);

/// A worker's side of a link.
struct Worker {
    key: u64,
    link: Arc<Link>,
    calls: FrameReader,
    replies: FrameWriter,
    chunks: VecDeque<Known>,
    lent: Vec<u64>,
}

impl Worker {
    /// A new worker of the pool.
    fn join(state: &mut State, config: &ProcessConfig) -> Self {
        let ours = Arc::new(Link::create().unwrap());
        let link = Arc::new(Link::open(copy(&*ours)).unwrap());
        let (calls, replies) = link.worker_ends().unwrap();
        let who = (state.next_id(), state.free_index());
        let ledger = Ledger::new(Arc::new(Blobs::create().unwrap()), None);
        let seat = Seat::new(
            who,
            ours,
            Bell::new().unwrap(),
            Launched::default(),
            no_body(),
            (ledger, None),
            config,
        );
        state.seats.push(seat.unwrap());
        Self {
            key: who.0,
            link,
            calls: FrameReader::new(calls),
            replies: FrameWriter::new(replies),
            chunks: VecDeque::new(),
            lent: Vec::new(),
        }
    }

    fn say(&mut self, kind: Kind, body: Vec<u8>, blobs: u32) {
        self.replies.push(kind, Arc::new(body), blobs);
        // It may have broken its own ring.
        let _ = self.replies.flush();
    }

    fn hear(&mut self) {
        while let Ok(Some((kind, body, blobs))) = self.calls.next() {
            if let Kind::Call { slot, id, part, .. } = kind {
                self.chunks.push_back((id, slot as usize, part.count, 0, 0));
            }
            let table = body.len().saturating_sub(blobs as usize * (BlobRef::BYTES + 1));
            for entry in body[table..].chunks_exact(BlobRef::BYTES + 1) {
                self.lent.push(u64::from_ne_bytes(std::array::from_fn(|at| entry[at])));
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Hear => self.hear(),
            Act::Ready => self.say(Kind::Ready, Vec::new(), 0),
            Act::Quit => self.say(Kind::Quit, Vec::new(), 0),
            Act::GiveBack => {
                if let Some(offset) = self.lent.pop() {
                    self.say(Kind::Return { offset }, Vec::new(), 0);
                }
            }
            Act::Begin => {
                let front = self.chunks.front_mut();
                let runs = |(_, slot, _, started, _): &&mut Known| {
                    self.link
                        .word(*slot)
                        .is_some_and(|word| word.start(*started) == Step::Run)
                };
                if let Some((_, _, _, started, _)) = front.filter(runs) {
                    *started += 1;
                }
            }
            Act::Answer { raised } => {
                let Some((id, slot, count, started, answered)) = self.chunks.front_mut() else {
                    return;
                };
                if *answered < *started {
                    *answered += 1;
                    let last = answered == count;
                    if last && !self.link.word(*slot).is_some_and(|word| word.finish(raised)) {
                        return;
                    }
                    let id = *id;
                    if last {
                        self.chunks.pop_front();
                    }
                    let kind = if raised {
                        Kind::Raised {
                            id,
                            nanos: 5,
                            last,
                            again: false,
                        }
                    } else {
                        Kind::Values {
                            id,
                            count: 1,
                            nanos: 5,
                            last,
                        }
                    };
                    self.say(kind, Vec::new(), 0);
                }
            }
            Act::Finish => {
                let over = |(_, slot, _, started, answered): &Known| {
                    started == answered && self.link.word(*slot).is_some_and(|word| word.finish(false))
                };
                if let Some((id, ..)) = self.chunks.front().copied().filter(over) {
                    self.chunks.pop_front();
                    self.say(Kind::Over { id }, Vec::new(), 0);
                }
            }
            Act::Say { kind, body, blobs } => self.say(kind, body, blobs),
            Act::SayRaw { header, body } => {
                self.replies.push_raw(header, Arc::new(body));
                let _ = self.replies.flush();
            }
            Act::Scribble { at, bytes } => {
                let _ = rustix::io::pwrite(self.link.as_fd(), &bytes, at as u64);
            }
            Act::Misstep { slot, count, which } => {
                let Some(word) = self.link.word(slot) else {
                    return;
                };
                // What comes of them is for the parent to see.
                match which {
                    0 => word.queue(count),
                    1 => word.free(),
                    2 => {
                        let _ = word.finish(false);
                    }
                    3 => {
                        let _ = word.cut(count);
                    }
                    4 => {
                        let _ = word.condemn();
                    }
                    _ => (0..count).for_each(|task| {
                        let _ = word.start(task);
                    }),
                }
            }
            _ => unreachable!("the parent's"),
        }
    }
}

fn copy(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// What becomes of the tasks of one case; and what is left of the pool.
fn play(acts: Vec<(usize, Act)>) -> Result<State, TestCaseError> {
    let config = ProcessConfig {
        workers: 2,
        memory_limit: Some(1 << 30),
        ..Default::default()
    };
    let mut state = State::new(config.workers, false, Start::Forked(None));
    let mut workers: Vec<Worker> = (0..config.workers).map(|_| Worker::join(&mut state, &config)).collect();
    let forgotten = Arc::new(Forgotten::new());
    let function = Arc::new(Function::new(1, "f", Load::default(), &forgotten));
    let memory = Memory::create(1 << 20).unwrap();
    let sinks = [None, Some(Duration::ZERO)].map(|limit| {
        Arc::new(Count {
            limit,
            ends: Mutex::default(),
        })
    });
    let mut keys = [0; 2];
    for (which, act) in acts {
        match act {
            Act::Submit { tasks, limited, blob } => {
                let attach = |blobs: &Blobs, grant| blobs.write(grant, b"abc");
                let load = Load {
                    bytes: Vec::new(),
                    blobs: memory.attach(3, false, attach).filter(|_| blob).into_iter().collect(),
                };
                let sink = usize::from(limited);
                let (key, to) = (keys[sink], Arc::clone(&sinks[sink]) as Arc<dyn Sink>);
                keys[sink] += u64::from(tasks);
                let job = Job::new(state.next_id(), &function, Packed::new(load), tasks, to, key);
                if matches!(state.phase, state::Phase::Open) {
                    state.queue.push_back(job);
                } else {
                    sinks[sink].finished(key, tasks, End::Outcome(Outcome::Cancelled)); // it is refused
                }
                state.dispatch();
            }
            Act::Turn => {
                state.listen();
                state.expire();
                state.bury();
                state.dispatch();
                for worker in &mut workers {
                    if !state.seats.iter().any(|seat| seat.key == worker.key) {
                        *worker = Worker::join(&mut state, &config);
                    }
                }
            }
            Act::Forget => state.seats.iter_mut().for_each(|seat| seat.forget(&[1])),
            Act::Cancel { of_limited, kill } => {
                let sink = Arc::clone(&sinks[usize::from(of_limited)]) as Arc<dyn Sink>;
                state.cancel_of(&sink, kill);
            }
            Act::CancelWaiting => state.cancel_waiting(),
            Act::Retire => state.seats.iter_mut().for_each(Seat::cool),
            Act::Die { signal } => {
                let exit = if signal { Exit::KILLED } else { Exit::Code(0) };
                if let Some(seat) = state.seats.iter_mut().find(|seat| seat.key == workers[which].key) {
                    (seat.gone, seat.death) = (true, Some(Death { exit, ..Death::UNSEEN }));
                }
            }
            act => workers[which].act(act),
        }
        state::deliver(std::mem::take(&mut state.owed));
        std::mem::take(&mut state.freed).let_go();
    }
    for seat in &mut state.seats {
        (seat.gone, seat.death) = (true, Some(Death::UNSEEN));
    }
    state.listen();
    state.bury();
    state.break_down(Broken {
        reason: "the case is over".to_owned(),
        refusal: None,
    });
    state::deliver(std::mem::take(&mut state.owed));
    for (sink, count) in sinks.iter().zip(keys) {
        let ends = sink.ends.lock().unwrap();
        let wrong: Vec<_> = (0..count).filter(|key| ends.get(key) != Some(&1)).collect();
        prop_assert!(wrong.is_empty() && ends.len() as u64 == count, "{wrong:?} of {ends:?}");
    }
    Ok(state)
}

#[test]
fn each_task_ends_once_whatever_its_worker_writes() {
    holds(&prop::collection::vec((0..2usize, acts()), 1..120), |acts| {
        play(acts).map(drop)
    });
}

#[test]
fn a_result_that_makes_no_sense_is_no_result_of_its_task() {
    let submit = Act::Submit {
        tasks: 1,
        limited: false,
        blob: false,
    };
    // The two workers have the first two ids.
    let values = Kind::Values {
        id: 3,
        count: 1,
        nanos: 5,
        last: false,
    };
    let outside = Act::Say {
        kind: values,
        body: vec![0xff; BlobRef::BYTES + 1],
        blobs: 1,
    };
    let acts = [Act::Ready, Act::Turn, submit, Act::Hear, Act::Begin, outside];
    assert!(play(acts.map(|act| (0, act)).into()).is_ok());
}

#[test]
fn what_was_given_up_is_not_taken_back_though_its_worker_calls_it_waiting() {
    let submit = Act::Submit {
        tasks: 1,
        limited: false,
        blob: false,
    };
    let cancel = |kill| Act::Cancel {
        of_limited: false,
        kill,
    };
    let again = Act::Misstep {
        slot: 0,
        count: 1,
        which: 0,
    };
    let acts = [
        Act::Ready,
        Act::Turn,
        submit,
        Act::Hear,
        Act::Begin,
        cancel(true),
        again,
        cancel(false),
    ];
    assert!(play(acts.map(|act| (0, act)).into()).is_ok());
}

#[test]
fn workers_that_write_nonsense_before_they_start_a_task_are_not_replaced_for_ever() {
    let acts = [
        Act::Ready,
        Act::Turn,
        Act::SayRaw {
            header: [0xff; HEADER_BYTES],
            body: Vec::new(),
        },
        Act::Turn,
        Act::Die { signal: true },
        Act::Turn,
    ];
    let submit = Act::Submit {
        tasks: 4,
        limited: false,
        blob: false,
    };
    let rounds = (0..2)
        .cycle()
        .flat_map(|which| acts.iter().map(move |act| (which, act.clone())));
    let state = play(
        std::iter::once((0, submit))
            .chain(rounds.take(acts.len() * 8))
            .collect(),
    );
    assert!(matches!(state.unwrap().phase, state::Phase::Broken(why) if why.reason.contains("again and again")));
}

#[test]
fn any_bytes_are_a_header_or_refused() {
    holds(
        &(any::<[u8; HEADER_BYTES]>(), 0..20u8, 0..3u8),
        |(mut bytes, tag, high)| {
            // Few of all numbers are a kind, or a length that may be.
            bytes[..4].copy_from_slice(&u32::from(tag).to_ne_bytes());
            bytes[46..].fill(high / 2);
            if let Some(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Some(header));
            }
            Ok(())
        },
    );
}

#[test]
fn any_message_with_blobs_is_in_its_memory_or_refused() {
    holds(&bodies(), |(body, count)| {
        let theirs = Arc::new(Blobs::create().unwrap());
        let mut ledger = Ledger::new(theirs, None);
        if let Ok(message) = ledger.receive(body, count) {
            prop_assert_eq!(message.blobs.len(), count as usize);
            read(message);
            prop_assert_eq!(ledger.returns().len(), count as usize);
        }
        ledger.close();
        Ok(())
    });
}

#[test]
fn any_bytes_on_the_control_socket_are_a_message_or_refused() {
    let words = prop::collection::vec(prop_oneof![0..8u64, any::<u64>()], 0..8);
    holds(&(words, 0..9usize, any::<bool>()), |(words, descriptors, cut)| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(bytes.len() - usize::from(cut && !bytes.is_empty()));
        let bell = Bell::new().unwrap();
        let fds = || (0..descriptors).map(|_| copy(&bell)).collect();
        let invitation = Invitation::read(&bytes, fds());
        prop_assert_eq!(
            invitation.is_ok(),
            words.len() == 6 && !cut && descriptors >= 5 && fits(&words)
        );
        let _ = (
            Report::read(&bytes, Some(fds())),
            Report::read(&bytes, None),
            Order::read(&bytes),
        );
        Ok(())
    });
}

/// Whether the numbers of an invitation that are shorter than they travel are what they may be.
fn fits(words: &[u64]) -> bool {
    words[1..3].iter().all(|word| u32::try_from(*word).is_ok())
}
