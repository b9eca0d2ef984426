//! Kept: one thing that survives a restart. It is read once, at start, and written behind: by one task, at most once a
//! second, only when it has changed, and never on a thread that serves calls.
//!
//! Knows when to write, and whom to tell that it cannot be done; not what is kept.

use std::error::Error;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::state::file::Form;
use crate::state::place::{Failure, Found, Place, Unusable};

/// How often it is looked whether something has changed: the most that a sudden end can lose.
const EVERY: Duration = Duration::from_secs(1);
/// A disk that takes longer does not keep up.
const SLOW: Duration = Duration::from_secs(10);

/// Something that can be kept.
pub trait Keep: Send + Sync + 'static {
    /// What of it is kept.
    type State: Serialize + DeserializeOwned + Send;

    /// The name of its file.
    const FILE: &'static str;
    /// The version of [`Keep::State`]: another one whenever its meaning changes.
    const VERSION: u32;

    /// A number that is another one whenever [`Keep::state`] is: 0 as long as that is what it was at start. Asked once a
    /// second.
    fn revision(&self) -> u64;

    /// What is to be kept now. May take its time: no call waits for it.
    fn state(&self) -> Self::State;
}

/// The file of a `K`.
#[derive(Debug)]
pub struct Kept<K> {
    desk: Mutex<Desk>,
    /// Whether what there is to keep is not kept.
    is_failing: AtomicBool,
    keeps: PhantomData<fn(K)>,
}

/// What whoever writes has before them.
#[derive(Debug)]
struct Desk {
    /// None if nothing is kept.
    place: Option<Place>,
    /// The revision that is in the file, or was found there.
    written: u64,
}

impl<K: Keep> Kept<K> {
    /// Opens the file of a `K` in `dir`, and reads what it keeps from before, if it does. Whatever is wrong is logged: weir
    /// starts all the same. Waits for the disk.
    #[must_use]
    pub fn open(dir: Option<&Path>) -> (Arc<Self>, Option<K::State>) {
        let Some(dir) = dir else {
            tracing::warn!(
                file.name = K::FILE,
                "nothing survives a restart: there is no directory for it; name one as `state_dir`"
            );
            return (Arc::new(Self::new(None)), None);
        };
        let mut place = Place::new(dir.to_owned(), Form { name: K::FILE, version: K::VERSION });
        let taken = place.take();
        if let Err(failure @ Failure::Taken(_)) = &taken {
            tracing::warn!(
                error.message = %failure,
                "nothing of this weir survives a restart: name another directory as `state_dir`"
            );
            return (Arc::new(Self::new(None)), None);
        }
        let found = match place.read() {
            Found::Nothing => None,
            Found::Kept(state) => {
                tracing::info!(file.path = %place.path().display(), "goes on with what was kept before");
                Some(state)
            }
            Found::Damaged(unusable, aside) => {
                complain_of(&place.path(), &unusable, &aside);
                None
            }
        };
        let kept = Self::new(Some(place));
        // A directory that cannot be written may still be read; and it may be mended while weir runs.
        kept.note(taken);
        (Arc::new(kept), found)
    }

    fn new(place: Option<Place>) -> Self {
        let is_failing = AtomicBool::new(place.is_none());
        Self { desk: Mutex::new(Desk { place, written: 0 }), is_failing, keeps: PhantomData }
    }

