//! Blobs beyond those that a process may have mapped. Alone in its process: it uses up what all share.

use std::io::ErrorKind;
use std::sync::Arc;

use fanmap_shm::arena::Arena;
use fanmap_shm::blob::Blobs;
use fanmap_shm::mapping::{Access, Mapping};

#[test]
fn a_program_that_holds_many_blobs_keeps_room_for_other_mappings() {
    let blobs = Arc::new(Blobs::create().unwrap());
    let grant = Arena::new(blobs.size(), 0).allocate(5).unwrap();
    let blob = blobs.write(grant, b"bytes").unwrap();
    let map = || Mapping::new(&blobs, blob, Access::Shared);
    let mut held: Vec<_> = std::iter::from_fn(|| map().ok()).collect();
    assert_eq!(held.len(), 1 << 15);
    assert_eq!(map().unwrap_err().kind(), ErrorKind::OutOfMemory);
    let mut read = [0; 5];
    blobs.read(blob, &mut read).unwrap();
    assert_eq!(&read, b"bytes");
    held.pop();
    assert!(map().is_ok());
}
