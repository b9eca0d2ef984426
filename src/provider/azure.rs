//! Azure: Azure `OpenAI` and Foundry. Requests and replies are those of `OpenAI`, and Anthropic's for Claude; the paths
//! and the errors are Azure's own.
//!
//! Paths name a deployment (`/openai/deployments/<name>/…`) or leave it to the body; some are below a project.

use http::HeaderName;
use serde_json::json;

use crate::provider::{CREDENTIAL_HEADERS, Dialect, NamesModel, Problem, openai, quotas};

/// Where Azure has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "",
    endpoint: openai::endpoint,
    error,
    error_type: None,
    quotas: Some(&quotas::AZURE_WORDS),
    names_model: NamesModel::Reply,
    credential: (HeaderName::from_static("api-key"), ""),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

fn error(problem: &Problem<'_>) -> Vec<u8> {
    json!({ "error": { "code": problem.code, "message": problem.message } }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::provider::endpoint::Endpoint;

    #[test]
    fn every_kind_of_path_leads_to_its_endpoint() {
        for (path, expected) in [
            ("/openai/deployments/prod-chat/chat/completions", Endpoint::ChatCompletions),
            ("/openai/deployments/prod/images/generations", Endpoint::Images),
            ("/openai/responses", Endpoint::Responses),
            ("/openai/v1/chat/completions", Endpoint::ChatCompletions),
            ("/api/projects/p/openai/v1/responses", Endpoint::Responses),
            ("/anthropic/v1/messages", Endpoint::Messages),
            ("/openai/files", Endpoint::Free),
            ("/api/projects/p/runs", Endpoint::Other),
        ] {
            assert_eq!((DIALECT.endpoint)(&Method::POST, path), expected, "{path}");
        }
    }

    #[test]
    fn errors_have_the_shape_of_the_api() {
        let status = StatusCode::BAD_GATEWAY;
        let problem = Problem { status, code: "a_code", message: "say \"why\"", request_id: "1", retry_after: None };
        let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
        assert_eq!(body, json!({"error": {"code": "a_code", "message": "say \"why\""}}));
    }
}
