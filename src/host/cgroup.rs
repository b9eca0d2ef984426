//! Cgroup: what the container may use, and how often it wanted more: the kernel's control groups, version 2 (the kernel's
//! `admin-guide/cgroup-v2.rst`), or 1 where a controller is still there (`admin-guide/cgroup-v1`).
//!
//! Which group it is, the process itself says (`/proc/self/cgroup`), and where the groups are, its mounts
//! (`/proc/self/mountinfo`, proc(5)): both as seen from within the container, which may see its own group as the root, the
//! whole tree of the machine, or a part. Groups lie in groups, and what holds is the tightest limit among them: that group's
//! numbers are told, so that use and limit belong together. Where none is limited, weir's own group's are.
//!
//! The root of the machine's tree is no container, and what it says is the machine's: left out.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::host::{named, number, text};

/// Limits at and above this are none: version 1 says "as much as can be counted", in whole pages.
const UNLIMITED: u64 = 1 << 62;

/// What the container uses and may use. What is not known, or not limited, is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub cpu: Cpu,
    /// How long it had to wait for each [`Resource::ALL`]. Only with version 2.
    pub pressure: [Pressure; Resource::ALL.len()],
}

/// Memory of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Memory in use that cannot be had back at once, in bytes: all but the files that nobody has looked at for a while.
    pub working_set: Option<u64>,
    /// Most memory, in bytes.
    pub limit: Option<u64>,
    /// Processes killed because there was no more.
    pub oom_kills: Option<u64>,
}

/// Processors of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// How many of them may be used at once.
    pub quota_cores: Option<f64>,
    /// Periods in which some were used.
    pub periods: Option<u64>,
    /// Periods in which more were wanted than may be used.
    pub throttled_periods: Option<u64>,
    /// How long its threads were kept from running for that, added up.
    pub throttled: Option<Duration>,
}

/// How long a container had to wait for something (the kernel's `accounting/psi.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one of its tasks waited.
    pub waiting: Option<Duration>,
    /// All that had something to do waited.
    pub stalled: Option<Duration>,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Processors.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Io,
}

impl Resource {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Io];

    /// The value of the label `resource`, and how the kernel calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
        }
    }
}

/// Where the trees of groups are mounted.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Clone, Debug)]
struct Mount {
    /// The group that is seen at `at`, as `/proc/self/cgroup` would name it.
    group: PathBuf,
    /// Where it is.
    at: PathBuf,
    /// Version 1: the controllers of the tree, among other options. Version 2: `None`.
    controllers: Option<String>,
}

impl Container {
    /// The container of this process, or of what is below `root`.
    pub(super) fn read(root: &Path, mounts: &Mounts) -> Self {
        let own = text(&root.join("proc/self/cgroup")).unwrap_or_default();
        let levels = |controller| mounts.levels(&own, controller);
        let unified = mounts.unified(&own);
        Self {
            memory: tightest(levels("memory"), Group::memory_limit).map(|group| group.memory()).unwrap_or_default(),
            cpu: tightest(levels("cpu"), Group::cpu_quota).map(|group| group.cpu()).unwrap_or_default(),
            pressure: Resource::ALL
                .map(|resource| unified.as_ref().map(|group| group.pressure(resource)).unwrap_or_default()),
        }
    }
}

/// The first of the groups whose limit is the lowest; the first of all if none has one.
fn tightest(groups: Vec<Group>, limit: impl Fn(&Group) -> Option<f64>) -> Option<Group> {
    let limit = |group: &Group| limit(group).unwrap_or(f64::INFINITY);
    groups.into_iter().min_by(|one, other| limit(one).total_cmp(&limit(other)))
}

impl Mounts {
    /// As `/proc/self/mountinfo` below `root` says.
    pub(super) fn read(root: &Path) -> Self {
        let mounts = text(&root.join("proc/self/mountinfo")).unwrap_or_default();
        Self(mounts.lines().filter_map(|line| Mount::parse(line, root)).collect())
    }

