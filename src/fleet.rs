//! Fleet: what all instances of an app have spent of its budgets, read from the Prometheus that scrapes them.
//!
//! Whatever Prometheus does or says, no call waits for it: budgets are told what is read, and go on with that for as
//! long as it is good, then with what this instance spends. Knows Prometheus' HTTP API (instant queries) and the name
//! of the series it asks for; not how a budget counts.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::uri::InvalidUri;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, timeout};

use crate::limits::Limits;
use crate::limits::budget::Amount;
use crate::limits::elsewhere::{FleetBudget, FleetSpend};
use crate::limits::window::UnixTime;
use crate::semconv;
use crate::units::{PicoUsd, Span};
use crate::upstream::credential::Credential;
use crate::upstream::{Failure, RequestBody, Upstream};

/// What is asked unless the operator asks otherwise. Counters, so that restarts and instances that are gone count; zero
/// where an instance is known and has counted nothing yet, and no answer where none is known.
const QUERY: &str = "sum(increase($series[$range])) or sum($series) * 0";

/// How old the oldest is of the newest samples that Prometheus has of each instance.
const SAMPLED_AT: &str = "min(timestamp($series))";

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The largest reply read. One number takes a hundred bytes.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// How often this instance notes what it has spent itself. The oftener, the less of that counts twice.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Most notes kept of a budget. Prometheus takes samples for new, unless told otherwise, that are up to five minutes old:
/// three times that.
const MOST_NOTES: usize = 900;

/// The longest text of Prometheus' own that is repeated in the log, in characters.
const QUOTED: usize = 200;

/// What the operator writes of spending that is read from Prometheus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The base URL of the Prometheus that scrapes all instances of the app, such as `http://prometheus:9090`, or of
    /// anything that answers its queries. Without this, each instance counts what it spends itself.
    pub prometheus_url: Option<String>,
    /// Which series there are this app's, as label matchers of PromQL: `namespace="shop", job="weir"`. Needed with
    /// `prometheus_url`.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// A query in place of weir's own, that yields what was spent in the window so far, as one number. Put in are
    /// `$series` (the counter of what was spent, with its matchers), `$range` (the window so far, in seconds: `5400s`) and
    /// `$budget` (the budget's name). Unless this is set: `sum(increase($series[$range])) or sum($series) * 0`.
    pub query: Option<String>,
    /// How often it is asked.
    pub interval: Span,
    /// How long what was read counts, from when Prometheus scraped it. After that each instance counts what it spends
    /// itself.
    pub keep_for: Span,
    /// A file that holds a token to show to Prometheus (`Authorization: Bearer`). Re-read when it changes.
    pub bearer_token_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prometheus_url: None,
            matching: None,
            query: None,
            interval: Span::from_secs(30),
            keep_for: Span::from_secs(3600),
            bearer_token_file: None,
        }
    }
}

/// Reads from Prometheus what all instances spend.
#[derive(Debug)]
pub struct Fleet {
    /// Where queries go: all of the URL before them.
    base: String,
    matching: Box<str>,
    query: Box<str>,
    interval: Duration,
    keep_for: Duration,
    credential: Option<Arc<Credential>>,
    upstream: Upstream,
    own: Own,
}

impl Fleet {
    /// What `settings` ask for, by way of `upstream`; `None` if that is nothing.
    #[must_use]
    pub fn new(settings: &Settings, credential: Option<Arc<Credential>>, upstream: Upstream) -> Option<Self> {
        let url = settings.prometheus_url.as_deref()?;
        Some(Self {
            base: format!("{}/api/v1/query", url.trim_end_matches('/')),
            matching: settings.matching.as_deref().unwrap_or_default().into(),
            query: settings.query.as_deref().unwrap_or(QUERY).into(),
            interval: settings.interval.get(),
            keep_for: settings.keep_for.get(),
            credential,
            upstream,
            own: Own::default(),
        })
    }

    /// Tells budgets what is read, again and again. Runs until it is dropped.
    pub async fn keep(mut self, limits: Arc<Limits>) {
        let [mut reads, mut notes] = [self.interval, NOTE_EVERY].map(tokio::time::interval);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        notes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fails = false;
        loop {
            tokio::select! {
                _ = reads.tick() => {}
                _ = notes.tick() => {
                    self.own.note(&limits);
                    continue;
                }
            }
            let read = self.read(&limits).await;
            match &read {
                Err((budget, unfit)) if !fails => tracing::warn!(
                    weir.budget = %budget,
                    error.message = %unfit,
                    "what all instances spend cannot be read from Prometheus: what was read last counts for {} from when it \
                     was scraped, and after that what this instance spends",
                    humantime::format_duration(self.keep_for)
                ),
                Ok(()) if fails => tracing::info!("what all instances spend is read from Prometheus again"),
                _ => {}
            }
            fails = read.is_err();
        }
    }

