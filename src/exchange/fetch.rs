//! Fetch: one call upstream that several may wait for, from asking to its end. Whoever leaves while others go on leaves
//! its record here, so that the call is billed once, whole, whoever is there at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use tokio::time::{Instant, timeout_at};

use crate::allowance::Allowance;
use crate::cache::flight::log::Log;
use crate::cache::flight::{self, Came, Company, Flights, Source};
use crate::exchange::again::{self, Persistence};
use crate::exchange::entry::Entry;
use crate::exchange::pump::{self, Finished, Head, Pump, Wishes, cancelled};
use crate::exchange::{Destination, OnDisconnect, Rooms, reply};
use crate::provider::Said;
use crate::provider::endpoint::Endpoint;
use crate::record::call::RequestId;
use crate::record::outcome::Role;
use crate::upstream::reply::ReplyBody;
use crate::upstream::{Failure, RequestBody};

/// What asking is for.
pub(super) struct Asked {
    pub(super) rooms: Arc<Rooms>,
    pub(super) to: Arc<Destination>,
    pub(super) endpoint: Endpoint,
    /// The exchange that it is for.
    pub(super) id: RequestId,
    pub(super) request: Request<RequestBody>,
    pub(super) wishes: Wishes,
    /// What it takes to make more than one attempt, where the provider has a plan for that.
    pub(super) persistence: Option<Persistence>,
}

/// Asks the provider, and waits for the head of its answer.
pub(super) async fn ask(asked: Asked) -> Result<(Head, Box<Pump>), Failure> {
    let Asked { rooms, to, endpoint, id, request, wishes, persistence } = asked;
    let asking = async {
        match persistence {
            None => to.upstream.send(request).await.map(|answer| answer.map(ReplyBody::from)),
            Some(Persistence { plan, tried, repeatable }) => {
                let call = again::Call { rooms: &rooms, to: &to, plan: &plan, tried: &tried, repeatable };
                // Boxed: calls of one attempt should not be as large as those of many.
                Box::pin(again::ask(call, request)).await
            }
        }
    };
    let Some(total) = rooms.total_timeout else {
        return Ok(pump::receive(&rooms, endpoint, id, asking.await?, wishes));
    };
    let deadline = Instant::now() + total;
    let answer = timeout_at(deadline, asking).await.map_err(|_| Failure::TotalTimeout(total))??;
    let (head, pump) = pump::receive(&rooms, endpoint, id, answer, wishes);
    Ok((head, pump.over_by(deadline, total)))
}

/// Calls in flight that equal ones may join.
#[derive(Debug)]
pub struct InFlight {
    /// `None` where the operator wants each call to ask for itself.
    pub(super) flights: Option<Flights<Fetch>>,
    pub(super) timeout: Duration,
}

impl InFlight {
    /// None yet. A call that has brought more than `limit` bytes, or more than there is room for within `replies`, cannot be
    /// joined any more.
    #[must_use]
    pub fn new(settings: &flight::Settings, limit: usize, replies: &Allowance) -> Self {
        let flights = || Flights::new(limit).within(replies.clone());
        Self { flights: settings.enabled.then(flights), timeout: settings.timeout.get() }
    }

    /// How many calls there are of those that can be joined: those that asked, and those that follow them.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.flights.as_ref().map_or(0, Flights::riders)
    }
}

/// A call that several may wait for.
pub(super) struct Fetch {
    stage: Stage,
    gone: Vec<Gone>,
}

type Asking = Pin<Box<dyn Future<Output = Result<(Head, Box<Pump>), Failure>> + Send>>;

enum Stage {
    Asking(Asking),
    Answered(Box<Pump>),
    Unanswered(Failure),
}

/// A call that is over, for all who waited for it.
#[expect(clippy::large_enum_variant, reason = "there is one of each call, shared by all who waited for it")]
pub(super) enum Ended {
    /// No answer came.
    Unanswered(Failure),
    /// An answer came.
    Answered(Finished),
}

