//! Whether the system has killed processes of this cgroup because memory ran out.
//!
//! The kernel counts such kills for the cgroup that the victim is in: `oom_kill` in `memory.events` (v2) or
//! `memory.oom_control` (v1). It counts before it kills, so who has seen the death finds it counted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, Directory};

/// The kills of this process's own cgroup, which its workers are in as well unless somebody moved them.
#[derive(Debug)]
pub(crate) struct Kills {
    /// `None` where the system does not count them, or not for us to see.
    file: Option<PathBuf>,
    /// How many are accounted for.
    seen: u64,
}

impl Kills {
    /// Those from now on.
    pub(crate) fn from_now() -> Self {
        let directories = cgroup::directories(|path| fs::read_to_string(path).ok());
        let counted = directories
            .iter()
            .map(counter)
            .find_map(|file| Some((count(&file)?, file)));
        let (seen, file) = counted.map_or((0, None), |(seen, file)| (seen, Some(file)));
        Self { file, seen }
    }

    /// Whether a process was killed that is not accounted for. From then on one more is.
    pub(crate) fn take(&mut self) -> bool {
        let counted = self.file.as_deref().and_then(count).unwrap_or(0);
        let another = counted > self.seen;
        self.seen += u64::from(another);
        another
    }
}

/// The file that has the counter of a cgroup, if its hierarchy is the one of memory.
fn counter(directory: &Directory) -> PathBuf {
    directory.path.join(if directory.unified {
        "memory.events"
    } else {
        "memory.oom_control"
    })
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_accounts_for_one_death() {
        let directory = std::env::temp_dir().join(format!("fanmap-oom-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("memory.events");
        fs::write(&file, "low 0\noom 9\noom_kill 3\n").unwrap();
        let mut kills = Kills {
            seen: count(&file).unwrap(),
            file: Some(file.clone()),
        };
        assert!(!kills.take());
        fs::write(&file, "oom_kill 5\noom_group_kill 0\n").unwrap();
        assert!(kills.take() && kills.take() && !kills.take());
        fs::remove_dir_all(&directory).unwrap();
        assert!(!kills.take());
    }
}
