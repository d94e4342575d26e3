//! What is kept: the tables as `benches/results/rust.md`, the raw times with the circumstances as `rust.json`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cores;
use crate::table::Table;

/// Whose versions are told.
const CRATES: [&str; 5] = ["fanmap", "rayon", "pariter", "orx-parallel", "procspawn"];

/// How many threads ran, on average, in the minute before.
pub fn load() -> Result<f64, Box<dyn Error>> {
    let told = fs::read_to_string("/proc/loadavg")?;
    Ok(told.split_whitespace().next().ok_or("no load is told")?.parse()?)
}

pub fn save(tables: &[Table], load_before: f64) -> Result<(), Box<dyn Error>> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let versions: Vec<(&str, String)> = CRATES.iter().map(|name| (*name, version(name))).collect();
    let (date, rustc, processor) = (
        output("date", &["-u", "+%Y-%m-%dT%H:%M:%S+00:00"])?,
        output("rustc", &["--version"])?,
        processor()?,
    );

    let mut page = format!(
        "{}, {processor}, {} cores, {rustc}; {}. Load before: {load_before:.1}.\n\n\
         One run; those of a table take turns, every other round in the opposite order. Times are medians; a ratio is the median of \
         the rounds' own. `make bench-peers` makes this page.\n",
        &date[..10],
        cores(),
        versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    for table in tables {
        write!(page, "\n{table}")?;
    }
    fs::write(results.join("rust.md"), page)?;

    let raw: serde_json::Map<String, Value> = tables
        .iter()
        .map(|table| (table.title.to_owned(), json!(table.raw)))
        .collect();
    let figures = json!({
        "date": date,
        "machine": { "system": output("uname", &["-sr"])?, "processor": processor, "cores": cores() },
        "load_before": load_before,
        "versions": versions.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "rustc": rustc,
        "tables": raw,
    });
    fs::write(results.join("rust.json"), format!("{figures}\n"))?;
    println!("saved as {}", results.canonicalize()?.join("rust.md").display());
    Ok(())
}

/// As the lock file has it.
fn version(name: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let package = format!("name = \"{name}\"\nversion = \"");
    let found = lock.split_once(&package).and_then(|(_, rest)| rest.split_once('"'));
    found.map_or("unknown", |(version, _)| version).to_owned()
}

fn processor() -> Result<String, Box<dyn Error>> {
    let told = fs::read_to_string("/proc/cpuinfo")?;
    let name = told.lines().find_map(|line| line.strip_prefix("model name"));
    Ok(name
        .map_or("unknown processor", |name| name.trim_start_matches([' ', '\t', ':']))
        .to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
