//! Again: one call in as many attempts as its provider's plan allows: retries, and other ways to the same provider. Only
//! before anything of an answer has gone to the app, and only where the request is all there. When attempts run out, what
//! the last one met is what the app gets.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json_borrow::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::exchange::{Destination, Rooms, kept, route};
use crate::provider::endpoint::Endpoint;
use crate::provider::quotas::SHOULD_RETRY;
use crate::provider::{headers, repeating};
use crate::record::outcome::Trouble;
use crate::record::{Attempt, Tries};
use crate::upstream::breaker::{Breaker, Ended, Pass};
use crate::upstream::plan::{Fallback, Plan};
use crate::upstream::reply::ReplyBody;
use crate::upstream::{Failure, RequestBody, retry};

/// How much is looked at of an error's body, and so drained before its connection is used again.
const ERROR_BYTES: usize = 64 << 10;

/// How long an error's body may take. What is later is not looked at.
const ERROR_WITHIN: Duration = Duration::from_secs(1);

/// What an attempt came to.
type Came = Result<Response<ReplyBody>, Failure>;

/// Whether a request may be made twice although the provider may have done what the first one asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// It may: it changes nothing, or brings an answer and no more.
    Always,
    /// Only where it is certain that the provider never saw the first one.
    Unseen,
}

impl Repeatable {
    /// By what is known of the request; `body` is null where it could not be read.
    pub(super) fn of(method: &Method, endpoint: Endpoint, body: &Value<'_>) -> Self {
        let generates = endpoint.is_read() && !body.is_null() && !repeating::has_lasting_effects(body);
        if generates || method.is_safe() { Self::Always } else { Self::Unseen }
    }
}

/// The attempts of one call so far: noted by whoever makes them, read when the call's record is closed.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<Effort>);

/// What is known of a call's attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) tries: Tries,
    /// Where the call went last, if that was not where it was meant to go.
    pub(super) target: Option<Uri>,
    /// What the last attempt met, while the call waits for the next one: at its end, if it was given up before that.
    pub(super) waits_after: Option<Met>,
}

/// What an attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) attempt: Attempt,
    /// Whether it may have reached the provider.
    pub(super) reached: bool,
}

impl Met {
    fn of(came: &Came) -> Self {
        match came {
            Ok(answer) => Self { attempt: Attempt::Answered(answer.status().as_u16()), reached: true },
            Err(failure @ (Failure::FirstByteTimeout(_) | Failure::ConnectTimeout)) => {
                Self { attempt: Attempt::TimedOut, reached: failure.reached_the_provider() }
            }
            Err(failure) => Self { attempt: Attempt::Failed, reached: failure.reached_the_provider() },
        }
    }

    /// Whether the provider may have done what was asked, and may bill it, although nothing of it came. An answer that is an
    /// error says that nothing was done.
    const fn may_have_run(self) -> bool {
        self.reached && !matches!(self.attempt, Attempt::Answered(_))
    }
}

impl Tried {
    /// Where the call went last, if that was not where it was meant to go.
    pub(super) fn target(&self) -> Option<Uri> {
        self.noted().target.clone()
    }

    /// What there is to tell; `None` if there was one attempt at most, where it was meant to go.
    pub(super) fn effort(&self) -> Option<Effort> {
        Some(self.noted().clone()).filter(|effort| *effort != Effort::default())
    }

    fn noted(&self) -> MutexGuard<'_, Effort> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call, and what may be done to have it answered.
pub(super) struct Call<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) to: &'a Destination,
    pub(super) plan: &'a Plan,
    pub(super) tried: &'a Tried,
    pub(super) repeatable: Repeatable,
}

/// Makes the call, in as many attempts as it takes and may take. Dropping the future ends the attempt in progress, and
/// there is no other.
pub(super) async fn ask(call: Call<'_>, request: Request<RequestBody>) -> Came {
    let mut sending = Sending { parcel: Parcel::of(request), call, has_begun: false, retries: 0 };
    sending.call.plan.budget.earn();
    let mut before = None;
    loop {
        let unanswered = match sending.round(before).await {
            Step::Over(came) => return came,
            Step::Unanswered(unanswered) => unanswered,
        };
        let Some(wait) = sending.wait(&unanswered) else { return unanswered.came };
        sleep(wait).await;
        sending.retries += 1;
        before = Some((unanswered, Next::Retry));
    }
}

/// What a provider said or did instead of what was asked.
struct Unanswered {
    came: Came,
    trouble: Trouble,
    /// In how long it wants to be asked again.
    asked: Option<Duration>,
    /// Whether another way, to another account, is all that can help.
    is_spent: bool,
}

