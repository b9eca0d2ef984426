//! Spans: what a record is in traces. The call as its app sees it, the call as its model sees it, and the one attempt to
//! have it answered; of a response within a session, the call as its model sees it alone.
//!
//! Holds no prompt, no completion, no credential and no name of an end user. What comes from outside is cut.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::Uri;
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId as RawSpanId, SpanKind, Status, TraceFlags, TraceId as RawTraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::labels::tidy;
use crate::record::call::{Delivery, Operation};
use crate::record::outcome::{BypassReason, CacheStatus, ErrorType, Outcome, Reuse, Role, StoreResult};
use crate::record::provenance::Provenance;
use crate::record::trace::{Context, Parameters, Part, SharedLookup, SpanId, Trace};
use crate::record::usage::{Cost, Counter, Unpriced};
use crate::record::{Attempt, Record};
use crate::semconv::{SCHEMA_URL, attribute, event};
use crate::units::PicoUsd;

/// The longest text from outside that a span carries, in bytes: ids and paths are longer than labels may be.
const MAX_TEXT_BYTES: usize = 256;

/// The spans of a record whose spans are kept.
pub(super) fn of(record: &Record, trace: &Trace) -> Vec<SpanData> {
    let telling = Telling { record, trace, state: state(trace) };
    let mut spans = Vec::with_capacity(4);
    let is_whole = trace.part == Part::Whole;
    if is_whole {
        spans.push(telling.server());
    }
    if telling.asked_a_model() {
        spans.push(telling.model_call());
    }
    if is_whole && record.attempt.is_some() {
        spans.push(telling.attempt());
    }
    if let Some(lookup) = trace.told.shared.filter(|_| is_whole) {
        spans.push(telling.shared(lookup));
    }
    spans
}

/// What the systems of the app say of the trace; what is not to be read is as if it were not there.
fn state(trace: &Trace) -> TraceState {
    trace.state.as_deref().and_then(|state| state.parse().ok()).unwrap_or_default()
}

/// A record, and how it is told.
struct Telling<'a> {
    record: &'a Record,
    trace: &'a Trace,
    state: TraceState,
}

/// The attributes of a span, those that are known.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &'static str, value: impl Into<Value>) -> &mut Self {
        self.0.push(KeyValue::new(name, value));
        self
    }

    fn add_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.add(name, value);
        }
        self
    }

    /// A text from outside.
    fn text(&mut self, name: &'static str, text: Option<&str>) -> &mut Self {
        self.add_some(name, text.map(cut))
    }

    /// A number, if it is one that a span can carry.
    fn count(&mut self, name: &'static str, count: Option<u64>) -> &mut Self {
        self.add_some(name, count.and_then(|count| i64::try_from(count).ok()))
    }
}

