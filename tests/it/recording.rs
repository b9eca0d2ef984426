//! Answers recorded once are replayed without provider, key or network: byte for byte, and nothing else is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;
use weir::app;
use weir::config::{Config, Sources};

use crate::support::client::{Answer, collect, collect_broken};
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::fixtures;
use crate::support::socket::{self, Head, Provider};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"What is 2+2?"}]}"#;
const ANSWER: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"4"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
/// No provider is there.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn weir(mode: &str, dir: &Path, url: &str) -> Weir {
    Weir::before_with(url, &format!("cache: {{ mode: {mode}, recordings: \"{}\" }}", dir.display())).await
}

/// The recordings, by the names of their files.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let read = |file: std::fs::DirEntry| {
        (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap())
    };
    files.map(read).collect()
}

/// Records one answer of `script` to [`ASK`].
async fn recorded(dir: &Path, script: Script) {
    let fake = Fake::always(script).await;
    let weir = weir("record", dir, &fake.url()).await;
    weir.post(CHAT, &[], ASK).await;
    weir.stop().await;
}

/// One request, with everything that may be another one the next time.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl<'a> Ask<'a> {
    fn post(path: &'a str, body: &'a [u8]) -> Self {
        Self { method: Method::POST, path, headers: vec![JSON], body }
    }

    async fn send(&self, weir: &Weir, more: &[(&str, &str)]) -> Answer {
        let headers = [&*self.headers, more].concat();
        collect(weir.client.open(self.method.clone(), &weir.url(self.path), &headers, self.body).await).await
    }
}

/// A provider that answers each path in another form; with `stream`, where none is named.
async fn every_kind(stream: Vec<u8>) -> Fake {
    Fake::start(move |asked: &Received| match asked.target.split('?').next().unwrap() {
        "/v1/chat/completions" => Script::json(200, ANSWER),
        "/v1/responses" => Script::sse(&[
            b"event: a\ndata: {\"type\":\"response.comp",
            b"leted\",\"response\":{\"status\":\"completed\"}}\n\n",
        ]),
        "/v1/embeddings" => Script::whole(429, &[JSON, ("retry-after", "7")], b"{\"error\":{\"message\":\"slow\"}}"),
        "/v1/models" => Script::json(200, b"{\n  \"data\": []\n}\n"),
        "/v1/audio/transcriptions" => Script::whole(200, &[("content-type", "text/plain")], "grüß\r\n".as_bytes()),
        "/v1/files/f" => Script::whole(204, &[], b""),
        "/v1beta/models/m:generateContent" => Script::json(500, b"{\"error\":{\"code\":500}}"),
        "/model/m/invoke" => Script::whole(400, &[JSON, ("x-amzn-errortype", "ValidationException")], b"{}"),
        _ => Script::chunked(&[("content-type", "application/vnd.amazon.eventstream")], &[&stream[..9], &stream[9..]]),
    })
    .await
}