    /// The group that holds the process as far as `controller` goes, and all that it lies in, outwards, as far as they can
    /// be seen from here. `own` is what `/proc/self/cgroup` says.
    ///
    /// A controller is in one tree: in one of version 1 if there is one for it, else in that of version 2.
    fn levels(&self, own: &str, controller: &str) -> Vec<Group> {
        let mut legacy = own.lines().filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            controllers.split(',').any(|one| one == controller).then_some(path)
        });
        let (path, controller) = match legacy.next() {
            Some(path) => (Some(path), Some(controller)),
            None => (unified(own), None),
        };
        path.map(|path| self.groups(Path::new(path), controller)).unwrap_or_default()
    }

    /// The group of version 2 that the process is in, whether or not it has controllers.
    fn unified(&self, own: &str) -> Option<Group> {
        self.groups(Path::new(unified(own)?), None).into_iter().next()
    }

    /// The group called `path`, and those that it lies in, outwards, without the machine's root.
    fn groups(&self, path: &Path, controller: Option<&str>) -> Vec<Group> {
        let seen = self.0.iter().filter(|mount| mount.has(controller)).find_map(|mount| {
            let below = path.strip_prefix(&mount.group).ok()?;
            // A group beyond what can be seen from here is called `/../…`.
            let is_within = below.components().all(|part| matches!(part, Component::Normal(_)));
            is_within.then_some((mount, below))
        });
        let Some((mount, below)) = seen else { return Vec::new() };
        let is_unified = controller.is_none();
        let levels = below.ancestors().map(|level| Group { at: mount.at.join(level), is_unified });
        levels.filter(|group| !group.is_machines_root()).collect()
    }
}

/// The path of the group in the tree of version 2: the line with no controllers.
fn unified(own: &str) -> Option<&str> {
    own.lines().find_map(|line| line.strip_prefix("0::"))
}

impl Mount {
    /// A line of `/proc/self/mountinfo`, if it is of a tree of groups: `36 35 0:30 GROUP AT options fields… - KIND source
    /// OPTIONS`.
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (group, at) = (unescaped(place.next()?), unescaped(place.next()?));
        let mut what = what.split(' ');
        let controllers = match what.next()? {
            "cgroup2" => None,
            "cgroup" => Some(what.nth(1)?.to_owned()),
            _ => return None,
        };
        Some(Self { group: group.into(), at: root.join(at.trim_start_matches('/')), controllers })
    }

    /// Whether it is the tree that has this controller of version 1; with `None`, whether it is that of version 2.
    fn has(&self, controller: Option<&str>) -> bool {
        match (&self.controllers, controller) {
            (None, None) => true,
            (Some(known), Some(wanted)) => known.split(',').any(|one| one == wanted),
            _ => false,
        }
    }
}

/// A path of `mountinfo`, in which white space and backslashes are three octal digits behind a backslash.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (escaped, character)| path.replace(escaped, character))
}

/// One group.
#[derive(Clone, Debug)]
struct Group {
    at: PathBuf,
    is_unified: bool,
}

impl Group {
    /// Whether it is the root of the machine's tree, not of a container's: only all other groups have a type (version 2),
    /// only it has an agent to be called when a group is empty (version 1).
    fn is_machines_root(&self) -> bool {
        if self.is_unified { !self.at.join("cgroup.type").exists() } else { self.at.join("release_agent").exists() }
    }

    fn number(&self, unified: &str, legacy: &str) -> Option<u64> {
        number(&self.at.join(if self.is_unified { unified } else { legacy }))
    }

    fn text(&self, unified: &str, legacy: &str) -> Option<String> {
        text(&self.at.join(if self.is_unified { unified } else { legacy }))
    }