impl Telling<'_> {
    /// The call as its app sees it; of a call that weir itself makes, what it makes it for.
    fn server(&self) -> SpanData {
        let Self { record, trace, .. } = *self;
        let (kind, name) = match record.cache.status {
            CacheStatus::Bypass(why @ (BypassReason::Refresh | BypassReason::Verify)) => {
                (SpanKind::Internal, Cow::Borrowed(why.as_str()))
            }
            _ => (SpanKind::Server, self.name_of_request()),
        };
        let mut attributes = Attributes::default();
        let told = &trace.told;
        let uri = told.uri.as_ref();
        attributes
            .text(attribute::HTTP_REQUEST_METHOD, told.method.as_ref().map(http::Method::as_str))
            .text(attribute::HTTP_ROUTE, told.route.as_deref())
            .text(attribute::URL_PATH, uri.map(Uri::path))
            .add_some(attribute::URL_SCHEME, uri.map(|_| "http"))
            .count(attribute::HTTP_RESPONSE_STATUS_CODE, record.status.map(u64::from))
            .add(attribute::WEIR_REQUEST_ID, record.id.to_string())
            .add(attribute::WEIR_OUTCOME, record.outcome.as_str())
            .add(attribute::WEIR_PROVIDER, record.call.provider.to_string())
            .add(attribute::WEIR_OPERATION, record.call.operation.as_str())
            .text(attribute::WEIR_MODEL, record.call.model.as_deref());
        self.add_cache(&mut attributes);
        self.add_money(&mut attributes);
        self.add_caller(&mut attributes);
        let failed = matches!(record.outcome, Outcome::UpstreamError | Outcome::Timeout | Outcome::InternalError);
        let error = (failed || record.status.is_some_and(|status| status >= 500)).then(|| self.error_type());
        let place = Place { id: trace.server, parent: trace.parent, remote: Remote::Yes };
        let mut span = self.span(place, kind, name, (Duration::ZERO, record.timing.total));
        conclude(&mut span, attributes, error);
        span.events = self.events();
        span.links = self.links();
        span
    }

    fn name_of_request(&self) -> Cow<'static, str> {
        let told = &self.trace.told;
        let method = told.method.as_ref().map_or("HTTP", http::Method::as_str);
        match told.route.as_deref() {
            Some(route) => format!("{method} {}", cut(route)).into(),
            None => cut(method).into(),
        }
    }

    fn add_cache(&self, attributes: &mut Attributes) {
        let Self { record, trace, .. } = *self;
        let cache = &record.cache;
        let bypass = match cache.status {
            CacheStatus::Bypass(why) => Some(why.as_str()),
            CacheStatus::Hit | CacheStatus::Miss | CacheStatus::Expired => None,
        };
        let is_hit = cache.status == CacheStatus::Hit;
        let was_shared = trace.told.shared.is_some_and(|lookup| lookup.found);
        attributes
            .add(attribute::WEIR_CACHE_RESULT, cache.status.as_str())
            .add_some(attribute::WEIR_CACHE_BYPASS, bypass)
            .add_some(attribute::WEIR_CACHE_BACKEND, is_hit.then_some(if was_shared { "redis" } else { "memory" }))
            .add_some(attribute::WEIR_CACHE_AGE, trace.told.age.map(|age| age.as_secs_f64()))
            .add_some(attribute::WEIR_CACHE_SIMILARITY, cache.similarity.map(f64::from))
            .add_some(attribute::WEIR_SINGLEFLIGHT_ROLE, cache.role.map(Role::as_str));
    }

    fn add_money(&self, attributes: &mut Attributes) {
        let Self { record, trace, .. } = *self;
        let saved = record.cost.amount().filter(|_| record.cache.reuse().is_some());
        let downgrade = record.downgrade.as_ref();
        let is_blocked = (record.outcome == Outcome::BudgetBlocked).then_some(true);
        self.add_cost(attributes);
        attributes
            .add_some(attribute::WEIR_COST_SAVED_USD, saved.map(PicoUsd::to_usd_f64))
            .add_some(attribute::WEIR_BUDGET_BLOCKED, is_blocked)
            .add_some(attribute::WEIR_BUDGET_NAME, trace.told.budget.as_deref().map(str::to_owned))
            .text(attribute::WEIR_DOWNGRADED_FROM, downgrade.map(|it| &*it.from))
            .add_some(attribute::WEIR_DOWNGRADED_BUDGET, downgrade.map(|it| it.budget.to_string()));
    }

    /// What was spent, if that is known, and if not, why.
    fn add_cost(&self, attributes: &mut Attributes) {
        let spent = self.record.spent();
        let unpriced = match spent {
            Cost::Unpriced(why) => Some(why),
            Cost::Known(_) | Cost::Nothing => None,
        };
        let provenance = self.record.provenance.filter(|_| self.record.cache.reuse().is_none());
        attributes
            .add_some(attribute::WEIR_COST_USD, spent.amount().map(PicoUsd::to_usd_f64))
            .add_some(attribute::WEIR_COST_PROVENANCE, provenance.map(Provenance::as_str))
            .add_some(attribute::WEIR_COST_UNPRICED, unpriced.map(Unpriced::as_str));
    }

    fn add_caller(&self, attributes: &mut Attributes) {
        let caller = &self.record.call.caller;
        attributes
            .text(attribute::WEIR_LOOP_ID, caller.run.as_deref())
            .text(attribute::WEIR_LOOP_TYPE, caller.loop_type.as_deref())
            .text(attribute::WEIR_AGENT, caller.agent.as_deref())
            .text(attribute::WEIR_NAMESPACE, caller.namespace.as_deref())
            .text(attribute::WEIR_WORKSPACE, caller.workspace.as_deref());
    }

    fn events(&self) -> SpanEvents {
        let Self { record, trace, .. } = *self;
        let ended = record.arrived_at + record.timing.total;
        let mut events = SpanEvents::default();
        let mut add = |name, attributes: Attributes| events.events.push(Event::new(name, ended, attributes.0, 0));
        if record.outcome == Outcome::BudgetBlocked {
            let mut attributes = Attributes::default();
            attributes.add_some(attribute::WEIR_BUDGET_NAME, trace.told.budget.as_deref().map(str::to_owned));
            add(event::BUDGET_BLOCKED, attributes);
        }
        if let Some(why @ (StoreResult::TooLarge | StoreResult::NotCacheable)) = record.cache.store {
            let mut attributes = Attributes::default();
            attributes.add(attribute::WEIR_CACHE_STORE_RESULT, why.as_str());
            add(event::STORE_SKIPPED, attributes);
        }
        events
    }

    /// The model call that brought the answer, where that is another's.
    fn links(&self) -> SpanLinks {
        let mut links = SpanLinks::default();
        let kind = match self.record.cache.reuse() {
            Some(Reuse::Stored | Reuse::Similar) => "cache_origin",
            Some(Reuse::Coalesced) => "singleflight_leader",
            None => return links,
        };
        if let Some(origin) = self.trace.origin {
            let attributes = vec![KeyValue::new(attribute::WEIR_LINK_TYPE, kind)];
            links.links.push(Link::new(context(origin, Remote::Yes, TraceState::default()), attributes, 0));
        }
        links
    }

    /// Whether there was a call of a model: an attempt to have one, that is not known to be something else.
    fn asked_a_model(&self) -> bool {
        self.record.attempt.is_some() && self.record.call.operation != Operation::Other
    }

    /// The call as its model sees it.
    fn model_call(&self) -> SpanData {
        let Self { record, trace, .. } = *self;
        let call = &record.call;
        let operation = call.operation.as_str();
        let name = match call.model.as_deref() {
            Some(model) => format!("{operation} {}", tidy(model)).into(),
            None => operation.into(),
        };
        let mut attributes = Attributes::default();
        attributes
            .add(attribute::GEN_AI_OPERATION_NAME, operation)
            .add(attribute::GEN_AI_PROVIDER_NAME, call.provider.to_string())
            .text(attribute::GEN_AI_REQUEST_MODEL, call.model.as_deref())
            .add_some(attribute::GEN_AI_REQUEST_STREAM, call.model.as_ref().map(|_| call.delivery == Delivery::Stream));
        add_parameters(&mut attributes, &trace.told.parameters);
        self.add_reply(&mut attributes);
        self.add_usage(&mut attributes);
        self.add_server(&mut attributes);
        self.add_cost(&mut attributes);
        attributes.count(attribute::WEIR_RETRY_COUNT, trace.told.resends);
        let place = Place::below(trace.server, trace.model_call);
        let mut span = self.span(place, SpanKind::Client, name, self.upstream());
        if record.error_type == Some(ErrorType::StreamAborted) {
            span.events.events.push(Event::new(event::STREAM_ABORTED, span.end_time, Vec::new(), 0));
        }
        conclude(&mut span, attributes, self.failure());
        span
    }

    fn add_reply(&self, attributes: &mut Attributes) {
        let Self { record, trace, .. } = *self;
        let reply = &record.reply;
        let reasons: Vec<_> = reply.finish_reasons.iter().map(|reason| cut(reason).into()).collect();
        let is_openai = trace.told.openai_api.filter(|_| record.call.provider.ends_with("openai"));
        attributes
            .text(attribute::GEN_AI_RESPONSE_ID, reply.id.as_deref())
            .text(attribute::GEN_AI_RESPONSE_MODEL, reply.model.as_deref())
            .add_some(
                attribute::GEN_AI_RESPONSE_FINISH_REASONS,
                (!reasons.is_empty()).then_some(Value::Array(opentelemetry::Array::String(reasons))),
            )
            .add_some(
                attribute::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
                record.timing.first_chunk.map(|took| took.as_secs_f64()),
            )
            .add_some(attribute::WEIR_TIME_TO_FIRST_TOKEN, record.timing.first_token.map(|took| took.as_secs_f64()))
            .add_some(attribute::OPENAI_API_TYPE, is_openai)
            .text(
                attribute::OPENAI_RESPONSE_SERVICE_TIER,
                reply.service_tier.as_deref().filter(|_| is_openai.is_some()),
            );
    }

    fn add_usage(&self, attributes: &mut Attributes) {
        let Some(usage) = self.record.bought() else { return };
        for (name, counter) in [
            (attribute::GEN_AI_USAGE_INPUT_TOKENS, Counter::InputTokens),
            (attribute::GEN_AI_USAGE_OUTPUT_TOKENS, Counter::OutputTokens),
            (attribute::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, Counter::CacheReadTokens),
            (attribute::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, Counter::CacheWriteTokens),
            (attribute::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, Counter::OutputReasoningTokens),
        ] {
            attributes.count(name, usage.get(counter));
        }
        attributes.add_some(attribute::WEIR_USAGE_ESTIMATED, usage.is_estimated().then_some(true));
    }

    fn add_server(&self, attributes: &mut Attributes) {
        let target = self.trace.told.target.as_ref();
        let port = target.and_then(|target| target.port_u16().or_else(|| usual_port(target)));
        attributes
            .text(attribute::SERVER_ADDRESS, target.and_then(Uri::host))
            .count(attribute::SERVER_PORT, port.map(u64::from));
    }

    /// The one attempt to have the call answered: a child of the model call, if it is one.
    fn attempt(&self) -> SpanData {
        let Self { record, trace, .. } = *self;
        let told = &trace.told;
        let method = told.method.as_ref().map_or("HTTP", http::Method::as_str);
        let status = match record.attempt {
            Some(Attempt::Answered(status)) => Some(status),
            Some(Attempt::TimedOut | Attempt::Failed | Attempt::Abandoned) | None => None,
        };
        let tries = record.tries.as_deref();
        let retries = tries.map(|tries| tries.retries).filter(|retries| *retries > 0);
        let mut attributes = Attributes::default();
        attributes.text(attribute::HTTP_REQUEST_METHOD, told.method.as_ref().map(http::Method::as_str));
        self.add_server(&mut attributes);
        attributes
            .add_some(attribute::URL_FULL, told.target.as_ref().map(without_query))
            .count(attribute::HTTP_RESPONSE_STATUS_CODE, status.map(u64::from))
            .count(attribute::HTTP_REQUEST_RESEND_COUNT, told.resends)
            .count(attribute::WEIR_UPSTREAM_RETRIES, retries.map(u64::from))
            .text(attribute::WEIR_UPSTREAM_FALLBACK, tries.and_then(|tries| tries.fallback.as_deref()))
            .add_some(attribute::NETWORK_PROTOCOL_VERSION, record.head.http)
            .text(attribute::WEIR_UPSTREAM_REQUEST_ID, record.head.request_id.as_deref());
        let parent = if self.asked_a_model() { trace.model_call } else { trace.server };
        let place = Place::below(parent, trace.attempt);
        let mut span = self.span(place, SpanKind::Client, cut(method).into(), self.upstream());
        conclude(&mut span, attributes, self.failure());
        span
    }

    /// The look-up in what replicas share.
    fn shared(&self, lookup: SharedLookup) -> SpanData {
        let mut attributes = Attributes::default();
        attributes.add(attribute::DB_SYSTEM_NAME, "redis").add(attribute::DB_OPERATION_NAME, "GET");
        let place = Place::below(self.trace.server, self.trace.lookup);
        let mut span = self.span(place, SpanKind::Client, "GET".into(), (lookup.after, lookup.took));
        conclude(&mut span, attributes, None);
        span
    }

    /// When the provider was asked, and for how long.
    fn upstream(&self) -> (Duration, Duration) {
        let timing = &self.record.timing;
        (timing.sent.unwrap_or_default(), timing.upstream.unwrap_or_default())
    }

    /// Why it did not go well upstream, by the same word as in metrics.
    fn failure(&self) -> Option<&'static str> {
        (self.record.outcome != Outcome::Success).then(|| self.error_type())
    }

    fn error_type(&self) -> &'static str {
        self.record.error_type.unwrap_or(ErrorType::Other).as_str()
    }

    /// A span that begins so long after the call came, and takes so long.
    fn span(
        &self,
        Place { id, parent, remote }: Place,
        kind: SpanKind,
        name: Cow<'static, str>,
        (after, took): (Duration, Duration),
    ) -> SpanData {
        let start_time: SystemTime = self.record.arrived_at + after;
        SpanData {
            span_context: context(self.trace.context_of(id), Remote::No, self.state.clone()),
            parent_span_id: parent.map_or(RawSpanId::INVALID, |parent| parent.get().into()),
            parent_span_is_remote: parent.is_some() && remote == Remote::Yes,
            span_kind: kind,
            name,
            start_time,
            end_time: start_time + took,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope(),
        }
    }
}

