//! Host: what weir itself uses of the machine, and how much there is: its process, its container, the machine.
//!
//! Looks when it is asked, and not before: for a scrape, on a thread that may wait a moment. What the system does not
//! say, or says in a way that is not understood, is left out: unknown is not zero. Knows no metric, and no call.
//!
//! `sysinfo` says how the machine is. The process and the container are read from the files in which Linux tells of them,
//! because `sysinfo` says nothing of throttling, kills and pressure, and because having it look at a process raises the
//! process's limit of open files. Where there are no such files, as on other systems, nothing is said of the two.

pub mod cgroup;
pub mod container;
pub mod machine;
pub mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::host::cgroup::{Container, Mounts};
use crate::host::machine::{Machine, Watch};
use crate::host::process::{BootedAt, Process};

/// The machine that weir runs on, as seen from within its container.
#[derive(Debug)]
pub struct Host {
    /// Where the files of `/proc` and `/sys` are found: `/`, but for tests.
    root: PathBuf,
    booted_at: Option<BootedAt>,
    mounts: Mounts,
    machine: Mutex<Watch>,
}

/// What there is to say now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Of this process.
    pub process: Process,
    /// Of the container it runs in.
    pub container: Container,
    /// Of the machine.
    pub machine: Machine,
}

impl Host {
    /// This machine. From now on it is known how busy its processors are.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/"))
    }

    /// A machine of whose process and container the files below `root` tell; how the machine itself is, `sysinfo` says.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            booted_at: BootedAt::read(root),
            mounts: Mounts::read(root),
            machine: Mutex::new(Watch::begin()),
        }
    }

    /// The memory that the container of this process may use, if that is limited. Asks nothing else.
    #[must_use]
    pub fn memory_limit() -> Option<u64> {
        let root = Path::new("/");
        Container::read(root, &Mounts::read(root)).memory.limit
    }

    /// The most files and connections that this process may have open, if that is limited. Asks nothing else.
    #[must_use]
    pub fn max_fds() -> Option<u64> {
        process::max_fds(Path::new("/"))
    }

    /// What there is to say now. Reads some twenty small files: a fraction of a millisecond.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading {
            process: Process::read(&self.root, self.booted_at),
            container: Container::read(&self.root, &self.mounts),
            machine: self.machine.lock().unwrap_or_else(PoisonError::into_inner).look(),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// The text of a small file; `None` if there is none that can be read.
fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The number that is all there is in a file.
fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// The number behind `name`, in a text that has a name and a number on each line.
fn named(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    lines.find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files below a root, each with its text.
    pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
            fs::write(path, text).expect("a written file");
        }
        root
    }

    #[test]
    fn where_there_are_no_such_files_nothing_is_said_of_process_and_container() {
        let root = tree(&[]);
        let Reading { process, container, .. } = Host::at(root.path()).read();
        assert_eq!((process, container), (Process::default(), Container::default()));
    }

    #[test]
    fn names_are_found_whole() {
        let text = "file 1\ninactive_file  23 \ninactive_file_x 4\nodd\nnot_a_number x\n";
        for (name, expected) in
            [("inactive_file", Some(23)), ("file", Some(1)), ("inactive", None), ("odd", None), ("not_a_number", None)]
        {
            assert_eq!(named(text, name), expected, "{name}");
        }
    }
}
