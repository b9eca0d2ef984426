//! Process: what this process has used and holds, as `/proc/self` says (proc(5)).

use std::fs;
use std::hint::black_box;
use std::path::Path;

use crate::host::{named, text};

/// Clock ticks in a second, `USER_HZ`: 100 on every architecture of Linux that Rust's standard library is there for
/// (proc(5), `/proc/pid/stat`; `USER_HZ` in the kernel's `asm-generic/param.h`).
const TICKS_PER_SECOND: f64 = 100.0;

/// From now on, has glibc keep up to eight mebibytes of what is freed for what is taken next, for each thread's arena, in place of
/// giving them back to the system at once. A call with a megabyte in takes and frees a few: where the system has to give them
/// anew, and cleared, that is a fifth of what the call costs.
///
/// glibc has a knob for that, but none that safe code can turn. It turns it itself: the largest piece that was ever freed is what
/// it takes for usual, and twice that is kept (`M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` in mallopt(3)). Taken and never
/// touched, it costs nothing.
pub fn keep_freed_memory() {
    const TAKEN_AT_ONCE: usize = 4 * 1024 * 1024;
    if cfg!(target_env = "gnu") {
        drop(black_box(Vec::<u8>::with_capacity(TAKEN_AT_ONCE)));
    }
}

/// What this process has used and holds. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time used, by it and for it: seconds.
    pub cpu_seconds: Option<f64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Most open descriptors (`RLIMIT_NOFILE`); `None` also if there may be any number.
    pub max_fds: Option<u64>,
    /// Size of its address space in bytes.
    pub virtual_memory: Option<u64>,
    /// Largest size of its address space in bytes (`RLIMIT_AS`); `None` also if it may be any.
    pub virtual_memory_max: Option<u64>,
    /// Its memory that is in RAM, in bytes.
    pub resident_memory: Option<u64>,
    /// When it began: seconds since 1970.
    pub started_at: Option<f64>,
    /// Its threads.
    pub threads: Option<u64>,
}

/// When the machine began: seconds since 1970. Read once, because the kernel's answer wavers by a second when the clock is
/// set, and a process that starts anew whenever that happens would be a false alarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootedAt(f64);

impl BootedAt {
    /// As `/proc/stat` below `root` says.
    pub(super) fn read(root: &Path) -> Option<Self> {
        named(&text(&root.join("proc/stat"))?, "btime").map(|seconds| Self(whole(seconds)))
    }
}

/// The most files and connections that this process may have open.
pub(super) fn max_fds(root: &Path) -> Option<u64> {
    limit(&text(&root.join("proc/self/limits"))?, "Max open files")
}

impl Process {
    /// This process, or what is said of it below `root`.
    pub(super) fn read(root: &Path, booted_at: Option<BootedAt>) -> Self {
        let of_process = root.join("proc/self");
        let stat = text(&of_process.join("stat"));
        let stat = stat.as_deref().and_then(Stat::parse).unwrap_or_default();
        let limits = text(&of_process.join("limits")).unwrap_or_default();
        let status = text(&of_process.join("status")).unwrap_or_default();
        Self {
            cpu_seconds: stat.ticks_used.map(|ticks| whole(ticks) / TICKS_PER_SECOND),
            open_fds: open_fds(root),
            max_fds: limit(&limits, "Max open files"),
            virtual_memory: stat.virtual_memory,
            virtual_memory_max: limit(&limits, "Max address space"),
            resident_memory: in_kib(&status, "VmRSS:").map(|kib| kib << 10),
            started_at: booted_at
                .zip(stat.ticks_until_start)
                .map(|(BootedAt(boot), ticks)| boot + whole(ticks) / TICKS_PER_SECOND),
            threads: stat.threads,
        }
    }
}

/// What there is in `/proc/self/stat`.
#[derive(Clone, Copy, Debug, Default)]
struct Stat {
    ticks_used: Option<u64>,
    threads: Option<u64>,
    ticks_until_start: Option<u64>,
    virtual_memory: Option<u64>,
}

impl Stat {
    /// The second field is the program's name in parentheses, which may hold spaces and parentheses itself: what counts
    /// comes after the last one. Numbers are those of proc(5), where the first field is 1.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks_used: field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system)),
            threads: field(20),
            ticks_until_start: field(22),
            virtual_memory: field(23),
        })
    }
}

/// The descriptors in `/proc/self/fd`. Since Linux 6.2 the kernel says how many there are as the size of the directory; before,
/// they are counted, but for the one through which they are read. Elsewhere than in `/proc` a size says something else.
fn open_fds(root: &Path) -> Option<u64> {
    let path = root.join("proc/self/fd");
    let told = fs::metadata(&path).ok().filter(|_| root == Path::new("/")).map(|directory| directory.len());
    if let Some(told) = told.filter(|told| *told > 0) {
        return Some(told);
    }
    let fds = fs::read_dir(path).ok()?.flatten().count();
    u64::try_from(fds).ok()?.checked_sub(1)
}

/// The soft limit behind `name` in `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?;
    soft.parse().ok()
}

