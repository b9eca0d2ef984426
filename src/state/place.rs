//! Place: one file in the state directory: read at start, written whole or not at all, set aside when it is damaged.
//!
//! Everything here waits for the disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::aside::Aside;
use crate::state::file::{Damage, Form};

/// What locks the directory for one weir.
const LOCK: &str = "lock";
/// A file larger than this is none that weir wrote: what it keeps is bounded to far less.
const MOST_BYTES: u64 = 256 << 20;
/// Where damaged files go.
const ASIDE: Aside = Aside { word: "corrupt", companions: &[], most: 8 };

/// Where something is kept.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    form: Form,
    /// Locked for as long as it is open: no other weir keeps anything here.
    lock: Option<File>,
}

/// Why nothing can be kept in a place now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("another weir keeps its state in {}", .0.display())]
    Taken(PathBuf),
    #[error("{} cannot be locked", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("the disk takes longer than {} s", .0.as_secs())]
    Slow(Duration),
}

/// What was found in a place at start.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// Nothing was ever kept.
    Nothing,
    /// This.
    Kept(T),
    /// A file that is of no use, for a reason. It is where it is named now, if that could be done.
    Damaged(Unusable, io::Result<PathBuf>),
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error(transparent)]
    Damaged(Damage),
}

impl Place {
    pub(super) const fn new(dir: PathBuf, form: Form) -> Self {
        Self { dir, form, lock: None }
    }

    /// The file itself.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.form.name)
    }

    /// Makes the directory and takes its lock, unless that has been done.
    ///
    /// # Errors
    /// If another weir has it, or it cannot be made.
    pub(super) fn take(&mut self) -> Result<(), Failure> {
        if self.lock.is_some() {
            return Ok(());
        }
        let failed = |error| Failure::Lock(self.dir.clone(), error);
        // What is in it names users and agents: it is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(failed)?;
        let lock = private().open(self.dir.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => self.lock = Some(lock),
            Err(TryLockError::WouldBlock) => return Err(Failure::Taken(self.dir.clone())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(())
    }

    /// What was kept. A file that is of no use is set aside, so that nothing overwrites it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Found<T> {
        let path = self.path();
        let unusable = match read(&path) {
            Ok(bytes) => match self.form.read(&bytes) {
                Ok(kept) => return Found::Kept(kept),
                Err(damage) => Unusable::Damaged(damage),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => Unusable::Unreadable(error),
        };
        Found::Damaged(unusable, ASIDE.put(&self.path(), Timestamp::now()))
    }

    /// Keeps `state` in the place of what was kept before. Whatever happens, power cuts included, the file is the one
    /// or the other.
    ///
    /// # Errors
    /// If it cannot: then what was kept before is still there.
    pub(super) fn write(&mut self, state: &impl Serialize) -> Result<(), Failure> {
        self.take()?;
        let failed = |error| Failure::Write(self.path(), error);
        let bytes = self.form.write(state).map_err(|error| failed(error.into()))?;
        // Only one weir writes here, so one name will do; what a kill leaves behind is overwritten.
        let beside = self.dir.join(format!("{}.new", self.form.name));
        let written = replace(&self.dir, &beside, &self.path(), &bytes);
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        if !self.dir.join(LOCK).exists() {
            // Somebody removed the directory, and the lock with it: it is made anew the next time.
            self.lock = None;
        }
        written.map_err(|error| Failure::Write(self.path(), error))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is larger than weir writes"));
    }
    Ok(bytes)
}

/// Writes `beside` and moves it to `path`, each for good before the next.
fn replace(dir: &Path, beside: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().truncate(true).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    File::open(dir)?.sync_all()
}

/// Opens for writing; what is made is for the user that weir runs as.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}
