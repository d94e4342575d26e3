//! Blobs in a fork of the user's program. A program of its own, for `before_fork` touches every mapping of its process.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::channel;

use fanmap_shm::arena::Arena;
use fanmap_shm::blob::Blobs;
use fanmap_shm::mapping::{Access, Mapping, after_fork, before_fork, settle};

const LEN: usize = 100_000;

fn set(mapping: &Mapping, at: usize, byte: u8) {
    assert!(at < mapping.len());
    // SAFETY: in bounds, and the test's alone.
    unsafe { *mapping.as_ptr().add(at) = byte }
}

fn get(mapping: &Mapping, at: usize) -> u8 {
    assert!(at < mapping.len());
    // SAFETY: in bounds, and nobody writes meanwhile.
    unsafe { *mapping.as_ptr().add(at) }
}

#[test]
fn a_fork_sees_what_was_there_and_neither_side_what_the_other_writes() {
    let writer = Blobs::create().unwrap();
    let reader = Arc::new(Blobs::open(writer.as_fd().try_clone_to_owned().unwrap()).unwrap());
    let mut arena = Arena::new(writer.size(), 1 << 20);
    let [shared, private, early, late] = [(); 4].map(|()| {
        let grant = arena.allocate(LEN as u64).unwrap();
        writer.write(grant, &[7; LEN]).unwrap()
    });
    let map = |blob, access| Mapping::new(&reader, blob, access).unwrap();
    let (shared, private) = (map(shared, Access::Shared), map(private, Access::Private));
    let (tell, freed) = channel();
    let close = |mapping: Mapping| {
        let tell = tell.clone();
        mapping.close(move |blob| tell.send(blob).unwrap());
    };
    close(map(early, Access::Shared));
    assert_eq!(freed.try_recv(), Ok(early), "no fork has seen it");
    set(&shared, 0, 1);
    set(&private, 0, 1);

    before_fork();
    let (child_wrote, childs_end) = rustix::pipe::pipe().unwrap();
    let (childs_turn, parent_wrote) = rustix::pipe::pipe().unwrap();
    // SAFETY: the child touches what this thread had, makes system calls, and exits: it takes no lock and no memory.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut good = true;
        for mapping in [&shared, &private] {
            good &= get(mapping, 0) == 1 && get(mapping, LEN - 1) == 7;
            set(mapping, 1, 2);
        }
        good &= rustix::io::write(&childs_end, &[1]) == Ok(1);
        good &= rustix::io::read(&childs_turn, &mut [0]) == Ok(1);
        for mapping in [&shared, &private] {
            good &= get(mapping, 1) == 2 && get(mapping, 2) == 7;
        }
        // A child tells nobody that a range is free.
        close(shared);
        close(private);
        good &= freed.try_recv().is_err();
        // It has seen all of this, until it ends.
        good &= rustix::io::read(&childs_turn, &mut [0]) == Ok(1);
        // SAFETY: ends the child at once, without what the parent's test harness would do.
        unsafe { libc::_exit(i32::from(!good)) }
    }
    after_fork();
    // A child that crashed shows as the end of its pipe.
    drop((childs_end, childs_turn));
    assert_eq!(rustix::io::read(&child_wrote, &mut [0]), Ok(1));
    for mapping in [&shared, &private] {
        assert_eq!(get(mapping, 1), 7);
        set(mapping, 2, 3);
    }
    assert_eq!(rustix::io::write(&parent_wrote, &[1]), Ok(1));
    let closed = [shared.blob(), private.blob()];
    close(shared);
    close(private);
    close(map(late, Access::Shared));
    assert_eq!(freed.try_recv(), Ok(late), "no fork has seen it");
    assert!(freed.try_recv().is_err(), "the child may still see the others");
    assert_eq!(rustix::io::write(&parent_wrote, &[1]), Ok(1));
    let child = rustix::process::Pid::from_raw(child);
    let ended = rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap();
    assert_eq!(ended.unwrap().1.exit_status(), Some(0));
    settle();
    assert_eq!([freed.try_recv().unwrap(), freed.try_recv().unwrap()], closed);
}
