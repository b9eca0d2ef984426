//! Keys: which requests are the same question, API by API, and what tells two of them apart.
//!
//! docs/cache.md says what is left out of a body. The code must say the same; and a model of its own, which reads that
//! page, must agree with every key of requests that were made from each other by chance.

mod model;
#[path = "../fixture/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir::cache::key::{Key, Question};
use weir::provider::endpoint::Endpoint;
use weir::provider::{Request, Reuse};

/// One row of the table in docs/cache.md: its requests, and one of them that may be cached.
struct Row {
    requests: &'static str,
    endpoints: &'static [Endpoint],
    path: &'static str,
    body: &'static str,
}

const ROWS: [Row; 10] = [
    Row {
        requests: "OpenAI's format: chat, responses",
        endpoints: &[Endpoint::ChatCompletions, Endpoint::Responses],
        path: "/v1/chat/completions",
        body: r#"{"model":"m","messages":[],"input":"a","store":false}"#,
    },
    Row {
        requests: "OpenAI's format: completions, embeddings, moderations, token counts",
        endpoints: &[Endpoint::Completions, Endpoint::Embeddings, Endpoint::Moderations, Endpoint::CountInput],
        path: "/v1/embeddings",
        body: r#"{"model":"m","input":"a","prompt":"a"}"#,
    },
    Row {
        requests: "Anthropic's messages and token counts, also at Bedrock and Vertex AI",
        endpoints: &[
            Endpoint::Messages,
            Endpoint::CountMessages,
            Endpoint::PublishedMessages,
            // By what its body says.
            Endpoint::InvokeModel,
        ],
        path: "/model/m/invoke",
        body: r#"{"anthropic_version":"bedrock-2023-05-31","model":"m","messages":[],"max_tokens":1}"#,
    },
    Row {
        requests: "Bedrock: Converse",
        endpoints: &[Endpoint::Converse],
        path: "/model/m/converse",
        body: r#"{"messages":[]}"#,
    },
    Row {
        requests: "Bedrock: InvokeModel with another vendor's body, token counts",
        endpoints: &[Endpoint::InvokeModel, Endpoint::CountConverse],
        path: "/model/m/invoke",
        body: r#"{"prompt":"a"}"#,
    },
    Row {
        requests: "Gemini and Vertex AI: generation, token counts, embeddings",
        endpoints: &[
            Endpoint::GenerateContent,
            Endpoint::StreamGenerateContent,
            Endpoint::CountContent,
            Endpoint::EmbedContent,
            Endpoint::PredictEmbeddings,
        ],
        path: "/v1beta/models/m:generateContent",
        body: r#"{"contents":[]}"#,
    },
    Row {
        requests: "Cohere",
        endpoints: &[
            Endpoint::CohereChat,
            Endpoint::CohereChatV1,
            Endpoint::CohereGenerate,
            Endpoint::CohereEmbed,
            Endpoint::CohereRerank,
            Endpoint::CohereClassify,
            Endpoint::CohereTokenize,
        ],
        path: "/v2/chat",
        body: r#"{"model":"m","messages":[]}"#,
    },
    Row {
        requests: "Ollama",
        endpoints: &[Endpoint::OllamaChat, Endpoint::OllamaGenerate, Endpoint::OllamaEmbed],
        path: "/api/chat",
        body: r#"{"model":"m","messages":[{"role":"user","content":"a"}],"prompt":"a"}"#,
    },
    Row {
        requests: "llama.cpp: `/completion`",
        endpoints: &[Endpoint::LlamaCppCompletion],
        path: "/completion",
        body: r#"{"prompt":"a"}"#,
    },
    Row {
        requests: "TGI: `/generate`, `/generate_stream`",
        endpoints: &[Endpoint::TgiGenerate, Endpoint::TgiGenerateStream],
        path: "/generate",
        body: r#"{"inputs":"a"}"#,
    },
];

/// What the table says of one row.
#[derive(Debug, Default, PartialEq)]
struct Documented {
    left_out: Vec<String>,
    headers: Vec<String>,
}

