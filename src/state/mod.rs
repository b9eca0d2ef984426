//! State: what weir keeps on disk to know it again after a restart. Each thing kept is one file in one directory.
//!
//! Knows files and that they fail; not what is in them. Nothing here is ever in the way of a call: who has something to
//! keep is asked for it, at most once a second, and what cannot be kept is complained about and left.

pub mod aside;
pub mod file;
pub mod kept;
mod place;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The directory for what is kept where the operator names none: what systemd made for the service (`StateDirectory=`),
/// else a folder where programs keep their state by the XDG Base Directory Specification. None, if neither that nor a
/// home is known.
#[must_use]
pub fn default_dir(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    // A relative path is to be ignored, says the specification; of systemd's it would be as wrong.
    let absolute = |name: &str| {
        let value = environment.get(name)?;
        // systemd separates several with colons.
        let first = if name == "STATE_DIRECTORY" { value.split(':').next()? } else { value };
        Some(PathBuf::from(first)).filter(|path| path.is_absolute())
    };
    absolute("STATE_DIRECTORY")
        .or_else(|| absolute("XDG_STATE_HOME").map(|home| home.join("weir")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/weir")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_the_services_else_the_users() {
        let home = ("HOME", "/home/me");
        let xdg = ("XDG_STATE_HOME", "/state");
        for (variables, expected) in [
            (&[home, xdg, ("STATE_DIRECTORY", "/var/lib/weir")][..], Some("/var/lib/weir")),
            (&[("STATE_DIRECTORY", "/var/lib/weir:/var/lib/more")], Some("/var/lib/weir")),
            (&[home, xdg, ("STATE_DIRECTORY", "")], Some("/state/weir")),
            (&[home, xdg], Some("/state/weir")),
            (&[home, ("XDG_STATE_HOME", "state")], Some("/home/me/.local/state/weir")),
            (&[home, ("XDG_STATE_HOME", "")], Some("/home/me/.local/state/weir")),
            (&[home], Some("/home/me/.local/state/weir")),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(default_dir(&environment), expected.map(PathBuf::from), "{variables:?}");
        }
    }
}
