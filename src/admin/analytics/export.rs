//! Export: calls as a file, streamed as it is read; what such a file would have in it; what a month has come to.
//!
//! Whoever stops reading ends the reading of the ledger too.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, OfCalls, Question, bind, moment, of_calls};
use crate::admin::analytics::logs::Call;
use crate::admin::analytics::shown::Period;
use crate::admin::analytics::{AGAIN_IN, switched_off};
use crate::admin::asker::Asker;
use crate::admin::cache::answer;
use crate::admin::limits::looked_at;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::export::paper::Paper;
use crate::export::statement::{Month, Statement};
use crate::export::stream::{Broken, Selection, estimate, stream as write};
use crate::export::{Compression, Form, Format, sheet};
use crate::ledger::entry::micros;
use crate::ledger::filter::Filter;
use crate::ledger::window::Window;
use crate::limits::standing::BudgetNow;
use crate::units::PicoUsd;

/// Bytes that are handed over at once.
const PIECE: usize = 64 << 10;
/// How many pieces may wait for whoever reads them.
const PIECES: usize = 4;
/// Whoever takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(60);

/// Calls as a file: CSV, JSON, lines of JSON or Parquet, the oldest first.
///
/// An answer that breaks off is not whole. Of `csv` and `ndjson`, uncompressed, an export goes on where it broke off with
/// `after`: the `timestamp` of the last row that is whole.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/export",
    tag = "analytics",
    operation_id = "analytics_export",
    params(Question, OfCalls,
        ("format" = Option<String>, Query, pattern = "^(csv|json|ndjson|parquet)$",
            description = "`csv` (without this), `json`, `ndjson` or `parquet`."),
        ("compression" = Option<String>, Query, pattern = "^(none|gzip|zstd)$",
            description = "`none` (without this), `gzip` or `zstd`; Parquet is compressed within."),
        ("after" = Option<String>, Query,
            description = "Only calls that were over after this moment, and no header row: what is missing of an export \
                           that broke off.")),
    responses(
        (status = 200, content(
            (String = "text/csv"), (Vec<Call> = "application/json"), (String = "application/x-ndjson"),
            (String = "application/vnd.apache.parquet"), (String = "application/gzip"), (String = "application/zstd"))),
        ToAsk)
)]
pub(super) async fn export(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (selection, form) = selected(parameters, &caller)?;
    let reader = admin.ledger.ledger.as_ref().ok_or_else(switched_off)?.reader().clone();
    let Ok(turn) = std::sync::Arc::clone(&admin.ledger.exports).try_acquire_owned() else {
        return Err(Problem::later(AGAIN_IN, "as many exports as may be are going on: ask again when one is over"));
    };
    // Whether anybody can be asked is told before the answer begins.
    let opened = reader.clone();
    admin.ledger.ask(move |_| opened.span()).await?;
    let detail = json!({
        "format": form.format().as_str(),
        "from": sheet::time(selection.window.from),
        "to": sheet::time(selection.window.to),
        "filter": asked_for(&selection.filter),
    });
    admin.ledger.note(caller.shown(), "export", detail).await?;
    let head = head(&selection, form);
    let (pieces, body) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    spawn_blocking(move || {
        let _turn = turn;
        let pipe = Pipe { pieces, runtime };
        let out = BufWriter::with_capacity(PIECE, pipe.clone());
        match write(&reader, &selection, (form, out), |_| {}) {
            Ok((written, _)) => tracing::debug!(weir.rows = written.rows, "export written"),
            Err(Broken::Unread(error)) => pipe.break_off(io::Error::other(error)),
            Err(Broken::Unwritten(error)) => pipe.break_off(error),
        }
    });
    let body = stream::unfold(body, |mut body: mpsc::Receiver<io::Result<Bytes>>| async {
        body.recv().await.map(|piece| (piece, body))
    });
    Ok((head, Body::from_stream(body)).into_response())
}

/// What a note says of a filter: no user, who may have to be forgotten.
fn asked_for(filter: &Filter) -> Value {
    json!({
        "workspace_id": filter.workspace,
        "namespace": filter.namespace,
        "agent_id": filter.agent,
        "of_one_user": filter.user.is_some(),
        "provider": filter.provider,
        "model": filter.model,
        "error_type": filter.error_type,
        "of_one_run": filter.run.is_some(),
    })
}