    /// Tells every budget what can be read of it; of those of which it cannot, the first, and why.
    async fn read(&self, limits: &Limits) -> Result<(), (Arc<str>, Unfit)> {
        let mut read = Ok(());
        for budget in limits.fleet_budgets() {
            match self.spend(&budget, limits.now().wall).await {
                Ok(spend) => limits.tell(&budget.name, &spend),
                Err(unfit) if unfit.is_of_the_way() => return Err((budget.name, unfit)),
                Err(unfit) => read = read.and(Err((budget.name, unfit))),
            }
        }
        read
    }

    /// What all instances have spent of `budget` in the window so far.
    async fn spend(&self, budget: &FleetBudget, at: UnixTime) -> Result<FleetSpend, Unfit> {
        let (usd, tokens) = (semconv::BUDGET_CHARGED_USD.name, semconv::BUDGET_CHARGED_TOKENS.name);
        let is_of_money = budget.allowance.usd.is_some();
        let sampled_at = self.ask(SAMPLED_AT, if is_of_money { usd } else { tokens }, budget, at).await?;
        let seconds = i64::try_from(sampled_at.pico() / PicoUsd::PER_USD);
        let sampled_at = UnixTime::new(seconds.map_err(|_| Unfit::Stale)?);
        let age = u64::try_from(at.seconds().saturating_sub(sampled_at.seconds())).unwrap_or_default();
        let good_for = self.keep_for.checked_sub(Duration::from_secs(age)).ok_or(Unfit::Stale)?;
        let charged = self.own.charged_before(&budget.name, sampled_at).ok_or(Unfit::Stale)?;
        let mut all = Amount::default();
        if is_of_money {
            all.usd = self.ask(&self.query, usd, budget, at).await?;
        }
        if budget.allowance.tokens.is_some() {
            all.tokens = whole(self.ask(&self.query, tokens, budget, at).await?);
        }
        Ok(FleetSpend { start: budget.start, all, charged, good_for })
    }

    /// The one number that a query yields, as of `at`.
    async fn ask(&self, query: &str, metric: &str, budget: &FleetBudget, at: UnixTime) -> Result<PicoUsd, Unfit> {
        let query = filled_in(query, metric, &self.matching, budget, at);
        let target = format!("{}?time={}&query={}", self.base, at.seconds(), encoded(&query));
        let answer = timeout(self.interval.clamp(Duration::from_secs(1), ANSWER_WITHIN), self.fetch(&target)).await;
        let (status, body) = answer.map_err(|_| Unfit::Late)??;
        number(status, &body)
    }

    async fn fetch(&self, target: &str) -> Result<(StatusCode, Bytes), Unfit> {
        let mut request = Request::new(RequestBody::whole(Bytes::new()));
        *request.uri_mut() = target.parse::<Uri>()?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(AUTHORIZATION, credential.header_value());
        }
        let answer = self.upstream.send(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_REPLY_BYTES).collect().await.map_err(|_| Unfit::Broken)?;
        Ok((status, body.to_bytes()))
    }
}

/// What this instance had counted against each budget, and when: to know how much of it Prometheus had seen.
#[derive(Debug, Default)]
struct Own(HashMap<Arc<str>, Notes>);

#[derive(Debug, Default)]
struct Notes {
    notes: VecDeque<(UnixTime, Amount)>,
    /// Whether the first ones are gone.
    is_cut: bool,
}

impl Own {
    fn note(&mut self, limits: &Limits) {
        let at = limits.now().wall;
        for budget in limits.fleet_budgets() {
            self.0.entry(budget.name).or_default().add(at, budget.charged);
        }
    }

    /// What had been counted before the second `time`; `None` if nobody remembers.
    fn charged_before(&self, budget: &str, time: UnixTime) -> Option<Amount> {
        self.0.get(budget).map_or_else(|| Some(Amount::default()), |notes| notes.before(time))
    }
}

