//! Erase: takes a user out of the ledger and leaves the money: what their calls cost is still in every sum, and is about
//! nobody any more. And notes who took, changed or erased what.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ledger::HOUR;
use crate::ledger::entry::Micros;
use crate::ledger::sums::or_add;
use crate::ledger::totals::OfUser;
use crate::ledger::upkeep;

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Rows that say no longer who asked.
    pub calls: u64,
    /// Calls of which what was said is gone.
    pub contents: u64,
    /// Whether the bytes are gone from the files, too. If not, somebody was reading: they go as the write-ahead
    /// log is written anew, or at once when it is asked for again.
    pub is_swept: bool,
}

/// Erases the user `name`, asked for by `who`, and notes that without the name.
pub(super) fn user(ledger: &mut Connection, name: &str, who: &str, now: Micros) -> rusqlite::Result<Erased> {
    let change = ledger.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let find = "SELECT id FROM users WHERE name = ?1";
    let found: Option<i64> = change.query_row(find, [name], |row| row.get(0)).optional()?;
    let mut erased = Erased::default();
    if let Some(user) = found {
        forget_calls(&change, user, &mut erased)?;
        for (sums, key) in [
            ("user_hours", ["start", "user", "scope"].as_slice()),
            ("user_days", &["start", "user", "scope"]),
            ("user_day_totals", &["start", "user"]),
        ] {
            hand_over(&change, sums, key, user)?;
        }
        change.execute("DELETE FROM users WHERE id = ?1", [user])?;
    }
    note(&change, now, who, "erase_user", &json!({ "calls": erased.calls, "contents": erased.contents }))?;
    change.commit()?;
    erased.is_swept = upkeep::sweep(ledger)?;
    Ok(erased)
}

/// Notes that `who` did `action`.
pub(super) fn audit(
    ledger: &mut Connection,
    now: Micros,
    who: &str,
    action: &str,
    detail: &Value,
) -> rusqlite::Result<()> {
    note(ledger, now, who, action, detail)
}

fn note(ledger: &Connection, now: Micros, who: &str, action: &str, detail: &Value) -> rusqlite::Result<()> {
    let insert = "INSERT INTO audit (at, who, action, detail) VALUES (?1, ?2, ?3, ?4)";
    ledger.execute(insert, params![now, who, action, detail.to_string()]).map(drop)
}

/// The sums of users say in which hours there are rows of theirs.
fn forget_calls(change: &Transaction<'_>, user: i64, erased: &mut Erased) -> rusqlite::Result<()> {
    let mut hours = change.prepare("SELECT DISTINCT start FROM user_hours WHERE user = ?1")?;
    let mut contents = change.prepare(
        "DELETE FROM contents WHERE call IN (SELECT id FROM calls WHERE id >= ?1 AND id < ?2 AND user = ?3)",
    )?;
    let mut calls = change.prepare(
        "UPDATE calls SET user = NULL, run = NULL, request_id = '', trace_id = NULL, client = NULL, \
         provider_request_id = NULL, error_message = NULL, prefixes = NULL WHERE id >= ?1 AND id < ?2 AND user = ?3",
    )?;
    for start in hours.query_map([user], |row| row.get::<_, Micros>(0))? {
        let start = start?;
        erased.contents += contents.execute([start, start + HOUR, user])? as u64;
        erased.calls += calls.execute([start, start + HOUR, user])? as u64;
    }
    Ok(())
}

/// Adds the sums of `user` to those of nobody.
fn hand_over(change: &Transaction<'_>, sums: &str, key: &[&str], user: i64) -> rusqlite::Result<()> {
    let columns = [key, &OfUser::COLUMNS].concat().join(", ");
    let of_nobody = columns.replace("user", "0");
    let or_add = or_add(key, &OfUser::COLUMNS);
    change.execute(
        &format!("INSERT INTO {sums} ({columns}) SELECT {of_nobody} FROM {sums} WHERE user = ?1 {or_add}"),
        [user],
    )?;
    change.execute(&format!("DELETE FROM {sums} WHERE user = ?1"), [user]).map(drop)
}
