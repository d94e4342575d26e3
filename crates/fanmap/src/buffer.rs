//! Values of tasks to bytes and back, and the buffers in them that travel beside the bytes.
//!
//! serde sees a value element by element, so a large array would be copied several times and checked at each element. A
//! [`Buffer`] knows its bytes: while [`encode`] runs, it copies them to shared memory, and leaves only a mark in the value;
//! while [`decode`] runs, the buffers come out in the same order. What passes between the two and the buffer, whose
//! methods serde calls, is in thread-local places that they fill before and empty after.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::Pod;
use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteBuf, Bytes};

use crate::memory::{Attached, Load, Memory, Parcel};

/// From how many bytes on a buffer travels beside the message. Less, and the book-keeping of a blob costs more than the copies
/// that it saves; more, and buffers fill the rings.
const LARGE: usize = 64 << 10;

thread_local! {
    static LEAVING: RefCell<Option<(Arc<Memory>, Vec<Attached>)>> = const { RefCell::new(None) };
    static COMING: RefCell<VecDeque<Parcel>> = const { RefCell::new(VecDeque::new()) };
}

/// Bytes of a value's length, which stands before it.
const LENGTH: usize = size_of::<u64>();

/// Appends `value` to `load` as it travels, its large buffers in `memory`. What an error or a panic leaves behind the bytes that
/// were there is the caller's to cut off.
pub(crate) fn encode<T: Serialize>(value: &T, memory: &Arc<Memory>, load: &mut Load) -> Result<(), postcard::Error> {
    /// Whatever serde does meanwhile: what was there before is there after.
    struct Restore(Option<(Arc<Memory>, Vec<Attached>)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEAVING.set(self.0.take());
        }
    }
    let _restore = Restore(LEAVING.replace(Some((Arc::clone(memory), Vec::new()))));
    let start = load.bytes.len() + LENGTH;
    load.bytes.extend_from_slice(&[0; LENGTH]);
    postcard::serialize_with_flavor(value, Append(&mut load.bytes))?;
    let length = (load.bytes.len() - start) as u64;
    load.bytes[start - LENGTH..start].copy_from_slice(&length.to_ne_bytes());
    load.blobs
        .extend(LEAVING.take().into_iter().flat_map(|(_, blobs)| blobs));
    Ok(())
}

/// Where postcard writes to.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The values of a message one after the other, as they travelled. It ends before one that is not there whole.
pub(crate) fn values(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u64::from_ne_bytes(*length)).ok()?)?;
        bytes = rest;
        Some(value)
    })
}

/// A value, which takes its buffers out of `blobs`. Of several in one message only the last may have any, so that none gets
/// another's whatever becomes of those before.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8], blobs: &mut Vec<Parcel>) -> Result<T, postcard::Error> {
    struct Restore(VecDeque<Parcel>);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMING.set(mem::take(&mut self.0));
        }
    }
    let _restore = Restore(COMING.replace(mem::take(blobs).into()));
    let value = postcard::from_bytes(value);
    *blobs = COMING.take().into();
    value
}

/// What a [`Buffer`] holds: integers and floats.
///
/// ```
/// let bytes: fanmap::Buffer<u8> = (0..4).collect();
/// let floats = fanmap::Buffer::from(vec![0.5f32; 4]);
/// assert_eq!((bytes.len(), floats.iter().sum()), (4, 2.0));
/// ```
pub trait Element: Pod {}

macro_rules! elements {
    ($($number:ty),+) => { $(impl Element for $number {})+ };
}

elements!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

/// A vector of numbers that goes to a worker process, or comes back, without serde looking at each: by one copy into shared
/// memory and one out of it, if it is large.
///
/// Take and return it in [`register!`](crate::register)ed functions instead of a `Vec`, by itself or within other types. It is
/// a `Vec` that knows how to travel, and becomes one for nothing.
///
/// ```
/// use fanmap::Buffer;
///
/// fn halves(numbers: Buffer<f64>) -> Buffer<f64> {
///     numbers.iter().map(|n| n / 2.0).collect()
/// }
/// fanmap::register!(halves);
///
/// fanmap::init();
/// let pool = fanmap::ProcessPool::new(1)?;
/// let result = pool.submit(halves, Buffer::from(vec![3.0; 1_000_000]))?.wait()?;
/// assert_eq!(result.into_vec(), vec![1.5; 1_000_000]);
/// # Ok::<(), fanmap::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Buffer<T>(Vec<T>);

impl<T> Buffer<T> {
    /// The vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> From<Buffer<T>> for Vec<T> {
    fn from(buffer: Buffer<T>) -> Self {
        buffer.0
    }
}

impl<T> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> Deref for Buffer<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A buffer within a message.
#[derive(Serialize, Deserialize)]
enum Wire<B> {
    Inline(B),
    /// The next of the buffers beside the message.
    Beside,
}

impl<T: Element> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        let beside = bytes.len() >= LARGE
            && LEAVING.with_borrow_mut(|leaving| {
                let Some((memory, blobs)) = leaving else {
                    return false; // somebody else encodes it
                };
                let attached = memory.attach(bytes.len(), false, |blobs, grant| blobs.write(grant, bytes));
                let there = attached.is_some();
                blobs.extend(attached);
                there
            });
        if beside {
            Wire::<&Bytes>::Beside.serialize(serializer)
        } else {
            Wire::Inline(Bytes::new(bytes)).serialize(serializer)
        }
    }
}

impl<'de, T: Element> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Wire::<ByteBuf>::deserialize(deserializer)? {
            Wire::Inline(bytes) => fill(bytes.len(), |values| {
                values.copy_from_slice(&bytes);
                Ok(())
            }),
            Wire::Beside => {
                let parcel = COMING.with_borrow_mut(VecDeque::pop_front);
                let parcel = parcel.ok_or_else(|| D::Error::custom("the buffer did not come with its message"))?;
                fill(parcel.len(), |values| parcel.read(values).map_err(D::Error::custom))
            }
        }
    }
}

/// A buffer of so many bytes, which `write` writes.
fn fill<T: Element, E: serde::de::Error>(
    len: usize,
    write: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Buffer<T>, E> {
    if len % size_of::<T>() != 0 {
        return Err(E::custom(format!(
            "{len} bytes are no whole number of elements of {}",
            size_of::<T>()
        )));
    }
    let mut values = vec![T::zeroed(); len / size_of::<T>()];
    write(bytemuck::cast_slice_mut(&mut values))?;
    Ok(Buffer(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_one_message_come_apart_and_what_is_cut_off_does_not_come() {
        let memory = Memory::create(1 << 20).unwrap();
        let mut load = Load::default();
        for text in ["one", "", "three"] {
            encode(&text, &memory, &mut load).unwrap();
        }
        let texts = |bytes| -> Vec<String> {
            values(bytes)
                .map(|value| decode(value, &mut Vec::new()).unwrap())
                .collect()
        };
        assert_eq!(texts(&load.bytes), ["one", "", "three"]);
        assert_eq!(texts(&load.bytes[..load.bytes.len() - 1]), ["one", ""]);
        assert!(texts(&[0xff; LENGTH + 1]).is_empty());
    }
}
