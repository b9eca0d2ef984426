//! A disk of a test's own, which can be too small, and can fail.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A disk of one megabyte, in memory.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// `None` where tests may not mount one.
    #[expect(clippy::print_stderr, reason = "says what was not tested")]
    pub(crate) fn mounted(rule: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            eprintln!("{rule}: left out, for nobody may mount a disk here");
            return None;
        }
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        let remount = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &remount]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Once nobody has a file open on it any more.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
