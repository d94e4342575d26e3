//! The process's own cgroup: where its files are, and what it grants of processor time and memory.
//!
//! A limit of any cgroup above counts too, so the lowest of them all is told. Versions 1 and 2 are read alike, and both
//! may be there: each mount of a hierarchy that the process is in is looked at. Where a file is missing or makes no sense,
//! there is no limit. What is read comes through a function, so that a made-up tree will do.

use std::fs;
use std::path::{Path, PathBuf};

/// What a cgroup, and those above it, leave a process.
///
/// ```
/// let limits = fanmap::cgroup::Limits::of_this_process();
/// match limits.memory {
///     Some(bytes) => println!("{} MiB may be used", bytes >> 20),
///     None => println!("as much memory as there is"),
/// }
/// assert!(limits.cores.is_none_or(|cores| cores > 0.0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// How many cores' worth of time, perhaps a fraction. `None`: as much as there is.
    pub cores: Option<f64>,
    /// How many bytes of memory. `None`: as much as there is.
    pub memory: Option<u64>,
}

impl Limits {
    /// This process's.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::read(|path| fs::read_to_string(path).ok())
    }

    /// Those of a process that finds these files: `read` gives a file's text, or `None` if there is no such file.
    fn read(read: impl Fn(&Path) -> Option<String>) -> Self {
        let mut limits = Self::default();
        for Directory { path, unified } in directories(&read) {
            let file = |name| read(&path.join(name));
            let (cores, memory) = if unified {
                (file("cpu.max").and_then(|text| cpu_max(&text)), file("memory.max"))
            } else {
                let quota = file("cpu.cfs_quota_us").zip(file("cpu.cfs_period_us"));
                let cores = quota.and_then(|(quota, period)| share(quota.trim(), period.trim()));
                (cores, file("memory.limit_in_bytes"))
            };
            limits.cores = lowest(limits.cores, cores, f64::min);
            limits.memory = lowest(limits.memory, memory.and_then(|text| bytes(&text)), u64::min);
        }
        limits
    }
}

/// Where the files of a cgroup are.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Of version 2.
    pub(crate) unified: bool,
}

/// Those of the process's cgroups and of the ones above, in each hierarchy the nearest first; `read` as above.
pub(crate) fn directories(read: impl Fn(&Path) -> Option<String>) -> Vec<Directory> {
    let text = |path| read(Path::new(path)).unwrap_or_default();
    let (groups, mounts) = (text("/proc/self/cgroup"), text("/proc/self/mountinfo"));
    let mut found = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(group) = groups.lines().find_map(|line| mount.group(line)) else {
            continue;
        };
        let unified = mount.unified;
        found.extend(
            mount
                .directories(group)
                .into_iter()
                .map(|path| Directory { path, unified }),
        );
    }
    found
}

fn lowest<T>(one: Option<T>, other: Option<T>, min: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(min(one, other)),
        (one, other) => one.or(other),
    }
}

/// Version 2's `cpu.max`: quota and period, in microseconds.
fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota, period)
}

/// How many cores a quota in each period is. "max" and -1 are no limit.
fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// "max" is no limit, and neither is version 1's largest number of pages.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

