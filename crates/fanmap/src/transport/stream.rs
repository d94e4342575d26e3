//! Frames in and out of a ring.
//!
//! A [`FrameWriter`] keeps what did not fit and goes on where it stopped; a [`FrameReader`] keeps the frame it is in the
//! middle of. Neither ever waits: the loops that own them do, and wake each other by the flags of the link.

use std::collections::VecDeque;
use std::sync::Arc;

use fanmap_shm::link::RingOf;
use fanmap_shm::ring::{Consumer, Corrupt, Producer};

use crate::transport::frame::{HEADER_BYTES, Header, Kind};

/// A message's bytes: shared, since the parent keeps a task's argument until it has started somewhere.
pub type Body = Arc<Vec<u8>>;

/// The writing end of a ring, by frames.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    ring: Producer<RingOf>,
    backlog: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    header: [u8; HEADER_BYTES],
    body: Body,
    written: usize,
}

impl FrameWriter {
    /// The writer of a fresh ring.
    pub(crate) fn new(ring: Producer<RingOf>) -> Self {
        Self {
            ring,
            backlog: VecDeque::new(),
        }
    }

    /// Adds a frame; [`FrameWriter::flush`] sends it. The body ends with references to so many `blobs`.
    pub(crate) fn push(&mut self, kind: Kind, body: Body, blobs: u32) {
        let header = Header {
            kind,
            blobs,
            len: body.len() as u64,
        };
        self.backlog.push_back(Piece {
            header: header.encode(),
            body,
            written: 0,
        });
    }

    /// Adds what need not be a frame.
    #[cfg(test)]
    pub(crate) fn push_raw(&mut self, header: [u8; HEADER_BYTES], body: Body) {
        self.backlog.push_back(Piece {
            header,
            body,
            written: 0,
        });
    }

    /// Whether all that was pushed is in the ring.
    pub(crate) fn is_flushed(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Whether there is room for more in the ring.
    pub(crate) fn has_room(&self) -> Result<bool, Corrupt> {
        Ok(self.ring.free()? > 0)
    }

    /// Writes what fits and shows it to the other side. If something is left over, the other side is asked to ring when it
    /// has made room. Returns whether anything was written: then the other side may have to be rung.
    pub(crate) fn flush(&mut self) -> Result<bool, Corrupt> {
        let mut progress = self.fill()?;
        if !self.backlog.is_empty() {
            self.ring.ask_for_space();
            progress |= self.fill()?;
        }
        Ok(progress)
    }

    fn fill(&mut self) -> Result<bool, Corrupt> {
        let mut progress = false;
        while let Some(piece) = self.backlog.front_mut() {
            let rest = match piece.written.checked_sub(HEADER_BYTES) {
                None => &piece.header[piece.written..],
                Some(done) => &piece.body[done..],
            };
            let count = self.ring.write(rest)?;
            let whole = count == rest.len();
            piece.written += count;
            progress |= count > 0;
            if !whole {
                break;
            }
            if piece.written == HEADER_BYTES + piece.body.len() {
                self.backlog.pop_front();
            }
        }
        self.ring.publish();
        Ok(progress)
    }
}

/// What a frame says, its body, and how many blobs that refers to.
pub(crate) type Frame = (Kind, Vec<u8>, u32);

/// The reading end of a ring, by frames.
#[derive(Debug)]
pub(crate) struct FrameReader {
    ring: Consumer<RingOf>,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    body: Vec<u8>,
}

impl FrameReader {
    /// The reader of a fresh ring.
    pub(crate) fn new(ring: Consumer<RingOf>) -> Self {
        Self {
            ring,
            header: [0; HEADER_BYTES],
            header_read: 0,
            body: Vec::new(),
        }
    }

    /// The next whole frame, with the number of blobs that its body refers to; or `None` until more arrives. Nonsense is
    /// [`Corrupt`].
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Corrupt> {
        if self.header_read < HEADER_BYTES {
            self.header_read += self.ring.read(&mut self.header[self.header_read..])?;
            self.ring.release();
            if self.header_read < HEADER_BYTES {
                return Ok(None);
            }
        }
        let header = Header::decode(&self.header).ok_or(Corrupt)?;
        let len = usize::try_from(header.len).map_err(|_| Corrupt)?;
        while self.body.len() < len {
            // Room is made for what is there, not for what the header promises: a length alone costs no memory.
            let start = self.body.len();
            let count = self.ring.available()?.min(len - start);
            if count == 0 {
                return Ok(None);
            }
            self.body.resize(start + count, 0);
            let read = self.ring.read(&mut self.body[start..])?;
            debug_assert_eq!(read, count);
            self.ring.release();
        }
        self.header_read = 0;
        Ok(Some((header.kind, std::mem::take(&mut self.body), header.blobs)))
    }

    /// Whether there is something to read.
    pub(crate) fn has_input(&self) -> Result<bool, Corrupt> {
        Ok(self.ring.available()? > 0)
    }

    /// After reading: whether the writer waits for room and must be rung.
    pub(crate) fn must_ring_for_space(&self) -> bool {
        self.ring.must_ring_for_space()
    }
}

/// The body of frames that have none.
pub(crate) fn no_body() -> Body {
    Arc::new(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanmap_shm::link::{Link, RING_BYTES};

    fn both_ends() -> (FrameWriter, FrameReader) {
        use std::os::fd::AsFd;
        let parent = Arc::new(Link::create().unwrap());
        let worker = Arc::new(Link::open(parent.as_fd().try_clone_to_owned().unwrap()).unwrap());
        let (writer, _) = parent.parent_ends().unwrap();
        let (reader, _) = worker.worker_ends().unwrap();
        (FrameWriter::new(writer), FrameReader::new(reader))
    }

    #[test]
    fn a_body_longer_than_the_ring_passes_in_pieces() {
        let (mut writer, mut reader) = both_ends();
        let long: Body = (0..3 * RING_BYTES + 17).map(|k| k as u8).collect::<Vec<_>>().into();
        writer.push(Kind::Define { id: 5 }, Arc::clone(&long), 3);
        writer.push(Kind::Exit, no_body(), 0);
        let mut frames = Vec::new();
        while frames.len() < 2 {
            writer.flush().unwrap();
            while let Some(frame) = reader.next().unwrap() {
                frames.push(frame);
            }
        }
        assert!(writer.is_flushed());
        assert_eq!(frames[0].0, Kind::Define { id: 5 });
        assert!(frames[0].1 == *long && frames[0].2 == 3);
        assert_eq!(frames[1], (Kind::Exit, Vec::new(), 0));
    }

    #[test]
    fn nonsense_is_corrupt() {
        let (mut writer, mut reader) = both_ends();
        writer.push_raw([0xff; HEADER_BYTES], no_body());
        writer.flush().unwrap();
        assert_eq!(reader.next(), Err(Corrupt));
    }
}