    /// In bytes; `None` too if there is none.
    fn memory_max(&self) -> Option<u64> {
        self.number("memory.max", "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED)
    }

    #[expect(clippy::cast_precision_loss, reason = "only compared with others")]
    fn memory_limit(&self) -> Option<f64> {
        self.memory_max().map(|limit| limit as f64)
    }

    fn memory(&self) -> Memory {
        let used = self.number("memory.current", "memory.usage_in_bytes");
        let stat = self.text("memory.stat", "memory.stat");
        // Version 1 has the sum with all groups within under a name of its own, as `usage_in_bytes` is one.
        let idle_files = if self.is_unified { "inactive_file" } else { "total_inactive_file" };
        let idle_files = stat.and_then(|stat| named(&stat, idle_files));
        let events = self.text("memory.events", "memory.oom_control");
        Memory {
            working_set: used.zip(idle_files).map(|(used, idle)| used.saturating_sub(idle)),
            limit: self.memory_max(),
            oom_kills: events.and_then(|events| named(&events, "oom_kill")),
        }
    }

    /// How many processors may be used at once; `None` too if that is not limited.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one period")]
    fn cpu_quota(&self) -> Option<f64> {
        let (quota, period): (u64, u64) = if self.is_unified {
            let max = self.text("cpu.max", "")?;
            let (quota, period) = max.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        } else {
            // No quota is -1, which is no such number.
            (self.number("", "cpu.cfs_quota_us")?, self.number("", "cpu.cfs_period_us")?)
        };
        (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
    }

    fn cpu(&self) -> Cpu {
        let stat = self.text("cpu.stat", "cpu.stat").unwrap_or_default();
        let throttled = if self.is_unified {
            named(&stat, "throttled_usec").map(Duration::from_micros)
        } else {
            named(&stat, "throttled_time").map(Duration::from_nanos)
        };
        Cpu {
            quota_cores: self.cpu_quota(),
            periods: named(&stat, "nr_periods"),
            throttled_periods: named(&stat, "nr_throttled"),
            throttled,
        }
    }

    fn pressure(&self, resource: Resource) -> Pressure {
        let told = text(&self.at.join(format!("{}.pressure", resource.as_str()))).unwrap_or_default();
        let total = |kind: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(kind))?;
            let total = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?;
            total.parse().ok().map(Duration::from_micros)
        };
        Pressure { waiting: total("some "), stalled: total("full ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::tree;

    const V2_MOUNT: &str =
        "30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
    const MIB: u64 = 1 << 20;

    fn read(files: &[(&str, &str)]) -> Container {
        let root = tree(files);
        Container::read(root.path(), &Mounts::read(root.path()))
    }

    fn waits(container: &Container) -> Vec<(&'static str, Option<u64>, Option<u64>)> {
        let micros = |time: Option<Duration>| time.and_then(|time| time.as_micros().try_into().ok());
        let each = Resource::ALL.iter().zip(&container.pressure);
        each.map(|(resource, told)| (resource.as_str(), micros(told.waiting), micros(told.stalled))).collect()
    }

    #[test]
    fn version_2_as_a_container_sees_it() {
        let container = read(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", &format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{V2_MOUNT}")),
            ("sys/fs/cgroup/cgroup.type", "domain\n"),
            ("sys/fs/cgroup/memory.current", "104857600\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
            ("sys/fs/cgroup/memory.stat", "anon 52428800\nfile 41943040\ninactive_file 31457280\nactive_file 1\n"),
            ("sys/fs/cgroup/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 1000\nnr_throttled 250\nthrottled_usec 2500000\n"),
            (
                "sys/fs/cgroup/cpu.pressure",
                "some avg10=1.00 avg60=0.50 avg300=0.10 total=7000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=11\n",
            ),
            (
                "sys/fs/cgroup/memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
        ]);
        let memory = Memory { working_set: Some(70 * MIB), limit: Some(256 * MIB), oom_kills: Some(2) };
        assert_eq!(container.memory, memory);
        let cpu = Cpu {
            quota_cores: Some(1.5),
            periods: Some(1000),
            throttled_periods: Some(250),
            throttled: Some(Duration::from_millis(2500)),
        };
        assert_eq!(container.cpu, cpu);
        let expected = [("cpu", Some(7_000_000), Some(11)), ("memory", Some(0), Some(0)), ("io", None, None)];
        assert_eq!(waits(&container), expected);
    }

    #[test]
    fn version_1_with_a_tree_for_each_controller() {
        let container = read(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n"),
            (
                "proc/self/mountinfo",
                "41 40 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                 42 40 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 4194304\n"),
            ("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n"),
        ]);
        let memory = Memory { working_set: Some(96 * MIB), limit: Some(128 * MIB), oom_kills: Some(1) };
        assert_eq!(container.memory, memory);
        let cpu = Cpu {
            quota_cores: Some(0.5),
            periods: Some(10),
            throttled_periods: Some(4),
            throttled: Some(Duration::from_millis(1500)),
        };
        assert_eq!(container.cpu, cpu);
        assert_eq!(waits(&container), [("cpu", None, None), ("memory", None, None), ("io", None, None)]);
    }

    #[test]
    fn without_limits_there_are_none() {
        let v2 = read(&[
            ("proc/self/cgroup", "0::/system.slice/weir.service\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/system.slice/cgroup.type", "domain\n"),
            ("sys/fs/cgroup/system.slice/weir.service/cgroup.type", "domain\n"),
            ("sys/fs/cgroup/system.slice/weir.service/memory.current", "5000\n"),
            ("sys/fs/cgroup/system.slice/weir.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/weir.service/memory.stat", "inactive_file 6000\n"),
            ("sys/fs/cgroup/system.slice/weir.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/weir.service/cpu.stat", "usage_usec 9\n"),
        ]);
        assert_eq!(v2.memory, Memory { working_set: Some(0), limit: None, oom_kills: None }, "never below zero");
        assert_eq!(v2.cpu, Cpu::default(), "the controller is not there");
        let v1 = read(&[
            ("proc/self/cgroup", "4:memory:/weir\n3:cpu:/weir\n"),
            (
                "proc/self/mountinfo",
                "42 40 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 43 40 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
            ),
            ("sys/fs/cgroup/memory/weir/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/weir/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/weir/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/weir/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
        ]);
        assert_eq!((v1.memory.limit, v1.cpu.quota_cores, v1.cpu.throttled_periods), (None, None, Some(0)));
    }

    #[test]
    fn of_groups_in_groups_the_tightest_counts_with_all_its_numbers() {
        let own = "sys/fs/cgroup/pod/app/";
        let pod = "sys/fs/cgroup/pod/";
        let at = |dir: &str, file: &str| format!("{dir}{file}");
        let files = |own_limit: &'static str, pod_limit: &'static str| {
            vec![
                ("proc/self/cgroup".to_owned(), "0::/pod/app\n"),
                ("proc/self/mountinfo".to_owned(), V2_MOUNT),
                (at(pod, "cgroup.type"), "domain\n"),
                (at(own, "cgroup.type"), "domain\n"),
                (at(own, "memory.max"), own_limit),
                (at(pod, "memory.max"), pod_limit),
                (at(own, "memory.current"), "100"),
                (at(pod, "memory.current"), "700"),
                (at(own, "memory.stat"), "inactive_file 10"),
                (at(pod, "memory.stat"), "inactive_file 20"),
                (at(pod, "cpu.max"), "20000 10000"),
                (at(own, "cpu.stat"), "nr_throttled 0"),
                (at(pod, "cpu.stat"), "nr_throttled 5"),
            ]
        };
        for (rule, own_limit, pod_limit, working_set, limit) in [
            ("the own one is tighter", "200", "1000", 90, Some(200)),
            ("the outer one is tighter", "2000", "1000", 680, Some(1000)),
            ("only the outer one is limited", "max", "1000", 680, Some(1000)),
            ("equal: the own one", "1000", "1000", 90, Some(1000)),
            ("none is limited: the own one", "max", "max", 90, None),
        ] {
            let files = files(own_limit, pod_limit);
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            let container = read(&files);
            let found = (container.memory.working_set, container.memory.limit);
            assert_eq!(found, (Some(working_set), limit), "{rule}");
            assert_eq!((container.cpu.quota_cores, container.cpu.throttled_periods), (Some(2.0), Some(5)), "{rule}");
        }
    }

    /// `/proc/self/cgroup`, the mount's root, and where the group is found below `/sys/fs/cgroup`; `None` if it cannot be
    /// seen.
    #[test]
    fn the_own_group_is_found_from_wherever_it_is_seen() {
        for (rule, path, mounted, at) in [
            ("a namespace of its own", "/", "/", Some("")),
            ("nested in a namespace of its own", "/init/deep", "/", Some("init/deep/")),
            ("the machine's namespace, only the own group mounted", "/kubepods/pod1/c", "/kubepods/pod1/c", Some("")),
            ("the same, nested in it", "/kubepods/pod1/c/init", "/kubepods/pod1/c", Some("init/")),
            ("the machine's namespace, all of it mounted", "/kubepods/pod1/c", "/", Some("kubepods/pod1/c/")),
            ("a mount from outside of the namespace", "/../other", "/..", Some("other/")),
            ("beyond what is mounted", "/../other", "/", None),
            ("another group is mounted", "/kubepods/pod1/c", "/kubepods/pod2", None),
            ("a name that begins alike is another one", "/kubepods/pod12", "/kubepods/pod1", None),
            ("a name with a space", "/a b", "/a\\040b", Some("")),
            ("removed meanwhile", "/gone (deleted)", "/", None),
        ] {
            let at = at.unwrap_or("elsewhere/");
            let is_found = at != "elsewhere/";
            let mount = format!("30 23 0:26 {mounted} /sys/fs/cgroup rw shared:4 - cgroup2 cgroup rw\n");
            let file = |name: &str| format!("sys/fs/cgroup/{at}{name}");
            let container = read(&[
                ("proc/self/cgroup", &format!("0::{path}\n")),
                ("proc/self/mountinfo", &mount),
                (&file("cgroup.type"), "domain\n"),
                (&file("memory.max"), "77\n"),
                (&file("cpu.pressure"), "some total=1\n"),
            ]);
            assert_eq!(container.memory.limit, is_found.then_some(77), "{rule}");
            assert_eq!(container.pressure[0].waiting.is_some(), is_found, "{rule}");
        }
    }

    #[test]
    fn the_machines_root_is_no_container() {
        let v2 = read(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 4\n"),
            ("sys/fs/cgroup/cpu.pressure", "some total=1\n"),
            ("sys/fs/cgroup/memory.stat", "inactive_file 1\n"),
        ]);
        assert_eq!((v2.memory, v2.cpu), (Memory::default(), Cpu::default()));
        assert_eq!(v2.pressure[0], Pressure::default());
        let v1 = read(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("proc/self/mountinfo", "42 40 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/release_agent", "\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1\n"),
        ]);
        assert_eq!(v1.memory, Memory::default());
    }

