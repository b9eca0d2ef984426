//! One row of the table, and the cell of it for one kind of call: a weir of its own between an app and a provider, with one
//! thing wrong.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use weir::ledger::entry::Entry;
use weir::ledger::filter::Filter;
use weir::ledger::page::Direction;
use weir::ledger::window::Window;
use weir::units::PicoUsd;

use super::calls::{Kind, Manner, Seen, ask};
use crate::support::fake::Fake;
use crate::support::tls::{Identity, TlsWay};
use crate::support::toxic::{Fault, Harm, Toxic};
use crate::support::until;
use crate::support::weir::Weir;

/// Who something goes wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Provider,
    App,
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// On the way there.
    Wire(Fault),
    /// On the way there, once a call has made a connection.
    AfterOne(Fault),
    /// On the way there, for a while.
    Heals(Fault),
    /// A connection that a call before has left ends like this.
    Pooled(Harm),
    /// Behind TLS, with this certificate.
    Tls(Certificate, Option<Fault>),
    /// Its name does not resolve.
    NoName,
}

/// What a provider behind TLS shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    Good,
    OfAnother,
    Expired,
    /// By an authority that nobody told weir of.
    Unknown,
}

/// What the app sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    /// The answer, as it is without a fault.
    Answer,
    /// An answer of the same length that says something else.
    Other,
    /// The beginning of the answer, which then breaks off.
    Broken,
    /// No answer.
    Nothing,
    /// An error of weir's own in the shape of its API, with this status and this code. Without a code: a bare status.
    Error(u16, &'static str),
}

/// A fault, and what it does to each kind of call.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) fault: &'static str,
    way: Way,
    yaml: &'static str,
    manner: Manner,
    pub(super) cells: Vec<Cell>,
    /// Kinds to which it cannot happen, and why.
    pub(super) left_out: Vec<(Kind, &'static str)>,
}

/// What is expected of one kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) app: App,
    /// The records of the calls that the fault met, in order of their words, with ` + ` between them. Each has its
    /// outcome, the type of its error, and what is known of its bill: [`words`]. With ` | ` between them, any of them.
    pub(super) books: &'static str,
}

impl Row {
    pub(super) fn new(place: Place, fault: &'static str, way: Way) -> Self {
        let (cells, left_out) = (Vec::new(), Vec::new());
        Self { place, fault, way, yaml: "", manner: Manner::All, cells, left_out }
    }

    /// What is expected of these kinds.
    pub(super) fn see(mut self, kinds: &[Kind], app: App, books: &'static str) -> Self {
        self.cells.extend(kinds.iter().map(|&kind| Cell { kind, app, books }));
        self
    }

    /// To these it cannot happen, whatever is said of others.
    pub(super) fn not(mut self, kinds: &[Kind], why: &'static str) -> Self {
        self.cells.retain(|cell| !kinds.contains(&cell.kind));
        self.left_out.extend(kinds.iter().map(|&kind| (kind, why)));
        self
    }

    /// Nobody is hurt.
    pub(super) fn all_well(self) -> Self {
        Kind::ALL.iter().fold(self, |row, &kind| row.see(&[kind], App::Answer, well(kind)))
    }

    /// With more of a configuration.
    pub(super) fn with(self, yaml: &'static str) -> Self {
        Self { yaml, ..self }
    }

    /// The provider's streams go on for as long as somebody listens.
    pub(super) fn pausing(self) -> Self {
        Self { manner: Manner::Beginning, ..self }
    }

    /// Everything that it takes to try it with one kind of call.
    pub(super) async fn prepare(&self, kind: Kind) -> House {
        House::of(self, kind).await
    }

    /// Makes it happen; what was not expected, if anything.
    pub(super) async fn happen(&self, house: House, cell: Cell) -> Result<(), String> {
        let (seen, books) = house.meet(self, cell).await?;
        check(cell, &seen)?;
        if !cell.books.split(" | ").any(|expected| expected == books) {
            return Err(format!("the books say `{books}` instead of `{}`; the app saw {}", cell.books, shown(&seen)));
        }
        Ok(())
    }
}

/// What the books say of a call that went well, and of those that it needs.
const fn well(kind: Kind) -> &'static str {
    match kind {
        Kind::Whole | Kind::Stream | Kind::Embedding | Kind::EventStream => "success priced",
        Kind::Hit => "success saved",
        Kind::Follower => "success priced + success saved",
        Kind::Session => "success free + success priced",
        Kind::Upload => "success free",
    }
}

/// Longer than a call takes from here to there.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Everything between an app and its provider.
pub(super) struct House {
    _provider: Fake,
    to_provider: Toxic,
    to_weir: Toxic,
    weir: Weir,
    gate: Arc<Notify>,
    _tls: Option<(TlsWay, Identity)>,
}

