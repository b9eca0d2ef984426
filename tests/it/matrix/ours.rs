//! What goes wrong with what is weir's own affair: the store that replicas share, the collector of traces, the Prometheus
//! of the fleet, disks, and the files it is told of. No call may fail for that, of whatever kind; so each row has every
//! kind called before, meanwhile, and afterwards.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::calls::{Kind, Manner, Seen, ask};
use crate::support::collector::{Collector, Manner as Takes};
use crate::support::disk::Disk;
use crate::support::fake::{Fake, Script};
use crate::support::redis::{self, Redis, free_port};
use crate::support::toxic::At::Byte;
use crate::support::toxic::Harm::{Flip, HalfClose, HangUp, Late, Reset, Stall, Trickle};
use crate::support::toxic::{Fault, Toxic};
use crate::support::until;
use crate::support::weir::Weir;

/// What weir needs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Redis,
    Collector,
    Prometheus,
    State,
    Ledger,
    Config,
    Prices,
    Secrets,
    Recordings,
    /// All that is reached over the network.
    Everything,
}

impl Place {
    /// What it is called on the page.
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Redis => "The store that replicas share",
            Self::Collector => "The collector of traces",
            Self::Prometheus => "The Prometheus that knows what the fleet spends",
            Self::State => "The directory for what survives a restart:",
            Self::Ledger => "The ledger:",
            Self::Config => "The configuration's file",
            Self::Prices => "The file of prices",
            Self::Secrets => "The file of a provider's key",
            Self::Recordings => "The directory of recordings",
            Self::Everything => "All servers at once: each",
        }
    }
}

/// What goes wrong, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) fault: &'static str,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// The way there.
    Wire(Fault),
    /// The server of the store.
    Server(redis::Fault),
    /// A file or a directory, by its name in the directory of all of them.
    File(&'static str, Damage),
    /// The disk that the state is on, which is a small one.
    Disk(Trouble),
    /// Somebody else has the ledger.
    Locked,
}

/// What becomes of a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Gone,
    Empty,
    Garbage,
    Half,
    /// It is a directory; or, if it was one, a file.
    Other,
    /// Garbage since before weir began.
    GarbageAtFirst,
    /// Something else since before weir began.
    OtherAtFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Full,
    ReadOnly,
}

/// No call takes longer, whatever else does. It takes milliseconds; but machines have other things to do.
const MOST: Duration = Duration::from_secs(20);
/// How often every kind is called while something is wrong.
const ROUNDS: usize = 3;

/// The table: nobody is hurt by any of this.
pub(super) fn rows() -> Vec<Row> {
    let row = |place, fault, how| Row { place, fault, how };
    let mut rows = Vec::new();
    for place in [Place::Redis, Place::Collector, Place::Prometheus, Place::Everything] {
        rows.extend(WIRES.map(|(fault, wire)| row(place, fault, How::Wire(wire))));
    }
    rows.extend(redis::Fault::ALL.map(|fault| row(Place::Redis, fault.describe(), How::Server(fault))));
    rows.extend([
        row(Place::State, "its disk is full", How::Disk(Trouble::Full)),
        row(Place::State, "its disk is read-only", How::Disk(Trouble::ReadOnly)),
        row(Place::State, "its directory is gone", How::File("state", Damage::Gone)),
        row(Place::State, "its directory is a file", How::File("state", Damage::OtherAtFirst)),
        row(Place::State, "what was kept is garbage", How::File("state/limits.json", Damage::GarbageAtFirst)),
        row(Place::State, "what is kept becomes garbage", How::File("state/limits.json", Damage::Garbage)),
        row(Place::Ledger, "somebody else has it locked", How::Locked),
        row(Place::Ledger, "its file was garbage", How::File("state/ledger.db", Damage::GarbageAtFirst)),
        row(Place::Ledger, "its file becomes garbage", How::File("state/ledger.db", Damage::Garbage)),
        row(Place::Ledger, "its file is gone", How::File("state/ledger.db", Damage::Gone)),
        row(Place::Ledger, "its file is a directory", How::File("state/ledger.db", Damage::OtherAtFirst)),
    ]);
    for damage in [Damage::Gone, Damage::Empty, Damage::Garbage, Damage::Half, Damage::Other] {
        rows.extend([
            row(Place::Config, damage.describe(), How::File("weir.yaml", damage)),
            row(Place::Prices, damage.describe(), How::File("prices.json", damage)),
            row(Place::Secrets, damage.describe(), How::File("key", damage)),
            row(Place::Recordings, damage.describe(), How::File("recordings", damage)),
        ]);
    }
    rows.retain(|row| match (row.place, row.how) {
        // A directory has no half, and no text.
        (Place::Recordings, How::File(_, damage)) => matches!(damage, Damage::Gone | Damage::Other),
        // Half of a key is a key: nobody can tell.
        (Place::Secrets, How::File(_, damage)) => damage != Damage::Half,
        _ => true,
    });
    rows
}

