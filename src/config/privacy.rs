//! Privacy: can what was written of privacy be carried out? Notes every mistake there is.

use crate::config::checks::Checks;
use crate::config::file::File;
use crate::config::limits;
use crate::config::mistake::Path;
use crate::privacy::users::{UserIds, Users};
use crate::record::content::Capture;
use crate::redact::Redactor;
use crate::redact::kinds::Kind;
use crate::sinks::sides::Consumers;

/// Checks all of it; what finds what must not be told, if that can be made.
pub(super) fn check(file: &File, checks: &mut Checks<'_>) -> Option<Redactor> {
    capture(file, checks);
    users(file, checks);
    names(file, checks);
    let (patterns, knob) = (&file.privacy.patterns, |position| pattern(position).name("regex"));
    for (position, _) in patterns.iter().enumerate().filter(|(_, pattern)| pattern.regex.is_empty()) {
        checks.note(knob(position), "is missing: write what it looks like, such as 'E-[0-9]{6}'");
    }
    let mistakes = match Redactor::new(patterns) {
        Ok(redactor) => return Some(redactor),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        checks.note(knob(mistake.position), mistake.to_string());
    }
    None
}

fn pattern(position: usize) -> Path {
    Path::of(["privacy", "patterns"]).position(position)
}

/// A pattern's name is the value of a label.
fn names(file: &File, checks: &mut Checks<'_>) {
    let patterns = &file.privacy.patterns;
    for (position, it) in patterns.iter().enumerate() {
        let earlier = patterns[..position].iter().map(|earlier| earlier.name.as_str());
        limits::name(&it.name, "metrics and in the place of what is found", earlier, &pattern(position), checks);
        if Kind::ALL.iter().any(|kind| kind.as_str() == it.name) {
            let message = format!("`{}` is a kind that weir finds by itself: write another name", it.name);
            checks.note(pattern(position).name("name"), message);
        }
    }
}

fn users(file: &File, checks: &mut Checks<'_>) {
    if let Err(why) = Users::new(&file.privacy) {
        checks.note(Path::of(["privacy", "user_id_key_file"]), why.to_string());
    }
    if file.privacy.user_ids == UserIds::Off && file.telemetry.metrics.consumers != Consumers::Off {
        let message = "has nobody to name with `privacy.user_ids: off`: write `off` here too";
        checks.note(Path::of(["telemetry", "metrics", "consumers"]), message);
    }
}

/// What keeps more than the most that is kept would keep less than it says.
fn capture(file: &File, checks: &mut Checks<'_>) {
    let providers = { file.providers.iter() }.map(|(name, it)| (Path::of(["providers", name, "capture"]), it.capture));
    let namespace = |name| Path::of(["privacy", "namespaces", name]);
    let namespaces = { file.privacy.namespaces.iter() }.map(|(name, it)| (namespace(name), Some(*it)));
    let is_more = |capture: Option<Capture>| capture.is_some_and(|capture| capture > file.privacy.capture);
    for (path, _) in providers.chain(namespaces).filter(|(_, capture)| is_more(*capture)) {
        checks.note(
            path,
            "keeps more than `privacy.capture`, which is the most that is kept of any call: raise that first",
        );
    }
}
