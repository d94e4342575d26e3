//! A C function that crashes for some inputs, isolated in processes: the crash is an error of its item, and nothing else.
//!
//! `cargo run --release --example crashy`

use std::ffi::{CString, c_char};
use std::ptr;

use fanmap::{ErrorKind, ProcessPool};

unsafe extern "C" {
    /// The C library's: it does not look whether it was given anything.
    fn strlen(text: *const c_char) -> usize;
}

/// The length of a text, by C. There is none for the empty name, and nobody has thought of that.
fn length(name: String) -> usize {
    let text = CString::new(name).ok().filter(|text| !text.is_empty());
    let pointer = text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: none, for the null pointer: that is what the process is for. It shares no memory with the program.
    unsafe { strlen(std::hint::black_box(pointer)) }
}

fanmap::register!(length);

fn main() -> Result<(), fanmap::Error> {
    fanmap::init(); // in a worker process this runs the worker, and never returns
    let names = ["Ada", "Grace", "", "Barbara"].map(String::from);
    let pool = ProcessPool::new(2)?;
    let mut lost = 0;
    for (name, result) in names.iter().zip(pool.map(names.clone(), length)?) {
        match result {
            Ok(length) => println!("{name:?} has {length} bytes"),
            Err(error) if error.kind() == ErrorKind::WorkerLost => {
                println!("{name:?} is lost: {error}");
                lost += 1;
            }
            Err(error) => return Err(error),
        }
    }
    assert_eq!(lost, 1);
    Ok(())
}
