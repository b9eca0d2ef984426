//! Entry: gathers what happens to one request, and writes it down once, when the exchange closes: at the end of the
//! body, on an error, or when the app hangs up and everything is dropped.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{StatusCode, Uri};
use tokio::time::Instant;

use crate::exchange::again::{Effort, Tried};
use crate::exchange::bill::{self, Estimable, was_cut};
use crate::exchange::estimate::{self, Estimate, Job, Prompt};
use crate::exchange::load::Place;
use crate::exchange::meter::Meter;
use crate::exchange::{Destination, Rooms};
use crate::limits::running::Running;
use crate::limits::tally::Deed;
use crate::limits::{Permit, Spent};
use crate::price::Answer;
use crate::provider::output::Output;
use crate::provider::{Ending, PricedAs, Provider, Said};
use crate::record::call::{Call, Caller, Delivery, Operation, RequestId};
use crate::record::content::{Capture, Content, Text};
use crate::record::fingerprint::Fingerprint;
use crate::record::head::HeadFacts;
use crate::record::outcome::{BypassReason, CacheStatus, ErrorType, Outcome, Role, StoreResult};
use crate::record::prefix::Prefixes;
use crate::record::provenance::{Settled, settle};
use crate::record::trace::{Context, SharedLookup, Told, Trace};
use crate::record::usage::{Cost, Counter, Unpriced, Usage};
use crate::record::{Attempt, CacheFacts, Downgrade, Record, Timing, Tries};
use crate::runs::Step;
use crate::runs::run::Runaway;
use crate::tokens::Vocabulary;

/// The label of requests that are for no provider weir knows.
const NO_PROVIDER: &str = "none";

/// An open exchange. Dropped before it is closed, it closes as cancelled.
pub(super) struct Entry(Option<Box<Open>>);

struct Open {
    rooms: Arc<Rooms>,
    to: Option<Arc<Destination>>,
    id: RequestId,
    trace: Option<Box<Trace>>,
    call: Call,
    step: Option<Step>,
    may_be_billed: bool,
    counted: Option<(Counter, u64)>,
    prompt: Option<Prompt>,
    /// What is kept of what is said.
    capture: Capture,
    /// What the app says, as far as that is kept.
    request: Option<Text>,
    /// How its prompt begins.
    prefixes: Option<Prefixes>,
    /// Its place among the calls in progress; none where it is not one of the app's own.
    place: Option<Place>,
    permit: Option<Permit>,
    /// What it told while it was under way, until its cost is known.
    meter: Option<Meter>,
    head: HeadFacts,
    stored_usage: Option<Arc<OnceLock<Usage>>>,
    arrived: Instant,
    arrived_at: SystemTime,
    marks: Marks,
    cache: CacheFacts,
    downgrade: Option<Downgrade>,
    attempt: Option<Attempt>,
    /// Its attempts, where there may be several.
    tried: Option<Arc<Tried>>,
    /// What they came to, once it is over.
    tries: Option<Box<Tries>>,
    unreached: bool,
    status: Option<u16>,
    streamed_in: Arc<AtomicU64>,
    kept_in: u64,
    bytes_out: u64,
}

/// When what happened, as far as it has.
#[derive(Default)]
struct Marks {
    /// `None` where there was no head of a request: within a session.
    head_read: Option<Instant>,
    body_wait: Duration,
    sent: Option<Instant>,
    answered: Option<Instant>,
    handed: Option<Instant>,
    first_chunk: Option<Instant>,
    first_token: Option<Instant>,
    upstream_done: Option<Instant>,
    /// Where it was over for the app before its record could be closed.
    ended: Option<Instant>,
}

/// A call upstream that was answered: when what came of it came, and what the head of the answer says.
#[derive(Debug)]
pub(super) struct Fetched {
    status: StatusCode,
    head: HeadFacts,
    answered: Instant,
    first_chunk: Option<Instant>,
    first_content: Option<Instant>,
    done: Option<Instant>,
}

impl Fetched {
    /// The head has come.
    pub(super) fn now(status: StatusCode, head: HeadFacts) -> Self {
        Self { status, head, answered: Instant::now(), first_chunk: None, first_content: None, done: None }
    }