    /// Whether what there is to keep is not kept now: there is no place for it, or the disk fails or is slow.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Keeps `what` whenever it has changed, for ever. Dropping the future may leave a last write to be done, which
    /// [`Kept::keep_now`] waits for.
    pub async fn keep(self: Arc<Self>, what: Arc<K>) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if !self.is_due(&what) {
                continue;
            }
            let mut writing = std::pin::pin!(Arc::clone(&self).keep_now(Arc::clone(&what)));
            if timeout(SLOW, &mut writing).await.is_err() {
                self.note(Err(Failure::Slow(SLOW)));
                writing.await;
            }
        }
    }

    /// Keeps `what` now, if it has changed. Dropping the future leaves it to be done.
    pub async fn keep_now(self: Arc<Self>, what: Arc<K>) {
        // A panic was told where it happened.
        let _ = spawn_blocking(move || self.write(&*what)).await;
    }

    /// Whether there is something to write.
    ///
    /// Only locked by others while they write, and then the one who keeps waits for them elsewhere.
    fn is_due(&self, what: &K) -> bool {
        match self.desk.try_lock() {
            Ok(desk) => desk.place.is_some() && desk.written != what.revision(),
            Err(_) => true,
        }
    }

    fn write(&self, what: &K) {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = what.revision();
        let Desk { place: Some(place), written } = &mut *desk else { return };
        if *written == revision {
            return;
        }
        let outcome = place.write(&what.state());
        if outcome.is_ok() {
            *written = revision;
        }
        let is_taken = matches!(outcome, Err(Failure::Taken(_)));
        self.note(outcome);
        if is_taken {
            // What the other one keeps is not to be overwritten when it ends.
            desk.place = None;
        }
    }

    /// Complains of a failure, unless that has been done since it last worked.
    fn note(&self, outcome: Result<(), Failure>) {
        let is_failing = outcome.is_err();
        let was_failing = self.is_failing.swap(is_failing, Ordering::Relaxed);
        match outcome {
            Ok(()) if was_failing => tracing::info!(file.name = K::FILE, "is kept again"),
            Err(failure) if !was_failing => tracing::warn!(
                file.name = K::FILE,
                error.message = %failure,
                error.cause = failure.source().map(tracing::field::display),
                "cannot be kept: calls go on, and what they change would not survive a restart"
            ),
            Ok(()) | Err(_) => {}
        }
    }
}

