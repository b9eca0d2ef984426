//! Open: the database of a ledger, made where there is none, brought up to date where it is older.
//!
//! Knows `SQLite` and where a database is; not what is written into it, nor what becomes of one that is damaged.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::ledger::sums::SUMS;
use crate::ledger::totals::OfUser;
use crate::ledger::{DAY, HOUR, MINUTE};

/// What brings a database from each version to the next; how many there are is the version that this weir writes.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("schema-2.sql")];
/// Lets a ledger of version 1 be asked as one of version 2; nothing in its file changes.
const LIKE_VERSION_2: &str = "CREATE TEMP VIEW calls AS SELECT *, NULL AS prefixes FROM main.calls";
/// `weir` in ASCII: what file(1) and weir know a ledger by.
const APPLICATION_ID: i64 = 0x7765_6972;
/// What the writer keeps of the file, in KiB, for as long as weir runs: it only adds, at the ends of a few tables.
const WRITERS_CACHE: i64 = 1024;
/// What each connection that answers questions keeps of it, in KiB.
const READERS_CACHE: i64 = 8192;
/// How long a connection waits for another one's lock.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// Where a ledger's database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file.
    File(PathBuf),
    /// In memory, shared by the connections of this process under this name; gone with the last of them.
    Memory(Box<str>),
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later weir has written it. It stays as it is.
    #[error("it is of version {found}, and this weir knows versions up to {known}")]
    Later {
        /// Its version.
        found: usize,
        /// The latest version that this weir knows.
        known: usize,
    },
    /// Another program's. It stays as it is.
    #[error("it is a database, but no ledger")]
    Foreign,
    /// It is no database, or not whole.
    #[error("it is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// It cannot be reached, or not now.
    #[error("it cannot be opened")]
    Unreachable(#[source] rusqlite::Error),
    /// The file cannot be made.
    #[error("it cannot be made")]
    Unmade(#[from] io::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Unreachable(error) }
    }
}

/// Whether `error` says that the database itself is broken.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

impl Place {
    /// The ledger of the state directory `dir`.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self::File(dir.join("ledger.db"))
    }

    /// A new one in memory.
    #[must_use]
    pub fn memory() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        // What begins with a slash is shared, see memdbOpen() in SQLite's source.
        Self::Memory(format!("/weir-{}", NUMBER.fetch_add(1, Ordering::Relaxed)).into())
    }

    /// Opens it for the one who writes: made if it is not there, and of the latest version afterwards.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing was changed.
    pub fn write(&self) -> Result<Connection, OpenError> {
        if let Self::File(path) = self {
            // What is in it names users and agents: it is nobody else's business. SQLite's files beside it take after it.
            OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.connect(flags, WRITERS_CACHE)?;
        migrate(&mut connection)?;
        Ok(connection)
    }

    /// Opens it for questions.
    ///
    /// # Errors
    /// If it is not there, or cannot be opened.
    pub fn read(&self) -> rusqlite::Result<Connection> {
        // Whoever reads a WAL needs its shared memory, and may have to make that.
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, READERS_CACHE)?;
        if connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == 1 {
            // An earlier weir's, which may be at work on it: asked as it is.
            connection.execute_batch(LIKE_VERSION_2)?;
        }
        tell_totals(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn connect(&self, flags: OpenFlags, cache_kib: i64) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, flags)?,
            Self::Memory(name) => Connection::open_with_flags_and_vfs(&**name, flags, "memdb")?,
        };
        connection.busy_timeout(BUSY_FOR)?;
        // Sorting must not leave names in a file that nobody knows of.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "foreign_keys", false)?;
        // KiB, where negative.
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        Ok(connection)
    }
}

