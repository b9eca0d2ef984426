//! Semconv: every name weir gives to a number or a fact. Metrics, labels, log attributes, and nothing else.
//!
//! `gen_ai.*` follows the OpenTelemetry semantic conventions 1.41, the last release of the core project that defines
//! them; all of it is still in development there and will be renamed. So those names live here and nowhere else. What
//! they are to be called next stands beside them (semantic-conventions-genai, which has not published a release yet: as
//! of autumn 2026).
//! The tables of `docs/metrics.md` are made from what is declared here.

#[cfg(test)]
mod page;
pub mod values;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the process lives.
    Counter,
    /// A value now.
    Gauge,
    /// Observations in classic buckets.
    Histogram,
    /// A gauge that is always 1; its labels say something.
    Info,
}

impl Kind {
    /// The word for it in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric: all there is to know of it but its values.
#[derive(Debug)]
pub struct Metric {
    /// The name as scraped, `_total` and `_info` included.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What is counted or measured in.
    pub unit: &'static str,
    /// Every label it may carry.
    pub labels: &'static [&'static str],
    /// What it is: a phrase without a full stop, which the client library adds.
    pub help: &'static str,
    /// When it changes, or from when to when it is measured.
    pub measured: &'static str,
    /// Upper bounds, of a histogram.
    pub buckets: &'static [f64],
}

