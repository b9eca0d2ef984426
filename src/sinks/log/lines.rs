//! Lines: what waits to be written to standard error, and the one thread that writes it.
//!
//! To say a line is to append it to a buffer. The first one there wakes the thread, which lets more of them gather for a
//! moment and writes them all at once: what costs is waking somebody, and writing, not saying. Where the reader of
//! standard error is slow, lines are lost and counted; nobody waits for it.

use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::redact::Redactor;
use crate::units::Backlog;

/// Most lines that wait.
const MOST_LINES: usize = 8192;
/// Most bytes of lines that wait: half a kilobyte for each of them.
const MOST_BYTES: usize = 4 << 20;
/// How long lines gather.
const GATHER: Duration = Duration::from_millis(20);
/// How long the last lines have to be written when weir ends: whoever should read them may have stopped.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// Where lines are said.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    something: Condvar,
}

/// Lines that wait.
#[derive(Debug, Default)]
struct Gathered {
    text: Vec<u8>,
    lines: Vec<Line>,
    lost: u64,
    is_ending: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Where it ends.
    end: usize,
    /// Whether all that must not be told has been taken out of it.
    is_tidy: bool,
}

impl Lines {
    /// Says a line, which ends with a line feed, of which nothing has to be taken out any more.
    pub(super) fn say_tidy(&self, line: &[u8]) {
        self.say(line, true);
    }

    fn say(&self, line: &[u8], is_tidy: bool) {
        let mut gathered = self.0.lock();
        if gathered.lines.len() == MOST_LINES || gathered.text.len() + line.len() > MOST_BYTES {
            gathered.lost += 1;
            return;
        }
        gathered.text.extend_from_slice(line);
        let end = gathered.text.len();
        gathered.lines.push(Line { end, is_tidy });
        let is_first = gathered.lines.len() == 1;
        drop(gathered);
        if is_first {
            self.0.something.notify_one();
        }
    }

    /// How many wait.
    pub(super) fn backlog(&self) -> Backlog {
        let gathered = self.0.lock();
        Backlog { length: Some(gathered.lines.len()), capacity: MOST_LINES, dropped: gathered.lost }
    }

    /// Has a thread of its own write all that is said to `to`, without what `redactor` finds, until the guard is dropped.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub(super) fn write_to(&self, to: impl Write + Send + 'static, tidy: Tidy) -> io::Result<Writing> {
        let (done, is_done) = sync_channel(1);
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("weir-log".to_owned()).spawn(move || write(&shared, to, &tidy, &done))?;
        Ok(Writing { lines: self.clone(), is_done })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that `tracing` says.
impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    /// `tracing` brings a line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.say(line, false);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread is there for as long as this is, and writes what is waiting when this is dropped.
#[derive(Debug)]
pub(super) struct Writing {
    lines: Lines,
    is_done: Receiver<()>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.lines.0.lock().is_ending = true;
        self.lines.0.something.notify_one();
        // What cannot be written by then is lost with the process.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
            self.is_done.recv_timeout(LAST_WITHIN);
    }
}

/// What takes out of a line what must not be told.
#[derive(Debug)]
pub(super) struct Tidy {
    pub(super) redactor: Arc<Redactor>,
    pub(super) is_json: bool,
}

impl Tidy {
    fn add(&self, line: &[u8], to: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let text = if self.is_json { self.redactor.redact_json(&text) } else { self.redactor.redact(&text) };
        to.extend_from_slice(text.as_bytes());
    }
}

fn write(shared: &Shared, mut to: impl Write, tidy: &Tidy, done: &SyncSender<()>) {
    let mut taken = Gathered::default();
    let mut written = Vec::new();
    loop {
        let is_ending = take(shared, &mut taken);
        let mut begin = 0;
        for Line { end, is_tidy } in taken.lines.drain(..) {
            let line = &taken.text[begin..end];
            if is_tidy {
                written.extend_from_slice(line);
            } else {
                tidy.add(line, &mut written);
            }
            begin = end;
        }
        taken.text.clear();
        // There is nowhere to say that nothing can be said.
        let _ = to.write_all(&written).and_then(|()| to.flush());
        written.clear();
        if is_ending {
            // Whoever ends weir may have stopped waiting.
            let _ = done.try_send(());
            return;
        }
    }
}

/// Waits for lines, lets more of them gather, and takes them; whether there will be no more.
fn take(shared: &Shared, taken: &mut Gathered) -> bool {
    let wait = |gathered: &mut Gathered| gathered.lines.is_empty() && !gathered.is_ending;
    let gathered = shared.something.wait_while(shared.lock(), wait).unwrap_or_else(PoisonError::into_inner);
    let gathering = shared.something.wait_timeout_while(gathered, GATHER, |gathered| !gathered.is_ending);
    let (mut gathered, _) = gathering.unwrap_or_else(PoisonError::into_inner);
    mem::swap(&mut gathered.text, &mut taken.text);
    mem::swap(&mut gathered.lines, &mut taken.lines);
    gathered.is_ending
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn tidy(is_json: bool) -> Tidy {
        Tidy { redactor: Arc::new(Redactor::new(&[]).expect("what weir knows")), is_json }
    }

    /// Hands on what is written.
    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_line_holds_what_must_not_be_told_and_json_stays_json() {
        let key = format!("sk-{}", "a1B2c3D4".repeat(6));
        for (is_json, line, expected) in [
            (
                true,
                format!("{{\"message\":\"no \\\"{key}\\\"\"}}\n"),
                "{\"message\":\"no \\\"[redacted:api_key]\\\"\"}\n",
            ),
            (false, format!("WARN weir: no {key} user=x\n"), "WARN weir: no [redacted:api_key] user=x\n"),
        ] {
            let mut written = Vec::new();
            tidy(is_json).add(line.as_bytes(), &mut written);
            assert_eq!(String::from_utf8(written).expect("text"), expected);
        }
    }

    #[test]
    fn lines_come_in_the_order_in_which_they_were_said_and_the_last_ones_too() {
        let (told, heard) = mpsc::channel();
        let lines = Lines::default();
        let writing = lines.write_to(Told(told), tidy(false)).expect("a thread");
        (&lines).write_all(b"one\n").expect("never fails");
        lines.say_tidy(b"two\n");
        (&lines).write_all(b"three\n").expect("never fails");
        drop(writing);
        assert_eq!(heard.iter().collect::<Vec<_>>().concat(), b"one\ntwo\nthree\n");
        assert_eq!(lines.backlog().length, Some(0));
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_nobody_s_time() {
        let lines = Lines::default();
        for _ in 0..MOST_LINES + 3 {
            lines.say_tidy(b"a line\n");
        }
        let Backlog { length, capacity, dropped } = lines.backlog();
        assert_eq!((length, capacity, dropped), (Some(MOST_LINES), MOST_LINES, 3));

        let lines = Lines::default();
        let line = vec![b'x'; MOST_BYTES / 2];
        for _ in 0..3 {
            lines.say_tidy(&line);
        }
        assert_eq!((lines.backlog().length, lines.backlog().dropped), (Some(2), 1));
    }

    #[test]
    fn weir_ends_although_nobody_reads_its_last_lines() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Until the test is over.
                let _ = self.0.recv();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_over, is_over) = mpsc::channel();
        let lines = Lines::default();
        let writing = lines.write_to(Stuck(is_over), tidy(false)).expect("a thread");
        lines.say_tidy(b"unread\n");
        drop(writing);
    }
}