/// What can be wrong with a way.
const WIRES: [(&str, Fault); 13] = [
    ("refuses connections", Fault::Refuse),
    ("never answers to be connected", Fault::Blackhole),
    ("takes connections and resets them", Fault::ResetAtOnce),
    ("says nothing", Fault::Down(Byte(0), Stall)),
    ("stalls in the middle of an answer", Fault::Down(Byte(3), Stall)),
    ("hangs up before it answers", Fault::Down(Byte(0), HangUp)),
    ("resets in the middle of an answer", Fault::Down(Byte(3), Reset)),
    ("closes its side", Fault::Down(Byte(0), HalfClose)),
    ("answers garbage", Fault::Down(Byte(0), Flip)),
    ("answers a byte at a time", Fault::Down(Byte(0), Trickle)),
    ("answers late", Fault::Down(Byte(0), Late(Duration::from_millis(50)))),
    ("takes nothing", Fault::Up(Byte(0), Stall)),
    ("is sent garbage", Fault::Up(Byte(0), Flip)),
];

/// Removes a directory that weir may be writing into.
fn remove_all(path: &Path) {
    while let Err(error) = fs::remove_dir_all(path) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{}", path.display());
    }
}

impl Damage {
    const fn describe(self) -> &'static str {
        match self {
            Self::Gone => "is gone",
            Self::Empty => "is empty",
            Self::Garbage | Self::GarbageAtFirst => "is garbage",
            Self::Half => "is there by half",
            Self::Other | Self::OtherAtFirst => "is something else",
        }
    }

    const fn is_at_first(self) -> bool {
        matches!(self, Self::GarbageAtFirst | Self::OtherAtFirst)
    }

    fn done_to(self, path: &Path) {
        let was_dir = path.is_dir();
        let content = fs::read(path).unwrap_or_default();
        match self {
            Self::Gone if was_dir => remove_all(path),
            Self::Gone => fs::remove_file(path).unwrap(),
            Self::Empty => fs::write(path, "").unwrap(),
            Self::Garbage | Self::GarbageAtFirst => fs::write(path, [0xfe; 5000]).unwrap(),
            Self::Half => fs::write(path, &content[..content.len() / 2]).unwrap(),
            Self::Other | Self::OtherAtFirst if was_dir => {
                remove_all(path);
                fs::write(path, "not a directory").unwrap();
            }
            Self::Other | Self::OtherAtFirst => {
                let _ = fs::remove_file(path);
                fs::create_dir(path).unwrap();
            }
        }
    }
}

/// How many calls there were, and what was wrong with some.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: usize,
    pub(super) failed: Vec<String>,
}

impl Row {
    /// Everything that it takes to try it.
    ///
    /// # Errors
    /// With what is missing here.
    pub(super) async fn prepare(self) -> Result<House, &'static str> {
        if !redis::is_here() {
            return Err("there is no redis-server");
        }
        let disk = match self.how {
            How::Disk(_) => Some(Disk::mounted("a state directory").ok_or("nobody may mount a disk here")?),
            _ => None,
        };
        Ok(House::of(self, disk).await)
    }

    /// Makes it happen.
    pub(super) async fn happen(self, mut house: House) -> Tally {
        let mut tally = Tally::default();
        house.round("before", &mut tally).await;
        let lock = house.breaks(self).await;
        for _ in 0..ROUNDS {
            house.round("meanwhile", &mut tally).await;
        }
        drop(lock);
        house.heals(self).await;
        house.round("afterwards", &mut tally).await;
        house.end(&mut tally).await;
        tally
    }
}

/// A weir with everything that it can have for itself.
pub(super) struct House {
    weir: Weir,
    provider: Fake,
    gate: Arc<Notify>,
    redis: Redis,
    /// A way on which the store itself may fail.
    store: redis::Proxy,
    ways: [Toxic; 3],
    disk: Option<Disk>,
    files: TempDir,
    _collector: Collector,
    _prometheus: Fake,
    rounds: usize,
    calls: usize,
}