impl Metric {
    /// The name to register: the encoder appends `_total` to counters and `_info` to infos.
    #[must_use]
    pub fn stem(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

/// Label names.
pub mod label {
    /// `X-Agent-ID`, capped.
    pub const AGENT: &str = "agent";
    /// Where a cache keeps its entries.
    pub const BACKEND: &str = "backend";
    /// A budget, by its name in the configuration.
    pub const BUDGET: &str = "budget";
    /// The cache's part in a call.
    pub const CACHE: &str = "cache";
    /// `X-Cache-Namespace`, capped.
    pub const CACHE_NAMESPACE: &str = "cache_namespace";
    /// How one attempt ended: an HTTP status, `error` or `timeout`.
    pub const CODE: &str = "code";
    /// Who uses the app, by `X-User-ID` or a hash of it, capped.
    pub const CONSUMER: &str = "consumer";
    /// What a limit said to a call.
    pub const DECISION: &str = "decision";
    /// Of bytes: `in` from the app, `out` to it. Of a difference: `over` or `under`.
    pub const DIRECTION: &str = "direction";
    /// `error.type`; absent on success.
    pub const ERROR_TYPE: &str = "error_type";
    /// `gen_ai.operation.name`.
    pub const GEN_AI_OPERATION_NAME: &str = "gen_ai_operation_name";
    /// `gen_ai.provider.name`.
    pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai_provider_name";
    /// `gen_ai.request.model`, capped.
    pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai_request_model";
    /// `gen_ai.response.model`, capped.
    pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai_response_model";
    /// `gen_ai.token.modality`, of the next conventions.
    pub const GEN_AI_TOKEN_MODALITY: &str = "gen_ai_token_modality";
    /// `gen_ai.token.type`.
    pub const GEN_AI_TOKEN_TYPE: &str = "gen_ai_token_type";
    /// What a quota counts.
    pub const KIND: &str = "kind";
    /// The name of a capped label.
    pub const LABEL: &str = "label";
    /// A limit, by its name in the configuration.
    pub const LIMIT: &str = "limit";
    /// `X-Loop-Type`, capped.
    pub const LOOP_TYPE: &str = "loop_type";
    /// The price table's id of a model, else the name asked for; capped.
    pub const MODEL: &str = "model";
    /// `gen_ai.operation.name`, or weir's own word where the conventions define none.
    pub const OPERATION: &str = "operation";
    /// How a call ended for the app.
    pub const OUTCOME: &str = "outcome";
    /// The way in or the way back.
    pub const PHASE: &str = "phase";
    /// Where a cost comes from.
    pub const PROVENANCE: &str = "provenance";
    /// `gen_ai.provider.name`, or the configured name where the conventions define none.
    pub const PROVIDER: &str = "provider";
    /// A bounded queue of weir's own.
    pub const QUEUE: &str = "queue";
    /// Why.
    pub const REASON: &str = "reason";
    /// What a container may have to wait for.
    pub const RESOURCE: &str = "resource";
    /// Which body of a call.
    pub const BODY: &str = "body";
    /// Whose connections.
    pub const SIDE: &str = "side";
    /// What came of it.
    pub const RESULT: &str = "result";
    /// The commit weir was built from.
    pub const REVISION: &str = "revision";
    /// Who asked, of several equal calls.
    pub const ROLE: &str = "role";
    /// Whose spending a budget counts.
    pub const SCOPE: &str = "scope";
    /// Where something comes from.
    pub const SOURCE: &str = "source";
    /// How a loop ended.
    pub const STATUS: &str = "status";
    /// What entries were chosen by.
    pub const STRATEGY: &str = "strategy";
    /// The name of a tool, capped.
    pub const TOOL: &str = "tool";
    /// Another way to a provider, by its name in the configuration.
    pub const TO_PROVIDER: &str = "to_provider";
    /// Disjoint class of what is billed; of loops, `prompt` or `completion`.
    pub const TOKEN_TYPE: &str = "token_type";
    /// What a check came to.
    pub const VERDICT: &str = "verdict";
    /// A version.
    pub const VERSION: &str = "version";
    /// Which of the injector's webhooks asks.
    pub const WEBHOOK: &str = "webhook";
    /// How long what a budget allows has to last.
    pub const WINDOW: &str = "window";
}

/// Attribute names, for log fields.
pub mod attribute {
    /// Who changed something, or tried to.
    pub const CLIENT_ADDRESS: &str = "client.address";
    /// Why a call did not end well.
    pub const ERROR_TYPE: &str = "error.type";
    /// The same in words.
    pub const ERROR_MESSAGE: &str = "error.message";
    /// What kind of call it is.
    pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
    /// Who answers.
    pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
    /// The model asked for.
    pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The provider's id of the reply.
    pub const GEN_AI_RESPONSE_ID: &str = "gen_ai.response.id";
    /// The model that answered.
    pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// All input tokens, cached ones included.
    pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// All output tokens, reasoning included.
    pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The status the app got.
    pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    /// The span of a call as its app sees it.
    pub const SPAN_ID: &str = "span_id";
    /// The trace that a call is part of.
    pub const TRACE_ID: &str = "trace_id";
    /// The agent that asks.
    pub const WEIR_AGENT: &str = "weir.agent";
    /// What an operator did.
    pub const WEIR_AUDIT_ACTION: &str = "weir.audit.action";
    /// How many entries of the cache, or calls of the ledger, that was about.
    pub const WEIR_AUDIT_ENTRIES: &str = "weir.audit.entries";
    /// The name of the token that was shown.
    pub const WEIR_AUDIT_TOKEN: &str = "weir.audit.token";
    /// What it was done to, in JSON.
    pub const WEIR_AUDIT_WHAT: &str = "weir.audit.what";
    /// What the cache said.
    pub const WEIR_CACHE: &str = "weir.cache";
    /// How similar the request is whose answer answered.
    pub const WEIR_CACHE_SIMILARITY: &str = "weir.cache.similarity";
    /// What checking the answer to a similar request came to.
    pub const WEIR_CACHE_VERDICT: &str = "weir.cache.verdict";
    /// Why a call was not looked up in the cache.
    pub const WEIR_CACHE_BYPASS: &str = "weir.cache.bypass";
    /// Not spent, because the answer was there already: US dollars, decimal.
    pub const WEIR_COST_SAVED_USD: &str = "weir.cost.saved_usd";
    /// Why the cost is not known.
    pub const WEIR_COST_UNPRICED: &str = "weir.cost.unpriced";
    /// The budget that had another model asked.
    pub const WEIR_DOWNGRADED_BUDGET: &str = "weir.downgraded.budget";
    /// The model that the app asked, where a budget had another one asked.
    pub const WEIR_DOWNGRADED_FROM: &str = "weir.downgraded.from";
    /// Spent: US dollars, decimal.
    pub const WEIR_COST_USD: &str = "weir.cost.usd";
    /// Seconds from request head to last byte.
    pub const WEIR_DURATION: &str = "weir.duration_s";
    /// Model calls of a run.
    pub const WEIR_LOOP_CALLS: &str = "weir.loop.calls";
    /// Calls of a run that did not end well.
    pub const WEIR_LOOP_ERRORS: &str = "weir.loop.errors";
    /// Why a run is taken for a runaway loop.
    pub const WEIR_LOOP_REASON: &str = "weir.loop.reason";
    /// Tokens a run has bought.
    pub const WEIR_LOOP_TOKENS: &str = "weir.loop.tokens";
    /// Tool calls that the model asked for in a run.
    pub const WEIR_LOOP_TOOL_CALLS: &str = "weir.loop.tool_calls";
    /// Calls of a run whose cost is not known.
    pub const WEIR_LOOP_UNPRICED: &str = "weir.loop.unpriced_calls";
    /// The kind of agent loop that asks.
    pub const WEIR_LOOP_TYPE: &str = "weir.loop.type";
    /// The cache namespace of the caller.
    pub const WEIR_NAMESPACE: &str = "weir.namespace";
    /// How the call ended for the app.
    pub const WEIR_OUTCOME: &str = "weir.outcome";
    /// The exchange's id, as in `X-Weir-Request-Id`.
    pub const WEIR_REQUEST_ID: &str = "weir.request_id";
    /// The run of an agent loop.
    pub const WEIR_RUN: &str = "weir.run";
    /// Whether the call asked for equal ones too, or got the answer of one.
    pub const WEIR_SINGLEFLIGHT_ROLE: &str = "weir.singleflight.role";
    /// Where the cost comes from.
    pub const WEIR_COST_PROVENANCE: &str = "weir.cost.provenance";
    /// What the price table says, where the provider stated the cost.
    pub const WEIR_COST_LIST_USD: &str = "weir.cost.list_usd";
    /// Whether any count of the usage is an estimate.
    pub const WEIR_USAGE_ESTIMATED: &str = "weir.usage.estimated";
    /// The name of the fallback that the call went to last.
    pub const WEIR_UPSTREAM_FALLBACK: &str = "weir.upstream.fallback";
    /// How often weir made the call again.
    pub const WEIR_UPSTREAM_RETRIES: &str = "weir.upstream.retries";
    /// The provider's id of the request.
    pub const WEIR_UPSTREAM_REQUEST_ID: &str = "weir.upstream.request_id";
    /// Seconds the provider says it worked on the call.
    pub const WEIR_UPSTREAM_PROCESSING: &str = "weir.upstream.processing_s";
    /// Seconds the provider asks to wait.
    pub const WEIR_UPSTREAM_RETRY_AFTER: &str = "weir.upstream.retry_after_s";
    /// Seconds from the request going upstream to the first token.
    pub const WEIR_TIME_TO_FIRST_TOKEN: &str = "weir.time_to_first_token_s";
    /// Seconds from the request going upstream to the last byte of the answer.
    pub const WEIR_UPSTREAM_DURATION: &str = "weir.upstream_duration_s";
    /// The workspace of the caller.
    pub const WEIR_WORKSPACE: &str = "weir.workspace";
    /// What a store was asked.
    pub const DB_OPERATION_NAME: &str = "db.operation.name";
    /// Which store was asked.
    pub const DB_SYSTEM_NAME: &str = "db.system.name";
    /// The conversation that a call is part of, where the app names one.
    pub const GEN_AI_CONVERSATION_ID: &str = "gen_ai.conversation.id";
    /// What the answer is to be.
    pub const GEN_AI_OUTPUT_TYPE: &str = "gen_ai.output.type";
    /// How many answers are asked for, if not one.
    pub const GEN_AI_REQUEST_CHOICE_COUNT: &str = "gen_ai.request.choice.count";
    /// Most tokens of the answer.
    pub const GEN_AI_REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
    /// What chance begins with.
    pub const GEN_AI_REQUEST_SEED: &str = "gen_ai.request.seed";
    /// Whether the answer is to come piece by piece.
    pub const GEN_AI_REQUEST_STREAM: &str = "gen_ai.request.stream";
    /// How much chance there is in the answer.
    pub const GEN_AI_REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
    /// The number of the likeliest tokens that are drawn from.
    pub const GEN_AI_REQUEST_TOP_K: &str = "gen_ai.request.top_k";
    /// The share of the likeliest tokens that are drawn from.
    pub const GEN_AI_REQUEST_TOP_P: &str = "gen_ai.request.top_p";
    /// Why the model stopped, one for each answer.
    pub const GEN_AI_RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Seconds from the request going upstream to the first piece of a stream.
    pub const GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    /// Input tokens that the provider wrote to its cache.
    pub const GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: &str = "gen_ai.usage.cache_creation.input_tokens";
    /// Input tokens that the provider read from its cache.
    pub const GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
    /// Output tokens that are reasoning.
    pub const GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
    /// The method of a request.
    pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
    /// How often the app has tried before.
    pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
    /// Where the app sent a request, without what differs from call to call.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The version of HTTP that the provider answered by.
    pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
    /// Which of OpenAI's APIs was asked.
    pub const OPENAI_API_TYPE: &str = "openai.api.type";
    /// The tier that OpenAI served the call at.
    pub const OPENAI_RESPONSE_SERVICE_TIER: &str = "openai.response.service_tier";
    /// The provider's host.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The provider's port.
    pub const SERVER_PORT: &str = "server.port";
    /// Where the request went, without its query.
    pub const URL_FULL: &str = "url.full";
    /// Where the app sent the request.
    pub const URL_PATH: &str = "url.path";
    /// How the app sent the request.
    pub const URL_SCHEME: &str = "url.scheme";
    /// Whether a budget refused the call, or ended it.
    pub const WEIR_BUDGET_BLOCKED: &str = "weir.budget.blocked";
    /// The budget that did.
    pub const WEIR_BUDGET_NAME: &str = "weir.budget.name";
    /// How old the stored answer is that answered.
    pub const WEIR_CACHE_AGE: &str = "weir.cache.age_seconds";
    /// Where the stored answer was that answered.
    pub const WEIR_CACHE_BACKEND: &str = "weir.cache.backend";
    /// What the cache said, in spans.
    pub const WEIR_CACHE_RESULT: &str = "weir.cache.result";
    /// Why an answer was not stored.
    pub const WEIR_CACHE_STORE_RESULT: &str = "weir.cache.store.result";
    /// Why a span is linked to another.
    pub const WEIR_LINK_TYPE: &str = "weir.link.type";
    /// The run of an agent loop, in spans.
    pub const WEIR_LOOP_ID: &str = "weir.loop.id";
    /// The model asked for, where no model call is told of.
    pub const WEIR_MODEL: &str = "weir.model";
    /// What kind of call it is, where no model call is told of.
    pub const WEIR_OPERATION: &str = "weir.operation";
    /// Who is asked, where no model call is told of.
    pub const WEIR_PROVIDER: &str = "weir.provider";
    /// How often the app has tried before.
    pub const WEIR_RETRY_COUNT: &str = "weir.retry.count";
}

/// The names of events within spans.
pub mod event {
    /// A budget refused a call, or ended it.
    pub const BUDGET_BLOCKED: &str = "weir.budget.blocked";
    /// An answer broke off.
    pub const STREAM_ABORTED: &str = "weir.stream.aborted";
    /// An answer that might have been stored was not.
    pub const STORE_SKIPPED: &str = "weir.cache.store_skipped";
}

/// The conventions that the names of attributes follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.0";

/// Advised by the conventions.
const TOKEN_BUCKETS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Advised by the conventions up to 81.92; beyond it, models that think for minutes.
const OPERATION_BUCKETS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36];

/// Advised by the conventions up to 10; beyond it, models that think before the first token.
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0,
];

