//! The header before every message in a ring. Pure: bytes in, values out.
//!
//! ```text
//! kind: u32 | slot: u32 | id: u64 | extra: u64 | first: u32 | count: u32 | total: u32 | blobs: u32 | len: u64
//! then `len` bytes of body, the last of which refer to `blobs` blobs
//! ```
//! Both sides are the same build of the same program, so the numbers are in native order. Everything read is checked all
//! the same: a worker that writes nonsense is treated as crashed.

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 48;

/// No body can be longer: a length beyond it is nonsense, not a large message.
const MAX_BODY_BYTES: u64 = 1 << 46;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To a worker, first of all: get ready (body: for the handler).
    Setup,
    /// To a worker: from now on `id` is this function (body: for the handler).
    Define {
        /// The function.
        id: u64,
    },
    /// To a worker: the function is used no more.
    Forget {
        /// The function.
        id: u64,
    },
    /// To a worker: run a chunk of tasks (body: their arguments, encoded together, and perhaps others').
    Call {
        /// The place of its state word.
        slot: u32,
        /// The chunk.
        id: u64,
        /// The function to call.
        function: u64,
        /// Which of the arguments in the body the tasks are for.
        part: Part,
        /// Whether the time of each is limited: then the worker marks their starts.
        limited: bool,
        /// Whether the parent may send them again: then nobody but the worker sees what is written to their blobs.
        kept: bool,
    },
    /// To a worker: finish what you have and end.
    Exit,
    /// To the parent: ready for tasks.
    Ready,
    /// To the parent: getting ready failed (body: why); the worker ends.
    Refused,
    /// To the parent: the next tasks of the chunk returned (body: their values, encoded together).
    Values {
        /// The chunk.
        id: u64,
        /// How many tasks.
        count: u32,
        /// How long they ran together, in nanoseconds.
        nanos: u64,
        /// Whether the worker is through with the chunk.
        last: bool,
    },
    /// To the parent: the next task of the chunk raised (body: what).
    Raised {
        /// The chunk.
        id: u64,
        /// How long it ran, in nanoseconds.
        nanos: u64,
        /// Whether the worker is through with the chunk.
        last: bool,
        /// Whether the task may be tried again.
        again: bool,
    },
    /// To the parent: the next task of the chunk was refused memory past the worker's limit (body: what it raised then).
    Outgrown {
        /// The chunk.
        id: u64,
        /// The most memory that the worker had, in bytes; 0 if that is not known.
        memory: u64,
        /// Whether the worker is through with the chunk.
        last: bool,
    },
    /// To the parent: the worker is through with the chunk, whose further tasks were cut off.
    Over {
        /// The chunk.
        id: u64,
    },
    /// To the parent: the worker has answered for all that it started, starts nothing more, and ends.
    Quit,
    /// To a worker: keep no memory warm for results.
    Cool,
    /// Either way: a blob is returned.
    Return {
        /// Where it is in the memory of whoever sent it.
        offset: u64,
    },
}

/// A run of the arguments that a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How many the body holds.
    pub total: u32,
}

/// A header: what the frame says, and what its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// How many blobs the body refers to, at its end.
    pub(crate) blobs: u32,
    pub(crate) len: u64,
}