/// Where a hierarchy of cgroups is seen.
struct Mount<'a> {
    /// The cgroup that is seen at `point`: not always the topmost, in a container.
    root: &'a Path,
    point: &'a Path,
    /// Version 2.
    unified: bool,
    /// Version 1's controllers, among other options.
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of `/proc/self/mountinfo`, if it is of cgroups: see proc(5).
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (Path::new(place.next()?), Path::new(place.next()?));
        let mut kind = kind.split(' ');
        let unified = match kind.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = kind.nth(1)?;
        Some(Self {
            root,
            point,
            unified,
            options,
        })
    }

    /// The process's cgroup in this hierarchy, if that is what this line of `/proc/self/cgroup` tells.
    fn group(&self, line: &'a str) -> Option<&'a Path> {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_this = if self.unified {
            controllers.is_empty()
        } else {
            let mut controllers = controllers.split(',');
            controllers
                .any(|one| matches!(one, "cpu" | "memory") && self.options.split(',').any(|option| option == one))
        };
        is_this.then(|| Path::new(path))
    }

    /// The directories of a cgroup and of those above it, as far as they are seen here.
    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        // One that lies elsewhere (the mount is of another namespace) is at least within what is mounted.
        let below = group.strip_prefix(self.root).unwrap_or(Path::new(""));
        below.ancestors().map(|one| self.point.join(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn limits(groups: &str, mounts: &str, files: &[(&str, &str)]) -> (Option<f64>, Option<u64>) {
        let proc = [("/proc/self/cgroup", groups), ("/proc/self/mountinfo", mounts)];
        let limits = Limits::read(|path| {
            let mut all = proc.iter().chain(files);
            all.find(|(name, _)| Path::new(name) == path)
                .map(|(_, text)| (*text).to_owned())
        });
        (limits.cores, limits.memory)
    }

    #[test]
    fn the_lowest_limit_of_all_the_cgroups_above_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "400000 100000\n"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "2048\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1024\n"),
            ("/sys/fs/cgroup/b/cpu.max", "10000 100000\n"), // another's
        ];
        assert_eq!(limits("0::/a/b/c\n", V2, &files), (Some(1.5), Some(1024)));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let groups = "4:memory:/box/inner\n3:cpuset:/\n2:cpu,cpuacct:/box\n1:name=systemd:/other\n0::/\n";
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            (
                "/sys/fs/cgroup/memory/box/inner/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "4096\n"),
        ];
        assert_eq!(limits(groups, V1, &files), (Some(2.5), Some(4096)));
    }

    #[test]
    fn a_container_that_sees_its_own_cgroup_as_the_top_finds_it() {
        // By a bind mount, in version 1; by a namespace, in version 2.
        let mounts = "35 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let files = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "77")];
        assert_eq!(limits("4:memory:/docker/1f\n", mounts, &files), (None, Some(77)));
        let files = [("/sys/fs/cgroup/cpu.max", "50000 100000")];
        assert_eq!(limits("0::/\n", V2, &files), (Some(0.5), None));
        // The process is outside of what its namespace shows.
        assert_eq!(limits("0::/../outside\n", V2, &files).1, None);
    }

    #[test]
    fn both_versions_may_be_there() {
        let mounts = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let groups = "2:cpu,cpuacct:/one\n0::/two\n";
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_quota_us", "300000"),
            ("/sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/unified/two/memory.max", "5"),
        ];
        assert_eq!(limits(groups, &mounts, &files), (Some(3.0), Some(5)));
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_no_limit() {
        assert_eq!(limits("", "", &[]), (None, None));
        assert_eq!(limits("nonsense\n0::/a\n", "nonsense\n - cgroup2\n", &[]), (None, None));
        let files = [
            ("/sys/fs/cgroup/a/cpu.max", "100000 0"),
            ("/sys/fs/cgroup/cpu.max", "none"),
            ("/sys/fs/cgroup/memory.max", "-5"),
        ];
        assert_eq!(limits("0::/a\n", V2, &files), (None, None));
    }

    #[test]
    fn this_process_has_limits_or_none() {
        let limits = Limits::of_this_process();
        assert!(limits.cores.is_none_or(|cores| cores > 0.0));
        assert!(limits.memory.is_none_or(|memory| memory > 0));
    }

    #[test]
    fn the_processes_own_cgroup_comes_before_those_above_it() {
        let read = |path: &Path| match path.to_str()? {
            "/proc/self/cgroup" => Some("4:memory:/jobs/a\n0::/x\n".to_owned()),
            "/proc/self/mountinfo" => Some(format!(
                "{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            )),
            _ => None,
        };
        let found: Vec<_> = directories(read)
            .into_iter()
            .map(|one| (one.path, one.unified))
            .collect();
        let places = ["memory/jobs/a", "memory/jobs", "memory", "unified/x", "unified"];
        let wanted = places.map(|place| (Path::new("/sys/fs/cgroup").join(place), place.starts_with("unified")));
        assert_eq!(found, wanted);
    }
}