/// Why there is another attempt.
#[derive(Clone, Copy)]
enum Next {
    Retry,
    Fallback,
}

enum Step {
    /// That is what the app gets.
    Over(Came),
    /// All ways have been tried that may be.
    Unanswered(Unanswered),
}

/// A call on its ways.
struct Sending<'a> {
    call: Call<'a>,
    parcel: Parcel,
    /// Whether there has been an attempt.
    has_begun: bool,
    /// How often it has been made again.
    retries: u32,
}

impl<'a> Sending<'a> {
    /// Tries one way after the other, until one answers or the call may not move on. `before` is what the attempt before
    /// met, if there was one.
    async fn round(&mut self, mut before: Option<(Unanswered, Next)>) -> Step {
        let plan = self.call.plan;
        let mut soonest: Option<Duration> = None;
        let mut was_asked = false;
        for way in std::iter::once(None).chain(plan.fallbacks.iter().map(Some)) {
            if was_asked && !before.as_ref().is_some_and(|(unanswered, _)| self.may_move(unanswered)) {
                break;
            }
            let pass = match admit(way.map_or(plan.breaker.as_ref(), |way| way.breaker.as_ref())) {
                Ok(pass) => pass,
                Err(wait) => {
                    soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
                    continue;
                }
            };
            let Some(request) = self.parcel.next(self.call.to, way) else { break };
            self.begin(way, request.uri(), before.take());
            was_asked = true;
            let first = attempt(self.call.to, way, pass, request);
            let (way, came, trouble) = self.hedged(way, first).await;
            let Some(trouble) = trouble.filter(|_| self.may_go_on(way, &came)) else { return Step::Over(came) };
            match look(came, trouble).await {
                Step::Over(came) => return Step::Over(came),
                Step::Unanswered(unanswered) => before = Some((unanswered, Next::Fallback)),
            }
        }
        match before {
            Some((unanswered, _)) if was_asked => Step::Unanswered(unanswered),
            // Every circuit has opened since.
            Some((unanswered, _)) => Step::Over(unanswered.came),
            None => Step::Over(Err(Failure::CircuitOpen(soonest.unwrap_or_default()))),
        }
    }

    /// The `first` attempt, which goes this `way`, with a second one beside it if it is slow: what the first to be answered
    /// came to, and which way that went.
    async fn hedged(
        &mut self,
        way: Option<&'a Fallback>,
        first: impl Future<Output = Done>,
    ) -> (Option<&'a Fallback>, Came, Option<Trouble>) {
        let mut first = pin!(first);
        let (plan, to) = (self.call.plan, self.call.to);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let may = is_first && self.call.repeatable == Repeatable::Always && self.parcel.is_kept();
        let Some(hedging) = plan.hedging.as_ref().filter(|_| may) else {
            let (came, trouble) = first.await;
            return (way, came, trouble);
        };
        hedging.budget.earn();
        if let Ok((came, trouble)) = timeout(hedging.after, first.as_mut()).await {
            return (way, came, trouble);
        }
        let Some((other, pass, request)) = self.beside(way).filter(|_| hedging.budget.spend(Instant::now())) else {
            let (came, trouble) = first.await;
            return (way, came, trouble);
        };
        let target = request.uri().clone();
        let mut second = pin!(attempt(to, other, pass, request));
        self.begin_beside();
        let (is_second, (came, trouble)) = tokio::select! {
            done = first.as_mut() => (false, done),
            done = second.as_mut() => (true, done),
        };
        if trouble.is_none() {
            let abandoned = Met { attempt: Attempt::Abandoned, reached: true };
            self.won(is_second.then_some((other, &target)), abandoned);
            return (if is_second { other } else { way }, came, trouble);
        }
        // The first to end was not answered: the other one is all there is.
        let met = Met::of(&came);
        let (came, trouble) = if is_second { first.await } else { second.await };
        self.won((!is_second).then_some((other, &target)), met);
        (if is_second { way } else { other }, came, trouble)
    }