    /// The first piece of a stream has come; later calls change nothing.
    pub(super) fn chunk_came(&mut self) {
        self.first_chunk.get_or_insert_with(Instant::now);
    }

    /// The first content of a stream has come; later calls change nothing.
    pub(super) fn content_came(&mut self) {
        self.first_content.get_or_insert_with(Instant::now);
    }

    /// The provider has said its last byte; later calls change nothing.
    pub(super) fn done(&mut self) {
        self.done.get_or_insert_with(Instant::now);
    }
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) error_type: Option<ErrorType>,
    pub(super) detail: Option<Box<str>>,
    pub(super) said: Said,
}

impl End {
    /// An end that brought nothing to read.
    pub(super) fn unread(outcome: Outcome, error_type: Option<ErrorType>) -> Self {
        Self { outcome, error_type, detail: None, said: Said::default() }
    }

    /// The same for somebody else who got the answer, less what only the bill needs.
    pub(super) fn for_others(&self) -> Self {
        let Said { facts, usage, provider_cost, output: _, text, ending } = &self.said;
        let said = Said {
            facts: facts.clone(),
            usage: *usage,
            provider_cost: *provider_cost,
            output: Output::default(),
            text: text.clone(),
            ending: *ending,
        };
        Self { outcome: self.outcome, error_type: self.error_type, detail: self.detail.clone(), said }
    }
}

impl Entry {
    /// Opens the entry of a request whose head has just been read.
    pub(super) fn open(rooms: &Arc<Rooms>, to: Option<&Arc<Destination>>, kind: Kind, caller: Caller) -> Self {
        let provider = to.map_or_else(|| Arc::from(NO_PROVIDER), |to| Arc::clone(&to.provider.label));
        rooms.sinks.opened(&provider);
        let arrived = Instant::now();
        let call = Call { provider, operation: kind.operation, model: None, delivery: Delivery::Whole, caller };
        Self(Some(Box::new(Open {
            rooms: Arc::clone(rooms),
            to: to.cloned(),
            id: RequestId::next(),
            trace: None,
            step: rooms.runs.enter(&call.caller, call.operation, arrived),
            call,
            may_be_billed: kind.may_be_billed,
            counted: None,
            prompt: None,
            capture: Capture::None,
            request: None,
            prefixes: None,
            place: None,
            permit: None,
            meter: None,
            head: HeadFacts::default(),
            stored_usage: None,
            arrived,
            arrived_at: SystemTime::now(),
            marks: Marks { head_read: Some(arrived), ..Marks::default() },
            cache: CacheFacts::new(CacheStatus::Bypass(BypassReason::Unread)),
            downgrade: None,
            attempt: None,
            tried: None,
            tries: None,
            unreached: false,
            status: None,
            streamed_in: Arc::default(),
            kept_in: 0,
            bytes_out: 0,
        })))
    }

    /// Opens the entry of a response within a session: no request of its own, no body, and nothing weir did about it.
    pub(super) fn in_session(
        rooms: &Arc<Rooms>,
        to: &Arc<Destination>,
        operation: Operation,
        model: Option<Box<str>>,
        session: &Self,
    ) -> Self {
        // That a run ends, and that it was tried before, is said of the session as a whole.
        let caller = Caller { run_ends: None, is_retry: false, ..session.call().caller.clone() };
        let mut entry = Self::open(rooms, Some(to), Kind { operation, may_be_billed: false }, caller);
        entry.placed(session.trace().and_then(|trace| rooms.sinks.trace_turn(trace)).map(Box::new));
        entry.looked_up(CacheStatus::Bypass(BypassReason::Uncacheable), None);
        let open = entry.get_mut();
        open.call.model = model;
        open.call.delivery = Delivery::Stream;
        open.marks.head_read = None;
        entry
    }

    /// What an HTTP reply would have said of a response within a session.
    pub(super) fn answered_in_session(&mut self, status: StatusCode) {
        let open = self.get_mut();
        open.status = Some(status.as_u16());
        open.attempt = Some(Attempt::Answered(status.as_u16()));
    }

