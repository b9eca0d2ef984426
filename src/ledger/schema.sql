-- The ledger, version 1. Times are microseconds since 1970 (UTC), money is pico-dollars, durations are microseconds.
-- What is not known is NULL, never 0.

-- Nothing enforces a reference: the one thread that writes keeps them right, and every check would cost a look-up per
-- row. Whoever deletes calls deletes their contents first.

-- Who asks, as far as sums are kept of it.
CREATE TABLE scopes (
  id        INTEGER PRIMARY KEY,
  workspace TEXT,
  namespace TEXT,
  agent     TEXT
) STRICT;

-- What is asked, and of whom: a time series is a scope that asks a provider's model for an operation.
CREATE TABLE series (
  id        INTEGER PRIMARY KEY,
  scope     INTEGER NOT NULL REFERENCES scopes (id),
  provider  TEXT NOT NULL,
  operation TEXT NOT NULL,
  model     TEXT
) STRICT;

CREATE INDEX scopes_by_name ON scopes (agent, namespace, workspace);
CREATE INDEX series_by_name ON series (scope, model, operation, provider);

-- End users. The only place where a user's name is: whoever is erased goes from here.
CREATE TABLE users (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

-- One row per call. The id is the microsecond it was over, or one of the next where several were over at once, so that
-- rows lie in the order of time and a range of time is a range of ids.
CREATE TABLE calls (
  id                  INTEGER PRIMARY KEY,
  started_at          INTEGER NOT NULL,
  series              INTEGER NOT NULL REFERENCES series (id),
  user                INTEGER REFERENCES users (id),
  request_id          TEXT NOT NULL,
  trace_id            BLOB,
  loop_type           TEXT,
  run                 TEXT,
  client              TEXT,
  response_model      TEXT,
  priced_model        TEXT,
  downgraded_from     TEXT,
  service_tier        TEXT,
  provider_request_id TEXT,
  streamed            INTEGER NOT NULL,
  status              INTEGER,
  outcome             TEXT NOT NULL,
  error_type          TEXT,
  error_message       TEXT,
  cache               TEXT NOT NULL,
  reuse               TEXT,
  usage_estimated     INTEGER,   -- NULL where no usage is known at all
  input_tokens        INTEGER,
  output_tokens       INTEGER,
  cache_read_tokens   INTEGER,
  cache_write_tokens  INTEGER,
  reasoning_tokens    INTEGER,
  other_counts        TEXT,      -- every other count that is known, as a JSON object by the counter's name
  cost                INTEGER,   -- spent: 0 where the answer was there already
  provenance          TEXT,
  unpriced            TEXT,
  list_cost           INTEGER,
  saved               INTEGER,
  latency             INTEGER NOT NULL,
  first_token         INTEGER,
  upstream            INTEGER,
  bytes_in            INTEGER NOT NULL,
  bytes_out           INTEGER NOT NULL
) STRICT;

-- What was said, where that is kept, compressed with zstd.
CREATE TABLE contents (
  call     INTEGER PRIMARY KEY REFERENCES calls (id),
  request  BLOB,
  response BLOB
) STRICT;

-- Sums by hour and by day (UTC), written together with the rows they are the sums of. `start` is the first microsecond.
CREATE TABLE hours (
  start              INTEGER NOT NULL,
  series             INTEGER NOT NULL,
  calls              INTEGER NOT NULL,
  successes          INTEGER NOT NULL,
  client_errors      INTEGER NOT NULL,
  upstream_errors    INTEGER NOT NULL,
  timeouts           INTEGER NOT NULL,
  internal_errors    INTEGER NOT NULL,
  rate_limited       INTEGER NOT NULL,
  budget_blocked     INTEGER NOT NULL,
  cancelled          INTEGER NOT NULL,
  streamed           INTEGER NOT NULL,
  hits               INTEGER NOT NULL,  -- answered from what was stored, for an equal or a similar request
  coalesced          INTEGER NOT NULL,  -- answered by an equal call in flight
  looked_up          INTEGER NOT NULL,  -- asked the cache: hits, misses, expired
  unpriced           INTEGER NOT NULL,
  estimated          INTEGER NOT NULL,  -- what was spent on them rests on estimated usage
  input_tokens       INTEGER NOT NULL,  -- bought; what reuse saved is `saved_tokens`
  output_tokens      INTEGER NOT NULL,
  cache_read_tokens  INTEGER NOT NULL,
  cache_write_tokens INTEGER NOT NULL,
  reasoning_tokens   INTEGER NOT NULL,
  saved_tokens       INTEGER NOT NULL,
  cost               INTEGER NOT NULL,
  estimated_cost     INTEGER NOT NULL,  -- the part of it that rests on estimated usage
  saved              INTEGER NOT NULL,
  latency            INTEGER NOT NULL,
  first_token        INTEGER NOT NULL,
  first_tokens       INTEGER NOT NULL,  -- how many calls have one
  bytes_in           INTEGER NOT NULL,
  bytes_out          INTEGER NOT NULL,
  PRIMARY KEY (start, series)
) STRICT, WITHOUT ROWID;

-- `days` is like `hours`, and made from it where the schema is applied. So are `minute_totals`, `hour_totals` and
-- `day_totals`, which have no `series`: the sums of all calls, for whoever asks about no calls in particular. Minutes go
-- with their calls, hours and days with the sums by series. And `user_day_totals` from `user_days`, without `scope`.

-- What did not end well, by kind.
CREATE TABLE hour_errors (
  start      INTEGER NOT NULL,
  series     INTEGER NOT NULL,
  outcome    TEXT NOT NULL,
  error_type TEXT NOT NULL,  -- '' where none is known
  calls      INTEGER NOT NULL,
  PRIMARY KEY (start, series, outcome, error_type)
) STRICT, WITHOUT ROWID;

-- Users by hour and by day; user 0 is nobody, or somebody erased.
CREATE TABLE user_hours (
  start  INTEGER NOT NULL,
  user   INTEGER NOT NULL,
  scope  INTEGER NOT NULL,
  calls  INTEGER NOT NULL,
  errors INTEGER NOT NULL,  -- neither successes nor cancelled
  tokens INTEGER NOT NULL,  -- bought, in and out
  cost   INTEGER NOT NULL,
  saved  INTEGER NOT NULL,
  latest INTEGER NOT NULL,  -- the id of the last call
  PRIMARY KEY (start, user, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_days (
  start  INTEGER NOT NULL,
  user   INTEGER NOT NULL,
  scope  INTEGER NOT NULL,
  calls  INTEGER NOT NULL,
  errors INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  cost   INTEGER NOT NULL,
  saved  INTEGER NOT NULL,
  latest INTEGER NOT NULL,
  PRIMARY KEY (start, user, scope)
) STRICT, WITHOUT ROWID;

-- The days of each user: who was there in a month is then a question per user.
CREATE INDEX user_days_by_user ON user_days (user, start);

-- Every latency of a series in an hour or a day that is over, sorted, each as the difference from the one before (LEB128): exact
-- percentiles of a month without reading its rows. Made once the period is over; until then the rows are asked.
CREATE TABLE hour_latencies (
  start       INTEGER NOT NULL,
  series      INTEGER NOT NULL,
  latency     BLOB NOT NULL,
  first_token BLOB NOT NULL,
  PRIMARY KEY (start, series)
) STRICT, WITHOUT ROWID;

CREATE TABLE day_latencies (
  start       INTEGER NOT NULL,
  series      INTEGER NOT NULL,
  latency     BLOB NOT NULL,
  first_token BLOB NOT NULL,
  PRIMARY KEY (start, series)
) STRICT, WITHOUT ROWID;

-- The periods of which the latencies are there. A call that comes late to one takes it away again.
CREATE TABLE sealed (
  grain INTEGER NOT NULL,  -- how long it is: an hour or a day, in microseconds
  start INTEGER NOT NULL,
  PRIMARY KEY (grain, start)
) STRICT, WITHOUT ROWID;

-- Who took, changed or erased what.
CREATE TABLE audit (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  who    TEXT NOT NULL,
  action TEXT NOT NULL,
  detail TEXT NOT NULL       -- a JSON object
) STRICT;

-- For people: calls with their names and times, dollars with a point, the way `sqlite3 ledger.db 'SELECT * FROM ledger'`
-- shows them.
CREATE VIEW ledger AS
SELECT
  calls.id,
  strftime('%Y-%m-%dT%H:%M:%f', calls.id / 1e6, 'unixepoch') || 'Z' AS time,
  scopes.workspace, scopes.namespace, scopes.agent, users.name AS user,
  series.provider, series.operation, series.model, calls.response_model,
  calls.outcome, calls.error_type, calls.status, calls.cache, calls.reuse,
  calls.input_tokens, calls.output_tokens,
  calls.cost / 1e12 AS cost_usd, calls.provenance, calls.saved / 1e12 AS saved_usd,
  calls.latency / 1e3 AS latency_ms, calls.request_id
FROM calls
JOIN series ON series.id = calls.series
JOIN scopes ON scopes.id = series.scope
LEFT JOIN users ON users.id = calls.user;