/// Brings the database to the latest version, in one piece or not at all.
fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application, tables) =
        (number("user_version")?, number("application_id")?, number("schema_version")?);
    let known = MIGRATIONS.len();
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if application != APPLICATION_ID && (application != 0 || tables != 0) {
        return Err(OpenError::Foreign);
    }
    if version > known {
        return Err(OpenError::Later { found: version, known });
    }
    // Before there is a table, or never.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Memory has no WAL, and says so.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    // What a large transaction made of the WAL is given back.
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))?;
    let change = connection.transaction()?;
    for migration in &MIGRATIONS[version..] {
        change.execute_batch(migration)?;
    }
    if version == 0 {
        change.execute_batch(&days_like_hours(&change)?)?;
    }
    add_totals(&change)?;
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    change.pragma_update(None, "user_version", i64::try_from(known).unwrap_or(i64::MAX))?;
    change.commit()?;
    Ok(())
}

/// `days` has the columns of `hours`, whatever they are.
fn days_like_hours(connection: &Connection) -> rusqlite::Result<String> {
    Ok(made_as(connection, "hours")?.replacen("hours", "days", 1))
}

/// Makes the sums of all calls, where there are none yet: of what is there.
fn add_totals(change: &Connection) -> rusqlite::Result<()> {
    for Total { table, like, without, select } in totals() {
        if has(change, table)? {
            continue;
        }
        let is_other = |line: &&str| !line.trim_start().starts_with(&format!("{without} "));
        let like_made = made_as(change, like)?;
        let columns: String = like_made.split_inclusive('\n').filter(is_other).collect();
        let make = columns.replacen(like, table, 1).replace(&format!(", {without})"), ")");
        change.execute_batch(&format!("{make}; INSERT INTO {table} {select};"))?;
    }
    Ok(())
}

/// Lets a ledger of an earlier weir, which may be at work on it, be asked as if it had sums of all calls.
fn tell_totals(connection: &Connection) -> rusqlite::Result<()> {
    for Total { table, select, .. } in totals() {
        if !has(connection, table)? {
            connection.execute_batch(&format!("CREATE TEMP VIEW {table} AS {select}"))?;
        }
    }
    Ok(())
}

/// A table of sums of all calls: like which it is made, without which column, and what is in it.
struct Total {
    table: &'static str,
    like: &'static str,
    without: &'static str,
    select: String,
}

fn totals() -> [Total; 4] {
    let of_calls = SUMS.map(|sum| summed(sum.sql, sum.name)).join(", ");
    let of_sums = SUMS.map(|sum| summed(sum.name, sum.name)).join(", ");
    let of_users = OfUser::COLUMNS.map(|name| match name {
        "latest" => "max(latest) AS latest".to_owned(),
        sum => summed(sum, sum),
    });
    let minutes = format!(
        "SELECT calls.id / {MINUTE} * {MINUTE} AS start, {of_calls} FROM calls \
         CROSS JOIN series ON series.id = calls.series GROUP BY 1"
    );
    let periods = |table: &str| format!("SELECT start, {of_sums} FROM {table} GROUP BY start");
    let users = format!("SELECT start, user, {} FROM user_days GROUP BY start, user", of_users.join(", "));
    let of_all = |grain, select| Total { table: totals_of(grain), like: "hours", without: "series", select };
    [
        of_all(MINUTE, minutes),
        of_all(HOUR, periods("hours")),
        of_all(DAY, periods("days")),
        Total { table: "user_day_totals", like: "user_days", without: "scope", select: users },
    ]
}

/// Added up exactly, or the largest integer: sums that overflow are an error, those of the halves of numbers never do.
fn summed(term: &str, name: &str) -> String {
    format!("CAST(sum(({term}) >> 32) * 4294967296 + sum(({term}) & 4294967295) AS INTEGER) AS {name}")
}

fn made_as(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    connection.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
}

fn has(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)", [table], |row| row.get(0))
}