/// The table in docs/cache.md, by its first column.
fn documented() -> BTreeMap<String, Documented> {
    let page = fs::read_to_string(root().join("docs/cache.md")).expect("the page is there");
    let (_, table) = page.split_once("<!-- tests/keys").expect("the table has its mark");
    let rows =
        table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split_whitespace().map(|name| name.trim_matches('`').to_owned()).collect();
        (cells[0].to_owned(), Documented { left_out: names(cells[1]), headers: names(cells[2]) })
    };
    rows.map(row).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Whether the answer to a request with this body may serve others, and what then does not change it.
fn reuse(endpoint: Endpoint, path: &str, body: &str) -> Reuse {
    let body = serde_json::from_str(body).expect("JSON");
    (endpoint.format().asked)(&Request { endpoint, path, query: None, body: &body }).reuse
}

fn key(text: &str, ignored: &[&str]) -> Key {
    let body = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let text = text.as_bytes();
    let question = Question {
        namespace: None,
        provider: "p",
        target: &[],
        credentials: &[],
        headers: &[],
        text,
        body: &body,
        ignored,
    };
    Key::of(&question)
}

#[test]
fn the_page_says_what_the_code_does() {
    let documented = documented();
    let known: Vec<&str> = documented.keys().map(String::as_str).collect();
    let mut rows: Vec<&str> = ROWS.iter().map(|row| row.requests).collect();
    rows.sort_unstable();
    assert_eq!(known, rows);
    for row in &ROWS {
        for &endpoint in row.endpoints {
            let said = &documented[row.requests];
            let Reuse::Allowed(left_out) = reuse(endpoint, row.path, row.body) else {
                panic!("{endpoint:?} is not cached: {}", row.body)
            };
            assert_eq!(said.left_out, left_out, "{endpoint:?}");
            assert!(left_out.is_sorted(), "{endpoint:?}: the key wants them in ascending order");
            if endpoint != Endpoint::InvokeModel {
                assert_eq!(said.headers, endpoint.format().key_headers, "{endpoint:?}");
            }
        }
    }
}

#[test]
fn every_other_endpoint_is_never_cached() {
    let body = r#"{"model":"m","input":"a","prompt":"a","messages":[{"role":"user","content":"a"}],"store":false}"#;
    let others = Endpoint::ALL.iter().filter(|endpoint| !ROWS.iter().any(|row| row.endpoints.contains(endpoint)));
    for &endpoint in others {
        assert_eq!(reuse(endpoint, "/", body), Reuse::Never, "{endpoint:?}");
    }
}

/// What each member of a body does, endpoint by endpoint.
struct Members {
    endpoint: Endpoint,
    /// A body that may be cached.
    body: &'static str,
    /// Each makes another question.
    count: &'static [&'static str],
    /// None does.
    left_out: &'static [&'static str],
    /// Each makes a question whose answer is for nobody else.
    prevent: &'static [&'static str],
}