const OVERLAY: &str = r#"{ "schema_version": 1, "currency": "USD", "providers": [{ "id": "openai", "models":
    [{ "id": "mine", "match": { "eq": ["mine"] }, "rates": { "input_tokens": "1", "output_tokens": "2" } }] }] }"#;

/// What the fleet has spent, as a Prometheus says it.
const FLEET: &[u8] =
    br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.5"]}]}}"#;

/// What the operator wrote, where it is damaged at first.
fn files_of(row: Row) -> TempDir {
    let files = tempfile::tempdir().unwrap();
    let texts = [("secret", "0123456789abcdef0123456789abcdef"), ("prices.json", OVERLAY), ("key", "sk-good")];
    for (name, text) in texts {
        fs::write(files.path().join(name), text).unwrap();
    }
    fs::create_dir(files.path().join("state")).unwrap();
    if let How::File(name, damage) = row.how
        && damage.is_at_first()
    {
        damage.done_to(&files.path().join(name));
    }
    files
}

impl House {
    async fn of(row: Row, disk: Option<Disk>) -> Self {
        let gate = Arc::<Notify>::default();
        let at = Arc::clone(&gate);
        let provider = Fake::start(move |asked| Kind::asked(asked).script(Manner::All, &at)).await;
        let prometheus = Fake::always(Script::json(200, FLEET)).await;
        let collector = Collector::http(Takes::Takes).await;
        let port = free_port();
        let redis = Redis::with(&["--port", &port.to_string(), "--bind", "127.0.0.1"]).await;
        let store = redis::Proxy::before(&redis).await;
        let ways = [
            Toxic::before(([127, 0, 0, 1], port).into()),
            Toxic::before(collector.address),
            Toxic::before(prometheus.address),
        ];
        let files = files_of(row);
        let state = disk.as_ref().map_or_else(|| files.path().join("state"), |disk| disk.path().to_owned());
        if let (How::Disk(Trouble::ReadOnly), Some(disk)) = (row.how, &disk) {
            disk.remount("ro");
        }
        let store_url = match row.how {
            How::Server(_) => store.url(),
            _ => format!("redis://{}", ways[0].address),
        };
        let place = |name: &str| files.path().join(name).display().to_string();
        let recordings = match row.place {
            Place::Recordings => format!("mode: record, recordings: \"{}\", ", place("recordings")),
            _ => String::new(),
        };
        let yaml = format!(
            "  keyed: {{ api: openai, base_url: \"{}\", api_key_file: \"{}\" }}\n\
             cache: {{ {recordings}redis: {{ url: \"{store_url}\", secret_file: \"{}\" }} }}\n\
             limits: [{{ name: all, requests_per_minute: 1000000 }}]\n\
             budgets: [{{ name: app, limit_usd: 1000, window: month, enforce: block }}]\n\
             fleet_spend: {{ prometheus_url: \"{}\", match: 'job=\"weir\"', interval: 10ms }}\n\
             prices: {{ overlay: \"{}\" }}\n\
             state_dir: \"{}\"\n\
             telemetry: {{ traces: {{ endpoint: \"{}\" }} }}\n",
            provider.url(),
            place("key"),
            place("secret"),
            ways[2].url(),
            place("prices.json"),
            state.display(),
            ways[1].url(),
        );
        let weir = Weir::before_with(&provider.url(), &yaml).await;
        Self {
            weir,
            provider,
            gate,
            redis,
            store,
            ways,
            disk,
            files,
            _collector: collector,
            _prometheus: prometheus,
            rounds: 0,
            calls: 0,
        }
    }

    /// Something goes wrong.
    async fn breaks(&mut self, row: Row) -> Option<Connection> {
        match row.how {
            How::Wire(fault) => {
                for way in self.ways_to(row.place) {
                    way.set(fault).await;
                }
            }
            How::Server(fault) => fault.begin(&mut self.redis, &self.store).await,
            How::File(_, damage) if damage.is_at_first() => {}
            How::File(name, damage) => {
                let place = self.place(name);
                until("there is something to be damaged", || place.exists()).await;
                damage.done_to(&place);
                // It is looked at again at once.
                self.weir.read_again().await;
            }
            How::Disk(Trouble::Full) => {
                let left = fs::write(self.disk.as_ref().unwrap().path().join("filler"), vec![1; 2 << 20]);
                assert!(left.is_err(), "the disk is full");
            }
            // Since before weir began: what has a file open cannot become so.
            How::Disk(Trouble::ReadOnly) => {}
            How::Locked => {
                let other = Connection::open(self.place("state/ledger.db")).unwrap();
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                return Some(other);
            }
        }
        None
    }