impl Notes {
    fn add(&mut self, at: UnixTime, charged: Amount) {
        if self.notes.len() == MOST_NOTES {
            self.notes.pop_front();
            self.is_cut = true;
        }
        self.notes.push_back((at, charged));
    }

    fn before(&self, time: UnixTime) -> Option<Amount> {
        let earlier = self.notes.iter().rev().find(|(at, _)| *at < time);
        // Nothing was counted before the first note of all.
        let none = || (!self.is_cut).then(Amount::default);
        earlier.map(|(_, charged)| *charged).or_else(none)
    }
}

/// The query, with all that it names put in.
fn filled_in(query: &str, metric: &str, matching: &str, budget: &FleetBudget, at: UnixTime) -> String {
    let range = at.seconds().saturating_sub(budget.start.seconds()).max(1);
    let separator = if matching.is_empty() { "" } else { ", " };
    let series = format!(r#"{metric}{{budget="{}"{separator}{matching}}}"#, budget.name);
    query.replace("$series", &series).replace("$range", &format!("{range}s")).replace("$budget", &budget.name)
}

fn encoded(query: &str) -> String {
    utf8_percent_encode(query, NON_ALPHANUMERIC).to_string()
}

/// A count as it comes, like all numbers, with a fraction: rounded up.
fn whole(number: PicoUsd) -> u64 {
    u64::try_from(number.pico().div_ceil(PicoUsd::PER_USD)).unwrap_or(u64::MAX)
}

/// Why nothing is known of what all instances spend.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Prometheus cannot be reached.
    #[error(transparent)]
    Unreached(#[from] Failure),
    /// Its address is none.
    #[error("`fleet_spend.prometheus_url` is no URL that can be asked")]
    NoUrl(#[from] InvalidUri),
    /// It takes too long.
    #[error("no answer in time")]
    Late,
    /// Its reply breaks off, or is too large.
    #[error("its reply breaks off, or is larger than {MAX_REPLY_BYTES} bytes")]
    Broken,
    /// It refuses.
    #[error("it answers with status {0}: {1}")]
    Status(StatusCode, String),
    /// It is no Prometheus.
    #[error("its reply is none of Prometheus' query API")]
    Foreign,
    /// It has no such series.
    #[error("it has no such series now: does it scrape this app, and does `fleet_spend.match` name it?")]
    Nothing,
    /// The query yields several.
    #[error("the query yields {0} series, and should yield one")]
    Many(usize),
    /// What it yields is no amount.
    #[error("the query yields `{0}`, which is no amount")]
    NoAmount(String),
    /// What it knows is too old.
    #[error("what it knows is too old")]
    Stale,
}

impl Unfit {
    /// Whether another query would fare no better.
    const fn is_of_the_way(&self) -> bool {
        matches!(self, Self::Unreached(_) | Self::NoUrl(_) | Self::Late | Self::Broken)
    }
}

/// Prometheus' answer to an instant query, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((IgnoredAny, String)),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Sample {
    /// Absent from a histogram.
    value: Option<(IgnoredAny, String)>,
}

/// The number in an answer. Amounts of money and counts alike are read digit by digit.
///
/// # Errors
/// If there is none, or not one.
pub fn number(status: StatusCode, body: &[u8]) -> Result<PicoUsd, Unfit> {
    let answer = serde_json::from_slice::<Answer>(body);
    if status != StatusCode::OK {
        let why = answer.ok().and_then(|answer| answer.error).unwrap_or_default();
        return Err(Unfit::Status(status, quoted(&why)));
    }
    let text = match answer.map_err(|_| Unfit::Foreign)?.data {
        Some(Data::Scalar((_, text))) => text,
        Some(Data::Vector(mut samples)) if samples.len() == 1 => {
            samples.remove(0).value.map(|(_, text)| text).ok_or(Unfit::Foreign)?
        }
        Some(Data::Vector(samples)) if samples.is_empty() => return Err(Unfit::Nothing),
        Some(Data::Vector(samples)) => return Err(Unfit::Many(samples.len())),
        Some(Data::Other) | None => return Err(Unfit::Foreign),
    };
    PicoUsd::of_usd(&text).ok_or_else(|| Unfit::NoAmount(quoted(&text)))
}

/// What somebody else wrote, fit for a line of the log.
fn quoted(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::Allowance;

    fn budget() -> FleetBudget {
        FleetBudget {
            name: "app".into(),
            allowance: Allowance::default(),
            start: UnixTime::new(1000),
            charged: Amount::default(),
        }
    }

    #[test]
    fn a_query_is_about_the_window_so_far_of_this_apps_series() {
        let filled = |query, matching, at| filled_in(query, "spent_total", matching, &budget(), UnixTime::new(at));
        assert_eq!(
            filled(QUERY, r#"job="weir""#, 4600),
            r#"sum(increase(spent_total{budget="app", job="weir"}[3600s])) or sum(spent_total{budget="app", job="weir"}) * 0"#
        );
        assert_eq!(
            filled("x:spent{b=\"$budget\"}[$range]", "", 1000),
            "x:spent{b=\"app\"}[1s]",
            "never an empty range"
        );
        assert_eq!(filled("$series", "", 2000), r#"spent_total{budget="app"}"#);
        assert_eq!(encoded("a{b=\"ü\"} + 1"), "a%7Bb%3D%22%C3%BC%22%7D%20%2B%201");
    }

    #[test]
    fn an_answer_is_one_amount_or_says_what_is_wrong_with_it() {
        let vector =
            |result: &str| format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#);
        let value = |text: &str| vector(&format!(r#"[{{"metric":{{}},"value":[1.5,{text}]}}]"#));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]}}"#.to_owned();
        for (body, amount) in [
            (value("\"12.5\""), "12.5"),
            (value("\"0\""), "0"),
            (value("\"1.5e-05\""), "0.000015"),
            (value("\"1e+06\""), "1000000"),
            (scalar, "7"),
        ] {
            let read = number(StatusCode::OK, body.as_bytes()).unwrap_or_else(|unfit| panic!("{body}: {unfit}"));
            assert_eq!(read.to_string(), amount, "{body}");
        }
        let series = r#"{"metric":{},"value":[1,"1"]}"#;
        for (rule, body, fault) in [
            ("not a number", value("\"NaN\""), "yields `NaN`, which is no amount"),
            ("infinite", value("\"+Inf\""), "yields `+Inf`"),
            ("negative", value("\"-1\""), "yields `-1`"),
            ("a word", value("\"much\""), "yields `much`"),
            ("empty", value("\"\""), "which is no amount"),
            ("a number that is no text", value("12.5"), "none of Prometheus' query API"),
            ("no series", vector("[]"), "no such series"),
            ("many series", vector(&format!("[{series},{series}]")), "yields 2 series"),
            ("a histogram", vector(r#"[{"metric":{},"histogram":[1,{}]}]"#), "none of Prometheus'"),
            ("a range", r#"{"data":{"resultType":"matrix","result":[]}}"#.to_owned(), "none of Prometheus'"),
            ("somebody else", "<html>".to_owned(), "none of Prometheus'"),
            ("nothing", String::new(), "none of Prometheus'"),
        ] {
            let unfit = number(StatusCode::OK, body.as_bytes()).expect_err(rule).to_string();
            assert!(unfit.contains(fault), "{rule}: {unfit}");
        }
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error:\n\u0007 unclosed"}"#;
        let unfit = number(StatusCode::BAD_REQUEST, refused).expect_err("refused").to_string();
        assert_eq!(unfit, "it answers with status 400 Bad Request: parse error: unclosed");
        assert!(number(StatusCode::UNAUTHORIZED, b"no").is_err());
    }

    #[test]
    fn what_was_counted_before_a_time_is_known_from_the_last_note_before_it() {
        let at = UnixTime::new;
        assert_eq!(Own::default().charged_before("app", at(5)), Some(Amount::default()), "just started");
        let mut notes = Notes::default();
        let counted = |tokens| Amount { usd: PicoUsd::ZERO, tokens };
        for (time, charged) in [(10, 1), (40, 2), (70, 3)] {
            notes.add(at(time), counted(charged));
        }
        for (time, charged) in [(9, 0), (10, 0), (11, 1), (40, 1), (41, 2), (70, 2), (71, 3), (1000, 3)] {
            assert_eq!(notes.before(at(time)), Some(counted(charged)), "{time}");
        }
        for second in 0..2 * MOST_NOTES {
            notes.add(at(1001 + i64::try_from(second).expect("small")), counted(9));
        }
        assert_eq!(notes.notes.len(), MOST_NOTES);
        assert_eq!(notes.before(at(71)), None, "forgotten is not nothing");
    }
}