    /// Where a second attempt goes beside one that went this `way`: the next one that lets it through, else the same.
    fn beside(&mut self, way: Option<&'a Fallback>) -> Option<Beside<'a>> {
        let (plan, to) = (self.call.plan, self.call.to);
        let here = plan.fallbacks.iter().position(|it| way.is_some_and(|way| std::ptr::eq(it, way)));
        let others = plan.fallbacks.iter().skip(here.map_or(0, |here| here + 1)).map(Some);
        others.chain([way]).find_map(|way| {
            let pass = admit(way.map_or(plan.breaker.as_ref(), |way| way.breaker.as_ref())).ok()?;
            Some((way, pass, self.parcel.next(to, way)?))
        })
    }

    /// Notes that there is an attempt beside the first. Until it is known what becomes of it, it may be paid for.
    fn begin_beside(&self) {
        let Call { rooms, to, tried, .. } = &self.call;
        rooms.sinks.hedged(&to.provider.label);
        let mut noted = tried.noted();
        noted.tries.left += 1;
        noted.tries.hedged = true;
    }

    /// Notes that one of two attempts counts: the second, if there is something to say of where that went. The other one
    /// met this.
    fn won(&self, second: Option<(Option<&Fallback>, &Uri)>, other: Met) {
        let Call { rooms, to, tried, .. } = &self.call;
        rooms.sinks.attempted(&to.provider.label, other.attempt);
        let mut noted = tried.noted();
        if !other.may_have_run() {
            noted.tries.left -= 1;
        }
        if let Some((way, target)) = second {
            self.goes(&mut noted, way, target);
        }
    }

    /// Notes which way it goes.
    fn goes(&self, noted: &mut Effort, way: Option<&Fallback>, target: &Uri) {
        let Call { rooms, to, .. } = &self.call;
        let name = way.map(|way| &way.name);
        if let Some(name) = name.filter(|name| noted.tries.fallback.as_ref() != Some(*name)) {
            rooms.sinks.fell_back(&to.provider.label, name);
        }
        noted.target = way.map(|_| target.clone());
        noted.tries.fallback = name.cloned();
    }

    /// Notes that an attempt begins, and why, if there was one `before`.
    fn begin(&self, way: Option<&Fallback>, target: &Uri, before: Option<(Unanswered, Next)>) {
        let Call { rooms, to, tried, .. } = &self.call;
        let provider = &to.provider.label;
        let mut noted = tried.noted();
        noted.waits_after = None;
        if let Some((unanswered, next)) = before {
            let met = Met::of(&unanswered.came);
            rooms.sinks.attempted(provider, met.attempt);
            noted.tries.left += u32::from(met.may_have_run());
            if matches!(next, Next::Retry) {
                noted.tries.retries += 1;
                rooms.sinks.retried(provider, unanswered.trouble);
            }
        }
        self.goes(&mut noted, way, target);
    }

    /// How long to wait before it is made again; `None` if it is not.
    fn wait(&self, unanswered: &Unanswered) -> Option<Duration> {
        let retries = &self.call.plan.retries;
        let may = self.retries < retries.max && retries.on.contains(&unanswered.trouble) && !unanswered.is_spent;
        let wait = may.then(|| retries.wait(self.retries, unanswered.asked, random())).flatten()?;
        if !self.call.plan.budget.spend(Instant::now()) {
            return None;
        }
        self.call.tried.noted().waits_after = Some(Met::of(&unanswered.came));
        Some(wait)
    }

    fn may_move(&self, unanswered: &Unanswered) -> bool {
        self.call.plan.fallback_on.contains(&unanswered.trouble)
    }

    /// Whether there may be another attempt after one that went this `way`, whatever it met.
    fn may_go_on(&self, way: Option<&Fallback>, came: &Came) -> bool {
        let plan = self.call.plan;
        let has_next = match (way, plan.fallbacks.last()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(way), Some(last)) => !std::ptr::eq(way, last),
        };
        let is_last = !has_next && self.retries >= plan.retries.max;
        let unseen = came.as_ref().err().is_some_and(|failure| !failure.reached_the_provider());
        !is_last && self.parcel.is_left() && (unseen || self.call.repeatable == Repeatable::Always)
    }
}

/// What a second attempt is made of: its way, that it may be made, and what is sent.
type Beside<'a> = (Option<&'a Fallback>, Option<Pass<'a>>, Request<RequestBody>);

/// What an attempt came to, and what trouble it met.
type Done = (Came, Option<Trouble>);

/// One attempt; its way is told how it went.
async fn attempt(
    to: &Destination,
    way: Option<&Fallback>,
    pass: Option<Pass<'_>>,
    request: Request<RequestBody>,
) -> Done {
    let upstream = way.map_or(&to.upstream, |way| &way.upstream);
    let came = upstream.send(request).await.map(|answer| answer.map(ReplyBody::from));
    let trouble = trouble(&came);
    if let (Some(pass), Some(ended)) = (pass, ended(&came, trouble)) {
        pass.tell(ended, Instant::now());
    }
    (came, trouble)
}

