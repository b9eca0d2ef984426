//! Writer: the one thread that writes, and the side of it that calls see. A call hands its entry over and goes on,
//! whatever becomes of the disk: where there is no room, the entry is lost and counted.
//!
//! The thread looks into the queue a few times a second, and is woken early only where a whole batch waits: waking
//! somebody is what costs, not handing over. It opens the ledger, too, so that a large or a damaged one delays no call.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::ledger::content::{self, Kept};
use crate::ledger::entry::{Entry, Micros};
use crate::ledger::erase::{self, Erased};
use crate::ledger::home::{Home, Opened};
use crate::ledger::insert::{self, Inserter};
use crate::ledger::open::{Place, is_damage};
use crate::ledger::reader::Reader;
use crate::ledger::trouble::Trouble;
use crate::ledger::upkeep::{Bounds, Upkeep};
use crate::ledger::{Mode, Settings, Standing};
use crate::record::content::Content;
use crate::redact::Redactor;

/// Most entries in one transaction. More would wait in memory for little: a transaction takes as long as a few rows.
const BATCH: usize = 250;
/// How often the thread looks into the queue: the most that a sudden end can lose, and what a transaction adds to it.
const EVERY: Duration = Duration::from_millis(250);
/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the file is still there, and what has become of the bounds.
const LOOK: Duration = Duration::from_secs(1);
/// Most bytes of what was said that wait to be written, before they are compressed, and afterwards in one transaction.
/// Calls beyond are written without.
const MOST_CONTENT: usize = 16 << 20;
/// Most commands that wait.
const MOST_COMMANDS: usize = 64;

/// How many questions are answered at once.
const READERS: usize = 4;
/// How long a question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no ledger that could be written.
    #[error("the ledger cannot be written now")]
    Unavailable,
    /// Too many commands wait.
    #[error("the ledger is busy")]
    Busy,
    /// The database failed.
    #[error("the ledger failed")]
    Failed(#[source] rusqlite::Error),
}

/// Told how long a transaction took, by the thread that writes: it may not wait.
pub type Written = Box<dyn Fn(Duration) + Send>;

/// Done by the thread between two batches, once all that was offered before is written. Told why not, where there is
/// nothing to do it with.
type Command = Box<dyn FnOnce(Option<(&mut Connection, &mut Inserter)>) + Send>;

/// A call as it waits.
struct Offered {
    entry: Arc<Entry>,
    content: Option<Box<Content>>,
}

/// A call of a batch.
struct Taken {
    entry: Arc<Entry>,
    content: Option<Kept>,
}

impl Offered {
    fn content_bytes(&self) -> usize {
        self.content.as_ref().map_or(0, |content| content.len())
    }
}

impl insert::Written for Taken {
    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn content(&self) -> Option<&Kept> {
        self.content.as_ref()
    }
}

/// The ledger, as those see it who have something to write.
pub struct Ledger {
    /// Bounded by the count of those that wait: one with a bound of its own has the room for all of them from the beginning.
    queue: Sender<Offered>,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    reader: Reader,
}

/// Counts, and how to wake the thread.
#[derive(Debug)]
struct Shared {
    capacity: usize,
    waiting: AtomicUsize,
    written: AtomicU64,
    queue_full: AtomicU64,
    io_error: AtomicU64,
    /// Calls that were written without what was said in them.
    content_full: AtomicU64,
    /// Bytes of what was said that wait.
    content_bytes: AtomicUsize,
    size_bytes: AtomicU64,
    damaged: AtomicU64,
    is_ending: AtomicBool,
    thread: OnceLock<Thread>,
}

/// The ledger that `settings` ask for, with its file in `dir`, if there is one; and who writes it, which has to be
/// [run](Writer::run) on a thread of its own. `redactor` finds what must not stay of what was said, `written` is told how
/// long each transaction takes. `None` where there is to be no ledger.
#[must_use]
pub fn open(
    settings: &Settings,
    dir: Option<PathBuf>,
    redactor: Arc<Redactor>,
    written: Written,
) -> Option<(Ledger, Writer)> {
    let home = match (settings.mode, dir) {
        (Mode::Off, _) => return None,
        (Mode::Memory, _) => Home::memory(),
        (Mode::Disk, Some(dir)) => Home::dir(dir),
        (Mode::Disk, None) => {
            tracing::warn!(
                "calls are written down in memory only, until weir ends: there is no directory for them; name one as \
                 `state_dir`, or set `ledger.mode` to memory"
            );
            Home::memory()
        }
    };
    Some(at(home, Bounds::of(settings), settings.queue, redactor, written))
}

