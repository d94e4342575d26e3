//! Blobs where the user limits the size of files. A program of its own, for the limit is the whole process's.

use fanmap_shm::arena::{Arena, GRAIN};
use fanmap_shm::blob::Blobs;
use rustix::process::{Resource, Rlimit};

fn limit_files(bytes: u64) {
    let limit = rustix::process::getrlimit(Resource::Fsize);
    let current = Some(bytes);
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current, ..limit }).unwrap();
}

#[test]
fn a_limit_on_files_bounds_the_memory_and_never_ends_the_process() {
    limit_files(4 * GRAIN + 1);
    let blobs = Blobs::create().unwrap();
    assert_eq!(blobs.size(), 4 * GRAIN);
    let mut arena = Arena::new(blobs.size(), 0);
    let first = arena.allocate(2 * GRAIN).unwrap();
    blobs.write(first, &[1; 2 * GRAIN as usize]).unwrap();

    limit_files(GRAIN);
    let second = arena.allocate(2 * GRAIN).unwrap();
    let blob = blobs.write(second, &[2; 2 * GRAIN as usize]).unwrap();
    let mut last = [0];
    rustix::io::pread(&blobs, &mut last, blob.offset() + blob.len() - 1).unwrap();
    assert_eq!(last, [2]);
    assert_eq!(arena.allocate(1), None);

    limit_files(0);
    assert_eq!(Blobs::create().unwrap().size(), 0);
}