fn admit(breaker: Option<&Breaker>) -> Result<Option<Pass<'_>>, Duration> {
    breaker.map(|breaker| breaker.admit(Instant::now())).transpose()
}

fn trouble(came: &Came) -> Option<Trouble> {
    match came {
        Ok(answer) => retry::of_status(answer.status()),
        Err(failure) => retry::of_failure(failure),
    }
}

/// What an attempt says of its way; nothing where it was the app that broke off, or weir that could not send.
fn ended(came: &Came, trouble: Option<Trouble>) -> Option<Ended> {
    match (came, trouble) {
        (_, Some(Trouble::Connect | Trouble::Timeout | Trouble::ServerError)) => Some(Ended::Badly),
        (Ok(_), Some(Trouble::RateLimit) | None) => Some(Ended::Well),
        (Err(_), Some(Trouble::RateLimit) | None) => None,
    }
}

/// Looks at what an error says of being asked again.
async fn look(came: Came, trouble: Trouble) -> Step {
    let mut answer = match came {
        Ok(answer) => answer,
        Err(failure) => {
            return Step::Unanswered(Unanswered { came: Err(failure), trouble, asked: None, is_spent: false });
        }
    };
    if answer.headers().get(SHOULD_RETRY).is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(b"false")) {
        return Step::Over(Ok(answer));
    }
    let seen = Bytes::copy_from_slice(answer.body_mut().look(ERROR_BYTES, ERROR_WITHIN).await);
    let plain = kept::decoded(&seen, answer.headers(), ERROR_BYTES);
    let hint = plain.map(|plain| repeating::hint(&plain)).unwrap_or_default();
    let asked = headers::read(answer.headers(), SystemTime::now()).retry_after.or(hint.wait);
    Step::Unanswered(Unanswered { came: Ok(answer), trouble, asked, is_spent: hint.is_spent })
}

/// Any number. Where the system has none to give, all wait the whole time.
fn random() -> u32 {
    let mut bytes = [u8::MAX; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// A request to be sent, once or more often.
enum Parcel {
    /// All of it is there.
    Kept(Box<Parts>, Bytes),
    /// Its body streams through.
    Once(Option<Box<Request<RequestBody>>>),
}

impl Parcel {
    fn of(request: Request<RequestBody>) -> Self {
        let (head, body) = request.into_parts();
        match body.into_bytes() {
            Ok(body) => Self::Kept(Box::new(head), body),
            Err(body) => Self::Once(Some(Box::new(Request::from_parts(head, body)))),
        }
    }

    /// Whether it can be sent more than once.
    const fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(..))
    }

    /// Whether there is something left to send.
    const fn is_left(&self) -> bool {
        matches!(self, Self::Kept(..) | Self::Once(Some(_)))
    }

    /// The request as it goes `way`; `None` if it has been sent, or cannot go there.
    fn next(&mut self, to: &Destination, way: Option<&Fallback>) -> Option<Request<RequestBody>> {
        let mut request = match self {
            Self::Kept(head, body) => Request::from_parts(Parts::clone(head), RequestBody::whole(body.clone())),
            Self::Once(request) => *request.take()?,
        };
        if let Some(way) = way {
            *request.uri_mut() = readdressed(request.uri(), to, way)?;
            if let Some(credential) = &way.credential {
                to.show(credential, request.headers_mut());
            }
        }
        Some(request)
    }
}

/// Where a request goes that was meant for the provider's own base URL: what follows that is appended to the other one.
fn readdressed(target: &Uri, to: &Destination, way: &Fallback) -> Option<Uri> {
    let [own, other] = [&to.provider.base_url, &way.base_url].map(|url| url.path().trim_end_matches('/'));
    let below = target.path().strip_prefix(own)?;
    let query = match &way.credential {
        // The app's own key is for somebody else.
        Some(_) => route::part_credentials(target.query(), to.provider.api.dialect().credential_queries).1,
        None => target.query().map(Into::into),
    };
    let path = match query {
        Some(query) => format!("{other}{below}?{query}"),
        None => format!("{other}{below}"),
    };
    let mut parts = way.base_url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// What a call needs to be made again, where its provider's plan has that.
#[derive(Debug)]
pub(super) struct Persistence {
    pub(super) plan: Arc<Plan>,
    pub(super) tried: Arc<Tried>,
    pub(super) repeatable: Repeatable,
}
