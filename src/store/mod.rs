//! Store: what replicas share, in Redis or Valkey. Commands that have to be answered within a deadline; and a breaker,
//! so that a server that is slow, frozen or gone costs calls a few milliseconds in all, not each.
//!
//! Knows no cache and no limit: what the commands mean is the business of whoever sends them. Which client library
//! speaks to the server is the business of `store::client`.

#[cfg(feature = "redis")]
pub mod client;
#[cfg(not(feature = "redis"))]
#[path = "absent.rs"]
pub mod client;
pub mod naming;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::store::client::{Commands, Connection, Server};
use crate::units::{ByteSize, Span};

/// How many failures in a row show that the server does not answer.
const MOST_FAILURES: u32 = 5;
/// How many answers in a row, each within the deadline, show that it does.
const PROBES: u32 = 3;
/// Most commands of calls under way at once. A call beyond them goes on without the store.
const MOST_IN_FLIGHT: usize = 256;
/// How often a server is asked whether it is there, so that it is not the calls that find out.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long to wait before connecting again; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a connection must have held for the waits to begin anew.
const STEADY: Duration = Duration::from_secs(10);
/// How long work that no call waits for may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the server answers to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is none.
    Nothing,
    /// A word, such as `OK`.
    Status(Box<str>),
    /// A number.
    Number(i64),
    /// What is stored.
    Bytes(Vec<u8>),
    /// Several.
    List(Vec<Answer>),
    /// No, and the code that says why: `OOM`, `READONLY`, `WRONGTYPE`, `LOADING`, `NOAUTH`, `MOVED` …
    Refused(Box<str>),
    /// Something that no command asked for.
    Unexpected,
}

impl Answer {
    /// What is stored, if that is what it is.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// No connection, or one that broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(Box<str>);

impl Failure {
    /// A failure for this reason.
    pub fn new(reason: impl Into<Box<str>>) -> Self {
        Self(reason.into())
    }
}

/// What the operator writes of the shared store.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the server is: `redis://host:6379`, `rediss://` for TLS, or `redis+unix:///path`. Write a
    /// URL that holds a password into a file instead, and name it in `url_file`.
    pub url: Option<String>,
    /// A file that holds the URL. Read again at each connection.
    pub url_file: Option<PathBuf>,
    /// The user, where the server has users. Wins over the URL's.
    pub username: Option<String>,
    /// A file that holds the password. Read again at each connection. Wins over the URL's.
    pub password_file: Option<PathBuf>,
    /// Whether the server is one of a cluster.
    pub cluster: bool,
    /// Certificate authorities to trust for `rediss://` in place of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// How long a call waits for an answer of the server before it goes on without.
    pub deadline: Span,
    /// How long connecting may take, TLS and login included. No call waits for that.
    pub connect_timeout: Span,
    /// A file that holds this installation's secret, of at least 32 characters and the same on all
    /// replicas. What is stored is sealed with it. Make one with `openssl rand -hex 32`.
    pub secret_file: Option<PathBuf>,
    /// Values larger than this are compressed.
    pub compress_above: ByteSize,
    /// How the names of all keys begin, so that several installations can share a server.
    pub prefix: String,
    /// How many replicas are taken to share limits and budgets for as long as a replica could not ask the server. Each
    /// then has its part of them.
    pub replicas: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            username: None,
            password_file: None,
            cluster: false,
            ca_file: None,
            deadline: Span::from_millis(5),
            connect_timeout: Span::from_secs(1),
            secret_file: None,
            compress_above: ByteSize::kib(1),
            prefix: "weir".to_owned(),
            replicas: 1,
        }
    }
}

impl Settings {
    /// As it may be written: shown, commented out, in the default file.
    #[must_use]
    pub fn example() -> Self {
        Self {
            url: Some("redis://127.0.0.1:6379".to_owned()),
            secret_file: Some("/etc/weir/shared-secret".into()),
            ..Self::default()
        }
    }
}

/// A URL may hold a password, whatever was asked for.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url.as_ref().map(|_| "[redacted]"))
            .field("url_file", &self.url_file)
            .field("username", &self.username)
            .field("password_file", &self.password_file)
            .field("cluster", &self.cluster)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The store cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file that it needs cannot be read.
    #[error("{knob}: cannot read {}", path.display())]
    Unreadable {
        /// The knob that names the file.
        knob: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What the knob says makes no sense. Never shows a URL: it may hold a password.
    #[error("{knob}: {reason}")]
    Unusable {
        /// The knob.
        knob: &'static str,
        /// What is wrong, and what to write instead.
        reason: String,
    },
}

/// Why there is no answer. Nobody has to know more: the server's state is told by the store itself, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The server is known not to answer, and was not asked.
    #[error("the shared store is down")]
    Down,
    /// Too many commands are under way.
    #[error("too many commands to the shared store are under way")]
    Busy,
    /// There was no answer in time.
    #[error("the shared store did not answer in time")]
    Late,
    /// The connection broke.
    #[error("the connection to the shared store broke")]
    Broken,
}

/// The shared store, whether its server is there or not.
#[derive(Debug)]
pub struct Store {
    server: Server,
    deadline: Duration,
    connect_timeout: Duration,
    is_cluster: bool,
    places: Semaphore,
    link: RwLock<Option<Arc<Link>>>,
    changed: Notify,
}

/// The connections to a server that answers. Two, so that no call's few bytes wait behind megabytes that nobody waits
/// for.
#[derive(Debug)]
struct Link {
    calls: Lane,
    background: Lane,
    broken: Notify,
}

