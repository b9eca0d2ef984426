//! Everything that can go wrong, at every place, with every kind of call: what the app sees of it, and what is in the
//! books. A table, of which each cell is tried with a real weir; what comes out otherwise is printed and counted.

mod calls;
#[cfg(all(feature = "otlp", feature = "redis"))]
mod ours;
#[cfg(all(feature = "otlp", feature = "redis"))]
mod page;
mod row;
mod wire;

#[cfg(all(feature = "otlp", feature = "redis"))]
use std::path::Path;

#[cfg(all(feature = "otlp", feature = "redis"))]
use tokio::task::JoinError;
use tokio::task::JoinSet;

use calls::Kind;
#[cfg(all(feature = "otlp", feature = "redis"))]
use ours::Tally;
use row::{Cell, Row};

/// Cells that are tried at once.
const AT_ONCE: usize = 16;

/// Tries all cells; those that are not as expected.
async fn tried(rows: &[Row]) -> Vec<String> {
    let cells: Vec<(Row, Cell)> =
        rows.iter().flat_map(|row| row.cells.iter().map(|cell| (row.clone(), *cell))).collect();
    let mut unexpected = Vec::new();
    for wave in cells.chunks(AT_ONCE) {
        // To start is work, which would hold up those that are under way.
        let mut ready = Vec::new();
        for (row, cell) in wave {
            ready.push((row.clone(), *cell, row.prepare(cell.kind).await));
        }
        let mut under_way = JoinSet::new();
        for (row, cell, house) in ready {
            under_way.spawn(async move {
                let name = format!("{:?} {}, {}", row.place, row.fault, cell.kind.name());
                // What panics is not as expected either.
                let tried = tokio::spawn(async move { row.happen(house, cell).await }).await;
                let why = tried.unwrap_or_else(|panic| Err(panic.to_string())).err()?;
                Some(format!("{name}: {why}"))
            });
        }
        while let Some(tried) = under_way.join_next().await {
            unexpected.extend(tried.unwrap());
        }
    }
    unexpected
}

#[expect(clippy::print_stdout, reason = "a report for whoever asks for it: --nocapture")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_the_app_sees_what_it_should_and_so_do_the_books() {
    let mut rows = wire::rows();
    rows.retain(|row| wanted(&format!("{:?} {}", row.place, row.fault)));
    let cells: usize = rows.iter().map(|row| row.cells.len()).sum();
    let left_out: usize = rows.iter().map(|row| row.left_out.len()).sum();
    let unexpected = tried(&rows).await;
    println!("{} rows, {cells} cells, {left_out} left out, {} unexpected", rows.len(), unexpected.len());
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

/// Each row says of each kind of call what is to be seen, or why it cannot happen.
#[test]
fn no_kind_of_call_is_forgotten() {
    for row in wire::rows() {
        let said = row.cells.iter().map(|cell| cell.kind).chain(row.left_out.iter().map(|(kind, _)| *kind));
        let mut said: Vec<Kind> = said.collect();
        said.sort();
        assert_eq!(said, Kind::ALL, "{:?} {}", row.place, row.fault);
    }
}

/// The table for people: docs/faults.md, which `UPDATE_EXPECT=1` writes.
#[cfg(all(feature = "otlp", feature = "redis"))]
#[test]
fn the_page_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = page::written(&wire::rows(), &ours::rows());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == page, "UPDATE_EXPECT=1 writes docs/faults.md");
}

/// The promise that everything else here serves: what is weir's own affair costs the app nothing.
#[cfg(all(feature = "otlp", feature = "redis"))]
#[expect(clippy::print_stdout, reason = "a report for whoever asks for it: --nocapture")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_whatever_is_wrong_with_what_is_weirs_own() {
    let rows: Vec<ours::Row> = ours::rows().into_iter().filter(is_wanted).collect();
    let (mut calls, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    for wave in rows.chunks(AT_ONCE / 2) {
        let mut ready = Vec::new();
        for row in wave {
            ready.push((*row, row.prepare().await));
        }
        let mut under_way = JoinSet::new();
        for (row, house) in ready {
            under_way.spawn(async move {
                let name = format!("{:?} {}", row.place, row.fault);
                let house = match house {
                    Ok(house) => house,
                    Err(why) => return (name, Err(why)),
                };
                let tried = tokio::spawn(row.happen(house)).await;
                let panicked = |panic: JoinError| Tally { calls: 0, failed: vec![panic.to_string()] };
                (name, Ok(tried.unwrap_or_else(panicked)))
            });
        }
        while let Some(tried) = under_way.join_next().await {
            match tried.unwrap() {
                (name, Err(why)) => skipped.push(format!("{name}: {why}")),
                (name, Ok(tally)) => {
                    calls += tally.calls;
                    failed.extend(tally.failed.iter().map(|why| format!("{name}: {why}")));
                }
            }
        }
    }
    let tried = rows.len();
    println!("{tried} rows, {} skipped, {calls} calls, {} failed: {}", skipped.len(), failed.len(), skipped.join("; "));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// For whoever looks for something in one row: a part of its name in the variable `MATRIX`.
#[cfg(all(feature = "otlp", feature = "redis"))]
fn is_wanted(row: &ours::Row) -> bool {
    wanted(&format!("{:?} {}", row.place, row.fault))
}

fn wanted(name: &str) -> bool {
    std::env::var("MATRIX").map_or(true, |only| name.contains(&only))
}
