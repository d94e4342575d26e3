//! The same work by several contenders, in turns, so that what else the machine does hits all of them alike.

use std::time::{Duration, Instant};

use crate::work::say;

/// One way to do the work. It returns the results, in any order.
pub struct Contender<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Vec<u64> + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: &'static str, run: impl FnMut() -> Vec<u64> + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// The times of each contender: the k-th of all of them were taken in the same round.
#[derive(serde::Serialize)]
pub struct Times(Vec<(&'static str, Vec<f64>)>);

/// Runs every contender once for nothing, and then so often. Every other round goes the other way, so that nobody always
/// comes after the same one.
///
/// # Panics
/// If they do not all come to the same results.
pub fn race(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Times {
    let sum = |results: Vec<u64>| results.into_iter().fold(0, u64::wrapping_add);
    let mut times = Times(contenders.iter().map(|one| (one.name, Vec::new())).collect());
    let sums: Vec<u64> = contenders.iter_mut().map(|one| sum((one.run)())).collect();
    let expected = sums[0];
    assert!(sums.iter().all(|sum| *sum == expected), "they differ: {sums:?}");
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = if round % 2 == 0 {
                turn
            } else {
                contenders.len() - 1 - turn
            };
            let begun = Instant::now();
            let results = (contenders[at].run)();
            times.0[at].1.push(begun.elapsed().as_secs_f64());
            assert_eq!(sum(results), expected, "{}", contenders[at].name);
        }
    }
    times
}

impl Times {
    fn of(&self, name: &str) -> &[f64] {
        let found = self.0.iter().find(|(known, _)| *known == name);
        &found.expect("it was among the contenders").1
    }

    /// A contender's median.
    pub fn median(&self, name: &str) -> Duration {
        Duration::from_secs_f64(median(self.of(name).to_vec()))
    }

    /// The same for people, for each of so many tasks.
    pub fn say(&self, name: &str, tasks: usize) -> String {
        say(self.median(name).div_f64(tasks as f64))
    }

    /// How much longer one takes than the other: the median of each round's own ratio.
    pub fn ratio(&self, one: &str, other: &str) -> f64 {
        median(
            self.of(one)
                .iter()
                .zip(self.of(other))
                .map(|(one, other)| one / other)
                .collect(),
        )
    }

    /// How much longer one takes than so long.
    pub fn ratio_to(&self, one: &str, time: Duration) -> f64 {
        self.median(one).div_duration_f64(time)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