    #[test]
    fn where_both_versions_are_a_controller_is_in_one_of_them() {
        let hybrid = read(&[
            ("proc/self/cgroup", "4:memory:/c\n0::/c\n"),
            (
                "proc/self/mountinfo",
                "41 40 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                 42 40 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/unified/c/cgroup.type", "domain\n"),
            ("sys/fs/cgroup/unified/c/memory.max", "1\n"),
            ("sys/fs/cgroup/unified/c/cpu.max", "1000 1000\n"),
            ("sys/fs/cgroup/unified/c/io.pressure", "some total=1\nfull total=2\n"),
            ("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "4096\n"),
        ]);
        assert_eq!((hybrid.memory.limit, hybrid.cpu.quota_cores), (Some(4096), Some(1.0)));
        assert_eq!(waits(&hybrid)[2], ("io", Some(1), Some(2)));
    }

    #[test]
    fn garbage_is_left_out() {
        for garbage in ["", "\n", "-1", "many", "1 2 3", "18446744073709551616", "some\nfull total=\n", "\u{0}\u{1}"] {
            let container = read(&[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", V2_MOUNT),
                ("sys/fs/cgroup/cgroup.type", garbage),
                ("sys/fs/cgroup/memory.current", garbage),
                ("sys/fs/cgroup/memory.max", garbage),
                ("sys/fs/cgroup/memory.stat", garbage),
                ("sys/fs/cgroup/memory.events", garbage),
                ("sys/fs/cgroup/cpu.max", garbage),
                ("sys/fs/cgroup/cpu.stat", garbage),
                ("sys/fs/cgroup/cpu.pressure", garbage),
            ]);
            assert_eq!((container.memory, container.cpu), (Memory::default(), Cpu::default()), "{garbage:?}");
            assert_eq!(container.pressure[0], Pressure::default(), "{garbage:?}");
        }
        for garbage in ["", "0:", "0::", "::", "4:memory", "0::relative", "\u{0}"] {
            let container = read(&[
                ("proc/self/cgroup", garbage),
                ("proc/self/mountinfo", &format!("{garbage}\n1 - cgroup2\n1 2 3 / - cgroup cgroup\n - \n{V2_MOUNT}")),
                ("sys/fs/cgroup/elsewhere/memory.max", "1\n"),
            ]);
            assert_eq!(container.memory, Memory::default(), "{garbage:?}");
        }
        assert_eq!(read(&[("proc/self/cgroup", "0::/\n")]).memory, Memory::default(), "nothing is mounted");
    }
}