    /// All is well again, as far as anybody mends it.
    async fn heals(&mut self, row: Row) {
        match row.how {
            How::Wire(_) => {
                for way in self.ways_to(row.place) {
                    way.heal().await;
                }
            }
            How::Server(fault) => fault.end(&mut self.redis, &self.store).await,
            How::Disk(_) => self.disk.as_ref().unwrap().remount("rw,size=64m"),
            How::File(..) | How::Locked => {}
        }
    }

    fn ways_to(&self, place: Place) -> &[Toxic] {
        match place {
            Place::Redis => &self.ways[..1],
            Place::Collector => &self.ways[1..2],
            Place::Prometheus => &self.ways[2..],
            _ => &self.ways,
        }
    }

    /// weir's own configuration is where weir is, all else in one directory.
    fn place(&self, name: &str) -> std::path::PathBuf {
        if name == "weir.yaml" { self.weir.files().join(name) } else { self.files.path().join(name) }
    }

    /// Every kind is called, and answered as always.
    async fn round(&mut self, when: &str, tally: &mut Tally) {
        self.rounds += 1;
        for kind in Kind::ALL {
            let seen = match kind {
                Kind::Follower => {
                    let (one, other) = tokio::join!(self.call(kind, "openai"), self.call(kind, "openai"));
                    self.note(kind, when, &one, tally);
                    other
                }
                _ => self.call(kind, "openai").await,
            };
            self.note(kind, when, &seen, tally);
        }
        let keyed = self.call(Kind::Whole, "keyed").await;
        self.note(Kind::Whole, when, &keyed, tally);
        let received = self.provider.received();
        let key = received.iter().rev().find_map(|asked| asked.header("authorization"));
        if key != Some("Bearer sk-good") {
            tally.failed.push(format!("{when}: the last good key is not sent, but {key:?}"));
        }
    }

    async fn call(&self, kind: Kind, provider: &str) -> (Option<Seen>, Duration) {
        let mut request: Request<Full<Bytes>> = kind.request();
        let path = request.uri().to_string().replace("/openai/", &format!("/{provider}/"));
        *request.uri_mut() = path.parse().unwrap();
        // Nothing of an earlier round is stored.
        let namespace = format!("round {}", self.rounds);
        request.headers_mut().insert("x-cache-namespace", namespace.parse().unwrap());
        let began = Instant::now();
        let seen = ask(self.weir.app.trim_start_matches("http://"), request).await;
        (seen, began.elapsed())
    }

    fn note(&mut self, kind: Kind, when: &str, (seen, took): &(Option<Seen>, Duration), tally: &mut Tally) {
        tally.calls += 1;
        self.calls += 1;
        let is_good = seen
            .as_ref()
            .is_some_and(|seen| seen.status == Some(kind.status()) && seen.is_whole && seen.body == kind.answer());
        if !is_good {
            let status = seen.as_ref().and_then(|seen| seen.status);
            let body = seen.as_ref().map(|seen| String::from_utf8_lossy(&seen.body).into_owned());
            tally.failed.push(format!("{when}, {}: {status:?} {body:?}", kind.name()));
        } else if *took > MOST {
            tally.failed.push(format!("{when}, {}: it took {took:?}", kind.name()));
        }
    }

    /// The books are in order, and weir ends.
    async fn end(self, tally: &mut Tally) {
        self.weir.settled().await;
        let metrics = self.weir.metrics().await;
        let ended = metrics.lines().filter(|line| line.starts_with("weir_requests_total{"));
        let (good, bad): (Vec<&str>, Vec<&str>) = ended.partition(|line| line.contains("outcome=\"success\""));
        let sum = |lines: &[&str]| -> usize {
            lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
        };
        // Of a session there are two records: its own, and that of the response in it.
        if sum(&good) != self.calls + self.rounds || sum(&bad) > 0 {
            tally.failed.push(format!("{} calls, and the metrics say {good:?} and {bad:?}", self.calls));
        }
        drop(self.gate);
        self.weir.stop().await;
    }
}