impl Header {
    /// The header as it travels.
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let none = Part {
            first: 0,
            count: 0,
            total: 0,
        };
        let results = |count| Part { count, ..none };
        let (tag, slot, id, extra, part) = match self.kind {
            Kind::Setup => (1, 0, 0, 0, none),
            Kind::Define { id } => (2, 0, id, 0, none),
            Kind::Forget { id } => (3, 0, id, 0, none),
            Kind::Call {
                slot,
                id,
                function,
                part,
                limited,
                kept,
            } => {
                let tag = match (limited, kept) {
                    (false, false) => 4,
                    (true, false) => 13,
                    (false, true) => 16,
                    (true, true) => 17,
                };
                (tag, slot, id, function, part)
            }
            Kind::Exit => (5, 0, 0, 0, none),
            Kind::Ready => (6, 0, 0, 0, none),
            Kind::Refused => (7, 0, 0, 0, none),
            Kind::Values { id, count, nanos, last } => (8, u32::from(last), id, nanos, results(count)),
            Kind::Raised { id, nanos, last, again } => (9, u32::from(last) | u32::from(again) << 1, id, nanos, none),
            Kind::Outgrown { id, memory, last } => (14, u32::from(last), id, memory, none),
            Kind::Over { id } => (10, 0, id, 0, none),
            Kind::Quit => (15, 0, 0, 0, none),
            Kind::Return { offset } => (11, 0, offset, 0, none),
            Kind::Cool => (12, 0, 0, 0, none),
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&u32::to_ne_bytes(tag));
        bytes[4..8].copy_from_slice(&u32::to_ne_bytes(slot));
        bytes[8..16].copy_from_slice(&u64::to_ne_bytes(id));
        bytes[16..24].copy_from_slice(&u64::to_ne_bytes(extra));
        bytes[24..28].copy_from_slice(&u32::to_ne_bytes(part.first));
        bytes[28..32].copy_from_slice(&u32::to_ne_bytes(part.count));
        bytes[32..36].copy_from_slice(&u32::to_ne_bytes(part.total));
        bytes[36..40].copy_from_slice(&u32::to_ne_bytes(self.blobs));
        bytes[40..48].copy_from_slice(&u64::to_ne_bytes(self.len));
        bytes
    }

    /// What the bytes say, or `None` if they are no header.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|k| bytes[at + k]));
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|k| bytes[at + k]));
        let (slot, id, extra, len) = (word(4), long(8), long(16), long(40));
        let part = Part {
            first: word(24),
            count: word(28),
            total: word(32),
        };
        let last = slot == 1;
        let kind = match word(0) {
            1 => Kind::Setup,
            2 => Kind::Define { id },
            3 => Kind::Forget { id },
            tag @ (4 | 13 | 16 | 17) => Kind::Call {
                slot,
                id,
                function: extra,
                part: part.checked()?,
                limited: matches!(tag, 13 | 17),
                kept: matches!(tag, 16 | 17),
            },
            5 => Kind::Exit,
            6 => Kind::Ready,
            7 => Kind::Refused,
            8 => Kind::Values {
                id,
                count: part.count,
                nanos: extra,
                last,
            },
            9 => Kind::Raised {
                id,
                nanos: extra,
                last: slot & 1 != 0,
                again: slot & 2 != 0,
            },
            10 => Kind::Over { id },
            11 => Kind::Return { offset: id },
            12 => Kind::Cool,
            14 => Kind::Outgrown {
                id,
                memory: extra,
                last,
            },
            15 => Kind::Quit,
            _ => return None,
        };
        let blobs = word(36);
        (len <= MAX_BODY_BYTES).then_some(Self { kind, blobs, len })
    }
}

impl Part {
    /// All of so many.
    pub(crate) fn all(total: u32) -> Self {
        Self {
            first: 0,
            count: total,
            total,
        }
    }

    /// Those of its arguments that lie in `range`, counted from its own first.
    pub(crate) fn of(self, range: std::ops::Range<u32>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= self.count);
        Self {
            first: self.first + range.start,
            count: range.end - range.start,
            ..self
        }
    }

    /// Unless it is nonsense.
    fn checked(self) -> Option<Self> {
        let end = self.first.checked_add(self.count)?;
        (end <= self.total && self.count > 0).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (any::<u32>(), any::<u64>(), any::<u64>(), 0..14u8).prop_map(|(slot, id, extra, which)| match which {
            0 => Kind::Setup,
            1 => Kind::Define { id },
            2 => Kind::Forget { id },
            3 => Kind::Call {
                slot,
                id,
                function: extra,
                part: Part {
                    first: 1,
                    count: 1 + slot % 7,
                    total: 8,
                },
                limited: slot % 2 == 0,
                kept: slot % 3 == 0,
            },
            4 => Kind::Exit,
            5 => Kind::Ready,
            6 => Kind::Refused,
            7 => Kind::Values {
                id,
                count: slot,
                nanos: extra,
                last: slot % 2 == 0,
            },
            8 => Kind::Raised {
                id,
                nanos: extra,
                last: slot % 2 == 0,
                again: slot % 3 == 0,
            },
            9 => Kind::Over { id },
            10 => Kind::Return { offset: id },
            11 => Kind::Outgrown {
                id,
                memory: extra,
                last: slot % 2 == 0,
            },
            12 => Kind::Quit,
            _ => Kind::Cool,
        })
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(kind in kinds(), blobs in any::<u32>(), len in 0..=MAX_BODY_BYTES) {
            let header = Header { kind, blobs, len };
            prop_assert_eq!(Header::decode(&header.encode()), Some(header));
        }

        #[test]
        fn any_bytes_are_a_header_or_refused(bytes in any::<[u8; HEADER_BYTES]>()) {
            if let Some(header) = Header::decode(&bytes) {
                prop_assert!(header.len <= MAX_BODY_BYTES);
            }
        }
    }
}
