//! Engine threads take no signals: they belong to the program's own threads, which know what to do with them.

/// Blocks every signal that can be blocked on the calling thread.
///
/// A signal sent to the process then goes to another of its threads. Those that a fault of this very thread raises
/// (SIGSEGV and its kin) still end the process.
pub fn block_all() {
    // SAFETY: `sigfillset` initialises the set it is given before `pthread_sigmask` reads it, both belong to this frame,
    // and a null old set is allowed. Changing this thread's own mask touches no memory of anyone else.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Unblocks every signal on the calling thread, in a process that [`crate::process::spawn`] started: it inherited the mask
/// of an engine thread.
pub fn unblock_all() {
    // SAFETY: as in `block_all`, with `sigemptyset` to initialise the set.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}
