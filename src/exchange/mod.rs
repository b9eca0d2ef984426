//! Exchange: the corridor, and the only place that knows the order of things. One request in, one response out, one
//! record.

mod admission;
mod again;
mod beginning;
mod bill;
mod crossing;
mod downgrade;
pub mod embedding;
mod entry;
pub mod estimate;
pub mod fetch;
mod filter;
pub mod form;
pub mod house;
mod kept;
pub mod load;
mod loops;
mod meter;
mod paced;
mod pump;
pub mod quote;
pub mod recall;
pub mod recordings;
mod refresh;
mod relay;
pub mod reply;
pub mod route;
mod session;
pub mod similar;
mod tee;
mod trace;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json_borrow::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::flight::Ride;
use crate::cache::pace::Pacing;
use crate::cache::{Cache, Replay, Reusable, policy};
use crate::exchange::admission::{Coming, Size};
use crate::exchange::again::{Persistence, Repeatable};
use crate::exchange::entry::{Entry, Kind};
use crate::exchange::estimate::Estimator;
use crate::exchange::fetch::{Asked, Ended, Fetch, InFlight};
use crate::exchange::kept::{Kept, Unread, Want};
use crate::exchange::load::{Load, Shed};
use crate::exchange::meter::Meter;
use crate::exchange::pump::{Head, Pump, Wishes};
use crate::exchange::recall::{Question, Recalled};
use crate::exchange::recordings::{Recordable, Recordings, Sent};
use crate::exchange::reply::Body;
use crate::exchange::route::Route;
use crate::exchange::similar::Similar;
use crate::exchange::tee::Tee;
use crate::json;
use crate::limits::Limits;
use crate::limits::refusal::Refusal;
use crate::price::{Prices, Source};
use crate::privacy::Privacy;
use crate::provider::endpoint::Endpoint;
use crate::provider::{self, Provider, UsageRequest};
use crate::record::call::Caller;
use crate::record::outcome::{BypassReason, CacheStatus, Role, RunStatus};
use crate::record::trace::Trace;
use crate::runs::Runs;
use crate::sinks::Sinks;
use crate::units::{ByteSize, Span};
use crate::upstream::Upstream;
use crate::upstream::credential::Credential;
use crate::upstream::incoming::AppBody;
use crate::upstream::plan::Plan;
use crate::upstream::sign;

/// What the operator writes of how calls are handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What becomes of the upstream call when the app hangs up: `cancel` it, or `drain` it to learn the bill.
    pub on_disconnect: OnDisconnect,
    /// How long a call goes on for its bill alone, with `on_disconnect: drain`.
    pub drain_timeout: Span,
    /// Most calls that go on at once for their bill alone, with `on_disconnect: drain`; further ones are cancelled.
    pub max_drains: usize,
    /// The largest request body read; a larger one streams straight through, counted and timed but not read.
    pub max_request_bytes: ByteSize,
    /// The largest unstreamed reply, and the largest event of a streamed one or message of a WebSocket session, read
    /// for its usage.
    pub max_reply_bytes: ByteSize,
    /// Most calls in progress at once; further ones are turned away with a 503 and a `Retry-After`. Those that go on for
    /// their bill alone count, and sessions for as long as they last. Without it (`null`), there is no such bound.
    pub max_in_flight: Option<usize>,
    /// Most bytes of request bodies held at once, of all calls together, beside 16 KiB for each. A body for which there is
    /// no room streams straight through, as one that is too large; one that weir has to sign is turned away with a 503.
    pub max_request_bytes_in_all: ByteSize,
    /// Most bytes of replies held at once, to be read or stored, of all calls together, beside 16 KiB for each. One for
    /// which there is no room is forwarded all the same: not stored, or not read for its usage.
    pub max_reply_bytes_in_all: ByteSize,
    /// How long an app may fall silent in the middle of a request's body.
    pub body_timeout: Span,
    /// Whether the tokens of calls whose provider does not say (streams that break off, servers that report no usage)
    /// are estimated. Without it, such calls are unpriced.
    pub estimate_usage: bool,
    /// Most bytes of request bodies kept, of all calls in progress together, in case an estimate is needed; beyond it,
    /// estimates go by length.
    pub max_estimate_bytes: ByteSize,
    /// Whether answers carry weir's own headers: `X-Cache`, `Age`, `Cache-Status`, `X-Weir-Request-Id`,
    /// `X-Weir-Trace-Id`, `X-Weir-Downgraded`.
    pub response_headers: bool,
    /// Which request headers say who asks.
    pub identity: Identity,
}