/// Advised by the conventions from 0.01; below it, providers that write hundreds of tokens a second.
const PER_TOKEN_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// From a hit, below a millisecond, to a model that thinks for ten minutes.
const REQUEST_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
    320.0, 640.0,
];

/// From a batch of a few calls to a disk that can hardly be written.
const LEDGER_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// weir's own share: fractions of a millisecond.
const OVERHEAD_BUCKETS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// From a short call to a small model to a long one to the largest.
const COST_BUCKETS: &[f64] = &[0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// From memory to a store across the network.
const LOOKUP_BUCKETS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1];

/// From a small model on the same machine to a large one across the network.
const SIMILAR_BUCKETS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// From the same machine to the other side of the world, with a retransmission.
const CONNECT_BUCKETS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// From two calls to an afternoon.
const LOOP_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// From a pod of two containers to a machine that has no time.
const INJECT_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

macro_rules! metrics {
    ($([$section:literal] $($id:ident = $kind:ident $name:literal, $unit:literal, [$($label:ident),*], $help:literal,
        $measured:literal $(, $buckets:expr)?;)+)+) => {
        $($(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$(label::$label),*],
                help: $help,
                measured: $measured,
                buckets: metrics!(@buckets $($buckets)?),
            };
        )+)+

        /// Every metric weir exposes.
        pub const METRICS: &[&Metric] = &[$($(&$id),+),+];

        /// The same, as `docs/metrics.md` groups them.
        pub const SECTIONS: &[(&str, &[&Metric])] = &[$(($section, &[$(&$id),+])),+];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}

