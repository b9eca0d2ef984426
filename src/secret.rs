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

/// Reads the file at `path` again and again, and gives it to `take`, which says whether that changed anything, or why
/// it cannot be used; complains of that once. `what` names the secret. Runs until it is dropped.
pub async fn reread<E: fmt::Display>(
    path: &Path,
    what: &'static str,
    mut take: impl FnMut(io::Result<Secret>) -> Result<bool, E>,
) {
    let mut ticks = interval(REREAD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = false;
    loop {
        ticks.tick().await;
        let taken = take(tokio::fs::read_to_string(path).await.map(Secret::new));
        match &taken {
            Ok(true) => tracing::info!(file.path = %path.display(), "the {what} has changed"),
            Err(error) if !complained => {
                tracing::warn!(error.message = %error, file.path = %path.display(), "keeping the last good {what}");
            }
            Ok(false) | Err(_) => {}
        }
        complained = taken.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("sk-live");
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        assert_eq!(secret.expose(), "sk-live");
    }
}