/// A form with one file that is no text.
fn form(boundary: &str) -> Vec<u8> {
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n";
    [format!("--{boundary}\r\n{head}").as_bytes(), b"\xff\x00", format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
}

#[tokio::test]
async fn every_kind_of_call_is_replayed_without_provider_key_or_namespace() {
    let binary = std::fs::read(fixtures().join("bedrock/converse_stream.eventstream")).unwrap();
    let fake = every_kind(binary.clone()).await;
    let (one, other) = (form("one"), form("the-other"));
    let upload = |body, content_type| Ask {
        headers: vec![("content-type", content_type)],
        ..Ask::post("/openai/v1/audio/transcriptions", body)
    };
    let asks = |upload, key| {
        [
            Ask::post(CHAT, ASK),
            Ask::post(
                "/openai/v1/responses",
                br#"{"model":"gpt-5-mini","input":"hi","store":true,"stream":true,"tools":[{"type":"web_search"}]}"#,
            ),
            Ask::post("/openai/v1/embeddings", br#"{"model":"e","input":"x"}"#),
            Ask { method: Method::GET, headers: vec![], ..Ask::post("/openai/v1/models?limit=2", b"") },
            upload,
            Ask { method: Method::DELETE, headers: vec![], ..Ask::post("/openai/v1/files/f", b"") },
            Ask::post(key, br#"{"contents":[]}"#),
            Ask::post("/bedrock/model/m/invoke", br#"{"prompt":"hi"}"#),
            Ask::post("/bedrock/model/m/converse-stream", br#"{"messages":[]}"#),
        ]
    };
    let dir = tempfile::tempdir().unwrap();
    let recording = weir("record", &dir.path().join("made"), &fake.url()).await;
    let with_key = "/gemini/v1beta/models/m:generateContent?key=secret&alt=json";
    let mut expected = Vec::new();
    for ask in asks(upload(&one, "multipart/form-data; boundary=one"), with_key) {
        let answer = ask.send(&recording, &[("authorization", "Bearer real"), ("x-cache-namespace", "a")]).await;
        let told = format!("weir; fwd=bypass; fwd-status={}; detail=record", answer.status.as_u16());
        assert_eq!((answer.header("x-cache"), answer.header("cache-status")), ("BYPASS", &*told));
        expected.push(answer);
    }
    recording.stop().await;
    drop(fake);

    let replaying = weir("replay", &dir.path().join("made"), NOWHERE).await;
    let without_key = "/gemini/v1beta/models/m:generateContent?alt=json";
    for (number, ask) in asks(upload(&other, "multipart/form-data; boundary=the-other"), without_key).iter().enumerate()
    {
        let more = [("authorization", "Bearer dummy"), ("openai-project", "ci"), ("accept-encoding", "gzip")];
        let answer = ask.send(&replaying, &more).await;
        let first = &expected[number];
        assert_eq!((answer.status, &answer.body), (first.status, &first.body), "{}", ask.path);
        for name in ["content-type", "x-amzn-errortype"] {
            assert_eq!(answer.header(name), first.header(name), "{}", ask.path);
        }
        assert_eq!((answer.header("x-cache"), answer.header("cache-status")), ("HIT", "weir; hit; detail=replay"));
        assert!(!answer.headers.contains_key("retry-after") && !answer.headers.contains_key("age"), "{}", ask.path);
    }
    assert_eq!(expected[8].body, binary, "a binary stream");
    replaying.stop().await;
}

#[tokio::test]
async fn a_recording_reads_well() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), Script::json(200, b"{\n  \"choices\": [{\"finish_reason\": \"stop\"}]\n}\n")).await;
    let files = files(dir.path());
    let (name, text) = files.first_key_value().unwrap();
    assert!(
        name.starts_with("openai-chat-gpt-5-mini-") && name.len() == "openai-chat-gpt-5-mini-".len() + 17,
        "{name}"
    );
    let expected = r#"{
  "version": 1,
  "request": {
    "method": "POST",
    "provider": "openai",
    "path": "/v1/chat/completions",
    "body": {
      "model": "gpt-5-mini",
      "messages": [
        {
          "role": "user",
          "content": "What is 2+2?"
        }
      ]
    }
  },
  "response": {
    "status": 200,
    "headers": {
      "content-type": "application/json"
    },
    "body": [
      "{\n",
      "  \"choices\": [{\"finish_reason\": \"stop\"}]\n",
      "}\n"
    ]
  }
}
"#;
    assert_eq!(text, expected);
}

#[tokio::test]
async fn no_credential_and_nothing_of_one_exchange_is_written() {
    let theirs = [JSON, ("set-cookie", "s=HUSH-1"), ("x-request-id", "HUSH-2"), ("openai-organization", "HUSH-3")];
    let fake = Fake::always(Script::whole(200, &theirs, ANSWER)).await;
    let dir = tempfile::tempdir().unwrap();
    let weir = weir("record", dir.path(), &fake.url()).await;
    let headers = [
        JSON,
        ("authorization", "Bearer HUSH-4"),
        ("x-api-key", "HUSH-5"),
        ("cookie", "c=HUSH-6"),
        ("openai-organization", "HUSH-7"),
        ("x-cache-namespace", "HUSH-8"),
        ("x-user-id", "HUSH-9"),
        ("x-amz-security-token", "HUSH-10"),
        ("x-goog-api-key", "HUSH-11"),
        ("proxy-authorization", "HUSH-12"),
    ];
    for path in
        [CHAT, "/gemini/v1beta/models/m:generateContent?key=HUSH-13", "/openai/v1/chat/completions?api-key=HUSH-14&b=1"]
    {
        let answer = weir.client.open(Method::POST, &weir.url(path), &headers, ASK).await;
        assert_eq!(collect(answer).await.status, StatusCode::OK);
    }
    let asked = &fake.received()[1];
    assert!(asked.target.contains("HUSH-13") && asked.header("authorization").is_some(), "they reach the provider");
    weir.stop().await;
    let files = files(dir.path());
    assert_eq!(files.len(), 3);
    for (name, text) in files {
        assert!(!text.contains("HUSH") && !name.contains("HUSH"), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_miss_says_what_differs_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), Script::json(200, ANSWER)).await;
    let name = files(dir.path()).into_keys().next().unwrap();
    let weir = weir("replay", dir.path(), NOWHERE).await;
    let other = String::from_utf8(ASK.to_vec()).unwrap().replace("2+2", "2+3");
    let here = dir.path().display();
    let fix = "to record it, run once with `cache.mode: record`";
    let nearest = format!(
        "weir has no recording of this request in `{here}`; the nearest, {name}, differs: /messages/0/content: recorded \
         \"What is 2+2?\", asked \"What is 2+3?\"; {fix}"
    );
    let none = format!("weir has no recording in `{here}` of POST /v1/messages to provider `anthropic`: {fix}");

    let answer = weir.post(CHAT, &[], other.as_bytes()).await;
    assert_eq!((answer.status, answer.header("x-cache")), (StatusCode::NOT_FOUND, "MISS"));
    assert_eq!(answer.header("cache-status"), "weir; detail=\"no_recording\"");
    let error = &answer.json()["error"];
    assert_eq!((error["code"].as_str(), error["message"].as_str()), (Some("no_recording"), Some(&*nearest)));

    let answer = weir.post("/anthropic/v1/messages", &[], ASK).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let error = &answer.json()["error"];
    assert_eq!((error["type"].as_str(), error["message"].as_str()), (Some("not_found_error"), Some(&*none)));

    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "HIT");
    weir.settled().await;
    let ended = |outcome| {
        format!(r#"weir_requests_total{{provider="openai",model="gpt-5-mini",operation="chat",outcome="{outcome}"}}"#)
    };
    assert_eq!(weir.metric(&ended("client_error")).await, 1.0);
    assert_eq!(weir.metric(&ended("success")).await, 1.0);
    let hits = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
    assert_eq!(weir.metric(hits).await, 1.0);
    assert_eq!(weir.metric_sum("weir_tokens_saved_total{").await, 15.0, "the recording says what it used");
    for nothing in
        ["weir_cost_usd_total{", "weir_tokens_total{", "weir_upstream_requests_total{", "weir_unpriced_requests_total{"]
    {
        assert_eq!(weir.metric_sum(nothing).await, 0.0, "{nothing}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn of_equal_requests_the_last_answer_stays() {
    let dir = tempfile::tempdir().unwrap();
    for answer in [&b"{\"n\":1}"[..], b"{\"n\":2}"] {
        recorded(dir.path(), Script::json(404, answer)).await;
    }
    assert_eq!(files(dir.path()).len(), 1);
    let weir = weir("replay", dir.path(), NOWHERE).await;
    let spelt = br#"{"messages":[{"content":"What is 2+\u0032?","role":"user"}],"user":"u","model":"gpt-5-mini"}"#;
    assert_eq!(weir.post(CHAT, &[], spelt).await.body, "{\"n\":2}");
    weir.stop().await;
}

#[tokio::test]
async fn what_broke_off_is_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let begun =
        Script::begin_sse().pieces(&[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n"]);
    let ask = br#"{"model":"gpt-5-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    for script in [begun.clone().then(Step::Reset), begun.clone().end()] {
        let fake = Fake::always(script).await;
        let weir = weir("record", dir.path(), &fake.url()).await;
        collect_broken(weir.client.open(Method::POST, &weir.url(CHAT), &[JSON], ask).await).await;
        weir.stop().await;
    }
    let fake = Fake::always(begun.then(Step::Hang)).await;
    let weir = weir("record", dir.path(), &fake.url()).await;
    drop(weir.client.open(Method::POST, &weir.url(CHAT), &[JSON], ask).await);
    weir.stop().await;
    assert_eq!(files(dir.path()), BTreeMap::new());
}

#[tokio::test]
async fn a_reply_too_large_for_a_recording_passes_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::always(Script::json(200, &[b' '; 3000])).await;
    let config = format!(
        "cache: {{ mode: record, recordings: \"{}\" }}\ncalls: {{ max_reply_bytes: 2KiB }}",
        dir.path().display()
    );
    let weir = Weir::before_with(&fake.url(), &config).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.body, vec![b' '; 3000]);
    weir.stop().await;
    assert_eq!(files(dir.path()), BTreeMap::new());
}

#[tokio::test]
async fn a_directory_that_goes_away_costs_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("recordings");
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = weir("record", &place, &fake.url()).await;
    std::fs::remove_dir(&place).unwrap();
    for _ in 0..3 {
        assert_eq!(weir.post(CHAT, &[], ASK).await.body, ANSWER);
    }
    weir.stop().await;
    assert!(!place.exists());
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_is_never_sent_to_a_provider_in_replay() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let config = |mode| {
        format!(
            "cache: {{ mode: {mode}, recordings: \"{}\" }}\ncalls: {{ max_request_bytes: 1KiB }}",
            dir.path().display()
        )
    };
    let large = vec![b' '; 2000];
    let weir = Weir::before_with(&fake.url(), &config("record")).await;
    let answer = weir.post(CHAT, &[], &large).await;
    assert_eq!(
        (answer.status, answer.header("cache-status")),
        (StatusCode::OK, "weir; fwd=bypass; fwd-status=200; detail=unread")
    );
    weir.stop().await;
    let weir = Weir::before_with(&fake.url(), &config("replay")).await;
    let answer = weir.post(CHAT, &[], &large).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let expected = "weir has no recording of this request: its body is larger than `calls.max_request_bytes`";
    assert_eq!(answer.json()["error"]["message"], expected);
    weir.stop().await;
    assert_eq!(fake.received().len(), 1);
    assert_eq!(files(dir.path()), BTreeMap::new());
}