impl Ended {
    /// Closes the record of somebody who hung up once it was over.
    pub(super) fn close(&self, role: Role, has_all: bool, entry: &mut Entry) {
        match self {
            Self::Answered(finished) if has_all => finished.close(role, entry),
            Self::Answered(finished) => finished.close_gone(role, None, entry),
            Self::Unanswered(failure) => {
                reply::blame(failure, entry);
                entry.close(cancelled(Said::default()));
            }
        }
    }
}

/// The record of somebody who hung up while others went on.
pub(super) struct Gone {
    pub(super) role: Role,
    /// How much it had had, if that was all that had come.
    pub(super) had: Option<u64>,
    pub(super) entry: Entry,
}

/// Most records that wait for the end of one call. A follower beyond them is not waited for: it counts as cancelled,
/// though the end marker of its stream may just have come.
const MOST_GONE: usize = 1024;

impl Fetch {
    pub(super) fn new(asked: Asked) -> Self {
        Self { stage: Stage::Asking(Box::pin(ask(asked))), gone: Vec::new() }
    }

    /// Keeps the record of somebody who leaves: the leader's, whose bill is to come, and those of followers who may
    /// have had it all.
    pub(super) fn keep_gone(&mut self, role: Role, had: Option<u64>, entry: &mut Entry) {
        let may_have_all = had.is_some_and(|had| had > 0) && self.gone.len() < MOST_GONE;
        if role == Role::Leader || may_have_all {
            let mut entry = entry.take();
            entry.hung_up();
            self.gone.push(Gone { role, had, entry });
        }
    }

    /// Nobody waits any more.
    pub(super) fn let_go(self, rooms: &Arc<Rooms>, log: Log, company: Company) {
        match self.stage {
            Stage::Answered(pump) => let_go(rooms, pump, log, company, self.gone),
            // Its end is cancelled, as of every entry that is dropped.
            Stage::Asking(_) | Stage::Unanswered(_) => {}
        }
    }
}

/// Nobody waits for the rest of an answer: it ends, or is read on for its bill.
pub(super) fn let_go(rooms: &Arc<Rooms>, pump: Box<Pump>, mut log: Log, company: Company, gone: Vec<Gone>) {
    // Once weir is told to stop, nobody waits for a bill.
    let wanted = rooms.settings.on_disconnect == OnDisconnect::Drain && !rooms.tasks.is_closed();
    let place = wanted.then(|| Arc::clone(&rooms.drains).try_acquire_owned().ok()).flatten();
    let close = |finished: Finished| {
        for Gone { role, had, mut entry } in gone {
            finished.close_gone(role, had, &mut entry);
        }
    };
    let Some(place) = place else {
        log.freeze();
        return close(pump.abandon(&log, company));
    };
    rooms.tasks.spawn(async move {
        close(pump.drain(&log, company).await);
        drop(place);
    });
}

impl Source for Fetch {
    type Head = Arc<Head>;
    type End = Arc<Ended>;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Came<Arc<Head>>> {
        match &mut self.stage {
            Stage::Asking(asking) => match ready!(asking.as_mut().poll(cx)) {
                Ok((head, pump)) => {
                    self.stage = Stage::Answered(pump);
                    Poll::Ready(Came::Head(Arc::new(head)))
                }
                Err(failure) => {
                    self.stage = Stage::Unanswered(failure);
                    Poll::Ready(Came::Over)
                }
            },
            Stage::Answered(pump) => Poll::Ready(ready!(pump.poll_piece(cx)).map_or(Came::Over, Came::Piece)),
            Stage::Unanswered(_) => Poll::Ready(Came::Over),
        }
    }

    fn is_over(&self) -> bool {
        matches!(&self.stage, Stage::Answered(pump) if pump.is_over())
    }

    fn end(self, log: &Log, company: Company) -> Arc<Ended> {
        let ended = match self.stage {
            Stage::Answered(pump) => Ended::Answered(pump.end(log, company)),
            Stage::Unanswered(failure) => Ended::Unanswered(failure),
            Stage::Asking(_) => unreachable!("it is over only once it is answered, or will not be"),
        };
        for Gone { role, had, mut entry } in self.gone {
            match &ended {
                Ended::Answered(finished) => finished.close_gone(role, had, &mut entry),
                Ended::Unanswered(_) => ended.close(role, false, &mut entry),
            }
        }
        Arc::new(ended)
    }
}