/// What says what the file is.
fn head(selection: &Selection, form: Form) -> [(HeaderName, String); 3] {
    let day = |at| sheet::time(at).get(.."2026-10-01".len()).unwrap_or_default().to_owned();
    let Window { from, to } = selection.window;
    let name = format!("weir-{}-{}.{}", day(from), day(to), form.extension());
    [
        (header::CONTENT_TYPE, form.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
}

/// Where an export is written to: pieces on their way to whoever reads them.
#[derive(Clone)]
struct Pipe {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Pipe {
    /// Lets whoever reads know that this is not all.
    fn break_off(&self, error: io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            tracing::warn!(error.message = %error, "an export broke off");
        }
        // If there is no room for it, nobody reads.
        let _ = self.pieces.try_send(Err(error));
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.pieces.send(Ok(Bytes::copy_from_slice(bytes)));
        match self.runtime.block_on(async { timeout(STALLED, sent).await }) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an export would have in it.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/export-stats",
    tag = "analytics",
    operation_id = "analytics_export_stats",
    params(Question, OfCalls,
        ("format" = Option<String>, Query, pattern = "^(csv|json|ndjson|parquet)$", description = "As of an export."),
        ("compression" = Option<String>, Query, pattern = "^(none|gzip|zstd)$", description = "As of an export."),
        ("after" = Option<String>, Query, description = "As of an export.")),
    responses((status = 200, body = ExportStats), ToAsk)
)]
pub(super) async fn stats(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (selection, form) = selected(parameters, &caller)?;
    let period = selection.window.into();
    let asked = admin.ledger.ask(move |ledger| {
        estimate(ledger, &selection, form).map_err(|broken| match broken {
            Broken::Unread(error) => error,
            Broken::Unwritten(_) => unreachable!("memory takes everything"),
        })
    });
    let estimate = asked.await?;
    let stats = ExportStats {
        period,
        covered: estimate.covers.map(Into::into),
        format: form.format().as_str(),
        compression: form.compression().as_str(),
        rows: estimate.rows,
        estimated_bytes: estimate.bytes,
    };
    Ok(answer(StatusCode::OK, &stats))
}

/// What an export would have in it.
#[derive(Debug, Serialize, ToSchema)]
struct ExportStats {
    /// The time asked about.
    period: Period,
    /// The part of it between the first call there is and the last; `null` without any.
    covered: Option<Period>,
    /// How the calls would be written down.
    format: &'static str,
    /// How that would be compressed.
    compression: &'static str,
    /// How many calls there are.
    rows: u64,
    /// About how many bytes that makes, told from the first calls; `null` without any.
    estimated_bytes: Option<u64>,
}

/// Which calls, and in which form.
fn selected(parameters: Parameters, caller: &Asker) -> Result<(Selection, Form), Problem> {
    let formats = Format::ALL.map(|format| (format.as_str(), format));
    let compressions = Compression::ALL.map(|compression| (compression.as_str(), compression));
    let (asked, (form, after, (error_type, run))) = Asked::with(parameters, caller, |parameters, _| {
        let format = parameters.choice("format", &formats).unwrap_or_default();
        let compression = parameters.choice("compression", &compressions).unwrap_or_default();
        let after = parameters.parsed("after", "write the `timestamp` of the last row that is whole", moment);
        let form = match Form::new(format, compression) {
            Ok(form) if after.is_some() => form.following().map_err(|problem| ("after", problem)),
            Ok(form) => Ok(form),
            Err(problem) => Err(("compression", problem)),
        };
        let form = form.unwrap_or_else(|(name, problem)| {
            parameters.fault(name, problem);
            Form::default()
        });
        (form, after, of_calls(parameters))
    })?;
    let mut window = asked.window;
    window.from = window.from.max(after.map_or(0, |after| after.saturating_add(1)));
    let filter = Filter { error_type, run, ..asked.filter };
    Ok((Selection { window, filter }, form))
}

/// What a month has come to, for whoever pays.
#[utoipa::path(
    get,
    path = "/api/v1/cost/statement",
    tag = "cost",
    operation_id = "cost_statement",
    params(
        ("month" = Option<String>, Query, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$",
            description = "Such as `2026-10`, in UTC; the one that goes on without this."),
        ("format" = Option<String>, Query, pattern = "^(markdown|html|csv|json)$",
            description = "`markdown`, `html`, `csv` or `json` (without this)."),
        ("workspace_id" = Option<String>, Query, description = "Only calls of this workspace."),
        ("budget_usd" = Option<String>, Query, pattern = "^[0-9]{1,12}(\\.[0-9]{1,12})?$",
            description = "What was to be spent at most; without this what the month's budget allows.")),
    responses(
        (status = 200, content(
            (Value = "application/json"), (String = "text/markdown"), (String = "text/html"), (String = "text/csv"))),
        ToAsk)
)]
pub(super) async fn statement(
    caller: Asker,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let now = micros(SystemTime::now());
    let papers = Paper::ALL.map(|paper| (paper.as_str(), paper));
    let month =
        parameters.parsed("month", "write a year and a month, such as `2026-10`", |text| text.parse::<Month>().ok());
    let paper = parameters.choice("format", &papers).unwrap_or(Paper::Json);
    let mut filter = Filter { workspace: parameters.text("workspace_id"), ..Filter::default() };
    let budget = parameters.parsed("budget_usd", "write US dollars, such as `500`", PicoUsd::of_usd);
    parameters.end()?;
    bind(&mut filter, &caller)?;
    let month = month.unwrap_or_else(|| Month::of(now));
    let limits = std::sync::Arc::clone(&admin.limits);
    let in_force = looked_at(move || BudgetNow::of(limits.monthly(), limits.now()).terms.allowance.usd).await?;
    // A budget is of everybody's calls, and of the month that goes on.
    let is_its = filter == Filter::default() && month == Month::of(now);
    let limit = budget.or(in_force.filter(|_| is_its));
    let statement = admin.ledger.ask(move |ledger| Statement::of(ledger, month, &filter, now)).await?;
    let page = paper.write(&statement.beside(limit));
    // Whatever is in it, a page that prints needs nothing from anywhere.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    let head = [
        (header::CONTENT_TYPE, paper.media_type()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((head, page).into_response())
}