    /// The exchange's id.
    pub(super) fn id(&self) -> RequestId {
        self.get().id
    }

    /// It has this place in traces.
    pub(super) fn placed(&mut self, trace: Option<Box<Trace>>) {
        self.get_mut().trace = trace;
    }

    /// Something that only its spans tell, if they are kept.
    pub(super) fn tell(&mut self, tell: impl FnOnce(&mut Told)) {
        if let Some(trace) = self.get_mut().trace.as_deref_mut().filter(|trace| trace.is_sampled) {
            tell(&mut trace.told);
        }
    }

    /// The span of its model call, if it is kept: whose answer others may get.
    pub(super) fn as_origin(&self) -> Option<Context> {
        self.trace().filter(|trace| trace.is_sampled).map(|trace| trace.context_of(trace.model_call))
    }

    /// This model call has brought its answer.
    pub(super) fn owes(&mut self, origin: Option<Context>) {
        if let Some(trace) = self.get_mut().trace.as_deref_mut() {
            trace.origin = origin;
        }
    }

    /// It was looked for in what replicas share, from `began` on.
    pub(super) fn asked_shared(&mut self, began: Instant, found: bool) {
        let arrived = self.get().arrived;
        let (after, took) = (began.saturating_duration_since(arrived), began.elapsed());
        self.tell(|told| told.shared = Some(SharedLookup { after, took, found }));
    }