impl House {
    async fn of(row: &Row, kind: Kind) -> Self {
        let gate = Arc::<Notify>::default();
        let (manner, at) = (row.manner, Arc::clone(&gate));
        let provider = Fake::start(move |_| kind.script(manner, &at)).await;
        let tls = match row.way {
            Way::Tls(certificate, _) => Some(certificate),
            // What cannot be read behind TLS.
            Way::AfterOne(_) => Some(Certificate::Good),
            _ => None,
        };
        let tls = match tls {
            Some(certificate) => {
                let identity = match certificate {
                    Certificate::Good | Certificate::Unknown => Identity::new(&[]),
                    Certificate::OfAnother => Identity::of_another(),
                    Certificate::Expired => Identity::expired(),
                };
                Some((TlsWay::before(provider.address, &identity).await, identity, certificate))
            }
            None => None,
        };
        let to_provider = Toxic::before(tls.as_ref().map_or(provider.address, |(way, ..)| way.address));
        // A hit asks nobody, and what is stored was asked for without a hurry.
        let more = if kind == Kind::Hit && row.place == Place::Provider { "" } else { row.yaml };
        let mut yaml = format!("ledger: {{ mode: memory }}\n{more}\n");
        if let Some((_, identity, certificate)) = &tls
            && *certificate != Certificate::Unknown
        {
            let known = format!("ca_files: [\"{}\"]", identity.authority.display());
            yaml = if more.contains("upstream: {") {
                yaml.replace("upstream: {", &format!("upstream: {{ {known},"))
            } else {
                format!("{yaml}upstream: {{ {known} }}\n")
            };
        }
        let port = to_provider.address.port();
        let url = match (row.way, &tls) {
            (Way::NoName, _) => "http://no-such-host.invalid".to_owned(),
            (_, Some(_)) => format!("https://localhost:{port}"),
            (_, None) => to_provider.url(),
        };
        let weir = Weir::before_with(&url, &yaml).await;
        let to_weir = Toxic::before(host(&weir).parse().unwrap());
        Self {
            _provider: provider,
            to_provider,
            to_weir,
            weir,
            gate,
            _tls: tls.map(|(way, identity, _)| (way, identity)),
        }
    }

    /// Has it go wrong under a call; what the app saw of it, and what is in the books.
    async fn meet(self, row: &Row, cell: Cell) -> Result<(Seen, String), String> {
        let toxic = match row.place {
            Place::Provider => &self.to_provider,
            Place::App => &self.to_weir,
        };
        let calls_first = matches!(row.way, Way::AfterOne(_) | Way::Pooled(_));
        if cell.kind == Kind::Hit || calls_first {
            self.ask_first(cell.kind).await?;
        }
        self.weir.settled().await;
        let before = self.books().await.len();
        match row.way {
            Way::Wire(fault) | Way::AfterOne(fault) | Way::Heals(fault) | Way::Tls(_, Some(fault)) => {
                toxic.set(fault).await;
            }
            Way::Pooled(harm) => toxic.break_open_ones(harm),
            Way::Tls(_, None) | Way::NoName => {}
        }
        let asked = self.ask(row, cell);
        let seen = if matches!(row.way, Way::Heals(_)) {
            let heals = async {
                // A hit asks nobody.
                if row.place == Place::App || cell.kind != Kind::Hit {
                    until("something is held up", || toxic.holds()).await;
                }
                toxic.heal().await;
            };
            tokio::join!(asked, heals).0?
        } else {
            asked.await?
        };
        // What breaks on the app's side may be news to weir yet.
        let records = before + cell.books.split(" + ").filter(|record| !record.is_empty()).count();
        let come = async {
            while self.weir.records() < records as u64 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(5 * A_MOMENT, come).await;
        self.weir.settled().await;
        let books = self.books().await.split_off(before);
        self.metrics_agree().await?;
        self.weir.stop().await;
        Ok((seen, in_order(books)))
    }

    /// A call before anything is wrong, whose answer is stored for a hit and for nobody else.
    async fn ask_first(&self, kind: Kind) -> Result<(), String> {
        let mut request = kind.request();
        if kind != Kind::Hit {
            request.headers_mut().insert("cache-control", "no-store".parse().unwrap());
        }
        self.gate.notify_one();
        match ask(&self.to_weir.address.to_string(), request).await {
            Some(seen) if seen.status == Some(kind.status()) => Ok(()),
            seen => Err(format!("without a fault: {seen:?}")),
        }
    }

    async fn ask(&self, row: &Row, cell: Cell) -> Result<Seen, String> {
        let way = self.to_weir.address.to_string();
        if cell.kind != Kind::Follower {
            return ask(&way, cell.kind.request()).await.ok_or_else(|| "the app waits for ever".to_owned());
        }
        // Its leader has nothing to do with what is wrong with the app.
        let (leads, expected) = match row.place {
            Place::App => (host(&self.weir), App::Answer),
            Place::Provider => (way.clone(), cell.app),
        };
        let mut leader = tokio::spawn(async move { ask(&leads, Kind::Follower.request()).await });
        let follower = async {
            // One that is not sent is not waited for.
            let _ = timeout(A_MOMENT, self.weir.in_flight(1)).await;
            ask(&way, cell.kind.request()).await.ok_or("the follower waits for ever")
        };
        let opens = async {
            let _ = timeout(2 * A_MOMENT, self.weir.in_flight(2)).await;
            loop {
                self.gate.notify_one();
                sleep(Duration::from_millis(5)).await;
            }
        };
        let calls = async {
            let seen = follower.await?;
            if row.manner == Manner::Beginning {
                // It would go on for ever, and has nobody to share it with any more.
                leader.abort();
                return Ok(seen);
            }
            let led = (&mut leader).await.unwrap().ok_or("the leader waits for ever")?;
            check(Cell { app: expected, ..cell }, &led).map_err(|why| format!("the leader: {why}"))?;
            Ok(seen)
        };
        tokio::select! {
            seen = calls => seen,
            () = opens => unreachable!("it ends with the calls"),
        }
    }

    /// What is in the books: a word or more for each record.
    async fn books(&self) -> Vec<String> {
        let ledger = self.weir.ledger();
        ledger.flush().await.unwrap();
        let all = Filter::default();
        let entries = ledger.reader().walk(Window::ALL, &all, Direction::Oldest);
        entries.map(|entry| words(&entry.unwrap())).collect()
    }

    /// The metrics count the same calls, with the same outcomes, and know of as many that they do not know the cost of.
    async fn metrics_agree(&self) -> Result<(), String> {
        let text = self.weir.metrics().await;
        let outcome = |books: &String| books.split(' ').next().unwrap().to_owned();
        let mut booked: Vec<String> = self.books().await.iter().map(outcome).collect();
        booked.sort();
        let mut counted = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("weir_requests_total{")) {
            let (series, count) = line.rsplit_once(' ').unwrap();
            let outcome = series.split_once("outcome=\"").unwrap().1.split_once('"').unwrap().0;
            counted.extend(vec![outcome.to_owned(); count.parse().unwrap()]);
        }
        counted.sort();
        if counted != booked {
            return Err(format!("the metrics count {counted:?}, and the books {booked:?}"));
        }
        let books = self.books().await;
        for (provenance, word) in [("priced", " priced"), ("estimated", " estimated"), ("unpriced", " unpriced")] {
            let booked = books.iter().filter(|books| books.ends_with(word)).count();
            let mine = |line: &&str| {
                line.starts_with("weir_billable_requests_total{")
                    && line.contains(&format!("provenance=\"{provenance}\""))
            };
            let counts = text.lines().filter(mine).map(|line| line.rsplit(' ').next().unwrap());
            let counted: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
            if counted != booked {
                return Err(format!("{counted} calls are counted as {provenance}, and {booked} are booked as such"));
            }
        }
        Ok(())
    }
}

