//! A checksum of every file of a tree, and one of the whole: work that computes, on all cores.
//!
//! `cargo run --release --example hash_tree -- path/to/a/tree`; without a path it takes this crate's own.

use std::fs;
use std::path::{Path, PathBuf};

/// FNV-1a, as good as any for telling files apart that nobody has forged.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tree = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let mut paths = Vec::new();
    files(&tree, &mut paths)?;
    paths.sort_unstable();
    // The calling thread takes part, and `paths` is borrowed.
    let hashes = fanmap::map_vec(&paths, |path| fs::read(path).map(|bytes| fnv(&bytes)))?;
    let mut whole = Vec::new();
    for (path, hash) in paths.iter().zip(hashes) {
        match hash {
            Ok(hash) => {
                println!("{hash:016x}  {}", path.display());
                whole.extend(hash.to_le_bytes());
            }
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    }
    println!("{:016x}  {} files", fnv(&whole), paths.len());
    Ok(())
}
