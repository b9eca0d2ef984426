//! Admission: the corridor's part about limits. What a call is expected to need, who it counts against, and what becomes
//! of one that may not go. The only place that asks the rules.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Response};
use serde_json_borrow::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::exchange::bill::{self, Estimable};
use crate::exchange::entry::Entry;
use crate::exchange::reply::{self, Body};
use crate::exchange::route::{self, Route};
use crate::exchange::{Destination, Rooms};
use crate::limits::matching::Asker;
use crate::limits::rate::Decision;
use crate::limits::refusal::Refusal;
use crate::limits::{Demand, Money, Permit, Stage};
use crate::provider::{Provider, Said};
use crate::record::call::Call;
use crate::record::usage::{Cost, Counter, Usage};
use crate::tokens;
use crate::tokens::prompt;
use crate::upstream::sign;

/// How large a request is, as far as that can be told before it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// The tokens of its prompt, told from its length.
    pub(super) input: Option<u64>,
    /// The most tokens that it lets be generated.
    pub(super) most_output: Option<u64>,
}

impl Size {
    /// The size of a request with this body.
    pub(super) fn of(body: &Value<'_>) -> Self {
        let measure = prompt::read(body, &mut |_| {});
        let input = tokens::by_length(measure.text_bytes).saturating_add(measure.tokens_beside);
        Self { input: Some(input), most_output: prompt::most_output(body) }
    }
}

/// What is to be admitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coming {
    /// A call that has come, and that the cache may answer.
    Call,
    /// A call whose provider is to be asked.
    Asking(Size),
    /// A session whose provider is to be asked; its responses are charged as they end.
    Session,
}

impl Coming {
    const fn stage(self) -> Stage {
        match self {
            Self::Call => Stage::Arrival,
            Self::Asking(_) | Self::Session => Stage::Asking,
        }
    }
}

/// Lets a call go on that has a permit for it from then on, or answers it.
pub(super) async fn admit(
    rooms: &Rooms,
    route: &Route,
    headers: &HeaderMap,
    coming: Coming,
    mut entry: Entry,
) -> Result<Entry, Response<Body>> {
    match decide(rooms, route, headers, coming, &mut entry).await {
        Ok(()) => Ok(entry),
        Err(refusal) => Err(refuse(rooms, &route.to.provider, &refusal, entry)),
    }
}

/// Answers a call that may not go, not even in another form.
pub(super) fn refuse(rooms: &Rooms, provider: &Provider, refusal: &Refusal, entry: Entry) -> Response<Body> {
    rooms.limits.blocked(refusal);
    reply::refused(rooms, provider, refusal, entry)
}

/// Lets a call go on that has a permit for it from then on, or says why not.
pub(super) async fn decide(
    rooms: &Rooms,
    route: &Route,
    headers: &HeaderMap,
    coming: Coming,
    entry: &mut Entry,
) -> Result<(), Box<Refusal>> {
    let (limits, stage) = (&rooms.limits, coming.stage());
    if !limits.has_any(stage) {
        return Ok(());
    }
    let credential = credential(rooms, route, headers);
    let demand = match coming {
        Coming::Call => Demand::default(),
        Coming::Asking(size) => demand(rooms, &route.to, entry, size),
        Coming::Session => Demand { tokens: 0, money: Money::Unknown },
    };
    let decided = {
        let asker = asker(&route.to, entry.call(), credential.as_deref());
        let decided = ask(rooms, &asker, &demand, stage).await;
        limits.decided(&asker, stage, decided.as_ref().map(|(_, decision)| *decision).map_err(|refusal| &**refusal));
        decided
    };
    entry.permitted(decided?.0);
    Ok(())
}

/// What a response within a session is charged to, which nobody is asked about.
pub(super) fn charge(rooms: &Rooms, to: &Destination, credential: Option<&str>, entry: &mut Entry) {
    if rooms.limits.has_any(Stage::Asking) {
        let permit = rooms.limits.charge_to(&asker(to, entry.call(), credential));
        entry.permitted(permit);
    }
}

