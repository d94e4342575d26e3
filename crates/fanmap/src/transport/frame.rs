//! The header before every message in a ring. Pure: bytes in, values out.
//!
//! ```text
//! kind: u32 | slot: u32 | id: u64 | extra: u64 | len: u64      then `len` bytes of body
//! ```
//! Both sides are the same build of the same program, so the numbers are in native order. Everything read is checked all
//! the same: a worker that writes nonsense is treated as crashed.

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 32;

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
    /// To a worker: run a task (body: its argument).
    Call {
        /// The place of its state word.
        slot: u32,
        /// The task.
        id: u64,
        /// The function to call.
        function: u64,
    },
    /// To a worker: finish what you have and end.
    Exit,
    /// To the parent: ready for tasks.
    Ready,
    /// To the parent: getting ready failed (body: why); the worker ends.
    Refused,
    /// To the parent: the function returned (body: the value).
    Value {
        /// The task.
        id: u64,
        /// How long it ran, in nanoseconds.
        nanos: u64,
    },
    /// To the parent: the function raised (body: what).
    Raised {
        /// The task.
        id: u64,
        /// How long it ran, in nanoseconds.
        nanos: u64,
    },
    /// To the parent: the task was cancelled or taken back before it started.
    Skipped {
        /// The task.
        id: u64,
    },
}

/// A header: what the frame says and how long its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) len: u64,
}

impl Header {
    /// The header as it travels.
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let (tag, slot, id, extra) = match self.kind {
            Kind::Setup => (1, 0, 0, 0),
            Kind::Define { id } => (2, 0, id, 0),
            Kind::Forget { id } => (3, 0, id, 0),
            Kind::Call { slot, id, function } => (4, slot, id, function),
            Kind::Exit => (5, 0, 0, 0),
            Kind::Ready => (6, 0, 0, 0),
            Kind::Refused => (7, 0, 0, 0),
            Kind::Value { id, nanos } => (8, 0, id, nanos),
            Kind::Raised { id, nanos } => (9, 0, id, nanos),
            Kind::Skipped { id } => (10, 0, id, 0),
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&u32::to_ne_bytes(tag));
        bytes[4..8].copy_from_slice(&u32::to_ne_bytes(slot));
        bytes[8..16].copy_from_slice(&u64::to_ne_bytes(id));
        bytes[16..24].copy_from_slice(&u64::to_ne_bytes(extra));
        bytes[24..32].copy_from_slice(&u64::to_ne_bytes(self.len));
        bytes
    }

    /// What the bytes say, or `None` if they are no header.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|k| bytes[at + k]));
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|k| bytes[at + k]));
        let (slot, id, extra, len) = (word(4), long(8), long(16), long(24));
        let kind = match word(0) {
            1 => Kind::Setup,
            2 => Kind::Define { id },
            3 => Kind::Forget { id },
            4 => Kind::Call {
                slot,
                id,
                function: extra,
            },
            5 => Kind::Exit,
            6 => Kind::Ready,
            7 => Kind::Refused,
            8 => Kind::Value { id, nanos: extra },
            9 => Kind::Raised { id, nanos: extra },
            10 => Kind::Skipped { id },
            _ => return None,
        };
        (len <= MAX_BODY_BYTES).then_some(Self { kind, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (any::<u32>(), any::<u64>(), any::<u64>(), 0..10u8).prop_map(|(slot, id, extra, which)| match which {
            0 => Kind::Setup,
            1 => Kind::Define { id },
            2 => Kind::Forget { id },
            3 => Kind::Call {
                slot,
                id,
                function: extra,
            },
            4 => Kind::Exit,
            5 => Kind::Ready,
            6 => Kind::Refused,
            7 => Kind::Value { id, nanos: extra },
            8 => Kind::Raised { id, nanos: extra },
            _ => Kind::Skipped { id },
        })
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(kind in kinds(), len in 0..=MAX_BODY_BYTES) {
            let header = Header { kind, len };
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
