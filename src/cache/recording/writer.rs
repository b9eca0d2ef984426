//! Writer: puts recordings into files, off the way of the calls they are of. One at a time and in order, so that of equal
//! requests the last one stays. What waits is bounded in bytes.
//!
//! A file is there with all of its content or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::cache::recording::Recording;
use crate::cache::recording::file::to_text;
use crate::units::Backlog;

/// Most KiB that wait to be written.
const MOST_WAITING_KIB: u32 = 64 << 10;
/// Most recordings that wait to be written.
const MOST_WAITING: usize = 1024;

/// Takes recordings to be written into one directory.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    /// Recordings for which there was no room.
    dropped: Arc<AtomicU64>,
}

/// Writes what [`Recorder`] takes.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    queue: mpsc::Receiver<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    name: String,
    recording: Recording,
    /// Given back once it is written.
    _room: OwnedSemaphorePermit,
}

/// Too much waits to be written already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be written")]
pub struct Full;

/// What takes recordings for the directory at `dir`, and what writes them.
#[must_use]
pub fn open(dir: &Path) -> (Recorder, Writer) {
    let (sender, queue) = mpsc::channel(MOST_WAITING);
    let room = Arc::new(Semaphore::new(MOST_WAITING_KIB as usize));
    (Recorder { queue: sender, room, dropped: Arc::default() }, Writer { dir: dir.to_owned(), queue })
}

impl Recorder {
    /// Has `recording` written into the file `name`.
    ///
    /// # Errors
    /// If too much waits already: then it is not written.
    pub fn take(&self, name: String, recording: Recording) -> Result<(), Full> {
        let bytes = recording.request.body.len() + recording.response.body.len();
        let size = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(MOST_WAITING_KIB);
        let put = || {
            let room = Arc::clone(&self.room).try_acquire_many_owned(size).ok()?;
            self.queue.try_send(Waiting { name, recording, _room: room }).ok()
        };
        put().ok_or_else(|| {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            Full
        })
    }

    /// Recordings that wait to be written.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let capacity = self.queue.max_capacity();
        Backlog {
            length: Some(capacity - self.queue.capacity()),
            capacity,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Resolves once all that was taken before is written, or nothing writes any more.
    pub async fn flush(&self) {
        // All the room there is: nothing waits.
        let _ = self.room.acquire_many(MOST_WAITING_KIB).await;
    }
}

impl Writer {
    /// Makes the directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// Writes what is taken, until nothing can take any more. Dropping the future drops what waits.
    pub async fn run(mut self) {
        while let Some(waiting) = self.queue.recv().await {
            let dir = self.dir.clone();
            let written = tokio::task::spawn_blocking(move || {
                let Waiting { name, recording, _room } = waiting;
                if let Err(error) = write(&dir, &name, &recording) {
                    let file = dir.join(&name);
                    tracing::warn!(file.path = %file.display(), error.message = %error, "a recording was not written");
                }
            });
            // A panic was told where it happened; the next recording is another one.
            let _ = written.await;
        }
    }
}

/// Writes a file beside its place, then moves it there.
fn write(dir: &Path, name: &str, recording: &Recording) -> io::Result<()> {
    // Hidden, so that one that stays behind is no recording; and no other weir's.
    let beside = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&beside, to_text(recording)).and_then(|()| fs::rename(&beside, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode};

    use super::*;
    use crate::cache::recording::file::load;
    use crate::cache::recording::{Request, Response};

    fn recording(size: usize) -> Recording {
        Recording {
            request: Request {
                method: Method::POST,
                provider: "p".into(),
                path: "/".into(),
                query: None,
                headers: HeaderMap::new(),
                body: Bytes::new(),
            },
            response: Response {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::from(vec![b'x'; size]),
                timing: Vec::new(),
            },
        }
    }

    #[tokio::test]
    async fn the_last_of_equal_requests_stays_and_all_are_there_once_flushed() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("a/b");
        let (recorder, writer) = open(&dir);
        writer.prepare().expect("it can be made");
        for size in 0..100 {
            recorder.take(format!("{}.json", size % 10), recording(size)).expect("room");
        }
        let writing = tokio::spawn(writer.run());
        recorder.flush().await;
        let found = load(&dir).expect("sound recordings");
        let sizes: Vec<usize> = found.values().map(|recording| recording.response.body.len()).collect();
        assert_eq!(sizes, (90..100).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(&dir).expect("readable").count(), 10, "nothing stays beside them");
        drop(recorder);
        writing.await.expect("it ends when nobody records any more");
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let (recorder, writer) = open(dir.path());
        let taken =
            (0..1000).take_while(|number| recorder.take(number.to_string(), recording(1 << 20)).is_ok()).count();
        assert_eq!(taken, 63, "of a MiB and a little each");
        let full = Backlog { length: Some(63), capacity: MOST_WAITING, dropped: 1 };
        assert_eq!(recorder.backlog(), full);
        drop(writer);
        recorder.flush().await;
        assert_eq!(recorder.take("late".to_owned(), recording(1)), Err(Full), "nobody writes any more");
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_does_not_stop_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("recordings");
        let (recorder, writer) = open(&place);
        let writing = tokio::spawn(writer.run());
        recorder.take("one.json".to_owned(), recording(1)).expect("room");
        recorder.flush().await;
        fs::create_dir(&place).expect("a directory");
        recorder.take("two.json".to_owned(), recording(1)).expect("room");
        recorder.flush().await;
        assert_eq!(load(&place).expect("sound").into_keys().collect::<Vec<_>>(), ["two.json"]);
        writing.abort();
    }
}
