//! Described: what the ledger is asked, as the document of the API has it.

use serde_json::json;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use super::{audit, content, cost, erase, export, logs, performance, stats, usage, what_if};
use crate::admin::openapi::FEATURE;

/// What is described here.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(paths(
    logs::list,
    erase::user,
    content::of_call,
    stats::calls,
    export::export,
    export::stats,
    cost::groups,
    usage::overview,
    usage::over_time,
    usage::agents,
    usage::users,
    cost::overview,
    cost::trend,
    cost::by_model,
    export::statement,
    what_if::what_if,
    performance::overview,
    performance::latency,
    performance::throughput,
    performance::errors,
    stats::stats,
    audit::list,
))]
struct Questions;

/// The operations that a weir without the ledger does not have.
pub(in crate::admin) fn questions() -> OpenApi {
    let mut questions = Questions::openapi();
    for item in questions.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.delete].into_iter().flatten() {
            operation.extensions.get_or_insert_default().insert(FEATURE.to_owned(), json!("ledger"));
        }
    }
    questions
}
