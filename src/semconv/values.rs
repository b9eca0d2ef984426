//! Values: what each label may say, and how many values that is at most. What a metric can become in series follows
//! from its labels alone.
//!
//! Knows no value as code does: who counts brings its own words, and the tests of the metrics hold them against these.

use crate::semconv::{
    ADMIN_DENIED, BILLABLE_REQUESTS, CACHE_ERRORS, CACHE_EVICTIONS, CACHE_LOOKUP_DURATION, CACHE_REQUESTS,
    CACHE_STORES, CONFIG_RELOADS, COST_DRIFT, CUSTOM_METRICS_REJECTED, HTTP_BYTES, INJECT_RESULTS, LEDGER_DROPPED,
    LOOP_DURATION, LOOP_RUNAWAYS, LOOP_TOKENS, Metric, NAMESPACE_REQUESTS, OTLP_DROPPED_SPANS, PRICE_TABLE_INFO,
    REDACTIONS, SHED, SIMILAR_EMBEDDINGS, SIMILAR_REQUESTS, TOKENS, UNPRICED_LAST_SEEN, UNPRICED_REQUESTS,
    UPSTREAM_RETRIES, UPSTREAM_UP, label,
};

/// What a label may say.
#[derive(Debug)]
pub struct Values {
    /// The label.
    pub label: &'static str,
    /// Of which metrics this is said; empty for all those of which nothing else is.
    pub of: &'static [&'static Metric],
    /// How many values that is at most, at one scrape.
    pub most: Most,
    /// The values. Those of a closed set in backquotes, all of them.
    pub say: &'static str,
}

