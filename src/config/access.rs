//! Access: does what was written of the admin side's tokens make sense? Notes every mistake there is.

use crate::admin::Settings;
use crate::admin::tokens::{ADMIN, READER, Role};
use crate::config::checks::Checks;
use crate::config::limits::name;
use crate::config::mistake::Path;

/// Checks all of them.
pub(super) fn check(settings: &Settings, checks: &mut Checks<'_>) {
    let admin = Path::of(["admin"]);
    for (knob, file) in [("token_file", &settings.token_file), ("reader_token_file", &settings.reader_token_file)] {
        if let Some(file) = file {
            checks.secret_file(admin.name(knob), file, "token");
        }
    }
    for (position, token) in settings.tokens.iter().enumerate() {
        let path = admin.name("tokens").position(position);
        let earlier = settings.tokens[..position].iter().map(|earlier| earlier.name.as_str());
        name(&token.name, "the audit log", earlier.chain([ADMIN, READER]), &path, checks);
        if token.file.as_os_str().is_empty() {
            checks.note(path.name("file"), "is missing: write the file that holds the token");
        } else {
            checks.secret_file(path.name("file"), &token.file, "token");
        }
        for (knob, bound) in [("workspace", &token.workspace), ("user", &token.user)] {
            if bound.as_ref().is_some_and(String::is_empty) {
                checks.note(path.name(knob), "is empty: write a name, or leave it out for all of them");
            } else if bound.is_some() && token.role == Role::Admin {
                let message =
                    "has no meaning with `role: admin`, which changes the whole instance: remove one of the two";
                checks.note(path.name(knob), message);
            }
        }
    }
    let has_none = settings.token_file.is_none() && settings.reader_token_file.is_none() && settings.tokens.is_empty();
    if settings.require_token && has_none {
        let message = "there is no token: add `admin.token_file`, `admin.reader_token_file` or `admin.tokens`";
        checks.note(admin.name("require_token"), message);
    }
}
