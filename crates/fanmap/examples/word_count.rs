//! Counts the lines and words of every file of a source tree, serially, over threads and over processes.
//!
//! `cargo run --release --example word_count -- path/to/a/tree`; without a path it counts the sources of the crates
//! that cargo has downloaded, or this crate's own.

mod race;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fanmap::{ProcessPool, ThreadPool};
use race::{Race, Seen, seen, small};
use serde::{Deserialize, Serialize};

/// What is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    bytes: u64,
    lines: u64,
    words: u64,
    different_words: u64,
}

/// Counts what is in the file at `path`; the error is a sentence, since an [`io::Error`] cannot be sent.
fn count(path: PathBuf) -> Seen<Result<Counts, String>> {
    seen(|| {
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(Counts {
            bytes: bytes.len() as u64,
            lines: text.lines().count() as u64,
            words: text.split_whitespace().count() as u64,
            different_words: text.split_whitespace().collect::<HashSet<_>>().len() as u64,
        })
    })
}

fanmap::register!(count);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    fanmap::init(); // In a worker process this runs the worker, and never returns.
    let tree = std::env::args_os().nth(1).map_or_else(some_sources, PathBuf::from);
    let mut files = files(&tree)?;
    if small() {
        files.truncate(500);
    }
    // Read once beforehand, so that the first way is not the only one to wait for the disk.
    files.iter().for_each(|file| drop(fs::read(file)));
    println!("{} files in {}", files.len(), tree.display());
    let mut race = Race::default();

    let started = Instant::now();
    let plain = files.iter().cloned().map(count);
    let serial = race.run("serial", started, plain.map(Ok))?;

    let started = Instant::now();
    let pool = ThreadPool::new(workers())?;
    let threads = race.run("threads", started, pool.map(files.clone(), count))?;

    let started = Instant::now();
    let pool = ProcessPool::new(workers())?;
    let processes = race.run("processes", started, pool.map(files, count)?)?;

    assert_eq!(threads, serial);
    assert_eq!(processes, serial);
    println!("{}\n\n{race}", report(&serial));
    Ok(())
}

/// One worker for each core that the program may use.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The sources that cargo has downloaded, if there are any, else this crate's.
fn some_sources() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
    home("CARGO_HOME")
        .or_else(|| Some(home("HOME")?.join(".cargo")))
        .map(|cargo| cargo.join("registry/src"))
        .filter(|sources| sources.is_dir())
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// Every file below `tree`, in the order of their names; links are not followed.
fn files(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The totals, and the files that could not be read.
fn report(files: &[Result<Counts, String>]) -> String {
    let mut total = Counts::default();
    let mut unread = String::new();
    for file in files {
        match file {
            Ok(counts) => {
                total.bytes += counts.bytes;
                total.lines += counts.lines;
                total.words += counts.words;
                total.different_words = total.different_words.max(counts.different_words);
            }
            Err(why) => unread += &format!("\nnot read: {why}"),
        }
    }
    format!(
        "{} lines and {} words in {:.1} MB; at most {} different words in one file{unread}",
        total.lines,
        total.words,
        total.bytes as f64 / 1e6,
        total.different_words,
    )
}
