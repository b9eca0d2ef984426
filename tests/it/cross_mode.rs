//! With `cache.cross_mode`, a call that streams and one that does not share an answer, each in the form it asked for.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::client::Answer;
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CROSS: &str = "cache: { cross_mode: true }";
const KEY: (&str, &str) = ("authorization", "Bearer a");
const CHAT: &str = "/openai/v1/chat/completions";
const WHOLE: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const QUIET: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const ASKING: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}"#;
const ANSWER: &[u8] = br#"{"id":"c","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Titan."},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const BEGIN: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Ti\"},\"finish_reason\":null}],\"usage\":null}\n\n\
    data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tan.\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A provider that answers each call in the form it asks for; with usage on streams that ask for it.
async fn openai() -> Fake {
    Fake::start(|received: &Received| {
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        if body["stream"] != json!(true) {
            return Script::json(200, ANSWER);
        }
        let usage = if body["stream_options"]["include_usage"] == json!(true) { USAGE } else { "" };
        Script::sse(
            &[BEGIN.as_bytes(), usage.as_bytes(), DONE.as_bytes()]
                .map(|piece| piece)
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .collect::<Vec<_>>(),
        )
    })
    .await
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// That it was answered from another form.
fn assert_rendered(answer: &Answer, content_type: &str) {
    assert_eq!(answer.header("x-cache"), "HIT", "{answer:?}");
    assert!(answer.header("cache-status").ends_with("; detail=rendered"), "{answer:?}");
    assert_eq!(answer.header("content-type"), content_type);
    assert!(answer.headers.get("content-encoding").is_none());
}

#[tokio::test]
async fn without_it_each_form_is_an_answer_of_its_own() {
    let fake = openai().await;
    let weir = Weir::before(&fake.url()).await;
    for ask in [WHOLE, QUIET, ASKING] {
        assert_eq!(weir.post(CHAT, &[KEY], ask).await.header("x-cache"), "MISS");
        assert_eq!(weir.post(CHAT, &[KEY], ask).await.header("x-cache"), "HIT");
    }
    assert_eq!(fake.received().len(), 3);
    weir.stop().await;
}

#[tokio::test]
async fn an_answer_in_one_piece_is_streamed_to_who_streams() {
    let fake = openai().await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    weir.post(CHAT, &[KEY], WHOLE).await;
    let head =
        r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-5-mini","choices":[{"index":0,"delta":"#;
    let chunks = |end: &str| {
        let deltas = [r#"{"role":"assistant","content":""}"#, r#"{"content":"Titan."}"#, "{}"];
        let reasons = ["null", "null", "\"stop\""];
        let chunk = |(delta, reason)| format!("data: {head}{delta},\"finish_reason\":{reason}}}]{end}\n\n");
        deltas.into_iter().zip(reasons).map(chunk).collect::<String>()
    };
    let quiet = weir.post(CHAT, &[KEY], QUIET).await;
    assert_rendered(&quiet, "text/event-stream; charset=utf-8");
    assert_eq!(text(&quiet), format!("{}{DONE}", chunks("}")));
    let asking = weir.post(CHAT, &[KEY], ASKING).await;
    assert_rendered(&asking, "text/event-stream; charset=utf-8");
    assert_eq!(text(&asking), format!("{}{USAGE}{DONE}", chunks(",\"usage\":null}")));
    let again = weir.post(CHAT, &[KEY], WHOLE).await;
    assert_eq!((again.header("x-cache"), &again.body[..]), ("HIT", ANSWER), "as it came");
    assert!(!again.header("cache-status").contains("detail"));
    assert_eq!(fake.received().len(), 1);
    assert_eq!(weir.metric_sum("weir_tokens_saved_total{").await, 45.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_answers_who_wants_one_piece_and_who_wants_to_know_the_usage() {
    for (first, others) in [(QUIET, [ASKING, WHOLE]), (ASKING, [QUIET, WHOLE])] {
        let fake = openai().await;
        let weir = Weir::before_with(&fake.url(), CROSS).await;
        let came = weir.post(CHAT, &[KEY], first).await;
        let again = weir.post(CHAT, &[KEY], first).await;
        assert_eq!((again.header("x-cache"), &again.body), ("HIT", &came.body), "byte for byte what it was");
        assert!(!again.header("cache-status").contains("detail"), "{again:?}");
        for other in others {
            let answer = weir.post(CHAT, &[KEY], other).await;
            assert_eq!(answer.header("x-cache"), "HIT");
            match other {
                QUIET => assert_eq!(text(&answer), format!("{BEGIN}{DONE}")),
                ASKING => assert_eq!(text(&answer), format!("{BEGIN}{USAGE}{DONE}")),
                _ => {
                    assert_rendered(&answer, "application/json");
                    let body: Value = serde_json::from_slice(&answer.body).unwrap();
                    assert_eq!(body, serde_json::from_slice::<Value>(ANSWER).unwrap());
                }
            }
        }
        assert_eq!(fake.received().len(), 1);
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_told_in_the_other_form_is_asked_for_and_both_are_kept() {
    let sound =
        String::from_utf8(ANSWER.to_vec()).unwrap().replace("\"content\":", "\"audio\":{\"id\":\"a\"},\"content\":");
    let fake = Fake::start(move |received: &Received| {
        let streams = received.body.ends_with(b"\"stream\":true}") || received.body.ends_with(b"}}");
        if streams { Script::sse(&[BEGIN.as_bytes(), DONE.as_bytes()]) } else { Script::json(200, sound.as_bytes()) }
    })
    .await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    for (ask, first) in [(WHOLE, "MISS"), (QUIET, "MISS"), (WHOLE, "HIT"), (QUIET, "HIT")] {
        assert_eq!(weir.post(CHAT, &[KEY], ask).await.header("x-cache"), first);
    }
    assert_eq!(fake.received().len(), 2);
    weir.stop().await;
}

#[tokio::test]
async fn only_the_form_is_left_out_of_the_question() {
    let fake = openai().await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    weir.post(CHAT, &[KEY], WHOLE).await;
    let other = String::from_utf8(QUIET.to_vec()).unwrap().replace("hi", "Hi");
    let options = String::from_utf8(ASKING.to_vec()).unwrap().replace("include_usage", "continuous_usage_stats");
    let strangers: [(_, &[_], &[u8]); 6] = [
        ("another credential", &[("authorization", "Bearer b")], QUIET),
        ("a namespace", &[KEY, ("x-cache-namespace", "team")], QUIET),
        ("a project", &[KEY, ("openai-project", "p")], QUIET),
        ("another coding", &[KEY, ("accept-encoding", "gzip")], QUIET),
        ("another question", &[KEY], other.as_bytes()),
        ("options of a stream that weir does not know", &[KEY], options.as_bytes()),
    ];
    for (rule, headers, ask) in strangers {
        assert_eq!(weir.post(CHAT, headers, ask).await.header("x-cache"), "MISS", "{rule}");
    }
    assert_eq!(weir.post("/local/v1/chat/completions", &[KEY], QUIET).await.header("x-cache"), "MISS");
    weir.stop().await;
}

#[tokio::test]
async fn an_answer_that_came_compressed_is_told_plain() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(ANSWER).unwrap();
    let coded = encoder.finish().unwrap();
    let head = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let fake = Fake::always(Script::whole(200, &head, &coded)).await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    let accepts = ("accept-encoding", "gzip");
    assert_eq!(weir.post(CHAT, &[KEY, accepts], WHOLE).await.body, coded);
    let stream = weir.post(CHAT, &[KEY, accepts], QUIET).await;
    assert_rendered(&stream, "text/event-stream; charset=utf-8");
    assert!(text(&stream).contains("Titan.") && text(&stream).ends_with(DONE));
    weir.stop().await;
}

#[tokio::test]
async fn a_call_that_wants_a_stored_answer_only_gets_one_of_another_form() {
    let fake = openai().await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    let only = ("cache-control", "only-if-cached");
    assert_eq!(weir.post(CHAT, &[KEY, only], QUIET).await.status, 504);
    weir.post(CHAT, &[KEY], WHOLE).await;
    assert_rendered(&weir.post(CHAT, &[KEY, only], QUIET).await, "text/event-stream; charset=utf-8");
    let fresh = weir.post(CHAT, &[KEY, ("cache-control", "no-cache")], QUIET).await;
    assert_eq!(text(&fresh), format!("{BEGIN}{DONE}"), "asked for anew, as it came");
    weir.stop().await;
}

#[tokio::test]
async fn a_call_that_wants_nothing_transformed_gets_nothing_rendered() {
    let fake = openai().await;
    let weir = Weir::before_with(&fake.url(), CROSS).await;
    let untouched = ("cache-control", "no-transform");
    weir.post(CHAT, &[KEY], WHOLE).await;
    assert_eq!(weir.post(CHAT, &[KEY, untouched], QUIET).await.header("x-cache"), "MISS");
    assert_eq!(weir.post(CHAT, &[KEY, untouched], QUIET).await.header("x-cache"), "HIT", "the same form, as it came");
    assert_eq!(weir.post(CHAT, &[KEY, untouched], WHOLE).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn calls_in_flight_join_calls_of_their_own_form_only() {
    let go_on = Arc::new(Notify::new());
    let held = Arc::clone(&go_on);
    let fake = Fake::start(move |received: &Received| {
        let streams = received.body.ends_with(b"\"include_usage\":true}}");
        let stream = [BEGIN, USAGE, DONE].concat();
        let answer = if streams { Script::sse(&[stream.as_bytes()]) } else { Script::json(200, ANSWER) };
        answer.after(Step::Wait(Arc::clone(&held)))
    })
    .await;
    let weir = Arc::new(Weir::before_with(&fake.url(), CROSS).await);
    let calls: Vec<_> = [WHOLE, ASKING, WHOLE, ASKING]
        .map(|ask| {
            let weir = Arc::clone(&weir);
            tokio::spawn(async move { weir.post(CHAT, &[KEY], ask).await })
        })
        .into_iter()
        .collect();
    until("one call of each form is asked", || fake.received().len() == 2).await;
    go_on.notify_one();
    go_on.notify_one();
    for (number, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        let expected = if number % 2 == 0 { "application/json" } else { "text/event-stream" };
        assert_eq!(answer.header("content-type"), expected);
    }
    assert_eq!(fake.received().len(), 2);
    Arc::into_inner(weir).unwrap().stop().await;
}

/// One question in an API: the calls in either form, and the provider's answers.
struct Question {
    api: &'static str,
    whole: (&'static str, &'static str, &'static str),
    stream: (&'static str, &'static str, String),
    content_type: &'static str,
}

fn events(events: &[(&str, &str)]) -> String {
    let named: Vec<String> = events.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect();
    named.concat()
}

fn questions() -> impl Iterator<Item = Question> {
    let [gemini, gemini_list] = of_gemini();
    [of_anthropic(), gemini, gemini_list, of_cohere(), of_ollama()].into_iter()
}

fn of_anthropic() -> Question {
    Question {
        api: "Anthropic",
        whole: (
            "/anthropic/v1/messages",
            r#"{"model":"m","max_tokens":9,"messages":[]}"#,
            r#"{"id":"msg","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Titan."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#,
        ),
        stream: (
            "/anthropic/v1/messages",
            r#"{"model":"m","max_tokens":9,"messages":[],"stream":true}"#,
            events(&[
                (
                    "message_start",
                    r#"{"type":"message_start","message":{"id":"msg","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}}"#,
                ),
                (
                    "content_block_start",
                    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                ),
                (
                    "content_block_delta",
                    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Titan."}}"#,
                ),
                ("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
                (
                    "message_delta",
                    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":3,"output_tokens":2}}"#,
                ),
                ("message_stop", r#"{"type":"message_stop"}"#),
            ]),
        ),
        content_type: "text/event-stream; charset=utf-8",
    }
}

fn of_gemini() -> [Question; 2] {
    [
        Question {
            api: "Gemini, events",
            whole: (
                "/gemini/v1beta/models/m:generateContent",
                r#"{"contents":[]}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"Titan."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3}}"#,
            ),
            stream: (
                "/gemini/v1beta/models/m:streamGenerateContent?alt=sse",
                r#"{"contents":[]}"#,
                concat!(
                    r#"data: {"candidates":[{"content":{"parts":[{"text":"Titan."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3}}"#,
                    "\r\n\r\n"
                )
                .to_owned(),
            ),
            content_type: "text/event-stream",
        },
        Question {
            api: "Gemini, a list",
            whole: (
                "/gemini/v1beta/models/m:generateContent?key=k",
                r#"{"contents":[]}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"Titan."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3}}"#,
            ),
            stream: (
                "/gemini/v1beta/models/m:streamGenerateContent?key=k",
                r#"{"contents":[]}"#,
                r#"[{"candidates":[{"content":{"parts":[{"text":"Titan."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3}}]"#.to_owned(),
            ),
            content_type: "application/json; charset=UTF-8",
        },
    ]
}

fn of_cohere() -> Question {
    Question {
        api: "Cohere",
        whole: (
            "/cohere/v2/chat",
            r#"{"model":"m","messages":[]}"#,
            r#"{"id":"a","message":{"role":"assistant","content":[{"type":"text","text":"Titan."}]},"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":3}}}"#,
        ),
        stream: (
            "/cohere/v2/chat",
            r#"{"model":"m","messages":[],"stream":true}"#,
            events(&[
                (
                    "message-start",
                    r#"{"id":"a","type":"message-start","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#,
                ),
                (
                    "content-start",
                    r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
                ),
                (
                    "content-delta",
                    r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Titan."}}}}"#,
                ),
                ("content-end", r#"{"type":"content-end","index":0}"#),
                (
                    "message-end",
                    r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":3}}}}"#,
                ),
            ]) + DONE,
        ),
        content_type: "text/event-stream; charset=utf-8",
    }
}

fn of_ollama() -> Question {
    Question {
            api: "Ollama",
            whole: (
                "/ollama/api/generate",
                r#"{"model":"m","prompt":"hi","stream":false}"#,
                r#"{"model":"m","created_at":"t","response":"Titan.","done":true,"done_reason":"stop","eval_count":2}"#,
            ),
            stream: (
                "/ollama/api/generate",
                r#"{"model":"m","prompt":"hi"}"#,
                "{\"model\":\"m\",\"created_at\":\"t\",\"response\":\"Titan.\",\"done\":false}\n\
                 {\"model\":\"m\",\"created_at\":\"t\",\"response\":\"\",\"done\":true,\"done_reason\":\"stop\",\"eval_count\":2}\n"
                    .to_owned(),
            ),
            content_type: "application/x-ndjson",
        }
}

#[tokio::test]
async fn in_every_api_either_form_answers_the_other() {
    for Question { api, whole: (path, ask, reply), stream: (stream_path, stream_ask, stream), content_type } in
        questions()
    {
        let fake = Fake::always(Script::json(200, reply.as_bytes())).await;
        let weir = Weir::before_with(&fake.url(), CROSS).await;
        weir.post(path, &[KEY], ask.as_bytes()).await;
        let streamed = weir.post(stream_path, &[KEY], stream_ask.as_bytes()).await;
        assert_rendered(&streamed, content_type);
        assert_eq!(text(&streamed), stream, "{api}");
        assert_eq!(fake.received().len(), 1, "{api}");
        weir.stop().await;

        let fake = Fake::always(Script::chunked(&[("content-type", content_type)], &[stream.as_bytes()])).await;
        let weir = Weir::before_with(&fake.url(), CROSS).await;
        weir.post(stream_path, &[KEY], stream_ask.as_bytes()).await;
        let whole = weir.post(path, &[KEY], ask.as_bytes()).await;
        assert_rendered(&whole, "application/json");
        let (found, expected): (Value, Value) =
            (serde_json::from_slice(&whole.body).unwrap(), serde_json::from_str(reply).unwrap());
        assert_eq!(found, expected, "{api}");
        assert_eq!(fake.received().len(), 1, "{api}");
        weir.stop().await;
    }
}