    /// Its place in traces, if any are kept.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.get().trace.as_deref()
    }

    /// The provider it is for, if weir knows it.
    pub(super) fn provider(&self) -> Option<&Provider> {
        self.get().to.as_ref().map(|to| &*to.provider)
    }

    /// The attempt to ask the provider, if there was one.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        self.get().attempt
    }

    /// The call, as far as it is understood.
    pub(super) fn call(&self) -> &Call {
        &self.get().call
    }

    /// The call, to be understood better.
    pub(super) fn call_mut(&mut self) -> &mut Call {
        &mut self.get_mut().call
    }

    /// What is billed by the request's own measure.
    pub(super) fn counted(&mut self, count: Option<(Counter, u64)>) {
        self.get_mut().counted = count;
    }

    /// What is billed by the request's own measure, if something is.
    pub(super) fn count(&self) -> Option<(Counter, u64)> {
        self.get().counted
    }

    /// Whether the provider might bill for it although weir does not read it.
    pub(super) fn may_be_billed(&self) -> bool {
        self.get().may_be_billed
    }

    /// It is in progress from now on, and has this place until it is over.
    pub(super) fn has_place(&mut self, place: Place) {
        self.get_mut().place = Some(place);
    }

    /// It may go, and holds this until it is over.
    pub(super) fn permitted(&mut self, permit: Permit) {
        match &mut self.get_mut().permit {
            Some(held) => held.join(permit),
            none => *none = Some(permit),
        }
    }

    /// Another model is asked than the app did, for this budget is spent.
    pub(super) fn downgraded(&mut self, budget: Arc<str>) {
        let open = self.get_mut();
        open.downgrade = Some(Downgrade { from: open.call.model.clone().unwrap_or_default(), budget });
    }

    /// Which other model is asked than the app did, if one is.
    pub(super) fn downgrade(&self) -> Option<&Downgrade> {
        self.get().downgrade.as_ref()
    }

    /// What tells how far it has come, if there is a budget that may end it.
    pub(super) fn running(&self) -> Option<Running> {
        self.get().permit.as_ref()?.running()
    }

    /// What it has used while it was under way, until its cost is known.
    pub(super) fn metered(&mut self, meter: Meter) {
        self.get_mut().meter = Some(meter);
    }

    /// What the model is to read, in case its tokens have to be estimated.
    pub(super) fn keep_prompt(&mut self, prompt: Prompt) {
        self.get_mut().prompt = Some(prompt);
    }

    /// What the app says, which is kept where the operator wants that.
    pub(super) fn says(&mut self, body: &[u8]) {
        let Open { rooms, to, call, capture, request, .. } = self.get_mut();
        let privacy = &rooms.privacy;
        *capture = privacy.capture(to.as_ref().and_then(|to| to.provider.capture), call.caller.namespace.as_deref());
        if *capture != Capture::None {
            *request = Some(Text::beginning(body, body.len() as u64, privacy.max_body_bytes()));
        }
    }

    /// How its prompt begins, as far as that is kept.
    pub(super) fn begins(&mut self, prefixes: Option<Prefixes>) {
        self.get_mut().prefixes = prefixes;
    }

    /// How much is kept of what it is answered, in bytes; `None` if nothing is.
    pub(super) fn keeps_text(&self) -> Option<usize> {
        let Open { rooms, capture, .. } = self.get();
        (*capture != Capture::None).then(|| rooms.privacy.max_body_bytes())
    }

    /// What it asks, where that is to be compared with what its run has asked before.
    pub(super) fn asks(&mut self, question: impl FnOnce(&Call) -> Option<Fingerprint>) {
        let Open { step, call, .. } = self.get_mut();
        if let Some(step) = step {
            step.asks(question(call));
        }
    }

    /// What is wrong with its run, if that refuses it.
    pub(super) fn runaway(&self) -> Option<&Runaway> {
        self.get().step.as_ref().and_then(Step::refused)
    }

    /// What a call upstream brought, once it is over.
    pub(super) fn brought(&mut self, fetched: Fetched) {
        let open = self.get_mut();
        open.attempt = Some(Attempt::Answered(fetched.status.as_u16()));
        open.head = fetched.head;
        open.marks.answered = Some(fetched.answered);
        open.marks.first_chunk = fetched.first_chunk;
        open.marks.first_token = fetched.first_content;
        open.marks.upstream_done = fetched.done;
    }

    /// The app's body has been read, as far as it is kept.
    pub(super) fn body_kept(&mut self, bytes: u64) {
        let open = self.get_mut();
        open.marks.body_wait = open.arrived.elapsed();
        open.kept_in = bytes;
    }

    /// Counts the part of the app's body that streams through.
    pub(super) fn streamed_in(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.get().streamed_in)
    }

    /// What the cache said, and how long it took where memory was asked.
    pub(super) fn looked_up(&mut self, status: CacheStatus, took: Option<Duration>) {
        let cache = &mut self.get_mut().cache;
        cache.status = status;
        cache.lookup = took.map(|took| (status, took));
    }

    /// What the cache says now that memory holds what others had stored.
    pub(super) fn fetched(&mut self, status: CacheStatus) {
        self.get_mut().cache.status = status;
    }

    /// What answered a similar request answers: how similar it is.
    pub(super) fn answered_as_similar(&mut self, cosine: f32) {
        let cache = &mut self.get_mut().cache;
        cache.status = CacheStatus::Hit;
        cache.similarity = Some(cosine);
    }

    /// How similar the request is whose answer answers, if it is another.
    pub(super) fn similarity(&self) -> Option<f32> {
        self.get().cache.similarity
    }

    /// It waited this long for the answer to an equal call.
    pub(super) fn waited(&mut self, took: Duration) {
        let open = self.get_mut();
        open.cache.waited = Some(open.cache.waited.unwrap_or_default() + took);
    }

    /// It gets the answer to an equal call, and has nothing to pay.
    pub(super) fn followed(&mut self) {
        let open = self.get_mut();
        open.cache.role = Some(Role::Follower);
        open.prompt = None;
    }

    /// Its part among equal calls.
    pub(super) fn role(&self) -> Option<Role> {
        self.get().cache.role
    }

    /// Others got its answer too.
    pub(super) fn led(&mut self) {
        self.get_mut().cache.role = Some(Role::Leader);
    }

    /// What the cache said.
    pub(super) fn cache_status(&self) -> CacheStatus {
        self.get().cache.status
    }

    /// A reply was offered to the cache; where it is stored, `usage` is told what it used once that is known.
    pub(super) fn offered(&mut self, result: StoreResult, usage: Option<Arc<OnceLock<Usage>>>) {
        let open = self.get_mut();
        open.cache.store = Some(result);
        open.stored_usage = usage;
    }

    /// The request is about to go upstream.
    pub(super) fn sending(&mut self) {
        let open = self.get_mut();
        open.marks.sent = Some(Instant::now());
        // Until something comes back: what is dropped now has failed.
        open.attempt = Some(Attempt::Failed);
    }

    /// Notes what may take several attempts.
    pub(super) fn tries(&mut self) -> Arc<Tried> {
        Arc::clone(self.get_mut().tried.get_or_insert_default())
    }

    /// Where it went last, if that was not where it was meant to go.
    pub(super) fn went_to(&self) -> Option<Uri> {
        self.get().tried.as_ref()?.target()
    }

    /// The request did not go upstream after all.
    pub(super) fn unsent(&mut self) {
        let open = self.get_mut();
        open.marks.sent = None;
        open.attempt = None;
    }

    /// The attempt upstream ended, or began to answer.
    pub(super) fn attempted(&mut self, attempt: Attempt) {
        let open = self.get_mut();
        open.marks.answered = Some(Instant::now());
        open.attempt = Some(attempt);
    }

    /// The provider never saw the request.
    pub(super) fn unreached(&mut self) {
        self.get_mut().unreached = true;
    }

    /// The response's head goes to the app.
    pub(super) fn handed(&mut self, status: u16) {
        let open = self.get_mut();
        open.status = Some(status);
        open.marks.handed = Some(Instant::now());
    }

    /// The first content of a stream has come; later calls change nothing.
    pub(super) fn content_came(&mut self) {
        self.get_mut().marks.first_token.get_or_insert_with(Instant::now);
    }

    /// The provider has said its last byte.
    pub(super) fn upstream_done(&mut self) {
        self.get_mut().marks.upstream_done.get_or_insert_with(Instant::now);
    }

    /// Body bytes go to the app.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.get_mut().bytes_out += bytes as u64;
    }

    /// The app hung up, though its record waits for the end of a call that goes on for others.
    pub(super) fn hung_up(&mut self) {
        let open = self.get_mut();
        open.marks.ended = Some(Instant::now());
        open.place = None;
    }

    /// The entry itself, for another owner; what stays behind is closed.
    pub(super) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Whether the entry still waits for its end.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the record. Later calls, and the drop, do nothing.
    pub(super) fn close(&mut self, end: End) {
        if let Some(open) = self.0.take() {
            open.close(end);
        }
    }

    fn get(&self) -> &Open {
        self.0.as_ref().expect("an entry is asked only while it is open")
    }

    fn get_mut(&mut self) -> &mut Open {
        self.0.as_mut().expect("an entry is told things only while it is open")
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(End::unread(Outcome::Cancelled, Some(ErrorType::Cancelled)));
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.0.as_ref().map(|open| open.id)).finish()
    }
}

