//! Trace: what a call is called in traces, and what of it only its spans tell. Ids, and the context in which an app
//! asks, as W3C Trace Context (level 1) writes it.
//!
//! Knows no span, no sampler and no way to send one. Nothing here is drawn by chance: whoever begins a trace brings the
//! ids.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};

/// The name of a trace: 16 bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The id that these bytes are, as one number; `None` for zero, which is no id.
    #[must_use]
    pub const fn new(id: u128) -> Option<Self> {
        match NonZeroU128::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its bytes, as one number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0.get()
    }
}

/// As `traceparent` writes it: 32 digits.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a span within its trace: 8 bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// The id that these bytes are, as one number; `None` for zero, which is no id.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its bytes, as one number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// As `traceparent` writes it: 16 digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One span, wherever it is: what another one may be a child of, or linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// The trace it is part of.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether whoever began it keeps it.
    pub is_sampled: bool,
}

/// The only flag that level 1 defines (W3C Trace Context, section 3.2.2.5).
const SAMPLED: u8 = 0x01;

impl Context {
    /// What the value of a `traceparent` header says. `None` if it is not one: it is then as if there were none ("the
    /// vendor … restarts the trace by creating a new `traceparent` header", W3C Trace Context, section 4.3).
    #[must_use]
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        /// `00-<32>-<16>-<2>`: section 3.2.2.2.
        const LENGTH: usize = 55;
        let (front, rest) = traceparent.split_at_checked(LENGTH)?;
        let mut parts = front.split(|byte| *byte == b'-');
        let mut number = |digits| hex(parts.next().filter(|part| part.len() == digits)?);
        let (version, trace, span, flags) = (number(2)?, number(32)?, number(16)?, number(2)?);
        // "Version ff is invalid"; what a later one has more begins with a dash, and is not for us (section 4.3).
        let fits = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        let flags = u8::try_from(flags).ok().filter(|_| fits)?;
        Some(Self {
            trace: TraceId::new(trace)?,
            span: SpanId::new(u64::try_from(span).ok()?)?,
            is_sampled: flags & SAMPLED != 0,
        })
    }
}

/// The value of a `traceparent` header, in version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, if self.is_sampled { SAMPLED } else { 0 })
    }
}

/// The number that these digits are: lower case only (section 3.2.2.1: "all values … are … lower-case").
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// The place of one call in traces: the ids of the spans that it becomes once it is over.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The trace: the app's own, or one that begins here.
    pub id: TraceId,
    /// The span that it is a child of; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// What the systems of the app put into `tracestate`, as it came.
    pub state: Option<Box<str>>,
    /// Whether its spans are kept. If not, nothing of it is sent anywhere.
    pub is_sampled: bool,
    /// Whether it is handed on to providers that may know of it.
    pub is_handed_on: bool,
    /// The span of the call as its app sees it. Of a response within a session: the session's.
    pub server: SpanId,
    /// The span of the call as its model sees it.
    pub model_call: SpanId,
    /// The span of the one attempt to have it answered.
    pub attempt: SpanId,
    /// The span of the look-up in what replicas share.
    pub lookup: SpanId,
    /// What kind of call it is.
    pub part: Part,
    /// The model call that brought its answer, where that is another's.
    pub origin: Option<Context>,
    /// What else only its spans tell.
    pub told: Told,
}

/// How much of a call is told by spans of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A request, answered.
    Whole,
    /// A response within a session, whose own record tells of the request.
    Turn,
}

/// What of a call only its spans tell; empty where they are not kept.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The method of the app's request.
    pub method: Option<Method>,
    /// Where the app sent it.
    pub uri: Option<Uri>,
    /// The same without what differs from call to call; `None` where weir does not know the route.
    pub route: Option<Box<str>>,
    /// Where weir sent it.
    pub target: Option<Uri>,
    /// Which of OpenAI's APIs it is for: `openai.api.type`.
    pub openai_api: Option<&'static str>,
    /// How often the app has tried before, where its SDK says so.
    pub resends: Option<u64>,
    /// How the answer is to be made.
    pub parameters: Parameters,
    /// The budget that refused it, or ended it.
    pub budget: Option<Arc<str>>,
    /// How old the stored answer is that answered.
    pub age: Option<Duration>,
    /// What was asked of the store that replicas share, and how long that took: from the head of the request on.
    pub shared: Option<SharedLookup>,
}

