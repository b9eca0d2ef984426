//! The shape of the house: the rooms, floors and import rules that ARCHITECTURE.md states, checked against `src/`.
//!
//! The tree in ARCHITECTURE.md is the only copy of the rules; this test reads it. Code under `#[cfg(test)]` obeys the
//! same rules: a test that needs a room further up belongs further up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// First line of the block that lists the rooms there are.
const TREE: &str = "src/";
/// `src/<folder>/<folder>/<file>`: no deeper.
const FOLDER_LEVELS_MAX: usize = 2;

#[test]
fn the_tree_lists_every_room_and_no_other() {
    let map = read_map();
    let declared = block(&map, TREE);
    let mut faults = Vec::new();
    let rooms = rooms_on_disk();
    for room in &rooms {
        if !declared.contains_key(room) {
            faults.push(format!(
                "src has `{room}`, which ARCHITECTURE.md does not list: a new room needs a row in the tree, with its \
                 floor, and an ADR in docs/adr"
            ));
        }
    }
    for room in declared.keys().filter(|room| !rooms.contains(room)) {
        faults.push(format!("ARCHITECTURE.md lists `{room}`, which src does not have: remove its row"));
    }
    report(&faults);
}

#[test]
fn a_room_imports_only_from_lower_floors() {
    let floors = block(&read_map(), TREE);
    let mut faults = Vec::new();
    for file in sources() {
        let home = Home::of(&file);
        if home.room == "lib" {
            continue;
        }
        for import in imports(&read(&file), home.depth) {
            let place = format!("{}:{}", file.display(), import.line);
            faults.extend(fault(&floors, &home.room, &import).map(|fault| format!("{place}: {fault}")));
        }
    }
    report(&faults);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<_> = sources()
        .iter()
        .filter(|file| !read(file).starts_with("//! "))
        .map(|file| format!("{}: begin with `//!`: what is it for, and what must it not know?", file.display()))
        .collect();
    report(&silent);
}

#[test]
fn nothing_is_re_exported() {
    let text = read(Path::new("src/lib.rs"));
    let tokens = tokens(&text);
    let faults: Vec<_> = tokens
        .windows(2)
        .filter(|pair| pair[0].text == "pub" && pair[1].text == "use")
        .map(|pair| {
            format!("src/lib.rs:{}: no `pub use`: an item is imported from the room that owns it", pair[0].line)
        })
        .collect();
    report(&faults);
}

#[test]
fn no_file_lies_deeper_than_two_folders() {
    let deep: Vec<_> = sources()
        .iter()
        .filter(|file| file.components().skip(1).count() > FOLDER_LEVELS_MAX + 1)
        .map(|file| format!("{}: at most {FOLDER_LEVELS_MAX} folder levels below src", file.display()))
        .collect();
    report(&deep);
}

/// What is wrong with `import` in a file of `room`, if anything is.
fn fault(floors: &BTreeMap<String, u8>, room: &str, import: &Import) -> Option<String> {
    let target = import.target.as_str();
    if target == room {
        return None;
    }
    if target == "*" {
        return Some("imports everything at once: name the rooms".to_owned());
    }
    let Some(above) = floors.get(target) else {
        return Some(format!("imports `{target}`, which is no room of ARCHITECTURE.md"));
    };
    let floor = floors.get(room)?;
    if above < floor {
        return None;
    }
    let relation = if above == floor { "a neighbour on the same floor" } else { "a room further up" };
    Some(format!(
        "`{room}` (floor {floor}) imports `{target}` (floor {above}), {relation}: hand the value down as an argument, \
         or move what both need to a lower room"
    ))
}