/// What becomes of the upstream call when the app hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It ends too.
    Cancel,
    /// It goes on, within `drain_timeout`, so that its usage is known.
    Drain,
}

/// Which request headers say who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Keeps cached answers apart.
    pub namespace_header: String,
    /// The workspace.
    pub workspace_header: String,
    /// The end user. Without it, the body's own user field counts.
    pub user_header: String,
    /// The agent.
    pub agent_header: String,
    /// The kind of agent loop.
    pub loop_header: String,
    /// The run of a loop.
    pub run_header: String,
    /// How the run ends, on its last call: `success`, `error`, `timeout` or `cancelled`.
    pub run_status_header: String,
    /// Whether these headers go on to the provider.
    pub forward: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            on_disconnect: OnDisconnect::Cancel,
            drain_timeout: Span::from_secs(60),
            max_drains: 64,
            max_request_bytes: ByteSize::mib(8),
            max_reply_bytes: ByteSize::mib(8),
            max_in_flight: None,
            max_request_bytes_in_all: ByteSize::mib(128),
            max_reply_bytes_in_all: ByteSize::mib(128),
            body_timeout: Span::from_secs(60),
            estimate_usage: true,
            max_estimate_bytes: ByteSize::mib(64),
            response_headers: true,
            identity: Identity::default(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            namespace_header: "X-Cache-Namespace".to_owned(),
            workspace_header: "X-Workspace-ID".to_owned(),
            user_header: "X-User-ID".to_owned(),
            agent_header: "X-Agent-ID".to_owned(),
            loop_header: "X-Loop-Type".to_owned(),
            run_header: "X-Run-ID".to_owned(),
            run_status_header: "X-Run-Status".to_owned(),
            forward: false,
        }
    }
}

/// Everything a call may need on its way, built by the app: once for each configuration. A call keeps those that it began
/// with.
#[derive(Debug)]
pub struct Rooms {
    /// How calls are handled.
    pub settings: Settings,
    /// Which headers say who asks, as `settings.identity` names them.
    pub who: Who,
    /// Where calls can go, by the first segment of their path.
    pub destinations: BTreeMap<Arc<str>, Arc<Destination>>,
    /// Where bare `/v1/…` goes.
    pub default_destination: Arc<Destination>,
    /// How long a provider may fall silent in the middle of an answer.
    pub idle_timeout: Duration,
    /// How long a call to a provider may take in all, if that is bounded.
    pub total_timeout: Option<Duration>,
    /// How much goes on at once.
    pub load: Arc<Load>,
    /// Stored answers.
    pub cache: Arc<Cache>,
    /// What it takes to answer similar requests, where the operator wants that.
    pub similar: Option<Arc<Similar>>,
    /// Answers kept for tests.
    pub recordings: Arc<Recordings>,
    /// Calls in flight that equal ones may join.
    pub in_flight: Arc<InFlight>,
    /// Whether a call may go.
    pub limits: Arc<Limits>,
    /// Agent loops in progress.
    pub runs: Runs,
    /// What of a call may be told, and kept.
    pub privacy: Arc<Privacy>,
    /// The price table.
    pub prices: Arc<Prices>,
    /// Where records go.
    pub sinks: Sinks,
    /// What calls used whose provider does not say.
    pub estimator: Estimator,
    /// Calls that go on although their app is gone, and estimates.
    pub tasks: TaskTracker,
    /// Places for them: `settings.max_drains`.
    pub drains: Arc<Semaphore>,
    /// Ends every call at once, when the time to end by themselves is up.
    pub hard_stop: CancellationToken,
}

