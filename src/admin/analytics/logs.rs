//! Listed: calls one by one.

use std::num::NonZeroUsize;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, Limit, Next, OfCalls, Question, cursor, cursor_after, limit, of_calls};
use crate::admin::analytics::shown::Period;
use crate::admin::asker::Asker;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::{Entry, Micros};
use crate::ledger::filter::Filter;
use crate::ledger::page::{Direction, Page};
use crate::ledger::reader::{Error, Reader};
use crate::record::outcome::Outcome;

/// Pages without a `limit` have so many calls.
const USUAL: usize = 20;
/// What cursors of this list are told by.
const KIND: &str = "logs";

const DIRECTIONS: [(&str, Direction); 2] = [("newest", Direction::Newest), ("oldest", Direction::Oldest)];
/// What the cache may have said.
const CACHE: [(&str, &str); 4] = [("hit", "hit"), ("miss", "miss"), ("expired", "expired"), ("bypass", "bypass")];

/// Calls one by one, a page at a time.
///
/// Pages may be short, or even empty, where calls are hard to find: the list ends where `next_cursor` is `null`.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/logs",
    tag = "analytics",
    operation_id = "analytics_logs",
    params(Question, OfCalls, Limit, Next,
        ("operation" = Option<String>, Query, description = "Only calls of this operation, such as `chat`."),
        ("outcome" = Option<String>, Query,
            description = "Only calls that ended so: `success`, `client_error`, `upstream_error`, `timeout`, \
                           `internal_error`, `rate_limited`, `budget_blocked` or `cancelled`."),
        ("cache" = Option<String>, Query, pattern = "^(hit|miss|expired|bypass)$",
            description = "Only calls of which the cache said this: `hit`, `miss`, `expired` or `bypass`."),
        ("order" = Option<String>, Query, pattern = "^(newest|oldest)$",
            description = "What comes first: `newest` (without this), or `oldest`.")),
    responses((status = 200, body = Listed), ToAsk)
)]
pub(super) async fn list(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str(), outcome));
    let (mut asked, wanted) = Asked::with(parameters, &caller, |parameters, _| {
        let (operation, outcome) = (parameters.text("operation"), parameters.choice("outcome", &outcomes));
        let cache = parameters.choice("cache", &CACHE);
        let direction = parameters.choice("order", &DIRECTIONS).unwrap_or(Direction::Newest);
        let after = cursor(parameters, KIND);
        let wanted = Wanted { after, direction, limit: limit(parameters, USUAL) };
        (operation, outcome, cache, of_calls(parameters), wanted)
    })?;
    let (operation, outcome, cache, (error_type, run), wanted) = wanted;
    asked.filter = Filter { operation, outcome, cache: cache.map(Into::into), error_type, run, ..asked.filter };
    admin.ledger.answer(move |ledger| Listed::of(&asked, &wanted, ledger)).await
}

/// Which page.
struct Wanted {
    after: Option<Micros>,
    direction: Direction,
    limit: NonZeroUsize,
}

/// A page of calls.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Logs)]
struct Listed {
    /// The time asked about.
    period: Period,
    /// The calls, in the order asked for.
    #[schema(value_type = Vec<Call>)]
    logs: Vec<Entry>,
    /// `cursor` of the next page; `null` after the last.
    next_cursor: Option<String>,
}

impl Listed {
    fn of(asked: &Asked, wanted: &Wanted, ledger: &Reader) -> Result<Self, Error> {
        let Wanted { after, direction, limit } = *wanted;
        let Page { entries, next } = ledger.page(asked.window, &asked.filter, after, (direction, limit))?;
        Ok(Self { period: asked.window.into(), logs: entries, next_cursor: next.map(|last| cursor_after(KIND, last)) })
    }
}

/// One call, as [`Entry`] is written. Further counts that a provider reported are members of their own.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `Entry` writes; a test holds the two together")]
pub(super) struct Call {
    /// When it was over. No two calls have the same.
    #[schema(format = DateTime)]
    timestamp: String,
    /// When its request's head had been read.
    #[schema(format = DateTime)]
    started_at: String,
    /// `X-Weir-Request-Id`.
    request_id: String,
    /// The trace it is in.
    #[schema(required)]
    trace_id: Option<String>,
    /// `X-Workspace-ID`.
    #[schema(required)]
    workspace_id: Option<String>,
    /// `X-Cache-Namespace`.
    #[schema(required)]
    namespace: Option<String>,
    /// The end user, as far as users are kept.
    #[schema(required)]
    user_id: Option<String>,
    /// `X-Agent-ID`.
    #[schema(required)]
    agent_id: Option<String>,
    /// `X-Loop-Type`.
    #[schema(required)]
    loop_type: Option<String>,
    /// `X-Run-ID`.
    #[schema(required)]
    run_id: Option<String>,
    /// The program that asked: its `User-Agent`.
    #[schema(required)]
    client: Option<String>,
    /// Who was asked.
    provider: String,
    /// What for, such as `chat`.
    operation: String,
    /// The model asked for.
    #[schema(required)]
    model: Option<String>,
    /// The model that answered.
    #[schema(required)]
    response_model: Option<String>,
    /// The price table's id of the model.
    #[schema(required)]
    priced_model: Option<String>,
    /// The model that the app had asked for, where a budget had another one asked.
    #[schema(required)]
    downgraded_from: Option<String>,
    /// The tier it was served at.
    #[schema(required)]
    service_tier: Option<String>,
    /// The provider's id of the request.
    #[schema(required)]
    provider_request_id: Option<String>,
    /// Whether the answer was streamed.
    streamed: bool,
    /// The HTTP status the app got.
    #[schema(required)]
    status: Option<u16>,
    /// How it ended.
    outcome: String,
    /// Why, if not well.
    #[schema(required)]
    error_type: Option<String>,
    /// The same in words.
    #[schema(required)]
    error_message: Option<String>,
    /// What the cache said: `hit`, `miss`, `expired` or `bypass`.
    cache: String,
    /// How the answer came to be there already: `cache`, `coalesced` or `similar`.
    #[schema(required)]
    reuse: Option<String>,
    /// Tokens of the prompt. This and the other counts are missing where they were not reported; with `reuse`, they are
    /// what that saved.
    input_tokens: Option<u64>,
    /// Tokens generated.
    output_tokens: Option<u64>,
    /// All tokens.
    total_tokens: Option<u64>,
    /// Whether any count is an estimate.
    usage_estimated: Option<bool>,
    /// What was spent, in US dollars: nothing with `reuse`. `null` where it is not known.
    #[schema(required)]
    cost_usd: Option<f64>,
    /// Where the cost comes from.
    #[schema(required)]
    provenance: Option<String>,
    /// Why the cost is not known.
    #[schema(required)]
    unpriced: Option<String>,
    /// What the price table says, where the provider stated the cost itself.
    #[schema(required)]
    list_cost_usd: Option<f64>,
    /// What `reuse` saved.
    #[schema(required)]
    saved_usd: Option<f64>,
    /// Request head read → last byte handed over.
    latency_ms: f64,
    /// Request handed to the provider → first token of a stream.
    #[schema(required)]
    first_token_ms: Option<f64>,
    /// Request handed to the provider → last byte of its answer.
    #[schema(required)]
    upstream_ms: Option<f64>,
    /// Bytes of body read from the app.
    bytes_in: u64,
    /// Bytes of body handed to the app.
    bytes_out: u64,
}
