//! Filter: which calls a question is about, and how that is said in SQL.
//!
//! Values are always bound, never spelt.

use rusqlite::types::Value;

use crate::ledger::window::Grain;
use crate::record::outcome::Outcome;

/// Which calls a question is about: those of which all of this is true. By default: every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this workspace.
    pub workspace: Option<Box<str>>,
    /// Of this namespace.
    pub namespace: Option<Box<str>>,
    /// Of this agent.
    pub agent: Option<Box<str>>,
    /// For this user.
    pub user: Option<Box<str>>,
    /// Sent to this provider.
    pub provider: Option<Box<str>>,
    /// This operation.
    pub operation: Option<Box<str>>,
    /// For this model, as it was asked for.
    pub model: Option<Box<str>>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// To which the cache said this: `hit`, `miss`, `expired` or `bypass`.
    pub cache: Option<Box<str>>,
    /// That ended so for this reason: a status such as `429`, or a word such as `timeout`.
    pub error_type: Option<Box<str>>,
    /// Of this run of an agent loop.
    pub run: Option<Box<str>>,
}

/// What the sums are made by, that a filter may ask for.
impl Filter {
    fn by_scope(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("workspace", self.workspace.as_deref()),
            ("namespace", self.namespace.as_deref()),
            ("agent", self.agent.as_deref()),
        ]
    }

    fn by_series(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("provider", self.provider.as_deref()),
            ("operation", self.operation.as_deref()),
            ("model", self.model.as_deref()),
        ]
    }

    /// Whether sums by series can tell: nothing is asked for that only a call knows.
    pub(super) const fn is_by_series(&self) -> bool {
        self.user.is_none() && !self.is_by_call()
    }

    /// Whether something is asked for that only a call knows.
    const fn is_by_call(&self) -> bool {
        self.outcome.is_some() || self.cache.is_some() || self.is_rare()
    }

    /// Whether it may be that hardly a call is let through, and no sum tells where.
    const fn is_rare(&self) -> bool {
        self.error_type.is_some() || self.run.is_some()
    }

    /// Whether it asks for a scope.
    pub(super) fn is_by_scope(&self) -> bool {
        self.by_scope().iter().any(|(_, value)| value.is_some())
    }

    /// Whether sums by user and scope can tell.
    pub(super) fn is_by_user(&self) -> bool {
        !self.is_by_call() && self.by_series().iter().all(|(_, value)| value.is_none())
    }

    /// What a row of sums by series must meet.
    pub(super) fn of_series(&self) -> Condition {
        let mut series = Condition::default();
        for (column, value) in self.by_scope().into_iter().chain(self.by_series()) {
            series.equal(column, value);
        }
        // With a plus, so that nobody looks for one series after the other where a stretch of time is read anyway.
        series.within("+series IN (SELECT series.id FROM series JOIN scopes ON scopes.id = series.scope WHERE TRUE")
    }

    /// What a row of sums by user must meet.
    pub(super) fn of_user(&self) -> Condition {
        let mut scopes = Condition::default();
        for (column, value) in self.by_scope() {
            scopes.equal(column, value);
        }
        let mut condition = scopes.within("+scope IN (SELECT id FROM scopes WHERE TRUE");
        condition.push(self.user_is());
        condition
    }

    /// What a call must meet.
    pub(super) fn of_call(&self) -> Condition {
        let mut condition = self.of_series();
        condition.push(self.user_is());
        condition.equal("outcome", self.outcome.map(Outcome::as_str));
        condition.equal("cache", self.cache.as_deref());
        condition.equal("error_type", self.error_type.as_deref());
        condition.equal("run", self.run.as_deref());
        condition
    }

    /// Where such calls may be, as far as sums can tell. `None` where they tell nothing: nothing is asked for that would
    /// be rare.
    pub(super) fn occurs(&self) -> Option<Occurs> {
        if self.user.is_some() {
            return Some(Occurs { table: Grain::user_sums, condition: self.of_user() });
        }
        let mut condition = self.of_series();
        if let Some(outcome) = self.outcome {
            condition.sql.push_str(" AND ");
            condition.sql.push_str(column_of(outcome));
            condition.sql.push_str(" > 0");
        }
        (self.is_rare() || !condition.sql.is_empty()).then_some(Occurs { table: Grain::sums, condition })
    }

    fn user_is(&self) -> Condition {
        let mut name = Condition::default();
        name.equal("name", self.user.as_deref());
        name.within("user = (SELECT id FROM users WHERE TRUE")
    }
}

/// The column of how many calls ended so.
const fn column_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "successes",
        Outcome::ClientError => "client_errors",
        Outcome::UpstreamError => "upstream_errors",
        Outcome::Timeout => "timeouts",
        Outcome::InternalError => "internal_errors",
        Outcome::RateLimited => "rate_limited",
        Outcome::BudgetBlocked => "budget_blocked",
        Outcome::Cancelled => "cancelled",
    }
}

/// Sums that there are wherever there are such calls.
#[derive(Clone, Debug)]
pub(super) struct Occurs {
    /// The table of them.
    pub(super) table: fn(Grain) -> &'static str,
    /// What they meet.
    pub(super) condition: Condition,
}

/// What a row must meet, after a `WHERE` that there is already, and the values it speaks of.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Condition {
    fn equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.sql.extend([" AND ", column, " = ?"]);
            self.values.push(Value::Text(value.to_owned()));
        }
    }

    fn push(&mut self, other: Self) {
        self.sql.push_str(&other.sql);
        self.values.extend(other.values);
    }

    /// The same, after which a bracket closes.
    pub(super) fn closed(mut self) -> Self {
        self.sql.push(')');
        self
    }

    /// The same asked within a select that `opening` begins; nothing, if nothing is asked.
    fn within(self, opening: &str) -> Self {
        if self.values.is_empty() {
            return self;
        }
        Self { sql: format!(" AND {opening}{})", self.sql), values: self.values }
    }
}