/// What the head of a request says of its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The operation.
    pub(super) operation: Operation,
    /// Whether the provider might bill for it although weir does not read it.
    pub(super) may_be_billed: bool,
}

impl Open {
    fn close(mut self: Box<Self>, mut end: End) {
        self.place = None;
        let ended = self.marks.ended.unwrap_or_else(Instant::now);
        self.sum_up_tries();
        if end.said.ending.is_success() && end.said.usage.is_none() {
            end.said.usage =
                self.counted.map(|(counter, count)| Usage::cache_inside(None, None, &[(counter, Some(count))]));
        }
        let Some(job) = self.take_job(&mut end) else { return self.write(end, ended) };
        let rooms = Arc::clone(&self.rooms);
        estimate::hand_over(&rooms, job, move |Estimate { input, output }| {
            end.said.usage = Some(end.said.usage.unwrap_or_default().with_estimates(input, output));
            self.write(end, ended);
        });
    }

    /// What its attempts came to beside the last one, if there were several.
    fn sum_up_tries(&mut self) {
        let Some(Effort { tries, target, waits_after }) = self.tried.take().and_then(|tried| tried.effort()) else {
            return;
        };
        // Given up while it waited: the last attempt is the one before.
        if let Some(met) = waits_after.filter(|_| self.marks.answered.is_none()) {
            (self.attempt, self.unreached) = (Some(met.attempt), !met.reached);
        }
        if let Some(trace) = self.trace.as_deref_mut().filter(|trace| trace.is_sampled)
            && target.is_some()
        {
            trace.told.target = target;
        }
        self.unreached &= tries.left == 0;
        self.tries = (tries != Tries::default()).then(|| Box::new(tries));
    }