/// A provider, with the way to it.
#[derive(Debug)]
pub struct Destination {
    /// How it is read.
    pub provider: Arc<Provider>,
    /// The way to it.
    pub upstream: Arc<Upstream>,
    /// The credential to put in; without one, the app's own passes through.
    pub credential: Option<Arc<Credential>>,
    /// Whose prices apply.
    pub prices: Source,
    /// What is done about attempts that fail, if anything is.
    pub plan: Option<Arc<Plan>>,
}

impl Destination {
    /// What of a header that may hold a credential tells apart who may have the same answer, if it does.
    fn identifying<'a>(&self, name: &HeaderName, value: &'a HeaderValue) -> Option<&'a [u8]> {
        let is_replaced = self.credential.is_some() || self.upstream.signs();
        if is_replaced { sign::lasting(name, value) } else { Some(value.as_bytes()) }
    }

    /// Puts weir's own `credential` in the place of whatever the app shows.
    fn show(&self, credential: &Credential, headers: &mut HeaderMap) {
        let dialect = self.provider.api.dialect();
        for name in dialect.credential_headers {
            headers.remove(name);
        }
        headers.insert(dialect.credential.0.clone(), credential.header_value());
    }
}

/// How many attempts came before this one: what SDKs send that Stainless generates, OpenAI's and Anthropic's among them.
static RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// The names of the headers that say who asks.
#[derive(Debug)]
pub struct Who {
    namespace: HeaderName,
    workspace: HeaderName,
    user: HeaderName,
    agent: HeaderName,
    loop_type: HeaderName,
    run: HeaderName,
    run_status: HeaderName,
    forward: bool,
}

impl Who {
    /// The names that `identity` gives.
    ///
    /// # Errors
    /// If one of them cannot be the name of a header.
    pub fn new(identity: &Identity) -> Result<Self, http::header::InvalidHeaderName> {
        Ok(Self {
            namespace: identity.namespace_header.parse()?,
            workspace: identity.workspace_header.parse()?,
            user: identity.user_header.parse()?,
            agent: identity.agent_header.parse()?,
            loop_type: identity.loop_header.parse()?,
            run: identity.run_header.parse()?,
            run_status: identity.run_status_header.parse()?,
            forward: identity.forward,
        })
    }

    /// Who asks, by the head of a request.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> Caller {
        // One look at the few that there are takes less than nine for those that there could be.
        let names = [
            &self.namespace,
            &self.workspace,
            &self.user,
            &self.agent,
            &self.loop_type,
            &self.run,
            &self.run_status,
            &RETRY_COUNT,
            &USER_AGENT,
        ];
        let mut values = [None; 9];
        for (name, value) in headers {
            for (_, slot) in names.iter().zip(&mut values).filter(|(known, slot)| **known == name && slot.is_none()) {
                *slot = Some(value);
            }
        }
        let [namespace, workspace, user, agent, loop_type, run, run_status, retry_count, client] = values;
        let text = |value: Option<&HeaderValue>| {
            let value = value?.as_bytes().trim_ascii();
            // Bytes that are no text still tell one caller from another.
            let text = std::str::from_utf8(value).map_or_else(|_| value.escape_ascii().to_string().into(), Cow::from);
            (!text.is_empty()).then(|| text.into())
        };
        Caller {
            namespace: text(namespace),
            workspace: text(workspace),
            user: text(user),
            agent: text(agent),
            loop_type: text(loop_type),
            run: text(run),
            run_ends: run_status.and_then(|word| RunStatus::of_word(word.as_bytes())),
            is_retry: retry_count.is_some_and(is_above_zero),
            client: text(client),
        }
    }

    /// Whether a header of this name is for weir alone.
    fn keeps(&self, name: &HeaderName) -> bool {
        let Self { namespace, workspace, user, agent, loop_type, run, run_status, forward } = self;
        !forward && [namespace, workspace, user, agent, loop_type, run, run_status].contains(&name)
    }
}