/// The rows of the fenced block of ARCHITECTURE.md that begins with `first`: room → floor.
fn block(map: &str, first: &str) -> BTreeMap<String, u8> {
    let mut lines = map.lines().skip_while(|line| !line.starts_with(first));
    assert!(lines.next().is_some(), "ARCHITECTURE.md has no block that begins with `{first}`");
    let mut floors = BTreeMap::new();
    for line in lines.take_while(|line| !line.starts_with("```")) {
        if line.starts_with(' ') || line.is_empty() {
            continue; // the row before goes on
        }
        let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
        let floor = columns.get(1).and_then(|floor| floor.parse().ok());
        let floor = floor.unwrap_or_else(|| panic!("no floor in ARCHITECTURE.md's row `{line}`"));
        for name in columns[0].split(" · ") {
            let name = name.split('/').next().unwrap_or(name).trim_end_matches(".rs");
            floors.insert(name.to_owned(), floor);
        }
    }
    floors
}

/// Where a file stands: its room, and how many modules lie between it and the crate's root.
struct Home {
    room: String,
    depth: usize,
}

impl Home {
    fn of(file: &Path) -> Self {
        let parts: Vec<_> =
            file.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
        let named = parts.iter().filter(|part| *part != "mod").count();
        let depth = if parts[0] == "lib" || parts[0] == "main" { 0 } else { named };
        Self { room: parts[0].clone(), depth }
    }
}

/// A path that leads to a room from the crate's root.
#[derive(Debug, PartialEq)]
struct Import {
    line: usize,
    target: String,
}

/// Every room that `source` names: by `crate::room`, by `crate::{room, …}`, or by enough `super::` to reach the root
/// from a file that lies `depth` modules deep.
fn imports(source: &str, depth: usize) -> Vec<Import> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut inline = InlineModules::default();
    let mut at = 0;
    while at < tokens.len() {
        inline.step(&tokens, at);
        let after = match tokens[at].text {
            "crate" if text(&tokens, at + 1) == "::" => Some(at + 2),
            "super" => climb(&tokens, at, depth + inline.open()),
            _ => None,
        };
        let Some(after) = after else {
            at += 1;
            continue;
        };
        found.extend(targets(&tokens, after));
        at = after;
    }
    found
}