metrics! {
    ["At the provider"]
    CLIENT_TOKEN_USAGE = Histogram "gen_ai_client_token_usage", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_TYPE],
        "Number of input and output tokens used",
        "once per type at the end of an upstream operation that reported its usage; cached input and reasoning included",
        TOKEN_BUCKETS;
    CLIENT_OPERATION_DURATION = Histogram "gen_ai_client_operation_duration_seconds", "seconds",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, ERROR_TYPE],
        "GenAI operation duration",
        "request handed to the upstream → last byte of its answer, or its failure; `error_type` only on failure",
        OPERATION_BUCKETS;
    SERVER_TIME_TO_FIRST_TOKEN = Histogram "gen_ai_server_time_to_first_token_seconds", "seconds",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL],
        "Time to generate first token for successful responses",
        "streamed, successful: request handed to the upstream → first content, reasoning or tool delta",
        FIRST_TOKEN_BUCKETS;
    SERVER_TIME_PER_OUTPUT_TOKEN = Histogram "gen_ai_server_time_per_output_token_seconds", "seconds",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL],
        "Time per output token generated after the first token for successful responses",
        "streamed, successful, at least 2 output tokens: (last byte − first token) ÷ (output tokens − 1)",
        PER_TOKEN_BUCKETS;

    ["At the provider, in the next words"]
    INFERENCE_INPUT_TOKENS = Counter "gen_ai_client_inference_usage_input_tokens_total", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_MODALITY],
        "The number of input (prompt) tokens used, including cached tokens",
        "`next`: at the end of an upstream operation, from the usage its provider reported";
    INFERENCE_OUTPUT_TOKENS = Counter "gen_ai_client_inference_usage_output_tokens_total", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_MODALITY],
        "The number of output (completion) tokens used, including reasoning tokens",
        "`next`: at the end of an upstream operation, from the usage its provider reported";
    INFERENCE_CACHE_READ_TOKENS = Counter "gen_ai_client_inference_usage_cache_read_input_tokens_total", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_MODALITY],
        "The number of input tokens served from a provider-managed cache",
        "`next`: the same; within the input tokens";
    INFERENCE_CACHE_WRITE_TOKENS = Counter "gen_ai_client_inference_usage_cache_write_input_tokens_total", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_MODALITY],
        "The number of input tokens written to a provider-managed cache",
        "`next`: the same; within the input tokens";
    INFERENCE_REASONING_TOKENS = Counter "gen_ai_client_inference_usage_reasoning_output_tokens_total", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_MODALITY],
        "The number of output tokens used for reasoning",
        "`next`: the same; within the output tokens";
    INFERENCE_OPERATION_INPUT_TOKENS = Histogram "gen_ai_client_inference_operation_input_tokens", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, ERROR_TYPE],
        "The number of input (prompt) tokens used per inference operation",
        "`next`: once at the end of an upstream operation that reported its usage; `error_type` only on failure",
        TOKEN_BUCKETS;
    INFERENCE_OPERATION_OUTPUT_TOKENS = Histogram "gen_ai_client_inference_operation_output_tokens", "tokens",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, ERROR_TYPE],
        "The number of output (completion) tokens used per inference operation",
        "`next`: once at the end of an upstream operation that reported its usage; `error_type` only on failure",
        TOKEN_BUCKETS;
    INFERENCE_DURATION = Histogram "gen_ai_client_inference_duration_seconds", "seconds",
        [GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, ERROR_TYPE],
        "Inference duration",
        "`next`: as `gen_ai_client_operation_duration_seconds`", OPERATION_BUCKETS;

    ["Calls"]
    REQUESTS = Counter "weir_requests_total", "calls", [PROVIDER, MODEL, OPERATION, OUTCOME],
        "Calls received from the app", "when a call ends";
    REQUEST_DURATION = Histogram "weir_request_duration_seconds", "seconds", [PROVIDER, OPERATION, CACHE],
        "Time from request head to last response byte sent to the app",
        "request head read → last byte handed to the app, or the call given up", REQUEST_BUCKETS;
    PROXY_OVERHEAD = Histogram "weir_proxy_overhead_seconds", "seconds", [PHASE],
        "Time added by weir itself, waiting on the provider excluded",
        "`request`: head read → request handed to the upstream, less the wait for the body; `response`: response head \
         from the provider → response head handed to the app", OVERHEAD_BUCKETS;
    REQUESTS_IN_FLIGHT = Gauge "weir_requests_in_flight", "calls", [PROVIDER],
        "Calls in progress", "from request head read until the call ends";
    HTTP_BYTES = Counter "weir_http_bytes_total", "bytes", [DIRECTION],
        "Body bytes exchanged with the app", "when a call ends";

    ["Tokens and money"]
    TOKENS = Counter "weir_tokens_total", "tokens", [PROVIDER, MODEL, TOKEN_TYPE],
        "Tokens billed by providers",
        "when a call ends, from the usage its provider reported, or by estimate where it did not";
    TOKENS_SAVED = Counter "weir_tokens_saved_total", "tokens", [PROVIDER, MODEL, SOURCE],
        "Tokens not bought because of reuse", "when a call ends that was answered from the cache or with an equal one";
    COST = Counter "weir_cost_usd_total", "US dollars", [PROVIDER, MODEL, TOKEN_TYPE],
        "Cost of upstream calls in US dollars", "when a priced call ends";
    COST_SAVED = Counter "weir_cost_saved_usd_total", "US dollars", [PROVIDER, MODEL, SOURCE],
        "Cost avoided by reuse in US dollars, at current prices",
        "when a call ends that was answered from the cache or with an equal one";
    REQUEST_COST = Histogram "weir_request_cost_usd", "US dollars", [PROVIDER, MODEL],
        "Cost of one priced upstream call in US dollars", "when a priced call ends", COST_BUCKETS;
    UNPRICED_REQUESTS = Counter "weir_unpriced_requests_total", "calls", [PROVIDER, REASON],
        "Upstream calls that could not be priced",
        "when a call ends that its provider answered and bills by usage, but that has no price";
    UNPRICED_LAST_SEEN = Gauge "weir_unpriced_last_seen_timestamp_seconds", "unix seconds", [PROVIDER, MODEL, REASON],
        "Unix time of the last unpriced call", "when an unpriced call ends; absent before the first";
    USAGE_ESTIMATED = Counter "weir_usage_estimated_total", "calls", [PROVIDER],
        "Calls whose usage was estimated because the provider gave none", "when such a call ends";
    BILLABLE_REQUESTS = Counter "weir_billable_requests_total", "calls", [PROVIDER, PROVENANCE],
        "Billable upstream calls by where their cost comes from", "when a call ends that its provider may bill";
    COST_BY_PROVENANCE = Counter "weir_cost_by_provenance_usd_total", "US dollars", [PROVIDER, PROVENANCE],
        "Cost of upstream calls in US dollars by where it comes from", "when a priced call ends";
    COST_CAPTURE_RATIO = Gauge "weir_cost_capture_ratio", "1", [PROVIDER],
        "Share of billable calls whose cost is exact, reported by the provider or priced from reported usage",
        "at the scrape, since the start; absent before the first billable call";
    COST_DRIFT = Counter "weir_cost_drift_usd_total", "US dollars", [PROVIDER, DIRECTION],
        "Difference between what providers say they charge and what the price table says in US dollars",
        "when a call ends whose provider stated its cost and reported its usage; `over`: it charges more than the table";
    PRICE_TABLE_TIMESTAMP = Gauge "weir_price_table_timestamp_seconds", "unix seconds", [],
        "Unix time the price table was published", "at the scrape, of the table in force";
    PRICE_TABLE_INFO = Info "weir_price_table_info", "1", [VERSION, SOURCE],
        "Price table in use", "at the scrape";

    ["Cache"]
    CACHE_REQUESTS = Counter "weir_cache_requests_total", "calls", [PROVIDER, MODEL, RESULT],
        "Cache lookups by result", "when a call ends";
    CACHE_LOOKUP_DURATION = Histogram "weir_cache_lookup_duration_seconds", "seconds", [BACKEND, RESULT],
        "Time to look up a key", "one lookup", LOOKUP_BUCKETS;
    CACHE_ENTRIES = Gauge "weir_cache_entries", "entries", [BACKEND],
        "Entries", "at the scrape";
    CACHE_SIZE = Gauge "weir_cache_size_bytes", "bytes", [BACKEND],
        "Bytes held", "at the scrape";
    CACHE_CAPACITY = Gauge "weir_cache_capacity_bytes", "bytes", [BACKEND],
        "Byte limit", "at the scrape";
    CACHE_EVICTIONS = Counter "weir_cache_evictions_total", "entries", [BACKEND, REASON],
        "Entries removed", "when an entry is removed";
    CACHE_STORES = Counter "weir_cache_stores_total", "responses", [BACKEND, RESULT],
        "Responses offered to the cache", "when the call ends whose response was offered; `redis`: when it is written, or not";
    CACHE_INVALIDATIONS = Counter "weir_cache_invalidations_total", "commands", [STRATEGY],
        "Invalidation commands executed", "when this instance has executed a command of its operator";
    CACHE_ERRORS = Counter "weir_cache_errors_total", "errors", [BACKEND, OPERATION],
        "Cache backend errors; the call went on without the cache", "when an operation fails, or is left out because it would";
    SHARED_STORE_UP = Gauge "weir_shared_store_up", "1", [],
        "1 if the shared store answers", "at the scrape; absent when none is configured";
    SINGLEFLIGHT_REQUESTS = Counter "weir_singleflight_requests_total", "calls", [ROLE],
        "Identical concurrent calls merged",
        "when such a call ends: `leader` asked, and others joined; `follower` got its answer";
    SINGLEFLIGHT_WAIT = Histogram "weir_singleflight_wait_seconds", "seconds", [],
        "Time followers waited",
        "equal call in flight joined → its answer handed over, or given up on; of a stream, its beginning", REQUEST_BUCKETS;

    SIMILAR_REQUESTS = Counter "weir_cache_similar_requests_total", "calls", [RESULT],
        "Searches for a similar request that has been answered",
        "when a search ends: for a call without an answer of its own, where something like it was asked before";
    SIMILAR_LOOKUP = Histogram "weir_cache_similar_lookup_seconds", "seconds", [],
        "Time calls wait for a search for a similar request", "search begun → answer found, or given up",
        SIMILAR_BUCKETS;
    SIMILAR_EMBEDDINGS = Counter "weir_cache_similar_embeddings_total", "texts", [RESULT],
        "Texts for which a vector was wanted", "when the vector is there, or given up";
    SIMILAR_VERIFIED = Counter "weir_cache_similar_verified_total", "answers", [VERDICT],
        "Answers to similar requests checked against answers of their own", "when a check ends";

    ["Overload"]
    SHED = Counter "weir_shed_total", "calls", [REASON],
        "Calls turned away because weir has too much to do", "when a call is turned away";
    BODIES_UNREAD = Counter "weir_bodies_unread_total", "bodies", [BODY],
        "Bodies passed on without being read or stored as far as they should, because those in progress fill their bound",
        "when there is no room for more of one, once for each";
    BODIES_HELD = Gauge "weir_bodies_held_bytes", "bytes", [BODY],
        "What is held of bodies in progress, beside 16 KiB for each", "at the scrape";
    BODIES_BOUND = Gauge "weir_bodies_held_limit_bytes", "bytes", [BODY],
        "Most that may be held of bodies in progress", "at the scrape";
    ACCEPT_REFUSED = Counter "weir_accept_refused_total", "times", [SIDE],
        "How often the system refused to take in a connection; it waits until there is a descriptor for it",
        "when it refuses: ten times a second at most";

    ["Connections to providers"]
    UPSTREAM_REQUESTS = Counter "weir_upstream_requests_total", "attempts", [PROVIDER, CODE],
        "Attempts sent to providers, retries included",
        "when the call ends that made the attempt, or the next attempt begins";
    UPSTREAM_RETRIES = Counter "weir_upstream_retries_total", "attempts", [PROVIDER, REASON],
        "Attempts that were retries",
        "when the attempt begins; `app`: when the call ends, whose `x-stainless-retry-count` was above 0";
    UPSTREAM_FALLBACKS = Counter "weir_upstream_fallbacks_total", "calls", [PROVIDER, TO_PROVIDER],
        "Calls moved to another upstream", "when the attempt begins that goes there";
    UPSTREAM_UP = Gauge "weir_upstream_up", "1", [PROVIDER],
        "1 if the circuit is closed", "at the scrape; absent without `upstream.breaker`";
    UPSTREAM_CONNECT_DURATION = Histogram "weir_upstream_connect_duration_seconds", "seconds", [PROVIDER],
        "DNS, TCP and TLS time of new connections", "name resolution begun → connection usable", CONNECT_BUCKETS;
    UPSTREAM_CONNECTIONS = Gauge "weir_upstream_connections", "connections", [PROVIDER],
        "Open connections to providers", "at the scrape; in use, or kept for the next call";

    UPSTREAM_RATELIMIT_LIMIT = Gauge "weir_upstream_ratelimit_limit", "calls or tokens", [PROVIDER, KIND],
        "Quota from rate-limit headers", "at the scrape, from the latest reply; absent before the first that says it";
    UPSTREAM_RATELIMIT_REMAINING = Gauge "weir_upstream_ratelimit_remaining", "calls or tokens", [PROVIDER, KIND],
        "Rest of the quota from rate-limit headers",
        "at the scrape, from the latest reply; set to the limit when the announced reset time has passed";

    ["Limits and budgets"]
    BUDGET_LIMIT_USD = Gauge "weir_budget_limit_usd", "US dollars", [BUDGET, WINDOW, SCOPE],
        "Budget limit", "at the scrape; an override does not change it";
    BUDGET_SPENT_USD = Gauge "weir_budget_spent_usd", "US dollars", [BUDGET, WINDOW, SCOPE],
        "Spend counted against the budget in the current window, with `per` by whoever has spent most",
        "at the scrape; only ever grows within a window, and begins at 0 with the next one";
    BUDGET_REMAINING_USD = Gauge "weir_budget_remaining_usd", "US dollars", [BUDGET, WINDOW, SCOPE],
        "Limit minus spend, not below zero, with `per` of whoever has spent most", "at the scrape";
    BUDGET_RESERVED_USD = Gauge "weir_budget_reserved_usd", "US dollars", [BUDGET, WINDOW],
        "Expected cost of calls in progress on this instance, with `per` of whoever has spent most", "at the scrape";
    BUDGET_LIMIT_TOKENS = Gauge "weir_budget_limit_tokens", "tokens", [BUDGET, WINDOW, SCOPE],
        "Budget limit in tokens", "at the scrape; an override does not change it";
    BUDGET_SPENT_TOKENS = Gauge "weir_budget_spent_tokens", "tokens", [BUDGET, WINDOW, SCOPE],
        "Tokens counted against the budget in the current window, with `per` by whoever has spent most",
        "at the scrape; only ever grows within a window, and begins at 0 with the next one";
    BUDGET_REMAINING_TOKENS = Gauge "weir_budget_remaining_tokens", "tokens", [BUDGET, WINDOW, SCOPE],
        "Limit minus tokens used, not below zero, with `per` of whoever has spent most", "at the scrape";
    BUDGET_CHARGED_USD = Counter "weir_budget_charged_usd_total", "US dollars", [BUDGET],
        "Spend that this instance has counted against the budget, by anybody and in any window",
        "when a call ends; adds up over instances, whatever the scope";
    BUDGET_CHARGED_TOKENS = Counter "weir_budget_charged_tokens_total", "tokens", [BUDGET],
        "Tokens that this instance has counted against the budget, by anybody and in any window",
        "when a call ends; adds up over instances, whatever the scope";
    BUDGET_WINDOW_START = Gauge "weir_budget_window_start_timestamp_seconds", "unix seconds", [BUDGET, WINDOW],
        "Unix time the current budget window began", "at the scrape; 0 for `total`";
    BUDGET_WINDOW_END = Gauge "weir_budget_window_end_timestamp_seconds", "unix seconds", [BUDGET, WINDOW],
        "Unix time the current budget window ends", "at the scrape; absent for `total`";
    BUDGET_BLOCKED = Counter "weir_budget_blocked_requests_total", "calls", [BUDGET],
        "Calls refused because the budget is spent", "when a call is refused";
    BUDGET_DOWNGRADED = Counter "weir_budget_downgraded_requests_total", "calls", [BUDGET],
        "Calls made with a cheaper model because the budget is spent", "when such a call ends that was not refused";
    BUDGET_STOPPED = Counter "weir_budget_stopped_streams_total", "calls", [BUDGET],
        "Streams ended because they used the budget up", "when a stream is ended";
    BUDGET_SUBJECTS = Gauge "weir_budget_subjects", "subjects", [BUDGET],
        "Subjects that have spent something in the current window, of a budget with `per`",
        "at the scrape; those of a window that is over are forgotten within seconds";
    RATELIMIT_REQUESTS = Counter "weir_ratelimit_requests_total", "calls", [LIMIT, DECISION],
        "Rate-limit decisions", "when a call is let through or refused";
    RATELIMIT_UTILIZATION = Gauge "weir_ratelimit_utilization_ratio", "1", [LIMIT],
        "Used share of the limit now, with `per` of whoever has used most", "at the scrape";
    RATELIMIT_SUBJECTS = Gauge "weir_ratelimit_subjects", "subjects", [LIMIT],
        "Subjects that have used something which has not come back, of a limit with `per`",
        "at the scrape; the others are forgotten within seconds";
    STATE_KEPT = Gauge "weir_state_kept", "1", [],
        "1 if what limits and budgets have counted is kept on disk, 0 if a restart would forget it",
        "at the scrape; absent where nothing is to be kept";

    ["Agents"]
    AGENT_REQUESTS = Counter "weir_agent_requests_total", "calls", [AGENT],
        "Calls by agent", "when a call ends";
    AGENT_TOKENS = Counter "weir_agent_tokens_total", "tokens", [AGENT],
        "Tokens by agent", "when a call ends; tokens billed, not those saved";
    AGENT_COST = Counter "weir_agent_cost_usd_total", "US dollars", [AGENT],
        "Cost by agent in US dollars", "when a priced call ends; money spent, not that saved";

    CONSUMER_REQUESTS = Counter "weir_consumer_requests_total", "calls", [CONSUMER],
        "Calls by consumer", "when a call ends; only with `telemetry.metrics.consumers`";
    CONSUMER_COST = Counter "weir_consumer_cost_usd_total", "US dollars", [CONSUMER],
        "Cost by consumer in US dollars",
        "when a priced call ends; money spent, not that saved; only with `telemetry.metrics.consumers`";
    NAMESPACE_REQUESTS = Counter "weir_cache_namespace_requests_total", "calls", [CACHE_NAMESPACE, RESULT],
        "Cache lookups by namespace", "when a call ends; only with `telemetry.metrics.cache_namespaces`";

    ["Agent loops and tools"]
    LOOP_DURATION = Histogram "weir_loop_execution_duration_seconds", "seconds", [LOOP_TYPE, STATUS],
        "Duration of agent loops",
        "of a run, when it ends: head of its first call's request read → end of its last call", LOOP_BUCKETS;
    LOOP_TOKENS = Counter "weir_loop_tokens_total", "tokens", [LOOP_TYPE, TOKEN_TYPE],
        "Tokens used by agent loops", "when a call ends; tokens billed, not those saved";
    LOOP_CALLS = Counter "weir_loop_llm_calls_total", "calls", [LOOP_TYPE],
        "Model calls of agent loops", "when a call ends, answered by reuse or not; not when it was refused";
    LOOP_COST = Counter "weir_loop_cost_usd_total", "US dollars", [LOOP_TYPE],
        "Cost of agent loops in US dollars", "when a priced call ends; money spent, not that saved";
    TOOL_INVOCATIONS = Counter "weir_tool_invocations_total", "tool calls", [TOOL, LOOP_TYPE],
        "Tool calls requested by models, as seen in responses", "when a call ends, in a loop or not";
    LOOP_ERRORS = Counter "weir_loop_errors_total", "runs", [LOOP_TYPE, ERROR_TYPE],
        "Loops that ended in error", "when a run ends; `error_type` is that of its last call";
    LOOP_RUNAWAYS = Counter "weir_loop_runaways_total", "runs", [LOOP_TYPE, REASON],
        "Loops taken for runaway", "once for each run, when it wants a further call";
    ACTIVE_LOOPS = Gauge "weir_active_loops", "runs", [LOOP_TYPE],
        "Loops in progress", "at the scrape: runs that have neither ended nor been silent for `loops.idle`";
    LOOP_MAX_CALLS = Gauge "weir_loop_max_active_llm_calls", "calls", [LOOP_TYPE],
        "Most model calls made by any active loop", "at the scrape; calls in flight included";

    ["Process, container and machine"]
    PROCESS_CPU = Counter "process_cpu_seconds_total", "seconds", [],
        "Total user and system CPU time spent in seconds", "at the scrape";
    PROCESS_OPEN_FDS = Gauge "process_open_fds", "descriptors", [],
        "Number of open file descriptors", "at the scrape";
    PROCESS_MAX_FDS = Gauge "process_max_fds", "descriptors", [],
        "Maximum number of open file descriptors", "at the scrape; absent where there may be any number";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes", "bytes", [],
        "Virtual memory size in bytes", "at the scrape";
    PROCESS_VIRTUAL_MEMORY_MAX = Gauge "process_virtual_memory_max_bytes", "bytes", [],
        "Maximum amount of virtual memory available in bytes", "at the scrape; absent where it is not limited";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes", "bytes", [],
        "Resident memory size in bytes", "at the scrape";
    PROCESS_START_TIME = Gauge "process_start_time_seconds", "unix seconds", [],
        "Start time of the process since unix epoch in seconds", "at start";
    PROCESS_THREADS = Gauge "process_threads", "threads", [],
        "Number of OS threads in the process", "at the scrape";
    CGROUP_MEMORY_WORKING_SET = Gauge "weir_cgroup_memory_working_set_bytes", "bytes", [],
        "Memory of the container that cannot be reclaimed at once: all but inactive files", "at the scrape";
    CGROUP_MEMORY_LIMIT = Gauge "weir_cgroup_memory_limit_bytes", "bytes", [],
        "Memory limit of the container", "at the scrape; absent where it is not limited";
    CGROUP_MEMORY_OOM_KILLS = Counter "weir_cgroup_memory_oom_kills_total", "processes", [],
        "Processes of the container killed because its memory ran out", "at the scrape, since the container began";
    CGROUP_CPU_QUOTA = Gauge "weir_cgroup_cpu_quota_cores", "cores", [],
        "Processors that the container may use at once", "at the scrape; absent where that is not limited";
    CGROUP_CPU_PERIODS = Counter "weir_cgroup_cpu_periods_total", "periods", [],
        "Periods of the CPU quota in which the container ran", "at the scrape, since the container began";
    CGROUP_CPU_THROTTLED_PERIODS = Counter "weir_cgroup_cpu_throttled_periods_total", "periods", [],
        "Periods in which the container used its CPU quota up", "at the scrape, since the container began";
    CGROUP_CPU_THROTTLED = Counter "weir_cgroup_cpu_throttled_seconds_total", "seconds", [],
        "Time that threads of the container were kept from running by its CPU quota",
        "at the scrape, since the container began";
    CGROUP_PRESSURE_WAITING = Counter "weir_cgroup_pressure_waiting_seconds_total", "seconds", [RESOURCE],
        "Time in which some tasks of the container waited for a resource", "at the scrape, since the container began";
    CGROUP_PRESSURE_STALLED = Counter "weir_cgroup_pressure_stalled_seconds_total", "seconds", [RESOURCE],
        "Time in which all tasks of the container with something to do waited for a resource",
        "at the scrape, since the container began";
    SYSTEM_CPU_USAGE = Gauge "weir_system_cpu_usage_ratio", "1", [],
        "Used share of the processors of the machine", "since the scrape before, or the start";
    SYSTEM_MEMORY_USED = Gauge "weir_system_memory_used_bytes", "bytes", [],
        "Memory of the machine in use: total less available", "at the scrape";
    SYSTEM_MEMORY_TOTAL = Gauge "weir_system_memory_total_bytes", "bytes", [],
        "Memory of the machine", "at the scrape";

    ["Ledger"]
    LEDGER_RECORDS = Counter "weir_ledger_records_total", "calls", [],
        "Calls written down in the ledger", "when a transaction is committed; absent where the ledger is off";
    LEDGER_DROPPED = Counter "weir_ledger_dropped_total", "calls", [REASON],
        "Calls that are missing in the ledger, or what was said in them",
        "`queue_full`: when a call ends and finds no room; `io_error`: when what could not be written makes room for newer \
         calls, or weir ends; `content_full`: when a call ends, and its row is written without what \
         was said; absent where the ledger is off";
    LEDGER_QUEUE_LENGTH = Gauge "weir_ledger_queue_length", "calls", [],
        "Calls that wait for being written down", "at the scrape; absent where the ledger is off";
    LEDGER_QUEUE_CAPACITY = Gauge "weir_ledger_queue_capacity", "calls", [],
        "Most calls that can wait for being written down", "at the scrape; absent where the ledger is off";
    LEDGER_SIZE = Gauge "weir_ledger_size_bytes", "bytes", [],
        "Size of the ledger with its write-ahead log, on disk or in memory",
        "once a second; absent where the ledger is off";
    LEDGER_DAMAGED = Counter "weir_ledger_damaged_files_total", "files", [],
        "Ledgers that were found damaged and set aside", "when one is opened; absent where the ledger is off";
    LEDGER_WRITE_DURATION = Histogram "weir_ledger_write_duration_seconds", "seconds", [],
        "Time of one transaction of the ledger", "first row of a batch → committed", LEDGER_BUCKETS;

    ["Traces"]
    OTLP_EXPORTED_SPANS = Counter "weir_otlp_exported_spans_total", "spans", [],
        "Spans that the collector has taken", "when a batch is taken; absent where traces are off";
    OTLP_DROPPED_SPANS = Counter "weir_otlp_dropped_spans_total", "spans", [REASON],
        "Spans that were lost",
        "`queue_full`: when a call ends and its spans find no room; `export_failed`: when a batch is given up; absent where \
         traces are off";
    OTLP_QUEUE_LENGTH = Gauge "weir_otlp_queue_length", "spans", [],
        "Spans that wait for being sent", "at the scrape; absent where traces are off";
    OTLP_QUEUE_CAPACITY = Gauge "weir_otlp_queue_capacity", "spans", [],
        "Most spans that can wait for being sent", "at the scrape; absent where traces are off";

    ["weir itself"]
    CONFIG_SUCCESSFUL = Gauge "weir_config_last_reload_successful", "1", [],
        "1 if the last (re)load of the configuration worked",
        "at the scrape; 1 after start, 0 while a file that weir reads again cannot be used as it is now";
    CONFIG_SUCCESS_TIMESTAMP = Gauge "weir_config_last_reload_success_timestamp_seconds", "unix seconds", [],
        "Unix time of the last (re)load of the configuration that worked",
        "at start, and when a file that has changed comes into force";
    CONFIG_RESTART_NEEDED = Gauge "weir_config_restart_needed", "1", [],
        "1 if the configuration says something that holds only once weir is started again",
        "at the scrape; 1 while a knob that cannot be changed live is not as it was at the start: the log names it";
    CONFIG_RELOADS = Counter "weir_config_reloads_total", "files", [RESULT],
        "Configuration reloads", "when a file that weir reads again has changed, or can or cannot be used from now on";
    TASKS = Gauge "weir_tasks", "tasks", [],
        "Tasks in progress: one or two for each connection, and a few of weir's own", "at the scrape";
    ADMIN_DENIED = Counter "weir_admin_denied_total", "requests", [REASON],
        "Requests to the operator's side that were denied", "when one is denied for want of a token, or of the right one";
    QUEUE_LENGTH = Gauge "weir_queue_length", "things", [QUEUE],
        "What waits in a queue of weir's own", "at the scrape; absent where nobody can tell";
    QUEUE_CAPACITY = Gauge "weir_queue_capacity", "things", [QUEUE],
        "How much may wait in a queue of weir's own", "at the scrape";
    QUEUE_DROPPED = Counter "weir_queue_dropped_total", "things", [QUEUE],
        "What was left out because a queue of weir's own was full", "when it is left out; calls go on";

    REDACTIONS = Counter "weir_redactions_total", "redactions", [KIND],
        "Keys and personal data replaced in what weir writes",
        "when a record is closed, a log line written, or what was said put into the ledger";

    LABEL_OVERFLOW = Counter "weir_metrics_label_overflow_total", "observations", [LABEL],
        "Observations folded into \"other\" because the label is full", "when a call ends";
    LABEL_VALUES = Gauge "weir_metrics_label_values", "values", [LABEL],
        "Distinct values admitted", "at the scrape";
    LABEL_VALUES_LIMIT = Gauge "weir_metrics_label_values_limit", "values", [LABEL],
        "Most distinct values admitted", "at start";
    SERIES = Gauge "weir_metrics_series", "series", [],
        "Series exposed at the last scrape", "at the scrape, this one included";
    SERIES_LIMIT = Gauge "weir_metrics_series_limit", "series", [],
        "Most series exposed before new names count as \"other\"", "at start";
    CUSTOM_METRICS_REJECTED = Counter "weir_custom_metrics_rejected_total", "observations", [REASON],
        "Custom observations refused", "when the app pushes them";
    BUILD_INFO = Info "weir_build_info", "1", [VERSION, REVISION],
        "Build information", "at start";

    ["The injector"]
    INJECT_REQUESTS = Counter "weir_inject_requests_total", "reviews", [WEBHOOK],
        "Admission requests", "when a review is answered; dry runs are not counted, here and below";
    INJECT_RESULTS = Counter "weir_inject_results_total", "reviews", [RESULT, REASON],
        "What became of pods, and why", "when a review is answered";
    INJECT_DURATION = Histogram "weir_inject_duration_seconds", "seconds", [],
        "Time per review", "request head read → answer made", INJECT_BUCKETS;
    INJECT_CERT_EXPIRY = Gauge "weir_inject_cert_expiry_timestamp_seconds", "unix seconds", [],
        "Unix time at which the webhook's certificate expires", "at the scrape; absent while there is no certificate";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_keep_to_the_rules() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            let Metric { name, kind, help, buckets, .. } = metric;
            assert!(seen.insert(*name), "{name} is declared twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}: counters end in _total");
            assert_eq!(name.ends_with("_info"), *kind == Kind::Info, "{name}: infos end in _info");
            assert!(!help.ends_with('.'), "{name}: the client library ends help with a full stop");
            assert_eq!(buckets.is_empty(), *kind != Kind::Histogram, "{name}: histograms have buckets");
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{name}: buckets rise");
        }
    }
}