/// Where a span is in its trace.
struct Place {
    id: SpanId,
    parent: Option<SpanId>,
    /// Of the parent.
    remote: Remote,
}

impl Place {
    /// Below another span of weir's.
    const fn below(parent: SpanId, id: SpanId) -> Self {
        Self { id, parent: Some(parent), remote: Remote::No }
    }
}

/// Whether a span is of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    Yes,
    No,
}

fn context(context: Context, remote: Remote, state: TraceState) -> SpanContext {
    let flags = if context.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (RawTraceId::from(context.trace.get()), RawSpanId::from(context.span.get()));
    SpanContext::new(trace, span, flags, remote == Remote::Yes, state)
}

/// Who makes these spans, and by which conventions.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("weir").with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA_URL).build()
}

/// Gives a span its attributes, and says why it failed, if it did. No words beside that: those of a provider may quote a
/// prompt.
fn conclude(span: &mut SpanData, mut attributes: Attributes, error: Option<&'static str>) {
    if let Some(error) = error {
        attributes.add(attribute::ERROR_TYPE, error);
        span.status = Status::error("");
    }
    span.attributes = attributes.0;
}

fn add_parameters(attributes: &mut Attributes, parameters: &Parameters) {
    let Parameters { max_tokens, temperature, top_p, top_k, seed, choices, output, conversation } = parameters;
    attributes
        .count(attribute::GEN_AI_REQUEST_MAX_TOKENS, *max_tokens)
        .add_some(attribute::GEN_AI_REQUEST_TEMPERATURE, *temperature)
        .add_some(attribute::GEN_AI_REQUEST_TOP_P, *top_p)
        .add_some(attribute::GEN_AI_REQUEST_TOP_K, *top_k)
        .add_some(attribute::GEN_AI_REQUEST_SEED, *seed)
        // "Only if … !=1".
        .count(attribute::GEN_AI_REQUEST_CHOICE_COUNT, choices.filter(|choices| *choices != 1))
        .add_some(attribute::GEN_AI_OUTPUT_TYPE, *output)
        .text(attribute::GEN_AI_CONVERSATION_ID, conversation.as_deref());
}

/// An address without what may hold a credential.
fn without_query(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    cut(&format!("{}://{host}{}", uri.scheme_str().unwrap_or("http"), uri.path()))
}

fn usual_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    }
}

/// A text that is not longer than a span may carry, and has no control characters.
fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text[..end].replace(char::is_control, "_")
}
