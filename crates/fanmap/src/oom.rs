//! Whether the system has killed processes of this cgroup because memory ran out.
//!
//! The kernel counts such kills for the cgroup that the victim is in: `oom_kill` in `memory.events` (v2) or
//! `memory.oom_control` (v1). It counts before it kills, so who has seen the death finds it counted.

use std::fs;
use std::path::{Path, PathBuf};

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
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let counted = counters(&own, Path::new("/sys/fs/cgroup"))
            .into_iter()
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

/// The files that may have the counter, the likeliest first, for a process with these lines in `/proc/self/cgroup`. A
/// container may be shown its own cgroup as the root.
fn counters(own: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        let (places, name): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.events"),
            _ if controllers.split(',').any(|one| one == "memory") => (&["memory"], "memory.oom_control"),
            _ => continue,
        };
        for place in places {
            files.push(root.join(place).join(path).join(name));
            files.push(root.join(place).join(name));
        }
    }
    files
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
    fn the_counter_is_that_of_the_processes_own_cgroup() {
        let root = Path::new("/c");
        let files = counters("4:cpu,memory:/jobs/a\n1:cpuset:/\n0::/x\n", root);
        assert_eq!(files[0], Path::new("/c/memory/jobs/a/memory.oom_control"));
        assert_eq!(files[1], Path::new("/c/memory/memory.oom_control"));
        assert_eq!(files[2], Path::new("/c/x/memory.events"));
        assert!(counters("nonsense\n7:pids:/\n", root).is_empty());
    }

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