/// How many values a label has at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// As many as code knows; where the label may be left out, that counts as one.
    Closed(usize),
    /// As many as another label of the metric has, each with one value of this.
    Follows(&'static str),
    /// As many of these as the configuration names, and `other` for the rest.
    Configured(&'static str),
    /// As many of these as a setting admits, and `other` or `none` for the rest.
    Capped(&'static str),
}

use Most::{Capped, Closed, Configured, Follows};

/// What `label` says, wherever nothing else is said of it.
const fn of_all(label: &'static str, most: Most, say: &'static str) -> Values {
    Values { label, of: &[], most, say }
}

/// What `label` says of some metrics.
const fn of(label: &'static str, of: &'static [&'static Metric], most: Most, say: &'static str) -> Values {
    Values { label, of, most, say }
}

const PROVIDERS: &str = "`gen_ai.provider.name` where the conventions define one (`openai`, `anthropic`, `aws.bedrock`, \
    `azure.ai.openai`, `cohere`, `deepseek`, `gcp.gemini`, `gcp.vertex_ai`, `groq`, `mistral_ai`, `moonshot_ai`, \
    `perplexity`, `x_ai`; by the same pattern `fireworks_ai`, `together_ai`), else the name in the configuration; `other` \
    for calls to no configured provider";
const OPERATIONS: &str = "`chat` (also OpenAI Responses and Anthropic Messages) `generate_content` `text_completion` \
    `embeddings` `rerank` `classification` `image_generation` `speech` `transcription` `ocr` `decision` `count_tokens` \
    `moderation`; `other` for what is passed through unread";

/// What every label may say. Whoever adds a label adds a row.
pub const VALUES: &[Values] = &[
    of_all(label::PROVIDER, Configured("providers"), PROVIDERS),
    of(
        label::PROVIDER,
        &[&UPSTREAM_UP],
        Configured("upstreams"),
        "as elsewhere of a provider's own `base_url`; of its `fallbacks` their names",
    ),
    of_all(label::TO_PROVIDER, Configured("fallbacks"), "the name of one of the provider's `fallbacks`"),
    of_all(label::GEN_AI_PROVIDER_NAME, Configured("providers"), "as `provider`"),
    of_all(label::OPERATION, Closed(14), OPERATIONS),
    of(
        label::OPERATION,
        &[&CACHE_ERRORS],
        Closed(3),
        "`get` (a look-up, or a value that does not open) `put` (an answer that was not written) `delete` (a rule not \
         told, heard or carried out)",
    ),
    of_all(label::GEN_AI_OPERATION_NAME, Closed(14), OPERATIONS),
    of_all(
        label::MODEL,
        Capped("models"),
        "the price table's id of the model, else the name the app asked for; `none` where a call names no model; capped",
    ),
    of_all(
        label::GEN_AI_REQUEST_MODEL,
        Capped("models"),
        "the name the app asked for; left out where there is none; capped",
    ),
    of_all(
        label::GEN_AI_RESPONSE_MODEL,
        Capped("models"),
        "the name the provider answered with; left out where there is none; capped",
    ),
    of_all(
        label::OUTCOME,
        Closed(8),
        "`success` `client_error` `upstream_error` `timeout` `internal_error` `rate_limited` `budget_blocked` `cancelled`",
    ),
    of_all(
        label::ERROR_TYPE,
        Closed(25),
        "left out on success; the provider's HTTP status (`400` `401` `403` `404` `408` `413` `422` `429` `500` `502` \
         `503` `504` `529`), else `timeout` `dns_error` `connect_error` `tls_error` `connection_reset` `stream_aborted` \
         `invalid_response` `body_too_large` `cancelled` `circuit_open`; anything else is `_OTHER`",
    ),
    of_all(
        label::CODE,
        Closed(23),
        "the HTTP status of one attempt (`101` `200` `204` `304` `400` `401` `402` `403` `404` `408` `409` `413` `422` \
         `429` `500` `502` `503` `504` `529`, else `other`); `timeout` if no answer came before a deadline, `error` if \
         none came for another reason, `abandoned` if another attempt beside it was answered",
    ),
    of_all(
        label::GEN_AI_TOKEN_MODALITY,
        Closed(1),
        "`unknown`: weir does not break counts down, and most providers do not either",
    ),
    of_all(label::GEN_AI_TOKEN_TYPE, Closed(2), "`input` (cached included) `output` (reasoning included)"),
    of_all(
        label::TOKEN_TYPE,
        Closed(7),
        "disjoint, so that their sum is what is billed: `input` (uncached) `cache_read` `cache_write` `output` (without \
         reasoning) `reasoning` `media`, and `fee` for what is not billed by token",
    ),
    of(
        label::TOKEN_TYPE,
        &[&TOKENS],
        Closed(6),
        "the same without `fee`: `input` `cache_read` `cache_write` `output` `reasoning` `media`",
    ),
    of(label::TOKEN_TYPE, &[&LOOP_TOKENS], Closed(2), "`prompt` `completion`"),
    of(
        label::RESULT,
        &[&CACHE_REQUESTS, &CACHE_LOOKUP_DURATION, &NAMESPACE_REQUESTS],
        Closed(4),
        "`hit` `miss` `expired` `bypass` (not looked up, or ruled out by the request; also weir's own calls, for newer \
         answers and for checks, which no other metric of apps' calls counts), also of calls that an equal one in flight \
         then answered",
    ),
    of(
        label::RESULT,
        &[&CACHE_STORES],
        Closed(4),
        "in `memory`: `stored` `too_large` `not_cacheable`; in `redis`: `stored` `error`",
    ),
    of(
        label::REASON,
        &[&LEDGER_DROPPED],
        Closed(3),
        "`queue_full` (calls end faster than they are written) `io_error` (the disk did not take them) \
         `content_full` (written, but without what was said: too much of that waited)",
    ),
    of(
        label::REASON,
        &[&OTLP_DROPPED_SPANS],
        Closed(2),
        "`queue_full` (calls end faster than their spans are sent) `export_failed` (the collector did not take them)",
    ),
    of(
        label::RESULT,
        &[&SIMILAR_REQUESTS],
        Closed(5),
        "`hit` `miss` `error` `timeout` `skipped` (the endpoint was not asked)",
    ),
    of(label::RESULT, &[&SIMILAR_EMBEDDINGS], Closed(4), "`made` `error` `timeout` `skipped`"),
    of(label::RESULT, &[&CONFIG_RELOADS], Closed(2), "`success` `failure`"),
    of_all(
        label::CACHE,
        Closed(4),
        "`hit` `miss` (also `expired`) `coalesced` (answered with an equal call in flight) `bypass`",
    ),
    of_all(
        label::ROLE,
        Closed(2),
        "of equal calls at the same time: `leader` (the one that asked) `follower` (one that got its answer)",
    ),
    of_all(
        label::SOURCE,
        Closed(3),
        "of what was saved: `cache` `coalesced` `similar` (the answer to another request that says the same)",
    ),
    of(label::SOURCE, &[&PRICE_TABLE_INFO], Follows(label::VERSION), "where it comes from"),
    of_all(
        label::STRATEGY,
        Closed(8),
        "the narrowest criterion given: `key` `pattern` `prefix` `namespace` `model` `provider` `age`, else `all`",
    ),
    of(label::REASON, &[&UNPRICED_REQUESTS, &UNPRICED_LAST_SEEN], Closed(3), "`unknown_model` `no_usage` `no_table`"),
    of(
        label::REASON,
        &[&UPSTREAM_RETRIES],
        Closed(6),
        "what the attempt before met: `429` `5xx` `timeout` (no answer in time, or a 408) `connect` (no connection, or it \
         broke before an answer came); `hedge` for second attempts beside slow ones; `app` for those that the app's SDK makes, of which weir only knows that",
    ),
    of(
        label::REASON,
        &[&SHED],
        Closed(2),
        "`concurrency` (as many calls are in progress as there may be) `memory` (no room for a body that has to be signed)",
    ),
    of_all(label::BODY, Closed(2), "`request` `reply`"),
    of_all(label::SIDE, Closed(2), "whose connections: `app` `admin`"),
    of(label::REASON, &[&CACHE_EVICTIONS], Closed(3), "`size` `ttl` `invalidated`"),
    of(
        label::REASON,
        &[&LOOP_RUNAWAYS],
        Closed(6),
        "`repeated_calls` `repeated_tools` `max_calls` `max_tokens` `max_cost` `max_duration`",
    ),
    of(label::REASON, &[&ADMIN_DENIED], Closed(5), "`no_token` `not_shown` `wrong` `too_many` `reads_only`"),
    of(label::REASON, &[&CUSTOM_METRICS_REJECTED], Closed(4), "`name` `type` (or its value) `labels` `series_limit`"),
    of_all(
        label::BACKEND,
        Closed(3),
        "`memory` `redis` (where `cache.redis` is set) `similar` (vectors of texts that were answered)",
    ),
    of_all(label::PHASE, Closed(2), "`request` `response`"),
    of(label::DIRECTION, &[&HTTP_BYTES], Closed(2), "`in` (from the app) `out` (to the app)"),
    of(label::DIRECTION, &[&COST_DRIFT], Closed(2), "`over` `under`"),
    of_all(
        label::VERDICT,
        Closed(3),
        "`same` `different` `failed` (the call, or a vector of its answer, did not come)",
    ),
    of_all(
        label::PROVENANCE,
        Closed(3),
        "`reported` (the provider stated the money) `priced` (reported usage at the table's rates) `estimated` \
         (estimated usage at the table's rates)",
    ),
    of(
        label::PROVENANCE,
        &[&BILLABLE_REQUESTS],
        Closed(4),
        "the same, and `unpriced`: `reported` `priced` `estimated`",
    ),
    of_all(
        label::KIND,
        Closed(2),
        "what a quota counts: `requests` `tokens`; the latest reply counts, for whichever key and model it was",
    ),
    of(
        label::KIND,
        &[&REDACTIONS],
        Configured("kinds"),
        "what it was: `private_key` `api_key` `token` `password` `secret` `email` `iban` `card` `ssn` `phone` `ip`, or the \
         name of one of `privacy.patterns`",
    ),
    of_all(label::BUDGET, Configured("budgets"), "the name in the configuration"),
    of_all(label::LIMIT, Configured("limits"), "the name in the configuration"),
    of_all(label::WINDOW, Follows(label::BUDGET), "`hour` `day` `week` `month` `total`"),
    of_all(
        label::SCOPE,
        Follows(label::BUDGET),
        "`app` (what all instances have spent, as far as this one knows: every instance shows the same) `instance` (what \
         this one has spent)",
    ),
    of_all(label::DECISION, Closed(3), "`allowed` `delayed` (had to wait, and may go) `rejected`"),
    of_all(label::AGENT, Capped("agents"), "`X-Agent-ID`; `none` where it is missing; capped"),
    of_all(
        label::CONSUMER,
        Capped("consumers"),
        "the user, as given or hashed, by `telemetry.metrics.consumers`; `none` where nobody is named; capped",
    ),
    of_all(
        label::CACHE_NAMESPACE,
        Capped("cache namespaces"),
        "`X-Cache-Namespace`; `none` where it is missing; capped",
    ),
    of_all(label::LOOP_TYPE, Capped("loop types"), "`X-Loop-Type`; `none` where it is missing; capped"),
    of_all(label::TOOL, Capped("tools"), "the name of a tool in an answer; capped"),
    of(
        label::STATUS,
        &[&LOOP_DURATION],
        Closed(4),
        "how a run ended: `success` `error` `timeout` (left in the middle, or out of time) `cancelled`",
    ),
    of_all(
        label::LABEL,
        Closed(8),
        "the name of a capped label: `model` `gen_ai_request_model` `gen_ai_response_model` `agent` `loop_type` `tool`, and \
         where they are wanted `consumer` `cache_namespace`",
    ),
    of_all(
        label::QUEUE,
        Closed(4),
        "what waits, where it is configured: `cache_writes` (answers for other replicas) `recordings` `estimates` \
         `log_lines`",
    ),
    of_all(label::RESOURCE, Closed(3), "what a container waits for: `cpu` `memory` `io`"),
    of_all(
        label::WEBHOOK,
        Closed(3),
        "by the path that it asks: `namespace` (for namespaces that opted in) `object` (for pods that did) `unnamed` (just \
         `/mutate`)",
    ),
    of(
        label::RESULT,
        &[&INJECT_RESULTS],
        Closed(4),
        "`injected` `skipped` (let in as it is, as it should be) `denied` `error` (let in as it is, because of a fault)",
    ),
    of(
        label::REASON,
        &[&INJECT_RESULTS],
        Closed(14),
        "injected: `added` `completed` (containers that came later got their variables); skipped: `already_injected` \
         `opted_out` `host_network` `windows` `mirror_pod` `not_a_pod` `not_created` `invalid_annotation` (or denied); \
         error: `unreadable` `unknown_version` `no_pod` `no_image`",
    ),
    of_all(label::VERSION, Closed(1), "the version of the table, or of weir"),
    of_all(label::REVISION, Follows(label::VERSION), "the commit weir was built from"),
];

/// What `label` says of `metric`; `None` if nothing is declared, which the tests do not let pass.
#[must_use]
pub fn of_metric(metric: &Metric, label: &str) -> Option<&'static Values> {
    let said = |it: &&Values| it.label == label;
    let of_it = |it: &&Values| it.of.iter().any(|known| known.name == metric.name);
    let particular = VALUES.iter().filter(said).find(of_it);
    particular.or_else(|| VALUES.iter().filter(said).find(|it| it.of.is_empty()))
}