/// A ledger at `home`, with room for `capacity` calls that wait.
pub(super) fn at(
    home: Home,
    bounds: Bounds,
    capacity: usize,
    redactor: Arc<Redactor>,
    written: Written,
) -> (Ledger, Writer) {
    let (queue, offered) = mpsc::channel();
    let reader = Reader::new(ANSWER_WITHIN);
    let (commands, commanded) = mpsc::sync_channel(MOST_COMMANDS);
    let shared = Arc::new(Shared {
        capacity,
        waiting: AtomicUsize::new(0),
        written: AtomicU64::new(0),
        queue_full: AtomicU64::new(0),
        io_error: AtomicU64::new(0),
        content_full: AtomicU64::new(0),
        content_bytes: AtomicUsize::new(0),
        size_bytes: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
        is_ending: AtomicBool::new(false),
        thread: OnceLock::new(),
    });
    let writer = Writer {
        offered,
        commanded,
        shared: Arc::clone(&shared),
        reader: reader.clone(),
        redactor,
        written,
        home,
        upkeep: Upkeep::new(bounds),
        ledger: None,
        inserter: Inserter::default(),
        batch: Vec::with_capacity(BATCH),
        batch_content: 0,
        trouble: Trouble::default(),
        looked: None,
    };
    (Ledger { queue, commands, shared, reader }, writer)
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.shared).finish()
    }
}

impl Ledger {
    /// A call is over, and this is what was said in it, if anything of that is to be kept. Never waits.
    pub fn offer(&self, entry: Arc<Entry>, content: Option<Box<Content>>) {
        let offered = Offered { entry, content: content.filter(|content| self.shared.has_room_for(content)) };
        let content_bytes = offered.content_bytes();
        // Counted first, so that the thread never takes what was not counted.
        let before = self.shared.waiting.fetch_add(1, Ordering::Release);
        if before >= self.shared.capacity || self.queue.send(offered).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.content_bytes.fetch_sub(content_bytes, Ordering::Relaxed);
            self.shared.queue_full.fetch_add(1, Ordering::Relaxed);
        } else if before + 1 == BATCH {
            self.shared.wake();
        }
    }

    /// Who answers questions.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How it stands now; whoever asks keeps nothing alive by it.
    #[must_use = "it only says so when it is asked"]
    pub fn standing(&self) -> impl Fn() -> Standing + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.standing()
    }

    /// Takes every trace of the user `name` from the ledger, but for what their calls cost; `who` asked for that. Calls
    /// of theirs that end later are written down as ever.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was erased.
    pub async fn erase_user(&self, name: &str, who: &str) -> Result<Erased, Refused> {
        let (name, who) = (name.to_owned(), who.to_owned());
        self.command(move |ledger, inserter| {
            // What is remembered of the user would be written again.
            inserter.forget();
            erase::user(ledger, &name, &who, now())
        })
        .await
    }

    /// Notes that `who` did `action`; `detail` is a JSON object.
    ///
    /// # Errors
    /// [`Refused`]; then it is not noted.
    pub async fn audit(&self, who: &str, action: &'static str, detail: serde_json::Value) -> Result<(), Refused> {
        let who = who.to_owned();
        self.command(move |ledger, _| erase::audit(ledger, now(), &who, action, &detail)).await
    }

    /// Resolves once everything is written that was offered before.
    ///
    /// # Errors
    /// [`Refused`], if it cannot be.
    pub async fn flush(&self) -> Result<(), Refused> {
        self.command(|_, _| Ok(())).await
    }

    /// Has the thread write what waits, and end.
    pub fn end(&self) {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.wake();
    }

    async fn command<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &mut Inserter) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |ledger| {
            let done = match ledger {
                Some((ledger, inserter)) => work(ledger, inserter).map_err(Refused::Failed),
                None => Err(Refused::Unavailable),
            };
            // Nobody waits for it any more: it is done all the same.
            let _ = answer.send(done);
        });
        self.commands.try_send(command).map_err(|_| Refused::Busy)?;
        self.shared.wake();
        answered.await.unwrap_or(Err(Refused::Unavailable))
    }
}