#[tokio::test]
async fn a_session_passes_unrecorded_and_is_refused_in_replay() {
    const PATH: &str = "/openai/v1/realtime?model=gpt-realtime";
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let recording = weir("record", dir.path(), &provider.url()).await;
    drop(socket::session(&recording.app, &provider, PATH).await);
    recording.stop().await;
    assert_eq!(files(dir.path()), BTreeMap::new());

    let replaying = weir("replay", dir.path(), &provider.url()).await;
    let mut app = socket::ask(&replaying.app, PATH, "connection: close\r\n").await;
    assert_eq!(Head::read(&mut app).await.first_line(), "HTTP/1.1 404 Not Found");
    let body = String::from_utf8(socket::rest(app).await).unwrap();
    assert!(body.contains("WebSocket sessions are not recorded") && body.contains("no_recording"), "{body}");
    replaying.stop().await;
}

/// What is wrong with what `yaml` names.
fn check(yaml: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.yaml");
    std::fs::write(&path, yaml).unwrap();
    let sources = Sources { file: Some(path), ..Sources::default() };
    app::check(&Config::load(&sources).unwrap()).map_or_else(|error| error.to_string(), |()| String::new())
}

#[tokio::test]
async fn everything_wrong_with_a_directory_is_said_before_weir_starts() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), Script::json(200, ANSWER)).await;
    let (name, text) = files(dir.path()).pop_first().unwrap();
    let here = dir.path().display();
    let config = format!("cache: {{ mode: replay, recordings: \"{here}\" }}");
    assert_eq!(check(&config), "");

    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("a.json", &text);
    put("b.json", &text.replace("\"openai\"", "\"elsewhere\""));
    let expected = format!(
        "cache.recordings: 2 files cannot be replayed:\n\
         {here}/b.json: there is no provider `elsewhere`: configure it below `providers`, or remove the file\n\
         {here}/{name}: its request is the same as that of a.json: remove one"
    );
    assert_eq!(check(&config), expected);

    put("c.json", &text.replace("200", "\"200\""));
    put("d.txt", "notes");
    let expected = format!(
        "cache.recordings: 2 files cannot be replayed:\n\
         {here}/c.json:18: invalid type: string \"200\", expected u16\n{here}/d.txt:1: expected ident"
    );
    assert_eq!(check(&config), expected);

    let absent = check("cache: { mode: replay, recordings: /absent/recordings }");
    let expected =
        "cache.recordings: /absent/recordings: there is no such directory: record first, with `cache.mode: record`";
    assert_eq!(absent, expected);
}

