//! Queue: the side of traces that calls see. A call gets its place in traces when it comes, and its spans are put into
//! the queue when it is over, if there is room. Nothing here waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use opentelemetry::trace::{SpanId as RawSpanId, TraceId as RawTraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::record::Record;
use crate::record::trace::{Context, Part, SpanId, Told, Trace, TraceId};
use crate::sinks::traces::Standing;
use crate::sinks::traces::plan::Plan;
use crate::sinks::traces::sampling::Sampler;
use crate::sinks::traces::{export, spans};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is kept, in bytes: what everybody has to (W3C Trace Context, section 3.3.1.5).
const MAX_STATE_BYTES: usize = 512;

/// Where the spans of calls go.
#[derive(Clone)]
pub struct Traces {
    sampler: Sampler,
    propagates: bool,
    ids: RandomIdGenerator,
    spans: Sender<SpanData>,
    counts: Arc<Counts>,
}

/// What empties the queue.
pub struct Exporter {
    plan: Plan,
    waiting: Receiver<SpanData>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) exported: AtomicU64,
    pub(super) queue_full: AtomicU64,
    pub(super) export_failed: AtomicU64,
    /// When spans were last taken.
    pub(super) last_taken: Mutex<Option<SystemTime>>,
    pub(super) is_failing: AtomicBool,
}

/// A queue as `plan` has it, and what empties it, which has to be run.
///
/// # Errors
/// Never: in a build without the feature `otlp` there is none.
pub fn open(plan: Plan) -> Result<(Traces, Exporter), &'static str> {
    let (spans, waiting) = mpsc::channel(plan.batch.max_queue);
    let counts = Arc::<Counts>::default();
    let traces = Traces {
        sampler: plan.sampler,
        propagates: plan.propagates,
        ids: RandomIdGenerator::default(),
        spans,
        counts: Arc::clone(&counts),
    };
    Ok((traces, Exporter { plan, waiting, counts }))
}

impl Traces {
    /// The place in traces of a request with this head: in the app's own trace, if it tells one.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Trace {
        let parent = if self.propagates { parent(headers) } else { None };
        let id = parent.map_or_else(|| self.trace_id(), |parent| parent.trace);
        Trace {
            id,
            parent: parent.map(|parent| parent.span),
            state: parent.and_then(|_| state(headers)),
            is_sampled: self.sampler.keeps(parent, id),
            is_handed_on: self.propagates,
            server: self.span_id(),
            model_call: self.span_id(),
            attempt: self.span_id(),
            lookup: self.span_id(),
            part: Part::Whole,
            origin: None,
            told: Told::default(),
        }
    }

    /// The place of a response within the session whose own place this is.
    #[must_use]
    pub fn turn(&self, session: &Trace) -> Trace {
        Trace {
            model_call: self.span_id(),
            attempt: self.span_id(),
            part: Part::Turn,
            origin: None,
            told: Told { target: session.told.target.clone(), ..Told::default() },
            ..session.clone()
        }
    }

    /// A call is over: all of its spans wait for being sent, or none of them does.
    pub fn closed(&self, record: &Record) {
        let Some(trace) = record.trace.as_deref().filter(|trace| trace.is_sampled) else { return };
        let spans = spans::of(record, trace);
        match self.spans.try_reserve_many(spans.len()) {
            Ok(places) => places.zip(spans).for_each(|(place, span)| place.send(span)),
            Err(_full) => {
                let lost = u64::try_from(spans.len()).unwrap_or(u64::MAX);
                self.counts.queue_full.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    /// How the queue stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let whole = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let capacity = self.spans.max_capacity();
        Standing {
            exported: count(&self.counts.exported),
            queue_full: count(&self.counts.queue_full),
            export_failed: count(&self.counts.export_failed),
            length: whole(capacity - self.spans.capacity()),
            capacity: whole(capacity),
            last_taken: *self.counts.last_taken.lock().unwrap_or_else(PoisonError::into_inner),
            is_failing: self.counts.is_failing.load(Ordering::Relaxed),
        }
    }

    fn trace_id(&self) -> TraceId {
        let drawn = || TraceId::new(u128::from_be_bytes(RawTraceId::to_bytes(self.ids.new_trace_id())));
        std::iter::repeat_with(drawn).flatten().next().expect("one of them is not zero")
    }

    fn span_id(&self) -> SpanId {
        let drawn = || SpanId::new(u64::from_be_bytes(RawSpanId::to_bytes(self.ids.new_span_id())));
        std::iter::repeat_with(drawn).flatten().next().expect("one of them is not zero")
    }
}

impl Exporter {
    /// Sends batches until it is told to `stop`, then what is left, as fast as the collector takes it. Dropping the
    /// future loses what waits.
    pub async fn run(self, stop: CancellationToken) {
        export::run(&self.plan, self.waiting, &self.counts, &stop).await;
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

/// The span that the app asks in. Two of them are none.
fn parent(headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    Context::parse(value.as_bytes().trim_ascii())
}

/// What the systems of the app say of the trace: all of it, or nothing.
fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let values: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    // "Multiple tracestate header fields MUST be handled as specified by RFC 9110": as one list (section 3.3.1.1).
    let state = values.filter(|values| !values.is_empty())?.join(",");
    (state.len() <= MAX_STATE_BYTES).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;

    use super::*;
    use crate::sinks::traces::{Settings, plan};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traces(variables: &[(&str, &str)]) -> Traces {
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = Settings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..Settings::default() };
        open(plan::plan(&settings, &variables).plan.expect("an endpoint")).expect("the feature is there").0
    }

    fn headers(sent: &[(HeaderName, &'static str)]) -> HeaderMap {
        sent.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut all, (name, value)| {
                all.append(name, value);
                all
            },
        )
    }

    #[test]
    fn a_call_joins_the_trace_of_its_app_or_begins_one() {
        let traces = traces(&[]);
        let joined = traces.begin(&headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]));
        assert_eq!(joined.id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(joined.parent.map(|span| span.to_string()).as_deref(), Some("b7ad6b7169203331"));
        assert_eq!(joined.state.as_deref(), Some("a=1,b=2"));
        assert!(joined.is_sampled);
        let ids = [joined.server, joined.model_call, joined.attempt];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);

        for (rule, sent) in [
            ("none", &[][..]),
            ("a bad one", &[(TRACEPARENT, "00-0-0-01"), (TRACESTATE, "a=1")]),
            ("two", &[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]),
        ] {
            let begun = traces.begin(&headers(sent));
            assert_eq!((begun.parent, begun.state.as_deref(), begun.is_sampled), (None, None, true), "{rule}");
            assert_ne!(begun.id, joined.id, "{rule}");
        }
    }

    #[test]
    fn a_context_that_is_not_to_be_read_is_not() {
        let begun = traces(&[("OTEL_PROPAGATORS", "none")]).begin(&headers(&[(TRACEPARENT, PARENT)]));
        assert_eq!(begun.parent, None);
    }

    #[test]
    fn a_state_too_long_is_left_out_whole() {
        let long: &'static str = "a=1,".repeat(200).leak();
        let joined = traces(&[]).begin(&headers(&[(TRACEPARENT, PARENT), (TRACESTATE, long)]));
        assert!(joined.parent.is_some());
        assert_eq!(joined.state, None);
    }
}