    fn write(mut self: Box<Self>, end: End, ended: Instant) {
        let Answer { cost, model } = self.price(&end.said);
        let usage = end.said.usage;
        if let (Some(stored), Some(usage)) = (&self.stored_usage, usage) {
            // The only one who tells it.
            let _ = stored.set(usage);
        }
        // Where the operator says that nothing is charged, nobody else's word counts, and nothing is uncertain.
        let is_free = self.to.as_ref().is_some_and(|to| to.provider.prices == PricedAs::Free);
        // Nor is a cost on the way the bill.
        let stated = end.said.provider_cost.filter(|_| !was_cut(&end.said, self.call.delivery));
        let Settled { cost, provenance, list_cost } =
            if is_free { settle(cost, None, None) } else { settle(cost, stated, usage.as_ref()) };
        let Settled { cost, provenance, list_cost } =
            Settled { cost, provenance, list_cost }.with_others_like_it(self.left());
        if let Some(mut permit) = self.permit.take() {
            if let Some(meter) = self.meter.take() {
                permit.outgrown(meter.into_running());
            }
            self.settle(permit, cost, usage.as_ref());
        }
        let (capture, request, response) = (self.capture, self.request.take(), end.said.text);
        let mut record = Record {
            id: self.id,
            timing: self.timing(ended),
            trace: self.trace,
            call: self.call,
            reply: end.said.facts,
            head: self.head,
            usage,
            cost,
            provenance,
            list_cost,
            priced_model: model,
            cache: self.cache,
            downgrade: self.downgrade,
            outcome: end.outcome,
            error_type: end.error_type,
            error_detail: end.detail,
            content: (capture != Capture::None).then(|| Box::new(Content { capture, request, response })),
            prefixes: self.prefixes,
            status: self.status,
            attempt: self.attempt,
            tries: self.tries,
            arrived_at: self.arrived_at,
            bytes_in: self.kept_in + self.streamed_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
        };
        if let Some(downgrade) = record.downgrade.as_ref().filter(|_| record.was_answered()) {
            self.rooms.limits.did(&downgrade.budget, Deed::Downgraded);
        }
        self.rooms.privacy.tidy(&mut record);
        self.rooms.sinks.closed(&record);
        if let Some(step) = &self.step {
            self.rooms.runs.leave(step, &record, ended);
        }
    }

    /// Settles what the call was let go with. What was never asked of a provider is given back, unless an answer that
    /// was there already counts as well.
    fn settle(&self, permit: Permit, cost: Cost, usage: Option<&Usage>) {
        if self.cache.reuse().is_some() {
            return permit.settle(Spent::NOTHING);
        }
        if self.attempt.is_none() {
            return drop(permit);
        }
        let tokens = usage.map(Usage::total_tokens).or_else(|| (cost == Cost::Nothing).then_some(0));
        permit.settle(Spent { tokens, usd: cost.amount() });
        let output = usage.filter(|usage| !usage.is_estimated()).and_then(|usage| usage.get(Counter::OutputTokens));
        if let (Some(model), Some(output)) = (self.call.model.as_deref(), output) {
            self.rooms.limits.usual.learn(model, output);
        }
    }

