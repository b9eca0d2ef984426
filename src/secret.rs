//! Secret: a string that prints `[redacted]`, wherever it is printed, and a file that holds one and may change.
//!
//! Knows nothing of who uses it. There is no way to serialise one.

use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use tokio::time::{MissedTickBehavior, interval};

/// How often a file is read again. Kubernetes swaps a mounted secret by a symlink, which only reading notices
/// everywhere.
pub const REREAD_EVERY: Duration = Duration::from_secs(2);

/// A credential. `Debug` and `Display` show `[redacted]`; [`Secret::expose`] is the only way to the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The credential itself; for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What came of reading a file again that weir watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// What is in it now is in force.
    Taken,
    /// It cannot be used: what was good before stays in force.
    Refused,
}

/// Told what came of it, whenever something has changed.
pub type Told = Box<dyn Fn(Reread) + Send + Sync>;

/// Reads the file at `path` again and again, and gives it to `take`, which says whether that changed anything, or why
/// it cannot be used; complains of that once. Whatever changes, `told` is told. `what` names the secret. Runs until it is
/// dropped.
pub async fn reread<E: fmt::Display>(
    path: &Path,
    what: &'static str,
    told: Told,
    mut take: impl FnMut(io::Result<Secret>) -> Result<bool, E>,
) {
    let mut ticks = interval(REREAD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = false;
    loop {
        ticks.tick().await;
        let taken = take(tokio::fs::read_to_string(path).await.map(Secret::new));
        match &taken {
            Ok(true) => {
                tracing::info!(file.path = %path.display(), "the {what} has changed");
                told(Reread::Taken);
            }
            Ok(false) if complained => told(Reread::Taken),
            Err(error) if !complained => {
                tracing::warn!(error.message = %error, file.path = %path.display(), "keeping the last good {what}");
                told(Reread::Refused);
            }
            Ok(false) | Err(_) => {}
        }
        complained = taken.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_change_is_told_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, "first").expect("a written file");
        let came = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&came);
        let told = Box::new(move |what| noted.lock().expect("one thread").push(what));
        let mut current = "first".to_owned();
        let read = Arc::new(Mutex::new(0));
        let reads = Arc::clone(&read);
        let take = move |secret: io::Result<Secret>| {
            *reads.lock().expect("one thread") += 1;
            let secret = secret.map_err(|_| "not there")?;
            if secret.expose().is_empty() {
                return Err("empty");
            }
            let is_new = current != secret.expose();
            secret.expose().clone_into(&mut current);
            Ok(is_new)
        };
        let watched = path.clone();
        let reading = tokio::spawn(async move { reread(&watched, "secret", told, take).await });
        for (rule, text, expected) in [
            ("nothing has changed", Some("first"), &[][..]),
            ("another one", Some("second"), &[Reread::Taken]),
            ("none", Some(""), &[Reread::Refused]),
            ("no file: still none", None, &[]),
            ("the last good one again", Some("second"), &[Reread::Taken]),
            ("and again another one", Some("third"), &[Reread::Taken]),
        ] {
            match text {
                // At once, as Kubernetes does it: a file that is written in place is empty for a moment.
                Some(text) => {
                    let next = dir.path().join("next");
                    std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &path)).expect("a written file");
                }
                None => std::fs::remove_file(&path).expect("a removed file"),
            }
            // One that had begun may have seen what was there before.
            let seen = *read.lock().expect("one thread") + 2;
            while *read.lock().expect("one thread") < seen {
                tokio::time::advance(REREAD_EVERY).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(*came.lock().expect("one thread"), expected, "{rule}");
            came.lock().expect("one thread").clear();
        }
        reading.abort();
    }

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("sk-live");
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        assert_eq!(secret.expose(), "sk-live");
    }
}
