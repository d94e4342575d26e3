//! fanmap beside rayon, pariter, orx-parallel and procspawn, in one run: `make bench-peers`.
//!
//! Arguments: `--save` keeps table and figures in `benches/results`, as `rust.md` and `rust.json`; any others are the tables to
//! make (`slice stream sleep processes idle`), which is all of them if none is named.
//!
//! | module | what it is |
//! |---|---|
//! | `work` | what an item costs: a count of steps, the same for everybody |
//! | `race` | the same work by several, in turns |
//! | `table` | figures for people, with what was to be reached |
//! | `kept` | the machine, the versions, and the files |
//! | `slice`, `stream`, `sleep`, `processes`, `idle` | a table each |
//!
//! Criterion is not used: it measures one after the other, and on a machine that others share only what was measured in
//! turns can be compared.

mod idle;
mod kept;
mod processes;
mod race;
mod sleep;
mod slice;
mod stream;
mod table;
mod work;

use std::error::Error;

use table::Table;

type Make = fn() -> Result<Table, Box<dyn Error>>;

/// `idle` comes first: then no other pool is there.
const TABLES: [(&str, Make); 5] = [
    ("idle", idle::table),
    ("slice", slice::table),
    ("stream", stream::table),
    ("sleep", sleep::table),
    ("processes", processes::table),
];

fn main() -> Result<(), Box<dyn Error>> {
    fanmap::init();
    procspawn::init();
    let (save, only): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word == "--save");
    if let Some(unknown) = only.iter().find(|name| TABLES.iter().all(|(known, _)| known != name)) {
        return Err(format!("{unknown} is no table: there are {:?}", TABLES.map(|(name, _)| name)).into());
    }
    let load = kept::load()?;
    let mut tables = Vec::new();
    for (name, make) in TABLES {
        if only.is_empty() || only.iter().any(|one| one == name) {
            let table = make()?;
            println!("{table}");
            tables.push(table);
        }
    }
    if !save.is_empty() {
        kept::save(&tables, load)?;
    }
    Ok(())
}

/// As many as there are cores: everybody gets this number of workers.
fn cores() -> usize {
    fanmap::cpus::available()
}