    /// What has to be estimated, and from what; `None` if nothing has, or if nothing can be.
    ///
    /// A provider that never began to answer may have been at work or not: there is nothing to go by, and such a call
    /// stays unpriced. One that refused it bills nothing.
    fn take_job(&mut self, end: &mut End) -> Option<Job> {
        let estimable = Estimable::of(self.call.operation).filter(|_| self.rooms.settings.estimate_usage)?;
        let said = &mut end.said;
        if !matches!(self.attempt, Some(Attempt::Answered(200..=299))) || !self.tells_what_came(end.outcome, said) {
            return None;
        }
        let reported = |counter| said.usage.as_ref().and_then(|usage| usage.get(counter));
        let wants_input = reported(Counter::InputTokens).is_none();
        let reports_all_there_is = said.usage.is_some() && said.output.bytes() == 0 && said.ending.is_success();
        let wants_output = estimable == Estimable::Both
            && (was_cut(said, self.call.delivery)
                || (reported(Counter::OutputTokens).is_none() && !reports_all_there_is));
        if (wants_input && self.prompt.is_none()) || !(wants_input || wants_output) {
            return None;
        }
        let has_output = said.output.bytes() > 0 || matches!(said.ending, Ending::Complete | Ending::Declined);
        let model = said.facts.model.as_deref().or(self.call.model.as_deref());
        Some(Job {
            vocabulary: Vocabulary::of_model(model.unwrap_or_default()),
            prompt: self.prompt.take().filter(|_| wants_input),
            output: (wants_output && has_output).then(|| std::mem::take(&mut said.output)),
        })
    }

    /// Whether it is known what was generated as far as it came: all of it, a part, or that nothing came at all. What
    /// came but was not read, or goes on elsewhere, cannot be estimated.
    fn tells_what_came(&self, outcome: Outcome, said: &Said) -> bool {
        // A whole reply may have been generated without a byte of it having come.
        let is_stream = self.call.delivery == Delivery::Stream;
        let nothing_came = is_stream && self.marks.first_token.is_none();
        match said.ending {
            Ending::Complete | Ending::Declined => true,
            Ending::Unfinished | Ending::Failed => nothing_came || said.output.bytes() > 0,
            Ending::Unknown => is_stream && outcome != Outcome::Success && self.bytes_out == 0,
        }
    }

    /// Prices what was used, on a miss and on a hit alike.
    fn price(&self, said: &Said) -> Answer {
        let Some(to) = &self.to else { return Answer { cost: Cost::Nothing, model: None } };
        let answer = bill::price(&self.rooms.prices, to, &self.call, said, self.arrived_at);
        if self.is_free_of_charge(said) {
            return Answer { cost: Cost::Nothing, ..answer };
        }
        if let (Cost::Unpriced(Unpriced::UnknownModel), Some(model)) =
            (answer.cost, bill::models(to, &self.call, said).into_iter().flatten().next())
        {
            // It goes into the log, where it is cut: half a key looks like none.
            self.rooms.prices.name_unknown(&to.prices, &self.rooms.privacy.name(model));
        }
        answer
    }

    fn is_free_of_charge(&self, said: &Said) -> bool {
        let billed = self.call.operation.is_billed() || self.may_be_billed;
        match self.attempt {
            _ if !billed => true,
            _ if self.cache.reuse().is_some() => false,
            None => true,
            // "Failed calls (4xx) carry no usage and cost nothing", but what is reported all the same is billed.
            Some(Attempt::Answered(status)) => {
                status >= 400 && said.usage.is_none() && said.provider_cost.is_none() && self.left() == 0
            }
            // Nothing came back. If the provider was at work on it, it may bill it, and nobody can tell how much.
            Some(Attempt::TimedOut | Attempt::Failed | Attempt::Abandoned) => self.unreached,
        }
    }

    /// Attempts that the provider may bill beside the last one.
    fn left(&self) -> u32 {
        self.tries.as_ref().map_or(0, |tries| tries.left)
    }

    fn timing(&self, now: Instant) -> Timing {
        let marks = &self.marks;
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        Timing {
            total: now.saturating_duration_since(self.arrived),
            overhead_request: between(marks.head_read, marks.sent)
                .map(|all| all.saturating_sub(marks.body_wait + self.cache.waited.unwrap_or_default())),
            overhead_response: marks.sent.and(between(marks.answered, marks.handed)),
            upstream: between(marks.sent, marks.upstream_done.or(marks.answered).or(Some(now))),
            sent: between(Some(self.arrived), marks.sent),
            first_chunk: between(marks.sent, marks.first_chunk),
            first_token: between(marks.sent, marks.first_token),
        }
    }
}
