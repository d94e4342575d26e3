//! Tasks in other processes, beside procspawn's pool.

use std::collections::VecDeque;
use std::error::Error;

use crate::cores;
use crate::race::{Contender, race};
use crate::table::{Table, at_least, only};

const BYTES: usize = 1000;
const TASKS: usize = 1000;
/// procspawn has some descriptors open for each task that is under way: many more, and there are none left.
const UNDER_WAY: usize = 100;
const ROUNDS: usize = 21;

/// Text, which both codecs copy as it is; a vector of bytes they would look at one by one.
fn upper(mut text: String) -> String {
    text.make_ascii_uppercase();
    text
}

fanmap::register!(upper);

fn arguments() -> impl Iterator<Item = String> {
    let letters = ('a'..='z').cycle();
    letters.take(TASKS).map(|letter| letter.to_string().repeat(BYTES))
}

/// What came back, as a number.
fn sum(text: String) -> u64 {
    text.len() as u64 * text.bytes().map(u64::from).next().unwrap_or(0)
}

/// Submits all, and waits for the oldest when so many are under way.
fn ahead<H>(submit: impl Fn(String) -> H, wait: impl Fn(H) -> String, under_way: usize) -> Vec<u64> {
    let mut handles = VecDeque::new();
    let mut sums = Vec::new();
    for text in arguments() {
        if handles.len() == under_way {
            sums.extend(handles.pop_front().map(|oldest| sum(wait(oldest))));
        }
        handles.push_back(submit(text));
    }
    sums.extend(handles.into_iter().map(|handle| sum(wait(handle))));
    sums
}

pub fn table() -> Result<Table, Box<dyn Error>> {
    let text = format!(
        "{TASKS} tasks of {BYTES} bytes of text in and out, on {} worker processes, which are there, at most {UNDER_WAY} under way. For each task: \
         time of fanmap, of procspawn's pool, and their ratio. To reach: 10. (Of calls one after the other nothing is asked: what they \
         take is the system's time for waking processes, for everybody.)",
        cores()
    );
    let mut table = Table::new(
        "Tasks in processes",
        text,
        &["how", "fanmap", "procspawn", "procspawn / fanmap"],
    );
    const LIVES: &str = "the worker lives";
    let fanmap = fanmap::ProcessPool::new(cores())?;
    let submit = |text| fanmap.submit(upper, text).expect("the pool is open");
    let wait = |future: fanmap::Future<String>| future.wait().expect(LIVES);
    let procspawn = procspawn::Pool::new(cores())?;
    let spawn = |text| procspawn.spawn(text, upper);
    let join = |handle: procspawn::JoinHandle<String>| handle.join().expect(LIVES);
    let ways: [(&str, Option<f64>, Vec<Contender<'_>>); 3] = [
        (
            "`map`, beside `spawn` and `join`",
            Some(10.0),
            vec![
                Contender::new("fanmap", || {
                    let results = fanmap.map(arguments(), upper).and_then(|map| map.window(UNDER_WAY));
                    let results = results.expect("it is registered, and there is a window");
                    results.map(|result| sum(result.expect(LIVES))).collect()
                }),
                Contender::new("procspawn", || ahead(spawn, join, UNDER_WAY)),
            ],
        ),
        (
            "`submit` and `wait`",
            Some(10.0),
            vec![
                Contender::new("fanmap", || ahead(submit, wait, UNDER_WAY)),
                Contender::new("procspawn", || ahead(spawn, join, UNDER_WAY)),
            ],
        ),
        (
            "the same, one after the other",
            None,
            vec![
                Contender::new("fanmap", || ahead(submit, wait, 1)),
                Contender::new("procspawn", || ahead(spawn, join, 1)),
            ],
        ),
    ];
    for (how, least, contenders) in ways {
        let times = race(ROUNDS, contenders);
        let ratio = times.ratio("procspawn", "fanmap");
        let row = vec![
            how.to_owned(),
            times.say("fanmap", TASKS),
            times.say("procspawn", TASKS),
            least.map_or_else(|| only(ratio), |least| at_least(ratio, least)),
        ];
        table.add(row, times);
    }
    Ok(table)
}