/// The table of sums of all calls over periods that long.
///
/// # Panics
/// If it is none of a minute, an hour and a day.
#[must_use]
pub(super) const fn totals_of(grain: i64) -> &'static str {
    match grain {
        MINUTE => "minute_totals",
        HOUR => "hour_totals",
        DAY => "day_totals",
        _ => panic!("sums of all calls are by minute, hour and day"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ledger::entry::Entry;
    use crate::ledger::insert::Inserter;
    use crate::ledger::row;
    use crate::ledger::specimens::{self, Random};
    use crate::units::PicoUsd;

    fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> T {
        connection.pragma_query_value(None, name, |row| row.get(0)).expect("a value")
    }

    #[test]
    fn sqlite_is_built_with_what_is_needed_and_no_more() {
        let connection = Connection::open_in_memory().expect("opened");
        let mut question = connection.prepare("SELECT compile_options FROM pragma_compile_options").expect("SQL");
        let options = question.query_map([], |row| row.get(0)).expect("asked");
        let options: Vec<String> = options.map(|option| option.expect("text")).collect();
        assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
        for needless in ["API_ARMOR", "DBSTAT", "FTS", "LOAD_EXTENSION=", "RTREE", "SOUNDEX", "STAT4"] {
            let is_in = options.iter().any(|option| option.contains(needless));
            assert!(!is_in, "{needless}, which .cargo/config.toml leaves out: {options:?}");
        }
    }

    #[test]
    fn a_new_file_is_private_and_as_it_should_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::in_dir(dir.path());
        let connection = place.write().expect("opened");
        assert_eq!(pragma::<String>(&connection, "journal_mode"), "wal");
        assert_eq!(pragma::<i64>(&connection, "auto_vacuum"), 2, "incremental");
        assert_eq!(pragma::<i64>(&connection, "user_version"), 2);
        assert_eq!(pragma::<i64>(&connection, "secure_delete"), 1);
        assert_eq!(pragma::<i64>(&connection, "foreign_keys"), 0);
        for file in fs::read_dir(dir.path()).expect("read").map(|file| file.expect("a file")) {
            assert_eq!(file.metadata().expect("its mode").permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        let columns = |table: &str| -> Vec<String> {
            let mut question = connection.prepare("SELECT name FROM pragma_table_info(?)").expect("SQL");
            let names = question.query_map([table], |row| row.get(0)).expect("asked");
            names.map(|name| name.expect("text")).collect()
        };
        assert_eq!(columns("days"), columns("hours"));
        assert_eq!(columns("user_days"), columns("user_hours"));
        let without = |table: &str, key: &str| -> Vec<String> {
            columns(table).into_iter().filter(|column| column != key).collect()
        };
        for table in ["minute_totals", "hour_totals", "day_totals"] {
            assert_eq!(columns(table), without("hours", "series"), "{table}");
        }
        assert_eq!(columns("user_day_totals"), without("user_days", "scope"));
        drop(connection);
        place.write().expect("opened again");
    }

    /// One that was written before there were such sums.
    #[test]
    fn sums_of_all_calls_are_made_where_there_are_none() {
        let place = Place::memory();
        let mut ledger = place.write().expect("opened");
        let mut random = Random(1);
        let mut calls: Vec<_> = (0..500).map(|at| specimens::entry(&mut random, at * 700_000_000)).collect();
        // More than a column holds, together.
        for call in &mut calls[..4] {
            call.cost = Some(PicoUsd::new(u128::MAX));
        }
        Inserter::default().insert(&mut ledger, &calls).expect("written");
        let rows = |connection: &Connection, table: &str| -> Vec<Vec<i64>> {
            let mut select = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).expect("SQL");
            let width = select.column_count();
            let rows = select.query_map([], |row| (0..width).map(|at| row.get(at)).collect()).expect("asked");
            rows.map(|row| row.expect("numbers")).collect()
        };
        let all = |connection: &Connection| totals().map(|total| rows(connection, total.table));
        let written = all(&ledger);
        assert!(written.iter().all(|rows| !rows.is_empty()));
        for total in totals() {
            ledger.execute_batch(&format!("DROP TABLE {}", total.table)).expect("dropped");
        }
        assert_eq!(all(&place.read().expect("opened")), written, "asked as it is");
        assert_eq!(all(&place.write().expect("opened again")), written, "brought up to date");
    }

    /// Seven calls for two users, one of them answered from the cache: a ledger as version 1 wrote it.
    fn version_1(dir: &Path) -> Place {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ledger/version-1.db.zst");
        let packed = fs::read(fixture).expect("the fixture");
        fs::write(dir.join("ledger.db"), zstd::decode_all(&*packed).expect("zstd")).expect("written");
        Place::in_dir(dir)
    }

    fn all(connection: &Connection) -> Vec<Entry> {
        let mut rows = connection.prepare(row::SELECT).expect("SQL");
        rows.query_map([], row::read).expect("asked").map(|entry| entry.expect("as it was written")).collect()
    }

    #[test]
    fn a_ledger_of_version_1_is_brought_up_to_date_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = version_1(dir.path());
        let before = all(&place.read().expect("an earlier one can be asked"));
        assert_eq!(pragma::<i64>(&Connection::open(dir.path().join("ledger.db")).expect("opened"), "user_version"), 1);
        let mut connection = place.write().expect("opened");
        assert_eq!(pragma::<i64>(&connection, "user_version"), 2);
        let after = all(&connection);
        assert_eq!(after, before);
        assert_eq!(after.len(), 7);
        let users: Vec<_> = after.iter().map(|entry| entry.user_id.as_deref()).collect();
        assert_eq!(users[..2], [Some("alice"), Some("bob")]);
        let cost: u128 = after.iter().filter_map(|entry| entry.cost).map(PicoUsd::pico).sum();
        let sum: i64 = connection.query_row("SELECT sum(cost) FROM days", [], |row| row.get(0)).expect("a sum");
        assert_eq!((cost, sum), (1_065_000_000, 1_065_000_000));
        let entry = specimens::entry(&mut Random(1), 1_900_000_000_000_000);
        Inserter::default().insert(&mut connection, std::slice::from_ref(&entry)).expect("written");
        assert_eq!(all(&place.read().expect("opened")).last(), Some(&entry));
        drop(connection);
        place.write().expect("opened again");
    }

    #[test]
    fn memory_is_shared_by_name_and_gone_with_the_last() {
        let (place, other) = (Place::memory(), Place::memory());
        let writes = place.write().expect("opened");
        let _other = other.write().expect("opened");
        writes.execute("INSERT INTO users (name) VALUES ('alice')", []).expect("written");
        let count = |place: &Place| -> i64 {
            let reads = place.read().expect("opened");
            reads.query_row("SELECT count(*) FROM users", [], |row| row.get(0)).expect("counted")
        };
        assert_eq!((count(&place), count(&other)), (1, 0));
        drop(writes);
        place.write().expect("made anew");
        let writes = place.write().expect("made anew");
        assert_eq!(count(&place), 0);
        drop(writes);
    }

    #[test]
    fn who_asks_cannot_write() {
        let place = Place::memory();
        let _writes = place.write().expect("opened");
        let reads = place.read().expect("opened");
        assert!(reads.execute("INSERT INTO users (name) VALUES ('alice')", []).is_err());
    }

    #[test]
    fn files_that_are_not_ours_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::in_dir(dir.path());
        let path = dir.path().join("ledger.db");
        let later = |connection: &Connection| {
            connection.pragma_update(None, "application_id", APPLICATION_ID).expect("set");
            connection.pragma_update(None, "user_version", 99).expect("set");
        };
        let foreign = |connection: &Connection| connection.execute_batch("CREATE TABLE mine (a)").expect("made");
        for (rule, make, expected) in [
            ("of a later version", &later as &dyn Fn(&Connection), "version 99"),
            ("another program's", &foreign, "no ledger"),
        ] {
            make(&Connection::open(&path).expect("made"));
            let before = fs::read(&path).expect("read");
            let error = place.write().expect_err(rule).to_string();
            assert!(error.contains(expected), "{rule}: {error}");
            assert_eq!(fs::read(&path).expect("read"), before, "{rule}");
            fs::remove_file(&path).expect("removed");
        }
        fs::write(&path, "not a database, but long enough to be taken for one".repeat(100)).expect("written");
        assert!(matches!(place.write(), Err(OpenError::Damaged(_))));
    }
}
