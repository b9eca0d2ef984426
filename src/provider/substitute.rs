//! Substitute: the same request, asked of another model.
//!
//! The model's name is put in wherever the request has one: in its path, in its body, in both where an API says it
//! twice. Everything else stays as it was, byte for byte: whether the other model takes what the first one took is for
//! whoever names it to know. Knows no signature: one that the app made is for the request as it was, and does not fit
//! this one.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::provider::edit::Members;
use crate::provider::endpoint::Endpoint;

/// The same request, asked of another model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitute<'a> {
    /// Its path.
    pub path: Cow<'a, str>,
    /// Its body.
    pub body: Cow<'a, [u8]>,
}

/// What stands for itself in a part of a path: unreserved characters (RFC 3986, section 2.3), and `@`, which the names of
/// Vertex AI's models have.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// The request to `path` with the JSON `body`, asked of `model`. `None` where it names no model, or generates nothing: a
/// vector or a score of another model means another thing.
#[must_use]
pub fn substitute<'a>(endpoint: Endpoint, path: &'a str, body: &'a [u8], model: &str) -> Option<Substitute<'a>> {
    if !endpoint.is_read() || !endpoint.operation().generates() || model.is_empty() {
        return None;
    }
    let in_path = (endpoint.format().with_model)(path, model);
    let in_body = named_in_body(body, model);
    if in_path.is_none() && in_body.is_none() {
        return None;
    }
    Some(Substitute {
        path: in_path.map_or(Cow::Borrowed(path), Cow::Owned),
        body: in_body.map_or(body.into(), Cow::Owned),
    })
}

/// The body with another model's name in place of its own. `None` if it has none.
fn named_in_body(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let members = Members::of(body)?;
    members.get("model").filter(|name| name.starts_with('"'))?;
    Some(members.with("model", &serde_json::to_string(model).ok()?).into_bytes())
}

