//! The table as a page for operators.

use std::fmt::Write;

use super::calls::Kind;
use super::ours;
use super::row::{App, Place, Row};

const HEAD: &str = "# What goes wrong, and what comes of it

Made by the tests, which try every cell of it with a real weir: `cargo test --test it matrix -- --nocapture`.

With the default configuration: weir repeats nothing, and refuses nothing.

## What is weir's own

Whatever of this goes wrong, no call fails for it: not one of JSON, a stream of events, an embedding, a cached answer, a
coalesced one, a WebSocket session, an upload, or an event stream of AWS. Each row has all of them called before, meanwhile, and
afterwards.

";

const WIRES: &str = "
## The app and its provider

What the app sees, and what the record says: the outcome, the type of the error, and what is known of the bill. `free`: nothing
was to be billed. `priced` and `estimated`: it has a cost. `unpriced`: the provider may bill it, and nobody knows how much; that
is never counted as nothing. `saved`: another call is billed. Metrics, log and ledger say the same.

The kinds of calls are: ";

/// The page.
pub(super) fn written(wires: &[Row], own: &[ours::Row]) -> String {
    let mut page = HEAD.to_owned();
    let mut places: Vec<_> = own.iter().map(|row| row.place).collect();
    places.sort();
    places.dedup();
    for place in places {
        let faults: Vec<_> = own.iter().filter(|row| row.place == place).map(|row| row.fault).collect();
        writeln!(page, "- **{}** {}", place.describe(), faults.join("; ")).unwrap();
    }
    page += WIRES;
    writeln!(page, "{}.", names(&Kind::ALL)).unwrap();
    for (place, title) in [(Place::Provider, "The provider …"), (Place::App, "The app …")] {
        write!(page, "\n### {title}\n\n| … | calls | the app sees | the record says |\n| --- | --- | --- | --- |\n")
            .unwrap();
        for row in wires.iter().filter(|row| row.place == place) {
            lines(row, &mut page);
        }
    }
    page
}

/// One line for all kinds of a row that are the same.
fn lines(row: &Row, page: &mut String) {
    let mut fault = row.fault;
    let mut done: Vec<Kind> = Vec::new();
    for cell in &row.cells {
        if done.contains(&cell.kind) {
            continue;
        }
        let alike = row.cells.iter().filter(|it| (it.app, it.books) == (cell.app, cell.books));
        let kinds: Vec<Kind> = alike.map(|it| it.kind).collect();
        let books = if cell.books.is_empty() { "nothing: there was no call".to_owned() } else { spelt(cell.books) };
        writeln!(page, "| {fault} | {} | {} | {books} |", names(&kinds), seen(cell.app)).unwrap();
        done.extend(kinds);
        fault = "";
    }
    for (kind, why) in &row.left_out {
        writeln!(page, "| {fault} | {} | cannot happen: {why} | |", kind.name()).unwrap();
    }
}

fn spelt(books: &str) -> String {
    let either: Vec<String> = books.split(" | ").map(|books| format!("`{}`", books.replace(" + ", "`, `"))).collect();
    either.join(" or ")
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

fn seen(app: App) -> String {
    match app {
        App::Answer => "the answer".to_owned(),
        App::Other => "what the provider sent, byte for byte".to_owned(),
        App::Broken => "the answer as far as it came; then its connection breaks".to_owned(),
        App::Nothing => "no answer: its connection breaks".to_owned(),
        App::Error(status, "") => format!("{status}"),
        App::Error(status, code) => format!("{status}, `{}` in its API's own shape", code.replace('|', "` or `")),
    }
}
