//! What-if: what past calls would have cost otherwise.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::admin::analytics::asked::Asked;
use crate::admin::asker::Asker;
use crate::admin::cache::answer;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::page::Direction;
use crate::whatif::choice::Choice;
use crate::whatif::{Answer, Weighing};

/// How long calls are weighed; what is left then is not.
const WITHIN: Duration = Duration::from_secs(10);

/// What may be said.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `Asked` and `what_if` read; a test holds the two together")]
pub(super) struct Otherwise {
    /// The models to have asked instead, with commas between them: `gpt-5-mini`, of whatever provider a call was sent to,
    /// or `anthropic/claude-haiku-4-5`. Everywhere else this is a filter; here that is `of_model`.
    model: Option<String>,
    /// Only calls for this model, as the app spells it.
    of_model: Option<String>,
    /// How long back from now, as everywhere: `30d`.
    #[param(pattern = "^[0-9]{1,7}[mhdw]$")]
    range: Option<String>,
    /// From when on: RFC 3339, or a date.
    from: Option<String>,
    /// Until just before when; now without this.
    to: Option<String>,
    /// Only calls of this agent.
    agent_id: Option<String>,
    /// Only calls for this user.
    user_id: Option<String>,
    /// Only calls to this provider.
    provider: Option<String>,
    /// Only calls in this namespace.
    namespace: Option<String>,
    /// Only calls of this workspace.
    workspace_id: Option<String>,
}

/// What the calls would have cost at another model, on the batch and the flex tier, with prompts read from the provider's
/// cache.
///
/// Each call is priced with what it used, by the prices of its time. The newest come first: where there is no more time,
/// `is_complete` is `false`, and `since` says how far it came.
#[utoipa::path(
    get,
    path = "/api/v1/cost/what-if",
    tag = "cost",
    operation_id = "cost_what_if",
    params(Otherwise),
    responses((status = 200, body = Answer), ToAsk)
)]
pub(super) async fn what_if(
    caller: Asker,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let models = parameters.text("model");
    let models: Vec<String> = models.iter().flat_map(|models| models.split(',')).map(str::to_owned).collect();
    let choices = Choice::all(&models, &admin.ledger.prices);
    if let Err(problem) = &choices {
        parameters.fault("model", problem.clone());
    }
    let (mut asked, of_model) = Asked::with(parameters, &caller, |parameters, _| parameters.text("of_model"))?;
    asked.filter.model = of_model;
    let choices = choices.unwrap_or_default();
    let prices = std::sync::Arc::clone(&admin.ledger.prices);
    let weighed = admin.ledger.ask(move |ledger| {
        let walk = ledger.walk(asked.window, &asked.filter, Direction::Newest);
        Weighing::of(walk, &prices, choices, Some(Instant::now() + WITHIN))
    });
    Ok(answer(StatusCode::OK, &weighed.await?))
}
