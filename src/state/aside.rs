//! Aside: where a damaged file goes: beside where it was, under a name that says when. Few stay, the newest ones.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// How damaged files of a kind are set aside.
#[derive(Clone, Copy, Debug)]
pub struct Aside {
    /// What stands in the name, before the time.
    pub word: &'static str,
    /// The ends of the names of files that belong to it, and go with it.
    pub companions: &'static [&'static str],
    /// How many stay: enough to look into, not enough to fill a disk.
    pub most: usize,
}

impl Aside {
    /// Moves the file to a name that says when, and removes the oldest that were moved before.
    ///
    /// # Errors
    /// If it cannot be moved; then it is where it was.
    pub fn put(&self, path: &Path, now: Timestamp) -> io::Result<PathBuf> {
        let prefix = joined(path, &format!(".{}-", self.word));
        let aside = joined(&prefix, &now.strftime("%Y%m%dT%H%M%SZ").to_string());
        fs::rename(path, &aside)?;
        for end in self.companions {
            match fs::rename(joined(path, end), joined(&aside, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.remove_oldest(&prefix)?;
        Ok(aside)
    }

    fn remove_oldest(&self, prefix: &Path) -> io::Result<()> {
        let Some((dir, prefix)) = prefix.parent().zip(prefix.file_name()) else { return Ok(()) };
        let is_aside = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let is_companion = self.companions.iter().any(|end| name.ends_with(end.as_bytes()));
            name.starts_with(prefix.as_encoded_bytes()) && !is_companion
        };
        let entries = fs::read_dir(dir)?.filter_map(Result::ok);
        let mut before: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_aside).collect();
        before.sort_unstable();
        for oldest in &before[..before.len().saturating_sub(self.most)] {
            let _ = fs::remove_file(oldest);
            for end in self.companions {
                let _ = fs::remove_file(joined(oldest, end));
            }
        }
        Ok(())
    }
}

/// `path` with `end` appended to its name.
fn joined(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