fn complain_of(path: &Path, unusable: &Unusable, aside: &io::Result<PathBuf>) {
    let becomes = match aside {
        Ok(aside) => format!("set aside as {}", aside.display()),
        Err(error) => format!("cannot be set aside: {error}"),
    };
    tracing::warn!(
        file.path = %path.display(),
        error.message = %unusable,
        error.cause = unusable.source().map(tracing::field::display),
        "what was kept before is of no use, and {becomes}; weir starts without it"
    );
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::sync::atomic::AtomicU64;

    use tempfile::TempDir;

    use super::*;

    /// A number that counts how often it is asked for.
    #[derive(Debug, Default)]
    struct Number {
        value: AtomicU64,
        asked: AtomicU64,
    }

    impl Number {
        fn set(&self, value: u64) {
            self.value.store(value, Ordering::SeqCst);
        }
    }

    impl Keep for Number {
        type State = Vec<u64>;

        const FILE: &'static str = "number.json";
        const VERSION: u32 = 1;

        fn revision(&self) -> u64 {
            self.value.load(Ordering::SeqCst)
        }

        /// Long enough for damage to have somewhere to be.
        fn state(&self) -> Vec<u64> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            vec![self.value.load(Ordering::SeqCst); 100]
        }
    }

    fn open(dir: &Path) -> (Arc<Kept<Number>>, Option<u64>) {
        let (kept, state) = Kept::open(Some(dir));
        (kept, state.map(|state| state[0]))
    }

    /// What a weir that starts now finds. The one before has ended, but a process that another test starts has its lock as
    /// well, from its fork to its exec.
    fn found(dir: &Path) -> Option<u64> {
        let mut tries = (0..1000).map(|_| open(dir)).inspect(|_| std::thread::yield_now());
        tries.find(|(kept, _)| !kept.is_failing()).expect("it is free soon").1
    }

    async fn keep(kept: &Arc<Kept<Number>>, value: u64) {
        let number = Number::default();
        number.set(value);
        Arc::clone(kept).keep_now(Arc::new(number)).await;
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn temporary() -> TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[tokio::test]
    async fn what_was_kept_is_found_and_nobody_else_may_read_it() {
        let dir = temporary();
        let dir = dir.path().join("made/on/the/way");
        let (kept, before) = open(&dir);
        assert_eq!(before, None);
        for value in 1..=3 {
            keep(&kept, value).await;
        }
        assert!(!kept.is_failing());
        drop(kept);
        assert_eq!(found(&dir), Some(3));
        assert_eq!(names(&dir), ["lock", "number.json"], "nothing else stays");
        for (path, mode) in [(dir.clone(), 0o700), (dir.join("number.json"), 0o600), (dir.join("lock"), 0o600)] {
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, mode, "{path:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_once_a_second_and_only_when_it_has_changed() {
        let dir = temporary();
        let (kept, _) = open(dir.path());
        let number = Arc::new(Number::default());
        let keeping = tokio::spawn(Arc::clone(&kept).keep(Arc::clone(&number)));
        let asked = || number.asked.load(Ordering::SeqCst);
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!((asked(), names(dir.path())), (0, vec!["lock".to_owned()]), "there is nothing to keep yet");
        for second in 1..=5 {
            for part in 0..10 {
                number.set(second * 10 + part);
                tokio::time::sleep(EVERY / 10).await;
            }
        }
        tokio::time::sleep(EVERY).await;
        let written = asked();
        assert!((2..=6).contains(&written), "{written} times in five seconds");
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(asked(), written, "it has not changed since");
        keeping.abort();
        let _ = keeping.await;
        drop(kept);
        assert_eq!(found(dir.path()), Some(59));
    }

    /// Whatever a kill in the middle of writing leaves: the part of a new file that was written so far.
    #[tokio::test]
    async fn a_write_that_was_cut_short_leaves_what_was_kept_before() {
        let dir = temporary();
        let (kept, _) = open(dir.path());
        keep(&kept, 7).await;
        let whole = fs::read(dir.path().join("number.json")).expect("it is there");
        drop(kept);
        for cut in [0, 1, whole.len() / 2, whole.len()] {
            fs::write(dir.path().join("number.json.new"), &whole[..cut]).expect("written");
            assert_eq!(found(dir.path()), Some(7));
        }
        let (kept, _) = open(dir.path());
        keep(&kept, 8).await;
        drop(kept);
        assert_eq!(
            (found(dir.path()), names(dir.path())),
            (Some(8), vec!["lock".to_owned(), "number.json".to_owned()])
        );
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_weir_starts_without_it() {
        let dir = temporary();
        let path = dir.path().join("number.json");
        let (kept, _) = open(dir.path());
        keep(&kept, 7).await;
        drop(kept);
        let whole = fs::read(&path).expect("it is there");
        let text = String::from_utf8(whole.clone()).expect("text");
        let damaged = [
            whole[..whole.len() / 2].to_vec(),
            Vec::new(),
            text.replace("7,7", "7,8").into_bytes(),
            text.replace("\"version\":1", "\"version\":2").into_bytes(),
            vec![0; whole.len()],
        ];
        for bytes in damaged {
            fs::write(&path, &bytes).expect("written");
            assert_eq!(found(dir.path()), None);
            let aside = names(dir.path()).into_iter().find(|name| name.contains("corrupt")).expect("set aside");
            let time = aside.strip_prefix("number.json.corrupt-").expect("named after the file");
            assert!(time.len() == 16 && time.starts_with("20") && &time[8..9] == "T" && time.ends_with('Z'), "{aside}");
            let aside = dir.path().join(aside);
            assert_eq!(fs::read(&aside).expect("it is there"), bytes, "as it was");
            fs::remove_file(aside).expect("removed");
            let (kept, _) = open(dir.path());
            keep(&kept, 9).await;
            drop(kept);
            assert_eq!(found(dir.path()), Some(9), "the next one is kept as ever");
        }
    }

    #[tokio::test]
    async fn few_damaged_files_stay() {
        let dir = temporary();
        for second in 10..30 {
            fs::write(dir.path().join(format!("number.json.corrupt-202001{second}T000000Z")), "x").expect("written");
        }
        fs::write(dir.path().join("number.json"), "x").expect("written");
        assert_eq!(found(dir.path()), None);
        let names = names(dir.path());
        assert_eq!(names.len(), 1 + 8, "{names:?}");
        assert!(names.contains(&"number.json.corrupt-20200129T000000Z".to_owned()), "the newest: {names:?}");
    }

    #[tokio::test]
    async fn what_is_no_file_is_set_aside_too() {
        let dir = temporary();
        fs::create_dir(dir.path().join("number.json")).expect("made");
        assert_eq!(found(dir.path()), None);
        let (kept, _) = open(dir.path());
        keep(&kept, 1).await;
        assert!(!kept.is_failing());
    }

    #[tokio::test]
    async fn only_the_first_of_two_weirs_keeps_anything() {
        let dir = temporary();
        let (first, _) = open(dir.path());
        keep(&first, 1).await;
        let (second, before) = open(dir.path());
        assert_eq!(before, None, "what the first has spent, the second has not");
        keep(&second, 2).await;
        assert!(second.is_failing() && !first.is_failing());
        drop(first);
        keep(&second, 3).await;
        drop(second);
        assert_eq!(found(dir.path()), Some(1), "not overwritten by one that does not know it");
    }

    #[tokio::test]
    async fn without_a_directory_nothing_is_kept() {
        let (kept, before) = Kept::<Number>::open(None);
        assert!(before.is_none() && kept.is_failing());
        keep(&kept, 1).await;
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_tried_again() {
        let dir = temporary();
        let place = dir.path().join("place");
        fs::write(&place, "a file").expect("written");
        let (kept, before) = open(&place);
        assert!(before.is_none() && kept.is_failing());
        keep(&kept, 1).await;
        assert!(kept.is_failing());
        fs::remove_file(&place).expect("removed");
        keep(&kept, 2).await;
        assert!(!kept.is_failing());
        drop(kept);
        assert_eq!(found(&place), Some(2));
    }

    #[tokio::test]
    async fn a_directory_that_nobody_may_write_keeps_nothing() {
        let (kept, before) = open(Path::new("/proc/weir"));
        assert!(before.is_none() && kept.is_failing());
        keep(&kept, 1).await;
        assert!(kept.is_failing());
    }

    #[tokio::test]
    async fn a_directory_that_is_removed_is_made_again() {
        let dir = temporary();
        let place = dir.path().join("place");
        let (kept, _) = open(&place);
        keep(&kept, 1).await;
        fs::remove_dir_all(&place).expect("removed");
        keep(&kept, 2).await;
        keep(&kept, 3).await;
        assert!(!kept.is_failing());
        assert_eq!(Kept::<Number>::open(Some(&place)).1, None, "and locked again");
        drop(kept);
        assert_eq!(found(&place), Some(3));
    }

    /// `/dev/full` refuses every byte, as a full disk does.
    #[tokio::test]
    async fn a_full_disk_leaves_what_was_kept_before() {
        let dir = temporary();
        let (kept, _) = open(dir.path());
        keep(&kept, 1).await;
        symlink("/dev/full", dir.path().join("number.json.new")).expect("linked");
        keep(&kept, 2).await;
        assert!(kept.is_failing());
        assert_eq!(names(dir.path()), ["lock", "number.json"], "no half of a file takes up room");
        drop(kept);
        assert_eq!(found(dir.path()), Some(1));
        let (kept, _) = open(dir.path());
        keep(&kept, 3).await;
        assert!(!kept.is_failing(), "there is room again");
    }

    /// Opening a pipe that nobody reads takes for ever, as a network's disk may.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_told_and_holds_up_nobody() {
        let dir = temporary();
        let (kept, _) = open(dir.path());
        let pipe = dir.path().join("number.json.new");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let number = Arc::new(Number::default());
        number.set(1);
        let keeping = tokio::spawn(Arc::clone(&kept).keep(Arc::clone(&number)));
        while number.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!kept.is_failing());
        tokio::time::advance(SLOW + EVERY).await;
        while !kept.is_failing() {
            tokio::task::yield_now().await;
        }
        // Read at last: no file that could be made safe, so the next write is a new one.
        let mut reader = spawn_blocking(move || fs::read(pipe));
        while kept.is_failing() {
            tokio::time::advance(EVERY).await;
            tokio::task::yield_now().await;
        }
        assert!((&mut reader).await.expect("no panic").is_ok());
        keeping.abort();
        let _ = keeping.await;
        drop(kept);
        assert_eq!(found(dir.path()), Some(1));
    }
}