/// A name as a part of a path.
pub(super) fn in_a_path(name: &str) -> String {
    utf8_percent_encode(name, IN_A_PATH).to_string()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::provider::Api;

    /// The path and the body of the request of `api`, asked of `model`.
    fn asked_of(api: Api, path: &str, body: &str, model: &str) -> Option<(String, String)> {
        let endpoint = (api.dialect().endpoint)(&Method::POST, path);
        let Substitute { path, body } = substitute(endpoint, path, body.as_bytes(), model)?;
        Some((path.into_owned(), String::from_utf8(body.into_owned()).expect("text")))
    }

    #[test]
    fn the_models_name_changes_where_the_api_has_it_and_nothing_else() {
        use Api::{Anthropic, AzureOpenAi, Bedrock, Cohere, Gemini, Ollama, OpenAi, VertexAi};
        let named = "{ \"temperature\": 1.0,\n\"model\" : \"a\\u002fb\",\"messages\":[{\"model\":\"a\"}] }\n";
        let renamed = "{ \"temperature\": 1.0,\n\"model\" : \"c\",\"messages\":[{\"model\":\"a\"}] }\n";
        for (api, path) in [
            (OpenAi, "/v1/chat/completions"),
            (OpenAi, "/v1/responses"),
            (OpenAi, "/v1/completions"),
            (OpenAi, "/v1/messages"),
            (OpenAi, "/completion"),
            (AzureOpenAi, "/openai/v1/chat/completions"),
            (Anthropic, "/v1/messages"),
            (Bedrock, "/openai/v1/chat/completions"),
            (Cohere, "/v2/chat"),
            (Cohere, "/v1/chat"),
            (Cohere, "/compatibility/v1/chat/completions"),
            (Gemini, "/v1beta/openai/chat/completions"),
            (Gemini, "/v1beta/interactions"),
            (Ollama, "/api/chat"),
            (Ollama, "/api/generate"),
            (VertexAi, "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"),
        ] {
            let expected = Some((path.to_owned(), renamed.to_owned()));
            assert_eq!(asked_of(api, path, named, "c"), expected, "{api:?} {path}");
            assert_eq!(asked_of(api, path, "{\"messages\":[]}", "c"), None, "{api:?} {path} names none");
        }
        let vertex = "/v1/projects/p/locations/l/publishers/google/models";
        for (api, path, model, expected) in [
            (Gemini, "/v1beta/models/a:generateContent", "c-1.5", "/v1beta/models/c-1.5:generateContent"),
            (Gemini, "/models/a:streamGenerateContent", "models/c", "/models/c:streamGenerateContent"),
            (Gemini, "/v1/tunedModels/a:generateContent", "c", "/v1/models/c:generateContent"),
            (Gemini, "/v1/models/a:generateContent", "tunedModels/c", "/v1/tunedModels/c:generateContent"),
            (VertexAi, &format!("{vertex}/a:generateContent"), "c:d", &format!("{vertex}/c%3Ad:generateContent")),
            (
                VertexAi,
                "/publishers/anthropic/models/a@1:rawPredict",
                "c@2",
                "/publishers/anthropic/models/c@2:rawPredict",
            ),
            (VertexAi, "/v1/endpoints/4:generateContent", "endpoints/5", "/v1/endpoints/5:generateContent"),
            (Bedrock, "/model/a.b-v1:0/converse", "c.d-v2:0", "/model/c.d-v2%3A0/converse"),
            (Bedrock, "/model/a.b-v1%3A0/converse-stream", "c", "/model/c/converse-stream"),
            (
                Bedrock,
                "/model/a/invoke",
                "arn:aws:bedrock:e:1:x/y",
                "/model/arn%3Aaws%3Abedrock%3Ae%3A1%3Ax%2Fy/invoke",
            ),
            (Bedrock, "/model/arn:aws:x/y/invoke", "c", "/model/c/invoke"),
            (AzureOpenAi, "/openai/deployments/a%20b/chat/completions", "c", "/openai/deployments/c/chat/completions"),
        ] {
            let body = "{\"contents\" : []}";
            assert_eq!(
                asked_of(api, path, body, model),
                Some((expected.to_owned(), body.to_owned())),
                "{api:?} {path}"
            );
        }
        let both = asked_of(AzureOpenAi, "/openai/deployments/a/chat/completions", r#"{"model":"a"}"#, "c");
        let expected = ("/openai/deployments/c/chat/completions".to_owned(), r#"{"model":"c"}"#.to_owned());
        assert_eq!(both, Some(expected), "the path and the body");
    }

    #[test]
    fn what_names_no_model_or_generates_nothing_stays_as_it_is() {
        use Api::{Bedrock, Cohere, Gemini, OpenAi, VertexAi};
        let named = r#"{"model":"a"}"#;
        for (rule, api, path, body, model) in [
            ("a vector of another model is another vector", OpenAi, "/v1/embeddings", named, "c"),
            ("so is a score", Cohere, "/v2/rerank", named, "c"),
            ("counting costs nothing", Gemini, "/v1/models/a:countTokens", "{}", "c"),
            ("not read", OpenAi, "/v1/files", named, "c"),
            ("an agent is no model", Gemini, "/v1beta/interactions", r#"{"agent":"a"}"#, "c"),
            ("deployed models stand elsewhere", VertexAi, "/v1/endpoints/4:generateContent", "{}", "c"),
            ("elsewhere from here as well", VertexAi, "/v1/models/a:generateContent", "{}", "endpoints/4"),
            ("a path without a model", Gemini, "/v1/models/:generateContent", "{}", "c"),
            ("a path without an id", Bedrock, "/model//converse", "{}", "c"),
            ("two names", OpenAi, "/v1/chat/completions", r#"{"model":"a","model":"b"}"#, "c"),
            ("a name that is no text", OpenAi, "/v1/chat/completions", r#"{"model":7}"#, "c"),
            ("no object", OpenAi, "/v1/chat/completions", "[]", "c"),
            ("a form", OpenAi, "/v1/audio/transcriptions", "--b0\r\n", "c"),
            ("no other model", OpenAi, "/v1/chat/completions", named, ""),
        ] {
            assert_eq!(asked_of(api, path, body, model), None, "{rule}");
        }
    }
}