#[tokio::test]
async fn a_check_makes_no_directory_and_a_start_does() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("a/b");
    assert_eq!(check(&format!("cache: {{ mode: record, recordings: \"{}\" }}", place.display())), "");
    assert!(!place.exists());
    weir("record", &place, NOWHERE).await.stop().await;
    assert!(place.is_dir());
}

#[tokio::test]
async fn a_stream_is_recorded_with_its_pieces() {
    let pieces: [&[u8]; 2] = [
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"4\"}}]}\n\n",
        b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ];
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), Script::sse(&pieces)).await;
    let text = files(dir.path()).into_values().next().unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let response = &file["response"];
    let lines: Vec<&str> = response["body"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(lines.concat().as_bytes(), pieces.concat());
    assert!(lines.contains(&"data: [DONE]\n"), "{lines:?}");
    let timed = response["timing"].as_array().unwrap().iter().map(|piece| piece[0].as_u64().unwrap()).sum::<u64>();
    assert_eq!(timed, pieces.concat().len() as u64);
    // As if the second piece had come 400 ms after the first.
    let (one, two) = (pieces[0].len(), pieces[1].len());
    let (before, _) = text.split_once("\"timing\": ").unwrap();
    let edited = format!("{before}\"timing\": [[{one}, 0], [{two}, 400]] }} }}");
    std::fs::write(dir.path().join(files(dir.path()).keys().next().unwrap()), edited).unwrap();
    for (replay, takes_time) in [("instant", false), ("recorded", true)] {
        let here = dir.path().display();
        let cache = format!("cache: {{ mode: replay, recordings: \"{here}\", replay: {replay} }}");
        let weir = Weir::before_with(NOWHERE, &cache).await;
        let begun = Instant::now();
        assert_eq!(weir.post(CHAT, &[], ASK).await.body, Bytes::from(pieces.concat()));
        assert!(!takes_time || begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_member_that_decides_whether_an_answer_may_be_reused_is_not_ignored() {
    const RESPONSES: &str = "/openai/v1/responses";
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|asked: &Received| Script::json(200, &asked.body)).await;
    let asks: [&[u8]; 3] =
        [br#"{"input":"a"}"#, br#"{"input":"a","store":false}"#, br#"{"input":"a","store":false,"background":true}"#];
    let recording = weir("record", dir.path(), &fake.url()).await;
    for ask in asks {
        recording.post(RESPONSES, &[], ask).await;
    }
    recording.stop().await;
    let replaying = weir("replay", dir.path(), NOWHERE).await;
    for ask in asks {
        assert_eq!(replaying.post(RESPONSES, &[], ask).await.body, ask);
    }
    replaying.stop().await;
}

#[tokio::test]
async fn rules_of_the_cache_and_what_replicas_share_have_no_part() {
    let (dir, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = secrets.path().join("secret");
    std::fs::write(&secret, [b's'; 64]).unwrap();
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    for (mode, url, expected) in [("record", fake.url(), "BYPASS"), ("replay", NOWHERE.to_owned(), "HIT")] {
        let here = dir.path().display();
        let redis = format!("redis: {{ url: \"redis://127.0.0.1:1\", secret_file: \"{}\" }}", secret.display());
        let cache = format!("cache: {{ mode: {mode}, recordings: \"{here}\", rules: [{{ mode: all }}], {redis} }}");
        let weir = Weir::before_with(&url, &cache).await;
        for directive in ["max-age=60", "only-if-cached", "no-store"] {
            let answer = weir.post(CHAT, &[("cache-control", directive)], ASK).await;
            assert_eq!((answer.status, answer.header("x-cache")), (StatusCode::OK, expected), "{directive}");
        }
        assert!(!weir.metrics().await.contains("weir_shared_store_up "), "{mode}");
        weir.stop().await;
    }
    assert_eq!(fake.received().len(), 3);
}