fn host(weir: &Weir) -> String {
    weir.app.trim_start_matches("http://").to_owned()
}

/// How a call ended, why, and what is known of its bill: `free`, for nothing was to be billed; `priced` or `estimated`;
/// `unpriced`, for what it cost is not known, which is not nothing; `saved`, for somebody else was billed.
fn words(entry: &Entry) -> String {
    let bill = match (&entry.reuse, &entry.provenance, &entry.unpriced) {
        (Some(_), ..) => "saved",
        (None, _, Some(_)) => "unpriced",
        (None, Some(provenance), None) => provenance,
        (None, None, None) => "free",
    };
    let cost = entry.cost.map(PicoUsd::pico);
    let bill = match (bill, cost) {
        ("priced" | "estimated", None | Some(0)) => "WITHOUT-COST",
        ("unpriced" | "saved", Some(1..)) => "WITH-COST",
        (bill, _) => bill,
    };
    let error_type = entry.error_type.iter().map(|error_type| format!(" {error_type}"));
    format!("{}{} {bill}", entry.outcome, error_type.collect::<String>())
}

fn in_order(mut books: Vec<String>) -> String {
    books.sort();
    books.join(" + ")
}

/// What of it is not as expected.
fn check(cell: Cell, seen: &Seen) -> Result<(), String> {
    let (kind, answer) = (cell.kind, cell.kind.answer());
    let answered = seen.status == Some(kind.status());
    let as_expected = match cell.app {
        App::Answer => answered && seen.is_whole && seen.body == answer,
        App::Other => answered && seen.body.len() == answer.len() && seen.body != answer,
        App::Broken => answered && !seen.is_whole && seen.body.len() < answer.len() && answer.starts_with(&seen.body),
        App::Nothing => seen.status.is_none(),
        App::Error(status, code) => {
            let status = seen.status.is_some_and(|seen| seen.as_u16() == status);
            status && seen.is_whole && (code.is_empty() || code.split('|').any(|code| kind.is_error(seen, code)))
        }
    };
    if as_expected { Ok(()) } else { Err(format!("the app should see {:?}, and sees {}", cell.app, shown(seen))) }
}

fn shown(seen: &Seen) -> String {
    let (status, end) = (seen.status.map(|status| status.as_u16()), if seen.is_whole { "whole" } else { "broken" });
    let body = String::from_utf8_lossy(&seen.body);
    format!("{status:?}, {end}, {} bytes: {}", seen.body.len(), body.chars().take(120).collect::<String>())
}