/// The number of KiB behind `name` in `/proc/self/status`, which calls them `kB`.
fn in_kib(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.trim_end().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "seconds are shown as a float; ticks stay far below 2⁵³")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::tree;

    const STAT: &str = "4711 (we ir) (2)) S 1 4711 4711 0 -1 4194560 9 0 0 0 1234 66 7 8 20 0 11 0 50025 734003200 2048 \
                        18446744073709551615 1 1 0 0 0 0 0 4096 17 0 0 0 17 1 0 0 0 0 0\n";
    const STATUS: &str = "Name:\tweir\nVmPeak:\t  800000 kB\nVmRSS:\t    8192 kB\nThreads:\t11\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1024                 524288               files     \n\
                          Max address space         unlimited            unlimited            bytes     \n";

    #[test]
    fn what_the_files_say_is_what_is_read() {
        let root = tree(&[
            ("proc/stat", "cpu  1 2 3 4\nctxt 5\nbtime 1800000000\n"),
            ("proc/self/stat", STAT),
            ("proc/self/status", STATUS),
            ("proc/self/limits", LIMITS),
            ("proc/self/fd/0", ""),
            ("proc/self/fd/1", ""),
            ("proc/self/fd/7", ""),
        ]);
        let expected = Process {
            cpu_seconds: Some(13.0),
            open_fds: Some(2),
            max_fds: Some(1024),
            virtual_memory: Some(734_003_200),
            virtual_memory_max: None,
            resident_memory: Some(8192 << 10),
            started_at: Some(1_800_000_500.25),
            threads: Some(11),
        };
        assert_eq!(Process::read(root.path(), BootedAt::read(root.path())), expected);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for (what, files) in [
            ("nothing there", &[][..]),
            ("empty", &[("proc/self/stat", ""), ("proc/self/status", ""), ("proc/self/limits", "")]),
            (
                "cut off",
                &[("proc/self/stat", "4711 (weir) S 1"), ("proc/self/status", "VmRSS:"), ("proc/stat", "btime")],
            ),
            (
                "garbage",
                &[
                    ("proc/self/stat", "(((\0)"),
                    ("proc/self/status", "VmRSS: many kB"),
                    ("proc/self/limits", "Max open files  lots  -1  files"),
                    ("proc/stat", "btime soon"),
                ],
            ),
        ] {
            let root = tree(files);
            assert_eq!(Process::read(root.path(), BootedAt::read(root.path())), Process::default(), "{what}");
        }
    }

    #[test]
    fn an_address_space_that_is_limited_is_said_to_be() {
        let limits = "Max address space         1073741824           unlimited            bytes     \n";
        assert_eq!(limit(limits, "Max address space"), Some(1 << 30));
    }

    #[cfg(target_os = "linux")]
    mod this_process {
        use std::time::{SystemTime, UNIX_EPOCH};

        use super::*;

        fn now() -> Process {
            Process::read(Path::new("/"), BootedAt::read(Path::new("/")))
        }

        #[test]
        fn is_as_the_kernel_and_the_clock_say() {
            let process = now();
            // Another way to the same: pages in `statm` against KiB in `status`. Other tests of this process go on.
            let statm = fs::read_to_string("/proc/self/statm").expect("the kernel says");
            let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
            let resident = process.resident_memory.expect("known");
            let per_page = resident / pages.max(1);
            assert!((2048..=128 << 10).contains(&per_page), "{resident} bytes in {pages} pages");
            assert!(process.virtual_memory.expect("known") >= resident);
            let today = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
            let age = today - process.started_at.expect("known");
            assert!((-2.0..3600.0).contains(&age), "began {age} seconds ago");
            assert!(process.max_fds.expect("known") >= process.open_fds.expect("known"));
            assert!(process.threads.expect("known") >= 1);
        }

        #[test]
        fn takes_more_descriptors_when_it_opens_files() {
            let open = || now().open_fds.expect("known");
            let before = open();
            let more: Vec<_> = (0..500).map(|_| fs::File::open("/proc/self/stat").expect("a file")).collect();
            let while_open = open();
            drop(more);
            // Other tests open and close files, too, but not hundreds.
            assert!(while_open >= before + 400, "{before}, then {while_open}");
            assert!(open() + 400 <= while_open, "closed again");
        }

        #[test]
        fn takes_processor_time_when_it_works() {
            let used = || now().cpu_seconds.expect("known");
            let before = used();
            while used() < before + 0.03 {
                black_box((0..10_000_u64).sum::<u64>());
            }
        }

        #[test]
        fn has_a_thread_more_while_one_runs() {
            let threads = || now().threads.expect("known");
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
            let before = threads();
            let started: Vec<_> = (0..50)
                .map(|_| {
                    let wait = std::sync::Arc::clone(&wait);
                    std::thread::spawn(move || drop(wait.lock().map(|wait| wait.recv())))
                })
                .collect();
            assert!(threads() >= before + 25, "other tests' threads come and go, but not half of these");
            drop(go);
            for thread in started {
                thread.join().expect("it ends");
            }
        }
    }
}
