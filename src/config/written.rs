//! Written: all that was written in the places where a configuration may be, brought into one shape. It need not make
//! sense.
//!
//! Knows where to look, and what wins; the mistakes of shape are noted, those of sense are the business of
//! `config::checks`.

use std::fs;
use std::io::{self, Read};
use std::path::Path as FilePath;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::env::{self, DEFAULTS};
use crate::config::file::File;
use crate::config::knob::Knob;
use crate::config::mistake::{Mistake, Origin, Path};
use crate::config::tree::Tree;
use crate::config::{Flag, Presence, Revision, Sources};

/// A configuration is a few kilobytes; this is a guard against the wrong file.
const MOST_BYTES: u64 = 1 << 20;

/// All that was written.
pub(super) struct Written {
    pub(super) file: File,
    pub(super) tree: Tree,
    pub(super) mistakes: Vec<Mistake>,
    /// What is not known here, where that is no mistake.
    pub(super) left_out: Vec<Mistake>,
    pub(super) revision: Revision,
}

impl Written {
    /// Looks everywhere.
    pub(super) fn read(sources: &Sources) -> Self {
        let (mut mistakes, mut left_out) = (Vec::new(), Vec::new());
        let mut tree = Tree::empty();
        if let Some(text) = sources.environment.get(DEFAULTS).filter(|text| !text.is_empty()) {
            match Tree::parse(text, DEFAULTS) {
                Ok(defaults) => tree = defaults,
                Err(mistake) => mistakes.push(mistake),
            }
        }
        tree.leave_out_unknown(&mut left_out);
        let (revision, over) = read_file(sources, &mut left_out);
        match over {
            Ok(over) => tree.lay(over),
            Err(mistake) => mistakes.push(mistake),
        }
        let unknown = env::apply(&sources.environment, &mut tree, &mut mistakes);
        for flag in &sources.flags {
            mistakes.extend(apply_flag(flag, &mut tree).err());
        }
        let file = tree.file(&mut mistakes);
        let similar = &file.cache.similar;
        let is_key = |name: &String| {
            let mut variables = file.providers.values().map(|provider| &provider.api_key_env);
            variables.any(|variable| variable.as_ref() == Some(name)) || similar.api_key_env.as_ref() == Some(name)
        };
        mistakes.extend(unknown.iter().filter(|name| !is_key(name)).map(|name| env::unknown(name)));
        Self { file, tree, mistakes, left_out, revision }
    }

    /// What every knob's value is, as plain data.
    pub(super) fn of(knobs: &Value) -> Self {
        let (mut tree, mut mistakes) = (Tree::of(knobs.clone()), Vec::new());
        let file = tree.file(&mut mistakes);
        Self { file, tree, mistakes, left_out: Vec::new(), revision: None }
    }
}

/// Which text the file holds now, if it can be read.
///
/// # Errors
/// If it is there, and cannot be read.
pub(super) fn look(sources: &Sources) -> io::Result<Revision> {
    let Some(path) = &sources.file else { return Ok(None) };
    match read(path) {
        Ok(text) => Ok(Some(Sha256::digest(&text).into())),
        Err(error) if is_absent(&error, sources) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file that held something holds nothing at all now: it is being written, or was cut short by a disk that is
/// full. Nobody means every default by that.
pub(super) fn is_emptied(was: Revision, is: Revision) -> bool {
    let nothing: Revision = Some(Sha256::digest("").into());
    is == nothing && was.is_some() && was != nothing
}

/// That it was emptied.
pub(super) fn emptied(sources: &Sources) -> Mistake {
    let name = sources.file.as_deref().unwrap_or(FilePath::new("")).display().to_string();
    let message = "the file is empty, and was not: write it again, or `{}` for the defaults".to_owned();
    Mistake { origin: Origin::File { name: name.into(), line: None }, path: Path::default(), message }
}

/// What the file holds, and which text that is.
fn read_file(sources: &Sources, left_out: &mut Vec<Mistake>) -> (Revision, Result<Tree, Mistake>) {
    let Some(path) = &sources.file else { return (None, Ok(Tree::empty())) };
    let name = path.display().to_string();
    let whole = |message| Mistake {
        origin: Origin::File { name: name.as_str().into(), line: None },
        path: Path::default(),
        message,
    };
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if is_absent(&error, sources) => return (None, Ok(Tree::empty())),
        Err(error) => return (None, Err(whole(format!("the file cannot be read: {error}")))),
    };
    let revision = Some(Sha256::digest(&text).into());
    if text.len() as u64 > MOST_BYTES {
        let message = "the file is larger than 1 MiB: this cannot be a configuration".to_owned();
        return (revision, Err(whole(message)));
    }
    let mut tree = Tree::parse(&text, &name);
    if let Ok(tree) = &mut tree {
        match sources.presence {
            Presence::Required => tree.leave_out_version(left_out),
            Presence::IfPresent => tree.leave_out_unknown(left_out),
        }
    }
    (revision, tree)
}

/// No more of it than it takes to see that it is too large.
fn read(path: &FilePath) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn is_absent(error: &io::Error, sources: &Sources) -> bool {
    sources.presence == Presence::IfPresent && error.kind() == io::ErrorKind::NotFound
}

/// Sets the knob that `flag` names.
pub(super) fn apply_flag(flag: &Flag, tree: &mut Tree) -> Result<(), Mistake> {
    let origin = Origin::Flag(flag.name.to_owned());
    let names: Vec<String> = flag.path.split('.').map(str::to_owned).collect();
    let Some((path, knob)) = tree.locate(&names) else {
        let message = match Knob::nearest(&names) {
            Some(meant) => format!("unknown name: did you mean `{}`?", meant.join(".")),
            None => "unknown name: `weir config default` shows them all".to_owned(),
        };
        return Err(Mistake { origin, path: Path::of(names.iter().map(String::as_str)), message });
    };
    match knob.read(&flag.value) {
        Ok(value) => tree.set(&path, value, origin),
        Err(message) => return Err(Mistake { origin, path, message }),
    }
    Ok(())
}