impl Shared {
    /// Whether what was said in a call can wait with what waits already; if so, it does.
    fn has_room_for(&self, content: &Content) -> bool {
        let before = self.content_bytes.fetch_add(content.len(), Ordering::Relaxed);
        let has_room = before + content.len() <= MOST_CONTENT;
        if !has_room {
            self.content_bytes.fetch_sub(content.len(), Ordering::Relaxed);
            self.content_full.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn standing(&self) -> Standing {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let whole = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Standing {
            written: count(&self.written),
            queue_full: count(&self.queue_full),
            io_error: count(&self.io_error),
            content_full: count(&self.content_full),
            length: whole(self.waiting.load(Ordering::Relaxed).min(self.capacity)),
            capacity: whole(self.capacity),
            size_bytes: count(&self.size_bytes),
            damaged: count(&self.damaged),
        }
    }
}

/// What the thread has before it.
pub struct Writer {
    offered: Receiver<Offered>,
    commanded: Receiver<Command>,
    shared: Arc<Shared>,
    reader: Reader,
    redactor: Arc<Redactor>,
    written: Written,
    home: Home,
    upkeep: Upkeep,
    /// `None` before it is opened, and while it cannot be.
    ledger: Option<Opened>,
    inserter: Inserter,
    /// Taken from the queue, not yet written.
    batch: Vec<Taken>,
    /// Bytes of what was said in its calls.
    batch_content: usize,
    trouble: Trouble,
    /// When the file and the bounds were last looked at.
    looked: Option<Instant>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes until it is told to [end](Ledger::end), or nobody is there who could offer anything.
    pub fn run(mut self) {
        let _ = self.shared.thread.set(thread::current());
        loop {
            // Asked first: what was offered before it was said is written.
            let is_ending = self.shared.is_ending.load(Ordering::Acquire);
            let is_alone = !self.fill();
            let has_more = self.round();
            if (is_ending || is_alone) && !has_more {
                return self.leave();
            }
            if !has_more {
                thread::park_timeout(EVERY);
            }
        }
    }

    /// Fills the batch from the queue; `false` if nobody is left who could offer anything.
    fn fill(&mut self) -> bool {
        while !self.is_full() {
            match self.offered.try_recv() {
                Ok(offered) => self.take(offered),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn is_full(&self) -> bool {
        self.batch.len() == BATCH || self.batch_content > MOST_CONTENT
    }

    fn take(&mut self, offered: Offered) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.shared.content_bytes.fetch_sub(offered.content_bytes(), Ordering::Relaxed);
        let content = offered.content.map(|content| content::packed(content::kept(&content, &self.redactor)));
        let content = content.filter(|kept| !kept.is_empty());
        self.batch_content += content.as_ref().map_or(0, Kept::len);
        self.batch.push(Taken { entry: offered.entry, content });
    }

    fn clear_batch(&mut self) {
        self.batch.clear();
        self.batch_content = 0;
    }

    /// Does what there is to do; whether there is more of it that need not wait.
    fn round(&mut self) -> bool {
        let is_full = self.is_full();
        if !self.is_open() || !self.write() {
            self.make_room();
            self.refuse_commands();
            return false;
        }
        if is_full {
            return true;
        }
        self.carry_out_commands();
        self.look_after()
    }

    /// Whether there is a ledger to write into, after having tried to open one, where that is due.
    fn is_open(&mut self) -> bool {
        if self.ledger.is_some() {
            return true;
        }
        if self.trouble.is_younger_than(RETRY) {
            return false;
        }
        match self.home.open() {
            Ok(opened) => {
                self.shared.damaged.fetch_add(opened.damaged, Ordering::Relaxed);
                self.inserter.forget();
                self.upkeep.begin_anew(&opened.place);
                self.reader.open(readers(&opened.place));
                self.ledger = Some(opened);
                true
            }
            Err(error) => {
                self.trouble.note(&error);
                false
            }
        }
    }

    /// Writes the batch, if there is one; `false` if that cannot be done now.
    fn write(&mut self) -> bool {
        let Some(opened) = &mut self.ledger else { return false };
        if self.batch.is_empty() {
            return true;
        }
        if self.trouble.is_younger_than(RETRY) {
            return false;
        }
        let begun = Instant::now();
        let error = match self.inserter.insert(&mut opened.ledger, &self.batch) {
            Ok(()) => {
                (self.written)(begun.elapsed());
                let count = self.batch.len() as u64;
                self.shared.written.fetch_add(count, Ordering::Relaxed);
                self.clear_batch();
                self.trouble.end();
                return true;
            }
            Err(error) => error,
        };
        if is_hopeless(&error) {
            self.drop_batch();
        }
        self.close(&error);
        false
    }

    /// Something failed: the ledger is opened again before it is tried again.
    fn close(&mut self, error: &rusqlite::Error) {
        if is_damage(error) {
            self.home.distrust();
        }
        self.trouble.note(error);
        self.reader.close();
        self.ledger = None;
    }

    /// While nothing can be written, what is newest stays: a full queue takes the place of the batch.
    fn make_room(&mut self) {
        if self.shared.waiting.load(Ordering::Relaxed) >= self.shared.capacity {
            self.drop_batch();
        }
    }

    fn drop_batch(&mut self) {
        let lost = self.batch.len() as u64;
        self.shared.io_error.fetch_add(lost, Ordering::Relaxed);
        self.trouble.lost(lost);
        self.clear_batch();
    }

    /// Each after what was offered before it.
    fn carry_out_commands(&mut self) {
        while let Ok(command) = self.commanded.try_recv() {
            let is_written = self.write_what_waits();
            match &mut self.ledger {
                Some(opened) if is_written => command(Some((&mut opened.ledger, &mut self.inserter))),
                Some(_) | None => command(None),
            }
        }
    }

    /// Writes what waits now; `false` if that cannot be done.
    fn write_what_waits(&mut self) -> bool {
        let batches = self.shared.waiting.load(Ordering::Acquire).div_ceil(BATCH);
        (0..batches).all(|_| {
            self.fill();
            self.write()
        })
    }

    fn refuse_commands(&mut self) {
        while let Ok(command) = self.commanded.try_recv() {
            command(None);
        }
    }

    /// One step of what keeps the ledger within its bounds; whether there is another.
    fn look_after(&mut self) -> bool {
        let Some(opened) = &mut self.ledger else { return false };
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if is_due {
            self.looked = Some(Instant::now());
            if !opened.is_in_place() {
                tracing::warn!("the ledger's file is gone, and all that was in it; another one is begun");
                self.reader.close();
                self.ledger = None;
                return true;
            }
        }
        let step = self.upkeep.step(&mut opened.ledger, &mut self.inserter, now(), is_due);
        match step {
            Ok(step) => {
                if let Some(size) = step.size_bytes {
                    self.shared.size_bytes.store(size, Ordering::Relaxed);
                }
                step.has_more
            }
            Err(error) => {
                self.close(&error);
                false
            }
        }
    }

    /// What could not be written is lost.
    fn leave(mut self) {
        while self.fill() && !self.batch.is_empty() {
            self.drop_batch();
        }
        self.drop_batch();
        self.refuse_commands();
        self.reader.close();
    }
}

/// Connections for questions: fewer where there cannot be as many.
fn readers(place: &Place) -> Vec<Connection> {
    (0..READERS).filter_map(|_| place.read().ok()).collect()
}

/// Whether the same batch will fail again, however well the disk is.
fn is_hopeless(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        None | Some(
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ApiMisuse
        )
    )
}

fn now() -> Micros {
    crate::ledger::entry::micros(std::time::SystemTime::now())
}