/// Where the path goes on after `super::super::…`, if that many steps lead from `depth` up to the crate's root.
fn climb(tokens: &[Token<'_>], at: usize, depth: usize) -> Option<usize> {
    let second_of_chain = at >= 2 && text(tokens, at - 1) == "::" && text(tokens, at - 2) == "super";
    let steps = (0..tokens.len())
        .take_while(|step| text(tokens, at + 2 * step) == "super" && text(tokens, at + 2 * step + 1) == "::")
        .count();
    (!second_of_chain && steps > 0 && steps >= depth).then_some(at + 2 * steps)
}

/// The rooms named where a path goes on at `at`: one, or those of a brace group.
fn targets(tokens: &[Token<'_>], at: usize) -> Vec<Import> {
    let import = |token: &Token<'_>| Import { line: token.line, target: token.text.to_owned() };
    if text(tokens, at) != "{" {
        return tokens.get(at).map(import).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut open = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "{" => open += 1,
            "}" => open -= 1,
            _ if open == 1 && matches!(text(tokens, index - 1), "{" | ",") => found.push(import(token)),
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    found
}

/// How many `mod name { … }` are open at a place in a file.
#[derive(Default)]
struct InlineModules {
    braces: usize,
    opened_at: Vec<usize>,
}

impl InlineModules {
    fn step(&mut self, tokens: &[Token<'_>], at: usize) {
        match tokens[at].text {
            "{" => {
                if at >= 2 && text(tokens, at - 2) == "mod" {
                    self.opened_at.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                self.opened_at.pop_if(|opened| *opened == self.braces);
            }
            _ => {}
        }
    }

    fn open(&self) -> usize {
        self.opened_at.len()
    }
}

/// A word or a mark of Rust source.
#[derive(Clone, Copy)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

/// The words and marks of `source`, without comments and literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < source.len() {
        let rest = &source[at..];
        let (length, is_token) = piece(rest);
        if is_token {
            tokens.push(Token { line, text: &rest[..length] });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// How long the first piece of `rest` is, and whether it is a token rather than space, a comment or a literal.
fn piece(rest: &str) -> (usize, bool) {
    let first = rest.chars().next().expect("not at the end");
    let until = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |found| from + found + end.len());
    if rest.starts_with("//") {
        (until("\n", 0), false)
    } else if rest.starts_with("/*") {
        (until("*/", 2), false)
    } else if let Some(hashes) = raw_string(rest) {
        let opening = rest.find('"').expect("a raw string opens with a quote") + 1;
        (until(&format!("\"{}", "#".repeat(hashes)), opening), false)
    } else if first == '"' {
        (quoted(rest, '"'), false)
    } else if first == '\'' {
        let is_char = rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'');
        if is_char { (quoted(rest, '\''), false) } else { (1, false) }
    } else if first.is_alphanumeric() || first == '_' {
        (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true)
    } else if rest.starts_with("::") {
        (2, true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

/// How many `#` the raw string at the beginning of `rest` has, if there is one.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length of the literal at the beginning of `rest`, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn read_map() -> String {
    read(Path::new("ARCHITECTURE.md"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

/// The top-level modules: every file and folder of `src` but `lib.rs`.
fn rooms_on_disk() -> Vec<String> {
    let mut rooms: Vec<_> = sources().iter().map(|file| Home::of(file).room).filter(|room| room != "lib").collect();
    rooms.dedup();
    rooms
}

/// Every Rust file below `src`, sorted.
fn sources() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of src can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n\n{}\n", faults.join("\n"));
}

/// The checks above see what they should: each row is a piece of source, where it lies, and the rooms it names.
#[test]
fn imports_are_found_however_they_are_written() {
    for (source, depth, rooms) in [
        ("use crate::cache::key::Key;", 1, vec!["cache"]),
        ("use crate::{cache::{key, memory}, price, units::*};", 1, vec!["cache", "price", "units"]),
        ("use crate::{\n    cache, // crate::ledger\n};", 1, vec!["cache"]),
        ("fn f() -> crate::record::Record { crate::app::run() }", 1, vec!["record", "app"]),
        ("pub(crate) fn f() {}", 1, vec![]),
        ("use crate::*;", 1, vec!["*"]),
        ("// crate::app\n/* crate::app */ /// crate::app", 1, vec![]),
        (r##"const A: &str = "crate::app"; const B: &str = r#""crate::app"#;"##, 1, vec![]),
        (r"const Q: char = '\''; use crate::app; const R: char = '\\';", 1, vec!["app"]),
        ("impl<'a> Of<'a> for crate::frames::Event<'a> {}", 1, vec!["frames"]),
        ("use super::price;", 1, vec!["price"]),
        ("use super::key;", 2, vec![]),
        ("use super::super::price;", 2, vec!["price"]),
        ("mod tests { use super::*; }", 1, vec![]),
        ("mod tests { use super::super::price; }", 1, vec!["price"]),
        ("mod tests { fn f() {} } use super::price;", 1, vec!["price"]),
        ("macro_rules! m { () => { $crate::units::Span } }", 1, vec!["units"]),
    ] {
        let found: Vec<_> = imports(source, depth).into_iter().map(|import| import.target).collect();
        assert_eq!(found, rooms, "in `{source}` at depth {depth}");
    }
}

#[test]
fn the_tree_is_read_row_by_row() {
    let map = "text\n```\nsrc/    floor  owns\napp.rs   7  rooms\n         and more\ncache/   2  keys\nunits · sse  0  words\n```\nsrc/ 1\n";
    let floors: Vec<_> = block(map, TREE).into_iter().collect();
    let expected = [("app", 7), ("cache", 2), ("sse", 0), ("units", 0)];
    assert_eq!(floors, expected.map(|(room, floor)| (room.to_owned(), floor)));
}