/// One request in, one response out, exactly one record whatever happens. Dropping the future ends the call upstream
/// and closes the record as cancelled; with `on_disconnect: drain` the call goes on instead, bounded, for its bill.
pub async fn handle(rooms: Arc<Rooms>, request: Request<Incoming>) -> Response<Body> {
    if rooms.settings.on_disconnect == OnDisconnect::Cancel {
        return walk(rooms, request).await;
    }
    let gone = CancellationToken::new();
    let _hangs_up = gone.clone().drop_guard();
    let call = rooms.tasks.spawn(walk_on(Arc::clone(&rooms), request, gone));
    match call.await {
        Ok(Some(response)) => response,
        Ok(None) => unreachable!("the time limit begins only when nobody waits any more"),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The corridor, for at most `drain_timeout` after the app is `gone`, and no longer if there is no place to drain.
async fn walk_on(rooms: Arc<Rooms>, request: Request<Incoming>, gone: CancellationToken) -> Option<Response<Body>> {
    let (limit, drains) = (rooms.settings.drain_timeout.get(), Arc::clone(&rooms.drains));
    let hard_stop = rooms.hard_stop.clone();
    let over = async {
        gone.cancelled().await;
        if let Ok(_place) = drains.try_acquire() {
            let _ = timeout(limit, hard_stop.cancelled()).await;
        }
    };
    tokio::select! {
        response = walk(rooms, request) => Some(response),
        () = over => None,
    }
}

/// The corridor, from one end to the other.
async fn walk(rooms: Arc<Rooms>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let caller = rooms.who.read(&head.headers);
    let route = Route::find(&rooms, &head.method, &head.uri);
    let mut entry =
        Entry::open(&rooms, route.as_ref().map(|route| &route.to), kind(&head.method, route.as_ref()), caller);
    entry.placed(trace::begin(&rooms, &head, route.as_ref()));
    let Some(route) = route else { return reply::not_found(&rooms, head.uri.path(), entry) };
    let Some(place) = rooms.load.enter() else {
        return reply::shed(&rooms, &route.to.provider, Shed::Concurrency, entry);
    };
    entry.has_place(place);

    if relay::is_asked(&head, &body) {
        if entry.runaway().is_some() {
            return reply::runaway(&rooms, entry);
        }
        // Boxed, as all that is rare and large: every call would carry the space for it.
        return Box::pin(relay::walk(&rooms, &route, Request::from_parts(head, body), entry)).await;
    }
    let needs_body = route.endpoint.is_read() || route.to.upstream.signs() || rooms.recordings.are_on();
    let most = needs_body.then_some(rooms.settings.max_request_bytes);
    let up_to = most.and_then(|most| kept::limit(&head.headers, &body, most));
    let must_be_whole = route.to.upstream.signs();
    let want = up_to.map(|up_to| Want { up_to, share: rooms.load.requests.share(), must_be_whole });
    let body = match Kept::read(AppBody::new(body, rooms.settings.body_timeout.get()), want).await {
        Ok(body) => body,
        Err(Unread::Broken(broken)) => return reply::broken_request(&rooms, &route.to.provider, &broken, entry),
        Err(Unread::NoRoom) => return reply::shed(&rooms, &route.to.provider, Shed::Memory, entry),
    };
    entry.body_kept(body.len());

    let mut asking = Asking { route, head, body };
    let understood = understand(&rooms, &asking, &mut entry);
    if entry.runaway().is_some() {
        return reply::runaway(&rooms, entry);
    }
    match &*rooms.recordings {
        Recordings::Off => {}
        Recordings::Replay(library) => {
            let replay = recordings::replay(&rooms, library, &asking.route, understood.recordable, entry);
            return Box::pin(replay).await;
        }
        Recordings::Record { .. } => {
            recordings::prepare(understood.recordable.as_deref(), &mut asking.head.headers, &mut entry);
            return Box::pin(ask(&rooms, Unanswered { asking, understood, ride: None, entry })).await;
        }
    }
    let entry = match admission::admit(&rooms, &asking.route, &asking.head.headers, Coming::Call, entry).await {
        Ok(entry) => entry,
        Err(refusal) => return refusal,
    };
    match recall_or_ask(&rooms, asking, understood, entry).await {
        Ok(unanswered) => ask(&rooms, unanswered).await,
        Err(answer) => answer,
    }
}

/// Looks for an answer that is there already: the call goes on without one, or has it.
async fn recall_or_ask(
    rooms: &Arc<Rooms>,
    asking: Asking,
    mut understood: Understood,
    entry: Entry,
) -> Result<Unanswered, Response<Body>> {
    let endpoint = asking.route.endpoint;
    match recall::recall(rooms, endpoint, &understood.preferences, understood.reusable.as_mut(), entry).await {
        Recalled::Answered(response) => Err(response),
        Recalled::Stale(response, task) => {
            refresh::begin(rooms, asking, task);
            Err(response)
        }
        Recalled::Similar(response, check) => {
            similar::begin_to_verify(rooms, asking, check);
            Err(response)
        }
        Recalled::Ask(entry, ride) => Ok(Unanswered { asking, understood, ride, entry }),
    }
}

/// A request, and where it goes.
struct Asking {
    route: Route,
    head: Parts,
    body: Kept,
}

/// A call without an answer yet.
struct Unanswered {
    asking: Asking,
    understood: Understood,
    /// Who rides along.
    ride: Option<Ride<Fetch>>,
    entry: Entry,
}

impl Unanswered {
    /// Whether it may go.
    async fn decide(&mut self, rooms: &Rooms) -> Result<(), Box<Refusal>> {
        let Self { asking: Asking { route, head, .. }, understood, entry, .. } = self;
        admission::decide(rooms, route, &head.headers, Coming::Asking(understood.size), entry).await
    }
}

/// Asks the provider for whoever rides along, if the call may go; or another model of its in its place.
async fn ask(rooms: &Arc<Rooms>, mut unanswered: Unanswered) -> Response<Body> {
    if let Err(refusal) = unanswered.decide(rooms).await {
        let Unanswered { asking, ride, entry, .. } = unanswered;
        // Whoever rides along has to ask for itself.
        drop(ride);
        // Boxed, for it is rare and large.
        match Box::pin(downgrade::instead(rooms, asking, &refusal, entry)).await {
            Ok(cheaper) => unanswered = cheaper,
            Err(answer) => return answer,
        }
    }
    let Unanswered { asking, understood, ride, mut entry } = unanswered;
    let Asking { route, mut head, mut body } = asking;
    let weir_asked = understood.asks_for_usage && ask_for_usage(rooms, &route, &mut body, &mut head.headers);
    let meter = Meter::of(rooms, &route.to, &entry, understood.size);
    if meter.is_some() {
        // A stream that may have to be ended must come as it is.
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    prepare(rooms, &route, entry.trace(), &mut head.headers);
    let mut upward = Request::new(body.into_request_body(&entry.streamed_in()));
    *upward.method_mut() = head.method;
    *upward.uri_mut() = route.target.clone();
    *upward.headers_mut() = head.headers;

    entry.sending();
    entry.tell(|told| told.target = Some(route.target.clone()));
    let asked = Asked {
        rooms: Arc::clone(rooms),
        to: Arc::clone(&route.to),
        endpoint: route.endpoint,
        id: entry.id(),
        request: upward,
        wishes: Wishes {
            reusable: understood.reusable.filter(|reusable| reusable.terms.may_store()),
            recordable: understood.recordable,
            weir_asked,
            meter,
            pacing: (rooms.cache.replay() == Replay::Recorded).then(|| Pacing::begin(Instant::now())),
            keeps_text: entry.keeps_text(),
            origin: entry.as_origin(),
        },
        persistence: persistence(&route, understood.repeatable, &mut entry),
    };
    match ride {
        Some(ride) => lead(rooms, &route, ride, asked, entry).await,
        None => match fetch::ask(asked).await {
            Ok((head, pump)) => forward(rooms, &head, pump, entry),
            Err(failure) => reply::failed(rooms, &route.to.provider, &failure, entry),
        },
    }
}

/// What it takes to make more than one attempt, which `entry` then tells of; nothing for a provider without a plan.
fn persistence(route: &Route, repeatable: Option<Repeatable>, entry: &mut Entry) -> Option<Persistence> {
    let plan = Arc::clone(route.to.plan.as_ref()?);
    Some(Persistence { plan, tried: entry.tries(), repeatable: repeatable.unwrap_or(Repeatable::Unseen) })
}

/// Asks the provider once more what an app has an answer to: a call with a record of its own, whose answer is stored as
/// any other. `why` it goes past the cache.
async fn ask_again(rooms: &Arc<Rooms>, asking: Asking, why: BypassReason) -> Response<Body> {
    let Asking { route, head, body } = &asking;
    // It is no step of the app's loop.
    let caller = Caller { run: None, ..rooms.who.read(&head.headers) };
    let mut entry = Entry::open(rooms, Some(&route.to), kind(&head.method, Some(route)), caller);
    entry.placed(trace::begin(rooms, head, Some(route)));
    entry.body_kept(body.len());
    let understood = understand(rooms, &asking, &mut entry);
    entry.looked_up(CacheStatus::Bypass(why), None);
    let ride = recall::lead(rooms, understood.reusable.as_ref());
    ask(rooms, Unanswered { asking, understood, ride, entry }).await
}

/// Asks the provider for whoever rides along. Dropped, the call goes on for them.
async fn lead(rooms: &Arc<Rooms>, route: &Route, ride: Ride<Fetch>, asked: Asked, entry: Entry) -> Response<Body> {
    ride.take_off(Fetch::new(asked));
    let mut tee = Tee::shared(rooms, ride, Role::Leader, entry);
    match tee.head().await {
        Ok(head) => reply::forwarded(rooms, &head, tee),
        Err(ended) => match ended.as_deref() {
            Some(Ended::Unanswered(failure)) => reply::failed(rooms, &route.to.provider, failure, tee.give_back()),
            Some(Ended::Answered(_)) | None => unreachable!("it took off, and an answer begins with its head"),
        },
    }
}

/// Sets the provider's answer on its way to one app alone.
fn forward(rooms: &Arc<Rooms>, head: &Head, pump: Box<Pump>, entry: Entry) -> Response<Body> {
    reply::forwarded(rooms, head, Tee::alone(rooms, pump, entry))
}

fn is_above_zero(value: &HeaderValue) -> bool {
    value.to_str().ok().and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

fn kind(method: &Method, route: Option<&Route>) -> Kind {
    let endpoint = route.map_or(Endpoint::Other, |route| route.endpoint);
    Kind { operation: endpoint.operation(), may_be_billed: endpoint == Endpoint::Other && method == Method::POST }
}

/// What is to be done with a call, once its body has been read.
#[derive(Default)]
struct Understood {
    preferences: policy::Preferences,
    reusable: Option<Reusable>,
    recordable: Option<Box<Recordable>>,
    asks_for_usage: bool,
    size: Size,
    /// Whether it may be made again; `None` where nobody asks.
    repeatable: Option<Repeatable>,
}

/// Reads the request once: for what is asked, by whom, whether its reply will tell its usage, and under which key an
/// answer may be stored. What its path says is known even where its body cannot be read.
fn understand(rooms: &Rooms, asking: &Asking, entry: &mut Entry) -> Understood {
    let Asking { route, head, body } = asking;
    let headers = &head.headers;
    let preferences = policy::Preferences::of(headers);
    let plain = match body {
        Kept::Whole(bytes) => kept::decoded(bytes, headers, rooms.settings.max_request_bytes.as_len()),
        Kept::Beginning(..) => None,
    };
    let json = plain.as_deref().and_then(json::opened);
    let is_read = json.is_some();
    let sent = Sent { route, head, body, plain: plain.as_ref() };
    let json = json.or_else(|| body.form(headers)).unwrap_or(Value::Null);
    let endpoint = route.endpoint;
    let request = provider::Request { endpoint, path: route.path(&head.uri), query: head.uri.query(), body: &json };
    let asked = (endpoint.format().asked)(&request);

    let call = entry.call_mut();
    call.model = asked.model.as_deref().map(Into::into);
    call.operation = asked.operation;
    call.delivery = asked.delivery;
    if call.caller.user.is_none() {
        call.caller.user = asked.user.map(Into::into);
    }
    entry.counted(asked.counted);
    trace::read(endpoint, &json, entry);
    entry.asks(|call| loops::question(endpoint, &json, call));
    let recordable = recordings::recordable(rooms, &sent, Some(&json).filter(|_| is_read), &asked);
    let repeatable = route.to.plan.is_some().then(|| Repeatable::of(&head.method, endpoint, &json));
    let Some(plain) = plain.as_ref().filter(|_| is_read) else {
        return Understood { preferences, recordable, repeatable, ..Understood::default() };
    };
    entry.says(plain);
    entry.begins(beginning::prefixes(rooms, endpoint, plain, &json));
    if rooms.settings.estimate_usage && bill::Estimable::of(asked.operation).is_some() {
        entry.keep_prompt(rooms.estimator.keep(plain, &json));
    }
    let size = if rooms.limits.need_estimate() { Size::of(&json) } else { Size::default() };
    let question = Question { route, head, text: plain, body: &json };
    Understood {
        preferences,
        reusable: recall::reusable(rooms, &question, &asked, &preferences, entry),
        recordable,
        asks_for_usage: asked.usage == UsageRequest::Missing && route.to.provider.ask_for_usage,
        size,
        repeatable,
    }
}

/// Asks for usage in the app's place, if there is room for the request that does. The reply must then come uncompressed, so
/// that the chunk can be taken out.
fn ask_for_usage(rooms: &Rooms, route: &Route, body: &mut Kept, headers: &mut HeaderMap) -> bool {
    let (Kept::Whole(bytes), Some(request_usage)) = (&*body, route.endpoint.format().request_usage) else {
        return false;
    };
    if headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let Some(asking) = request_usage(bytes) else { return false };
    let Some(asking) = load::on_account(&rooms.load.requests, asking) else { return false };
    kept::announce_length(headers, asking.len());
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    *body = Kept::Whole(asking);
    true
}

/// Makes the app's head fit for the provider: what belongs to this connection, to weir or to the app's own house stays
/// here, and weir's own credential takes the place of the app's where the operator says so.
fn prepare(rooms: &Rooms, route: &Route, trace: Option<&Trace>, headers: &mut HeaderMap) {
    route::remove_hop_by_hop(headers);
    trace::hand_on(&route.to, trace, headers);
    route::remove_all(headers, |name| rooms.who.keeps(name) || *name == policy::TTL_HEADER || *name == similar::HEADER);
    if let Some(credential) = &route.to.credential {
        route.to.show(credential, headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart_whatever_bytes_name_them() {
        let who = Who::new(&Identity::default()).expect("the default names");
        let namespace = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-cache-namespace", HeaderValue::from_bytes(value).expect("a header value"));
            who.read(&headers).namespace
        };
        assert_eq!(namespace(b" team ").as_deref(), Some("team"));
        assert_eq!(namespace("équipe".as_bytes()).as_deref(), Some("équipe"));
        assert_eq!(namespace(b"\xe9quipe").as_deref(), Some("\\xe9quipe"));
        assert_eq!(namespace(b"  "), None);
    }

    #[test]
    fn a_retry_is_what_the_sdk_says_is_one() {
        let who = Who::new(&Identity::default()).expect("the default names");
        for (count, is_retry) in [
            (None, false),
            (Some("0"), false),
            (Some("1"), true),
            (Some(" 2 "), true),
            (Some("-1"), false),
            (Some("many"), false),
            (Some(""), false),
        ] {
            let count = count.map(|count| (RETRY_COUNT.clone(), HeaderValue::from_static(count)));
            assert_eq!(who.read(&count.clone().into_iter().collect()).is_retry, is_retry, "{count:?}");
        }
    }
}