/// A look-up in what replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLookup {
    /// From the head of the request until it began.
    pub after: Duration,
    /// How long it took.
    pub took: Duration,
    /// Whether it found the answer.
    pub found: bool,
}

/// How an answer is to be made, as far as a request says so: `gen_ai.request.*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Most tokens of it.
    pub max_tokens: Option<u64>,
    /// How much chance there is in it.
    pub temperature: Option<f64>,
    /// The share of the likeliest tokens that are drawn from.
    pub top_p: Option<f64>,
    /// The number of the likeliest tokens that are drawn from.
    pub top_k: Option<f64>,
    /// What chance begins with.
    pub seed: Option<i64>,
    /// How many of it.
    pub choices: Option<u64>,
    /// `gen_ai.output.type`: what it is to be.
    pub output: Option<&'static str>,
    /// The conversation it is part of, where the request names one.
    pub conversation: Option<Box<str>>,
}

impl Trace {
    /// The span of the call as its app sees it, wherever it is.
    #[must_use]
    pub const fn context(&self) -> Context {
        self.context_of(self.server)
    }

    /// One of its spans, wherever it is.
    #[must_use]
    pub const fn context_of(&self, span: SpanId) -> Context {
        Context { trace: self.id, span, is_sampled: self.is_sampled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        let sampled =
            |flags: &str| Context::parse(format!("00-{TRACE}-{SPAN}-{flags}").as_bytes()).map(|it| it.is_sampled);
        for (rule, flags, expected) in [
            ("3.2.2.5 sampled", "01", Some(true)),
            ("3.2.2.5 not sampled", "00", Some(false)),
            ("3.2.2.5 flags of later levels are ignored", "ff", Some(true)),
            ("3.2.2.5 flags of later levels are ignored", "02", Some(false)),
            ("3.2.2.5 flags are hexadecimal", "0g", None),
            ("3.2.2.5 flags are lower case", "0A", None),
        ] {
            assert_eq!(sampled(flags), expected, "{rule}: {flags}");
        }
        let read = Context::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).expect("the standard's own example");
        assert_eq!((read.trace.to_string(), read.span.to_string()), (TRACE.to_owned(), SPAN.to_owned()));
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let zeros = "0".repeat(32);
        for (rule, header) in [
            ("nothing", String::new()),
            ("3.2.2.1 version ff is invalid", format!("ff-{TRACE}-{SPAN}-01")),
            ("3.2.2.1 the version is hexadecimal", format!("0x-{TRACE}-{SPAN}-01")),
            ("3.2.2.3 a trace id of zeros is invalid", format!("00-{zeros}-{SPAN}-01")),
            ("3.2.2.3 upper case is invalid", format!("00-{}-{SPAN}-01", TRACE.to_uppercase())),
            ("3.2.2.3 a short trace id is invalid", format!("00-{}-{SPAN}-01", &TRACE[1..])),
            ("3.2.2.4 a parent of zeros is invalid", format!("00-{TRACE}-{}-01", &zeros[..16])),
            ("3.2.2.2 version 00 has nothing more", format!("00-{TRACE}-{SPAN}-01-more")),
            ("3.2.2.2 nor a character more", format!("00-{TRACE}-{SPAN}-010")),
            ("4.3 what a later version has more begins with a dash", format!("01-{TRACE}-{SPAN}-01.more")),
            ("the parts stand in their places", format!("00-{SPAN}-{TRACE}-01")),
            ("it is not cut", format!("00-{TRACE}-{SPAN}-0")),
        ] {
            assert_eq!(Context::parse(header.as_bytes()), None, "{rule}: {header}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for header in [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like")] {
            let read = Context::parse(header.as_bytes()).expect(&header);
            assert_eq!(read.to_string(), format!("00-{TRACE}-{SPAN}-01"), "weir writes the version it knows");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for is_sampled in [false, true] {
            let (trace, span) = (TraceId::new(1).expect("an id"), SpanId::new(u64::MAX).expect("an id"));
            let context = Context { trace, span, is_sampled };
            assert_eq!(Context::parse(context.to_string().as_bytes()), Some(context));
        }
    }
}