/// Why a session may not go on with what `entry` is of, if it may not: it is counted as refused.
pub(super) fn is_over(
    rooms: &Rooms,
    to: &Destination,
    credential: Option<&str>,
    entry: &Entry,
) -> Option<Box<Refusal>> {
    if !rooms.limits.has_any(Stage::Asking) {
        return None;
    }
    let refusal = rooms.limits.spent(&asker(to, entry.call(), credential))?;
    rooms.limits.blocked(&refusal);
    Some(refusal)
}

/// Asks the rules, and again when there may be room, for as long as they let a call wait.
async fn ask(
    rooms: &Rooms,
    asker: &Asker<'_>,
    demand: &Demand,
    stage: Stage,
) -> Result<(Permit, Decision), Box<Refusal>> {
    /// How long to wait for a call to end at most, before looking whether one has.
    const UNTIL_A_CALL_ENDS: Duration = Duration::from_millis(50);
    let limits = &rooms.limits;
    let mut refusal = match limits.ask(asker, demand, stage).await {
        Ok(permit) => return Ok((permit, Decision::Allowed)),
        Err(refusal) => refusal,
    };
    let Some((may_wait, _place)) = refusal.may_wait.zip(limits.wait()) else { return Err(refusal) };
    let deadline = Instant::now() + may_wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = refusal.retry_after.unwrap_or(left.min(UNTIL_A_CALL_ENDS));
        if left.is_zero() || wait > left || refusal.may_wait.is_none() {
            return Err(refusal);
        }
        limits.turn(&refusal.rule, wait).await;
        refusal = match limits.ask(asker, demand, stage).await {
            Ok(permit) => return Ok((permit, Decision::Delayed)),
            Err(refusal) => refusal,
        };
    }
}

fn asker<'a>(to: &'a Destination, call: &'a Call, credential: Option<&'a str>) -> Asker<'a> {
    Asker { provider: &to.provider.name, model: call.model.as_deref(), caller: &call.caller, credential }
}

/// What a call is expected to need: its prompt, and as much output as it allows or its model usually has.
fn demand(rooms: &Rooms, to: &Destination, entry: &Entry, size: Size) -> Demand {
    let call = entry.call();
    if !call.operation.is_billed() && !entry.may_be_billed() {
        return Demand::default();
    }
    let usual = || rooms.limits.usual.output(call.model.as_deref().unwrap_or_default());
    let usage = match Estimable::of(call.operation) {
        Some(Estimable::Both) => size
            .input
            .map(|input| Usage::default().with_estimates(Some(input), Some(size.most_output.unwrap_or_else(usual)))),
        Some(Estimable::Input) => size.input.map(|input| Usage::default().with_estimates(Some(input), Some(0))),
        None => entry
            .count()
            .map(|(counter, count): (Counter, u64)| Usage::cache_inside(None, None, &[(counter, Some(count))])),
    };
    let said = Said { usage, ..Said::default() };
    let money = match bill::price(&rooms.prices, to, call, &said, SystemTime::now()).cost {
        Cost::Known(charge) => Money::Expected(charge.total()),
        Cost::Nothing => Money::Free,
        Cost::Unpriced(_) => Money::Unknown,
    };
    Demand { tokens: usage.map_or(0, |usage| usage.total_tokens()), money }
}

/// What tells one credential of an app from another, and tells nobody what it is: the beginning of its hash. `None`
/// where no rule needs it.
pub(super) fn credential(rooms: &Rooms, route: &Route, headers: &HeaderMap) -> Option<Box<str>> {
    const SHOWN: usize = 8;
    if !rooms.limits.need_credential() {
        return None;
    }
    let dialect = route.to.provider.api.dialect();
    let in_head = dialect.credential_headers.iter().find_map(|name| sign::lasting(name, headers.get(name)?));
    let (in_query, _) = route::part_credentials(route.target.query(), dialect.credential_queries);
    let credential = in_head.or_else(|| in_query.first().map(|(_, value)| value.as_bytes()))?;
    let credential = credential.strip_prefix(b"Bearer ").unwrap_or(credential);
    let mut text = String::with_capacity(2 * SHOWN);
    for byte in &Sha256::digest(credential)[..SHOWN] {
        let _ = write!(text, "{byte:02x}");
    }
    Some(text.into())
}