/// One connection, and how often in a row it has failed.
#[derive(Debug)]
struct Lane {
    connection: Connection,
    failures: AtomicU32,
}

impl Store {
    /// A store that is down until [`Store::keep`] has found its server.
    ///
    /// # Errors
    /// If a file that the settings name cannot be read, or its content makes no sense.
    pub fn new(settings: &Settings) -> Result<Self, StoreError> {
        Ok(Self {
            server: Server::new(settings)?,
            deadline: settings.deadline.get(),
            connect_timeout: settings.connect_timeout.get(),
            is_cluster: settings.cluster,
            places: Semaphore::new(MOST_IN_FLIGHT),
            link: RwLock::default(),
            changed: Notify::new(),
        })
    }

    /// Whether the server answers, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link().is_some()
    }

    /// Whether one server holds everything, so that it can be looked through.
    #[must_use]
    pub const fn is_one_server(&self) -> bool {
        !self.is_cluster
    }

    /// Resolves when the server has come back or gone away since this resolved last. For one who waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// One round trip on a call's way: each command's answer, in order, within the deadline. Dropping the future gives
    /// up the answer; the server may have done what was asked.
    ///
    /// # Errors
    /// If there is none. At once, while the server is known to be away.
    pub async fn run(&self, commands: &Commands) -> Result<Vec<Answer>, Unavailable> {
        let _place = self.places.try_acquire().map_err(|_| Unavailable::Busy)?;
        let link = self.link().ok_or(Unavailable::Down)?;
        self.attempt(&link, &link.calls, commands, self.deadline).await
    }

    /// The same for work that no call waits for, on a connection of its own and with more patience. Whoever sends it
    /// waits for the answer before sending more.
    ///
    /// # Errors
    /// As [`Store::run`].
    pub async fn run_patiently(&self, commands: &Commands) -> Result<Vec<Answer>, Unavailable> {
        let link = self.link().ok_or(Unavailable::Down)?;
        self.attempt(&link, &link.background, commands, PATIENCE).await
    }

    /// Connects, watches over the connections, and connects again once they fail. Runs until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        let mut complained = false;
        loop {
            match self.connect().await {
                Ok(link) => {
                    tracing::info!(server.address = %self.server, "the shared store answers");
                    let since = Instant::now();
                    self.watch(&link).await;
                    tracing::warn!(
                        server.address = %self.server,
                        "the shared store does not answer any more: going on without it, and connecting again"
                    );
                    complained = true;
                    if since.elapsed() >= STEADY {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(failure) if !complained => {
                    tracing::warn!(
                        server.address = %self.server,
                        error.message = %failure,
                        "the shared store cannot be reached: going on without it, and trying again"
                    );
                    complained = true;
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and goes back to work once the server has shown that it answers in time.
    async fn connect(&self) -> Result<Arc<Link>, Failure> {
        let connect = async {
            let both = tokio::try_join!(self.server.connect(), self.server.connect())?;
            Ok::<_, Failure>(Arc::new(Link {
                calls: Lane::new(both.0),
                background: Lane::new(both.1),
                broken: Notify::new(),
            }))
        };
        let late = |_| Failure::new("not connected in time");
        let link = timeout(self.connect_timeout, connect).await.map_err(late)??;
        for _ in 0..PROBES {
            self.probe(&link).await.map_err(|reason| Failure::new(reason.to_string()))?;
        }
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
        self.changed.notify_one();
        Ok(link)
    }

    /// Returns when the server is found not to answer any more.
    async fn watch(&self, link: &Arc<Link>) {
        loop {
            tokio::select! {
                () = link.broken.notified() => return,
                () = sleep(HEARTBEAT) => {}
            }
            // One late answer shows nothing; a few in a row, at once, do.
            while self.is_current(link) && self.probe(link).await.is_err() {}
        }
    }

    /// Asks the server whether it is there. One that refuses to say (it is loading, or wants a password) is not.
    async fn probe(&self, link: &Arc<Link>) -> Result<(), Unavailable> {
        let ping = Commands::one("PING", &[]);
        let answers = self.attempt(link, &link.calls, &ping, self.deadline).await?;
        if matches!(&*answers, [Answer::Status(word)] if &**word == "PONG") {
            return Ok(());
        }
        self.failed(link, &link.calls);
        Err(Unavailable::Broken)
    }

    async fn attempt(
        &self,
        link: &Arc<Link>,
        lane: &Lane,
        commands: &Commands,
        limit: Duration,
    ) -> Result<Vec<Answer>, Unavailable> {
        let why = match timeout(limit, lane.connection.send(commands)).await {
            Ok(Ok(answers)) => {
                lane.failures.store(0, Ordering::Relaxed);
                return Ok(answers);
            }
            Ok(Err(failure)) => {
                tracing::debug!(error.message = %failure, "no answer from the shared store");
                Unavailable::Broken
            }
            Err(_) => Unavailable::Late,
        };
        self.failed(link, lane);
        Err(why)
    }

    /// Counts a failure; the last of too many gives up the connections, and all that waits in them.
    fn failed(&self, link: &Arc<Link>, lane: &Lane) {
        if lane.failures.fetch_add(1, Ordering::Relaxed) + 1 < MOST_FAILURES {
            return;
        }
        let mut current = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
            link.broken.notify_one();
            self.changed.notify_one();
        }
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_current(&self, link: &Arc<Link>) -> bool {
        self.link().is_some_and(|current| Arc::ptr_eq(&current, link))
    }
}

impl Lane {
    const fn new(connection: Connection) -> Self {
        Self { connection, failures: AtomicU32::new(0) }
    }
}
