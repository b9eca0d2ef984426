//! Described: the document, made of what is said beside each handler.

use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use super::name_of;
use crate::admin::problem::Written;
use crate::admin::{budgets, cache, custom, limits, live, lookaside, monthly, reload};

/// What the document says of the API as a whole.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    paths(
        super::serve,
        cache::stats,
        cache::config,
        cache::clear,
        cache::invalidate,
        lookaside::get,
        lookaside::set,
        limits::list,
        budgets::list,
        budgets::begin_override,
        budgets::end_override,
        monthly::get,
        monthly::put,
        monthly::delete,
        custom::push,
        reload::reload,
        live::watch,
    ),
    info(
        title = "weir",
        description = "The operator's side of a weir: what calls cost and how they went, the cache, limits and budgets. \
                       Money is exact: read it as decimals. What is not known is null, never 0.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Written)),
    tags(
        (name = "analytics", description = "Calls one by one, and all that is added up of them."),
        (name = "content", description = "What was said in calls, where that is kept."),
        (name = "usage", description = "How many calls, whose, and when."),
        (name = "cost", description = "What calls cost, and the month's budget."),
        (name = "performance", description = "How fast, and how well."),
        (name = "stats", description = "What reuse saves."),
        (name = "audit", description = "Who took, changed or erased what."),
        (name = "cache", description = "Stored answers."),
        (name = "limits", description = "Limits and budgets."),
        (name = "metrics", description = "Metrics of the app's own."),
        (name = "live", description = "What is going on."),
        (name = "meta", description = "The API itself.")
    )
)]
struct About;

/// All that a weir of these features serves below `/api/v1/`.
pub(in crate::admin) fn document() -> OpenApi {
    let mut document = About::openapi();
    #[cfg(feature = "ledger")]
    document.merge(crate::admin::analytics::described::questions());
    let token = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token from one of the files of `admin` in the configuration. On the same machine, reading needs none \
             unless `admin.require_token` is set.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    for status in STATUSES {
        components.responses.insert(name_of(status), RefOr::T(problem(status)));
    }
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

/// Every status that a problem may have.
const STATUSES: [u16; 11] = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503];

fn problem(status: u16) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(meaning(status)).content("application/problem+json", content).build()
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The body is no JSON object, or what is asked for after `?` or in a header cannot be read.",
        401 => "A token is needed, and missing or wrong.",
        403 => "The token is not for this, or none is configured, or it is not for callers from there.",
        404 => "There is no such thing, or what it is part of is switched off.",
        408 => "The body took too long.",
        409 => "Nothing is cached there.",
        413 => "The body is too large.",
        422 => "The body says something that cannot be done.",
        429 => "Too many wrong tokens came from this address: `Retry-After` says when another is looked at.",
        503 => "Not now: `Retry-After` says when to ask again.",
        _ => "weir failed; its log says why.",
    }
}