const MEMBERS: &[Members] = &[
    Members {
        endpoint: Endpoint::ChatCompletions,
        body: r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
        count: &[
            r#""model":"n""#,
            r#""messages":[{"role":"user","content":"b"}]"#,
            r#""messages":[{"role":"user","content":"a","name":"b"}]"#,
            r#""tools":[{"type":"function","function":{"name":"a","parameters":{"properties":{"user":{}}}}}]"#,
            r#""tools":[{"type":"function","function":{"name":"a","parameters":{"properties":{}}}}]"#,
            r#""tool_choice":"none""#,
            r#""functions":[]"#,
            r#""function_call":"none""#,
            r#""parallel_tool_calls":false"#,
            r#""temperature":0"#,
            r#""temperature":0.1"#,
            r#""top_p":0.1"#,
            r#""top_k":1"#,
            r#""min_p":0.1"#,
            r#""seed":1"#,
            r#""seed":9007199254740993"#,
            r#""seed":9007199254740992"#,
            r#""random_seed":1"#,
            r#""n":2"#,
            r#""stop":"a""#,
            r#""stop":["a"]"#,
            r#""max_tokens":1"#,
            r#""max_completion_tokens":1"#,
            r#""min_tokens":1"#,
            r#""frequency_penalty":1"#,
            r#""presence_penalty":1"#,
            r#""repetition_penalty":1"#,
            r#""logit_bias":{"1":1}"#,
            r#""logprobs":true"#,
            r#""top_logprobs":1"#,
            r#""response_format":{"type":"json_object"}"#,
            r#""reasoning_effort":"low""#,
            r#""reasoning":{"effort":"low"}"#,
            r#""reasoning_format":"raw""#,
            r#""include_reasoning":true"#,
            r#""verbosity":"low""#,
            r#""modalities":["text"]"#,
            r#""audio":{"voice":"a"}"#,
            r#""prediction":{"type":"content","content":"a"}"#,
            r#""moderation":{}"#,
            r#""prompt_mode":"reasoning""#,
            r#""safe_prompt":true"#,
            r#""guardrails":[]"#,
            r#""citation_options":"enabled""#,
            r#""documents":[]"#,
            r#""search_domain_filter":["a"]"#,
            r#""provider":{"order":["a"]}"#,
            r#""models":["a"]"#,
            r#""route":"fallback""#,
            r#""transforms":[]"#,
            r#""chat_template":"a""#,
            r#""chat_template_kwargs":{}"#,
            r#""guided_json":{}"#,
            r#""structured_outputs":{}"#,
            r#""cache_salt":"a""#,
            r#""cache_salt":"b""#,
            r#""session_id":"a""#,
            r#""stream":true"#,
            r#""stream":true,"stream_options":{"include_usage":true}"#,
            r#""weir_unknown":null"#,
        ],
        left_out: &[
            r#""user":"a""#,
            r#""metadata":{"a":"b"}"#,
            r#""safety_identifier":"a""#,
            r#""prompt_cache_key":"a""#,
            r#""prompt_cache_retention":"24h""#,
            r#""prompt_cache_options":{}"#,
            r#""service_tier":"flex""#,
            r#""store":false"#,
            r#""store":null"#,
            r#""priority":1"#,
            r#""request_id":"a""#,
        ],
        prevent: &[
            r#""store":true"#,
            r#""web_search_options":{}"#,
            r#""search_parameters":{"mode":"auto"}"#,
            r#""plugins":[{"id":"web"}]"#,
            r#""tools":[{"type":"web_search"}]"#,
            r#""tools":[{"type":"function"},{"type":"code_interpreter"}]"#,
            r#""model":"gpt-4o-search-preview""#,
            r#""model":"openai/gpt-5:online""#,
            r#""model":"sonar-pro""#,
            r#""model":"groq/compound""#,
            r#""agent_id":"a""#,
            r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]"#,
            r#""messages":[{"content":[{"type":"file","file":{"file_id":"file-1"}}]}]"#,
        ],
    },
    Members {
        endpoint: Endpoint::Responses,
        body: r#"{"model":"m","input":"a","store":false}"#,
        count: &[
            r#""model":"n""#,
            r#""input":"b""#,
            r#""instructions":"a""#,
            r#""tools":[{"type":"function","name":"a"}]"#,
            r#""tool_choice":"none""#,
            r#""parallel_tool_calls":false"#,
            r#""max_tool_calls":1"#,
            r#""text":{"verbosity":"low"}"#,
            r#""reasoning":{"effort":"low"}"#,
            r#""temperature":0"#,
            r#""top_p":0.1"#,
            r#""top_logprobs":1"#,
            r#""max_output_tokens":16"#,
            r#""truncation":"auto""#,
            r#""include":["reasoning.encrypted_content"]"#,
            r#""prompt":{"id":"a","version":"1"}"#,
            r#""prompt":{"id":"a","version":"2"}"#,
            r#""context_management":[]"#,
            r#""moderation":{}"#,
            r#""access_programs":[]"#,
            r#""stream":true"#,
        ],
        left_out: &[
            r#""user":"a""#,
            r#""metadata":{"a":"b"}"#,
            r#""safety_identifier":"a""#,
            r#""prompt_cache_key":"a""#,
            r#""prompt_cache_retention":"24h""#,
            r#""prompt_cache_options":{}"#,
            r#""service_tier":"flex""#,
        ],
        prevent: &[
            r#""store":true"#,
            r#""store":null"#,
            r#""previous_response_id":"a""#,
            r#""conversation":"a""#,
            r#""background":true"#,
            r#""generate":false"#,
            r#""prompt":{"id":"a"}"#,
            r#""tools":[{"type":"web_search"}]"#,
            r#""tools":[{"type":"file_search"}]"#,
            r#""tools":[{"type":"code_interpreter"}]"#,
            r#""tools":[{"type":"computer"}]"#,
            r#""tools":[{"type":"image_generation"}]"#,
            r#""tools":[{"type":"mcp"}]"#,
            r#""tools":[{"type":"shell"}]"#,
            r#""tools":[{"type":"local_shell"}]"#,
            r#""tools":[{"type":"apply_patch"}]"#,
            r#""tools":[{"type":"tool_search"}]"#,
        ],
    },
    Members {
        endpoint: Endpoint::Completions,
        body: r#"{"model":"m","prompt":"a"}"#,
        count: &[
            r#""prompt":"b""#,
            r#""prompt":[1,2,3]"#,
            r#""prompt":[1,2,4]"#,
            r#""suffix":"a""#,
            r#""echo":true"#,
            r#""best_of":2"#,
            r#""n":2"#,
            r#""logprobs":1"#,
            r#""temperature":0"#,
            r#""stream":true"#,
        ],
        left_out: &[r#""user":"a""#, r#""priority":1"#, r#""request_id":"a""#],
        prevent: &[r#""model":"sonar""#],
    },
    Members {
        endpoint: Endpoint::Embeddings,
        body: r#"{"model":"m","input":"a"}"#,
        count: &[
            r#""model":"n""#,
            r#""input":["a"]"#,
            r#""dimensions":8"#,
            r#""encoding_format":"base64""#,
            r#""input_type":"query""#,
            r#""task_type":"a""#,
            r#""truncate":"END""#,
            r#""output_dtype":"int8""#,
        ],
        left_out: &[r#""user":"a""#],
        prevent: &[r#""input":[{"image_url":"https://example.com/a.png"}]"#],
    },
    Members {
        endpoint: Endpoint::Moderations,
        body: r#"{"input":"a"}"#,
        count: &[r#""input":"b""#, r#""model":"m""#],
        left_out: &[r#""user":"a""#],
        prevent: &[],
    },
    Members {
        endpoint: Endpoint::Messages,
        body: r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]}"#,
        count: &[
            r#""model":"n""#,
            r#""messages":[{"role":"user","content":[{"type":"text","text":"b"}]}]"#,
            r#""messages":[{"role":"user","content":"a"}]"#,
            r#""messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"cache_control":1}}]}]"#,
            r#""messages":[{"role":"assistant","content":[{"type":"tool_use","input":{}}]}]"#,
            r#""system":"a""#,
            r#""tools":[{"name":"a","input_schema":{"properties":{"cache_control":{}}}}]"#,
            r#""tools":[{"name":"a","input_schema":{"properties":{}}}]"#,
            r#""tool_choice":{"type":"any"}"#,
            r#""thinking":{"type":"enabled","budget_tokens":1024}"#,
            r#""output_config":{"effort":"low"}"#,
            r#""max_tokens":2"#,
            r#""stop_sequences":["a"]"#,
            r#""temperature":0"#,
            r#""top_p":0.1"#,
            r#""top_k":1"#,
            r#""context_management":{}"#,
            r#""stream":true"#,
            r#""weir_unknown":1"#,
        ],
        left_out: &[
            r#""metadata":{"user_id":"a"}"#,
            r#""service_tier":"auto""#,
            r#""speed":"fast""#,
            r#""inference_geo":"us""#,
            r#""diagnostics":{}"#,
            r#""cache_control":{"type":"ephemeral"}"#,
            r#""messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}]"#,
        ],
        prevent: &[
            r#""container":"a""#,
            r#""thread":"a""#,
            r#""fallbacks":[{"model":"b"}]"#,
            r#""fallback_credit_token":"a""#,
            r#""mcp_servers":[{"url":"https://example.com"}]"#,
            r#""max_tokens":0"#,
            r#""tools":[{"type":"web_search_20250305"}]"#,
            r#""tools":[{"type":"web_fetch_20250910"}]"#,
            r#""tools":[{"type":"code_execution_20250825"}]"#,
            r#""tools":[{"type":"bash_code_execution_20250825"}]"#,
            r#""tools":[{"type":"mcp_toolset"}]"#,
            r#""tools":[{"type":"computer_20250124"}]"#,
        ],
    },
    Members {
        endpoint: Endpoint::Converse,
        body: r#"{"messages":[{"role":"user","content":[{"text":"a"}]}]}"#,
        count: &[
            r#""messages":[{"role":"user","content":[{"text":"b"}]}]"#,
            r#""system":[{"text":"a"}]"#,
            r#""inferenceConfig":{"maxTokens":1}"#,
            r#""toolConfig":{"tools":[{"toolSpec":{"name":"a"}}]}"#,
            r#""guardrailConfig":{"guardrailIdentifier":"a"}"#,
            r#""additionalModelRequestFields":{"top_k":1}"#,
            r#""additionalModelResponseFieldPaths":["/a"]"#,
            r#""promptVariables":{"a":{"text":"b"}}"#,
            r#""outputConfig":{}"#,
        ],
        left_out: &[
            r#""requestMetadata":{"a":"b"}"#,
            r#""serviceTier":{"type":"flex"}"#,
            r#""performanceConfig":{"latency":"optimized"}"#,
            r#""messages":[{"role":"user","content":[{"text":"a"},{"cachePoint":{"type":"default"}}]}]"#,
        ],
        prevent: &[
            r#""toolConfig":{"tools":[{"systemTool":{"name":"a"}}]}"#,
            r#""messages":[{"content":[{"image":{"source":{"s3Location":{"uri":"s3://a/b"}}}}]}]"#,
        ],
    },
    Members {
        endpoint: Endpoint::GenerateContent,
        body: r#"{"contents":[{"parts":[{"text":"a"}]}]}"#,
        count: &[
            r#""contents":[{"parts":[{"text":"b"}]}]"#,
            r#""systemInstruction":{"parts":[{"text":"a"}]}"#,
            r#""tools":[{"functionDeclarations":[{"name":"a"}]}]"#,
            r#""toolConfig":{"functionCallingConfig":{"mode":"NONE"}}"#,
            r#""safetySettings":[]"#,
            r#""generationConfig":{"temperature":0}"#,
            r#""generationConfig":{"temperature":0,"labels":{}}"#,
            r#""cachedContent":"cachedContents/a""#,
            r#""cachedContent":"cachedContents/b""#,
        ],
        left_out: &[r#""labels":{"a":"b"}"#, r#""serviceTier":"FLEX""#, r#""service_tier":"flex""#, r#""store":true"#],
        prevent: &[
            r#""tools":[{"googleSearch":{}}]"#,
            r#""tools":[{"urlContext":{}}]"#,
            r#""tools":[{"codeExecution":{}}]"#,
            r#""tools":[{"googleMaps":{}}]"#,
            r#""tools":[{"retrieval":{}}]"#,
            r#""tools":[{"computerUse":{}}]"#,
            r#""tools":[{"fileSearch":{}}]"#,
            r#""tools":[{"mcpServers":[]}]"#,
            r#""continuationToken":"a""#,
        ],
    },
    Members {
        endpoint: Endpoint::CohereChat,
        body: r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
        count: &[
            r#""model":"n""#,
            r#""messages":[{"role":"user","content":"b"}]"#,
            r#""message":"a""#,
            r#""chat_history":[]"#,
            r#""preamble":"a""#,
            r#""documents":["a"]"#,
            r#""tools":[]"#,
            r#""tool_choice":"NONE""#,
            r#""strict_tools":true"#,
            r#""response_format":{"type":"json_object"}"#,
            r#""safety_mode":"OFF""#,
            r#""citation_options":{"mode":"OFF"}"#,
            r#""k":1"#,
            r#""p":0.1"#,
            r#""temperature":0"#,
            r#""seed":1"#,
            r#""max_tokens":1"#,
            r#""stop_sequences":["a"]"#,
            r#""frequency_penalty":1"#,
            r#""logprobs":true"#,
            r#""thinking":{"type":"disabled"}"#,
            r#""raw_prompting":true"#,
            r#""stream":true"#,
        ],
        left_out: &[r#""priority":1"#],
        prevent: &[r#""conversation_id":"a""#, r#""connectors":[{"id":"web-search"}]"#],
    },
    Members {
        endpoint: Endpoint::OllamaChat,
        body: r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
        count: &[
            r#""model":"n""#,
            r#""messages":[{"role":"user","content":"a","images":["AA=="]}]"#,
            r#""format":"json""#,
            r#""options":{"num_ctx":1024}"#,
            r#""options":{"seed":1}"#,
            r#""think":false"#,
            r#""tools":[]"#,
            r#""logprobs":true"#,
            r#""stream":false"#,
        ],
        left_out: &[r#""keep_alive":0"#],
        prevent: &[r#""messages":[]"#],
    },
    Members {
        endpoint: Endpoint::OllamaGenerate,
        body: r#"{"model":"m","prompt":"a"}"#,
        count: &[
            r#""prompt":"b""#,
            r#""system":"a""#,
            r#""template":"a""#,
            r#""suffix":"a""#,
            r#""raw":true"#,
            r#""images":["AA=="]"#,
            r#""context":[1,2]"#,
        ],
        left_out: &[r#""keep_alive":"5m""#],
        prevent: &[r#""prompt":"""#],
    },
    Members {
        endpoint: Endpoint::LlamaCppCompletion,
        body: r#"{"prompt":"a"}"#,
        count: &[r#""prompt":"b""#, r#""n_predict":1"#, r#""grammar":"a""#, r#""user":"a""#],
        left_out: &[r#""cache_prompt":false"#, r#""id_slot":1"#],
        prevent: &[r#""n_predict":0"#],
    },
    Members {
        endpoint: Endpoint::TgiGenerate,
        body: r#"{"inputs":"a"}"#,
        count: &[r#""inputs":"b""#, r#""parameters":{"seed":1}"#, r#""user":"a""#],
        left_out: &[],
        prevent: &[],
    },
];

#[test]
fn every_member_counts_is_left_out_or_prevents_as_the_apis_have_it() {
    for Members { endpoint, body, count, left_out, prevent } in MEMBERS {
        let path = ROWS.iter().find(|row| row.endpoints.contains(endpoint)).expect("a row").path;
        let with = |more: &&str| {
            let mut all: Value = serde_json::from_str(body).expect("JSON");
            let more: Value = serde_json::from_str(&format!("{{{more}}}")).expect("members");
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            all.to_string()
        };
        let key = |body: &str| match reuse(*endpoint, path, body) {
            Reuse::Allowed(ignored) => key(body, ignored),
            Reuse::Never => panic!("{endpoint:?} is not cached: {body}"),
        };
        let plain = key(body);
        let mut seen = BTreeMap::from([(plain.to_string(), (*body).to_owned())]);
        for body in count.iter().map(with) {
            if let Some(other) = seen.insert(key(&body).to_string(), body.clone()) {
                panic!("{endpoint:?} has one key for {body} and {other}");
            }
        }
        for body in left_out.iter().map(with) {
            assert_eq!(key(&body), plain, "{endpoint:?}: {body}");
        }
        for body in prevent.iter().map(with) {
            assert_eq!(reuse(*endpoint, path, &body), Reuse::Never, "{endpoint:?}: {body}");
        }
    }
}

#[test]
fn a_request_that_mentions_an_id_is_another_question_than_the_one_answered_with_it() {
    let asked = json!({"model": "m", "messages": [{"role": "user", "content": "what is the weather?"}]});
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
    let mut next = asked.clone();
    let messages = next["messages"].as_array_mut().expect("a list");
    messages.push(json!({"role": "assistant", "tool_calls": [call]}));
    messages.push(json!({"role": "tool", "tool_call_id": "call_1", "content": "sunny"}));
    let mut other_id = next.to_string();
    other_id = other_id.replace("call_1", "call_2");
    let Reuse::Allowed(ignored) = reuse(Endpoint::ChatCompletions, "/", &asked.to_string()) else { panic!("cached") };
    let keys = [asked.to_string(), next.to_string(), other_id].map(|body| key(&body, ignored).to_string());
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}
