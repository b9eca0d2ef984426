//! Home: where the ledger lives, and how it is found there. One weir writes in a directory; what is damaged is set aside;
//! what a later weir has written is left alone. Where there is no place on disk, the ledger is in memory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError, metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;

use crate::ledger::open::{OpenError, Place};
use crate::state::aside::Aside;

/// What locks the ledger for one weir. Not the ledger itself: letting go of that would let go of what `SQLite` locks, too.
const LOCK: &str = "ledger.lock";
/// Damaged ledgers are large: few stay.
const ASIDE: Aside = Aside { word: "damaged", companions: &["-wal", "-shm"], most: 3 };

/// Where the ledger lives.
#[derive(Debug)]
pub struct Home {
    /// `None` for in memory.
    dir: Option<PathBuf>,
    /// Locked for as long as it is open.
    lock: Option<File>,
    /// Whether it is known to be damaged, although it opens.
    is_distrusted: bool,
}

/// Why there is no ledger now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{} cannot be used", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    #[error("the ledger cannot be set aside, though it is damaged")]
    SetAside(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// An open ledger.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) ledger: Connection,
    pub(super) place: Place,
    /// The file that was opened, wherever its name points by now.
    inode: Option<u64>,
    /// How many damaged ones were set aside for it.
    pub(super) damaged: u64,
}

impl Opened {
    /// Whether what is written will be found again.
    pub(super) fn is_in_place(&self) -> bool {
        inode(&self.place) == self.inode
    }
}

impl Home {
    /// The file `ledger.db` in `dir`.
    #[must_use]
    pub const fn dir(dir: PathBuf) -> Self {
        Self { dir: Some(dir), lock: None, is_distrusted: false }
    }

    /// Memory.
    #[must_use]
    pub const fn memory() -> Self {
        Self { dir: None, lock: None, is_distrusted: false }
    }

    /// Sets the ledger aside before it is opened again: it is damaged.
    pub(super) const fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    /// Opens the ledger. Waits for the disk; a large one is read as a whole.
    ///
    /// # Errors
    /// [`Failure`], if it may work later.
    pub(super) fn open(&mut self) -> Result<Opened, Failure> {
        let Some(dir) = self.dir.clone() else { return in_memory() };
        if !self.take(&dir)? {
            return self.move_out(&format!("another weir keeps its ledger in {}", dir.display()));
        }
        let place = Place::in_dir(&dir);
        let mut damaged = 0;
        if std::mem::take(&mut self.is_distrusted) {
            damaged += set_aside(&place, &"it failed while it was in use")?;
        }
        let opened = place.write().map_err(Into::into).and_then(|ledger| checked(ledger).map_err(Failure::Open));
        let ledger = match opened {
            Err(Failure::Open(OpenError::Damaged(error))) => {
                damaged += set_aside(&place, &error)?;
                place.write()?
            }
            Err(Failure::Open(why @ (OpenError::Later { .. } | OpenError::Foreign))) => {
                return self.move_out(&format!("{} stays as it is: {why}", dir.join("ledger.db").display()));
            }
            opened => opened?,
        };
        Ok(Opened { inode: inode(&place), ledger, place, damaged })
    }

    /// Makes the directory and takes its lock, unless that has been done; `false` if another weir has it.
    fn take(&mut self, dir: &Path) -> Result<bool, Failure> {
        let path = dir.join(LOCK);
        if self.lock.is_some() && path.exists() {
            return Ok(true);
        }
        let failed = |error| Failure::Directory(dir.to_owned(), error);
        // What is in it names users and agents: it is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => self.lock = Some(lock),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(true)
    }

    /// From now on, the ledger is in memory.
    fn move_out(&mut self, why: &str) -> Result<Opened, Failure> {
        tracing::warn!("calls are written down in memory only, until weir ends: {why}");
        *self = Self::memory();
        in_memory()
    }
}

fn in_memory() -> Result<Opened, Failure> {
    let place = Place::memory();
    Ok(Opened { ledger: place.write()?, place, inode: None, damaged: 0 })
}

/// The ledger, if it is whole.
fn checked(ledger: Connection) -> Result<Connection, OpenError> {
    let verdict: String = ledger.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(ledger);
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(OpenError::Damaged(rusqlite::Error::SqliteFailure(code, Some(verdict))))
}

/// Moves a damaged ledger to a name that says when: one.
fn set_aside(place: &Place, why: &dyn std::fmt::Display) -> Result<u64, Failure> {
    let Place::File(path) = place else { return Ok(0) };
    let aside = ASIDE.put(path, Timestamp::now()).map_err(Failure::SetAside)?;
    tracing::warn!(
        file.path = %path.display(),
        error.message = %why,
        "the ledger is damaged, and set aside as {}; another one is begun",
        aside.display()
    );
    Ok(1)
}

fn inode(place: &Place) -> Option<u64> {
    let Place::File(path) = place else { return None };
    metadata(path).ok().map(|file| file.ino())
}
