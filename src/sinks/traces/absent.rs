//! Queue, in a build without the feature `otlp`: no call has a place in traces, and whoever wants one is told why.

use std::convert::Infallible;

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::record::Record;
use crate::record::trace::Trace;
use crate::sinks::traces::Standing;
use crate::sinks::traces::plan::Plan;

/// Where the spans of calls go: in this build, nowhere.
#[derive(Clone, Debug)]
pub struct Traces(Infallible);

/// What sends spans: in this build, there is none.
#[derive(Debug)]
pub struct Exporter(Infallible);

/// No queue.
///
/// # Errors
/// Always, in this build.
pub fn open(_: Plan) -> Result<(Traces, Exporter), &'static str> {
    Err("this weir was built without the feature `otlp`: remove it, or build with `--features otlp`")
}

impl Traces {
    /// Never called.
    #[must_use]
    pub fn begin(&self, _: &HeaderMap) -> Trace {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub fn turn(&self, _: &Trace) -> Trace {
        match self.0 {}
    }

    /// Never called.
    pub fn closed(&self, _: &Record) {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.0 {}
    }
}

impl Exporter {
    /// Never called.
    #[expect(clippy::unused_async, reason = "as in a build with the feature")]
    pub async fn run(self, _: CancellationToken) {
        match self.0 {}
    }
}
