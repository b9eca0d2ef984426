//! Every fixture through the whole house: what the app reads is what the provider wrote, wherever the bytes are cut,
//! but for the usage chunk that weir asked for. Tokens in the metrics are the fixture's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::support::client::{Answer, collect};
use crate::support::fake::{Fake, Received, Script};
use crate::support::fixtures;
use crate::support::weir::Weir;

/// One recorded exchange.
#[derive(Clone)]
struct Fixture {
    name: String,
    /// Where the app asks: the folder is the provider, the rest is in the request.
    path: String,
    status: u16,
    request: Value,
    /// Whether the request is a form.
    is_form: bool,
    /// Of the reply.
    headers: Vec<(String, String)>,
    reply: Vec<u8>,
    is_stream: bool,
    golden: Value,
}

/// The folders of fixtures.
const FOLDERS: [&str; 21] = [
    "anthropic",
    "azure",
    "cerebras",
    "cohere",
    "databricks",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "huggingface",
    "local",
    "mistral",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "perplexity",
    "together",
    "vertex",
    "vllm",
    "xai",
];

/// The folders of vendors that are asked for no usage on streams: Cohere refuses, the others tell it anyway.
const UNASKED: [&str; 7] =
    ["/cohere/", "/deepseek/", "/fireworks/", "/groq/", "/mistral/", "/openrouter/", "/perplexity/"];

/// Separates the parts of a form.
const BOUNDARY: &str = "weir-fixture-boundary";

impl Fixture {
    fn read(request: &Path) -> Self {
        let name = request.file_name().unwrap().to_str().unwrap().trim_end_matches(".request.json").to_owned();
        let beside = |ending: &str| request.with_file_name(format!("{name}{ending}"));
        let kinds = [
            (".response.json", "application/json"),
            (".sse", "text/event-stream"),
            (".stream.json", "application/json; charset=UTF-8"),
            (".ndjson", "application/x-ndjson"),
            (".txt", "text/plain"),
            (".mp3", "audio/mpeg"),
        ];
        let (reply, content_type) = kinds.into_iter().find(|(ending, _)| beside(ending).exists()).unwrap();
        let json = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
        let asked = json(request);
        let more = beside(".headers.json");
        let more = if more.exists() { json(&more) } else { Value::Null };
        let more = more.as_object().into_iter().flatten();
        let mut headers: Vec<_> =
            more.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), content_type.to_owned()));
        }
        let provider = request.parent().unwrap().file_name().unwrap().to_str().unwrap();
        Self {
            path: format!("/{provider}{}", asked["path"].as_str().unwrap()),
            status: name.rsplit('_').next().and_then(|last| last.parse().ok()).unwrap_or(200),
            is_form: asked["form"].is_object(),
            request: if asked["form"].is_object() { asked["form"].clone() } else { asked["body"].clone() },
            headers,
            reply: std::fs::read(beside(reply)).unwrap(),
            is_stream: !matches!(reply, ".response.json" | ".txt" | ".mp3"),
            golden: json(&beside(".record.json")),
            name: format!("{provider}/{name}"),
        }
    }

    fn all() -> Vec<Self> {
        let mut requests: Vec<PathBuf> = FOLDERS
            .iter()
            .flat_map(|provider| std::fs::read_dir(fixtures().join(provider)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(".request.json"))
            .collect();
        requests.sort();
        assert!(requests.len() > 150, "the fixtures are there");
        requests.iter().map(|request| Self::read(request)).collect()
    }

    /// What the app is to read: everything, but for a usage chunk it did not ask for.
    fn expected(&self) -> Vec<u8> {
        let asks =
            self.golden["asked"]["usage"] == "missing" && !UNASKED.iter().any(|vendor| self.path.starts_with(vendor));
        let counts = asks && self.request["stream"] == true;
        if !self.is_stream || !counts || self.request["stream_options"]["include_usage"] == true {
            return self.reply.clone();
        }
        let text = String::from_utf8(self.reply.clone()).unwrap();
        let events = text.split_inclusive("\n\n").filter(|event| !is_usage_chunk(event));
        events.collect::<String>().into_bytes()
    }

    /// What the app sends.
    fn body(&self) -> Vec<u8> {
        let Some(fields) = self.request.as_object().filter(|_| self.is_form) else {
            return self.request.to_string().into_bytes();
        };
        let part = |(name, text): (&String, &Value)| {
            let head = format!("Content-Disposition: form-data; name=\"{name}\"");
            format!("--{BOUNDARY}\r\n{head}\r\n\r\n{}\r\n", text.as_str().unwrap())
        };
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: audio/mpeg";
        let file = [format!("--{BOUNDARY}\r\n{file}\r\n\r\n").as_bytes(), b"\xff\x00\r\n\xfe"].concat();
        let fields: String = fields.iter().map(part).collect();
        [fields.as_bytes(), &file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
    }

    /// The reply that the app gets when the provider sends the one of fixture `number` in two pieces.
    async fn ask(&self, weir: &Weir, number: usize, cut: usize) -> Answer {
        let (number, cut) = (number.to_string(), cut.to_string());
        let form = format!("multipart/form-data; boundary={BOUNDARY}");
        let headers = [
            ("content-type", if self.is_form { form.as_str() } else { "application/json" }),
            ("cache-control", "no-store"),
            ("x-fixture", number.as_str()),
            ("x-cut", cut.as_str()),
        ];
        let (url, body) = (weir.url(&self.path), self.body());
        collect(weir.client.open(Method::POST, &url, &headers, &body).await).await
    }

    /// Whether it is a stream that ends before the model does.
    fn breaks_off(&self) -> bool {
        let said = &self.golden["said"];
        let finished = said["finish_reasons"].as_array().is_some_and(|reasons| !reasons.is_empty());
        self.is_stream && said["ending"] == "unfinished" && !finished
    }

    /// How far one cut is from the next. A reply that weir changes is cut at every byte; one that only passes need not
    /// be: that reading it does not depend on cuts is proved where it is read.
    fn stride(&self) -> usize {
        if self.golden["asked"]["usage"] == "missing" { 1 } else { 13 }
    }

    /// The script that sends this reply in two pieces.
    fn cut_at(&self, at: usize) -> Script {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (one, two) = self.reply.split_at(at);
        if self.status == 200 {
            Script::chunked(&headers, &[one, two])
        } else {
            Script::whole(self.status, &headers, &self.reply)
        }
    }
}

fn is_usage_chunk(event: &str) -> bool {
    let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_default();
    serde_json::from_str::<Value>(data).is_ok_and(|chunk| {
        chunk["choices"].as_array().is_some_and(Vec::is_empty)
            && !chunk["usage"].is_null()
            && chunk.get("moderation").is_none_or(Value::is_null)
            && chunk.get("prompt_filter_results").is_none_or(Value::is_null)
    })
}

/// A weir before a provider of every folder at `url`.
async fn weir_before(url: &str, cache: &str) -> Weir {
    let others = ["databricks", "vllm"].map(|name| format!("  {name}: {{ api: openai, base_url: \"{url}\" }}\n"));
    let azure = format!("  azure: {{ api: azure_openai, base_url: \"{url}\" }}\n");
    let calls = "telemetry: { log: { calls: none } }\ncalls: { estimate_usage: false }\n";
    Weir::before_with(url, &format!("{}{azure}{calls}{cache}", others.concat())).await
}

/// Every fixture's provider in one, and a weir before it.
struct Stage {
    fixtures: Vec<Fixture>,
    weir: Weir,
    provider: Fake,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with("").await
    }

    /// The same, with this of the cache.
    async fn set_with(cache: &str) -> Self {
        let fixtures = Fixture::all();
        let scripts = fixtures.clone();
        let provider = Fake::start(move |asked: &Received| {
            let number = |name: &str| asked.header(name).unwrap().parse::<usize>().unwrap();
            scripts[number("x-fixture")].cut_at(number("x-cut"))
        })
        .await;
        Self { fixtures, weir: weir_before(&provider.url(), cache).await, provider }
    }

    /// The same without the provider, and with another of the cache.
    async fn without_provider(self, cache: &str) -> (Vec<Fixture>, Weir) {
        self.weir.stop().await;
        drop(self.provider);
        (self.fixtures, weir_before("http://127.0.0.1:1", cache).await)
    }

    /// The reply of the fixture with this number, as the app gets it when the provider sends it in two pieces.
    async fn ask(&self, number: usize, cut: usize) -> Answer {
        self.fixtures[number].ask(&self.weir, number, cut).await
    }

    async fn passes_untouched(&self, number: usize) {
        let fixture = &self.fixtures[number];
        let expected = fixture.expected();
        let cuts = if fixture.status == 200 { fixture.reply.len() } else { 0 };
        for at in (0..=cuts).step_by(fixture.stride()) {
            let answer = self.ask(number, at).await;
            assert_eq!(answer.status.as_u16(), fixture.status, "{}", fixture.name);
            assert!(answer.body == expected, "{} cut at {at}: {:?}", fixture.name, answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reply_reaches_the_app_as_it_was_written_wherever_it_is_cut() {
    let stage = Arc::new(Stage::set().await);
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..stage.fixtures.len() {
        let stage = Arc::clone(&stage);
        asking.spawn(async move { stage.passes_untouched(number).await });
    }
    asking.join_all().await;
    Arc::into_inner(stage).unwrap().weir.stop().await;
}

#[tokio::test]
async fn tokens_in_the_metrics_are_the_fixtures() {
    let stage = Stage::set().await;
    let mut counted = 0.0;
    for (number, fixture) in stage.fixtures.iter().enumerate() {
        stage.ask(number, 0).await;
        stage.weir.settled().await;
        let usage = &fixture.golden["said"]["usage"];
        let count = |counter: &str| usage[counter].as_f64().unwrap_or(0.0);
        let free = ["/count_tokens", "/input_tokens", "/moderations", "/tokenize"];
        if !free.iter().any(|end| fixture.path.ends_with(end)) {
            counted += count("input_tokens") + count("output_tokens");
        }
        assert_eq!(stage.weir.metric_sum("weir_tokens_total{").await, counted, "{}", fixture.name);
    }
    stage.weir.stop().await;
}

#[tokio::test]
async fn every_reply_is_recorded_and_replayed_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let cache = |mode: &str| format!("cache: {{ mode: {mode}, recordings: \"{}\" }}\n", dir.path().display());
    let mut stage = Stage::set_with(&cache("record")).await;
    for (number, fixture) in stage.fixtures.iter_mut().enumerate() {
        // Some ask the same, and are answered otherwise.
        let separator = if fixture.path.contains('?') { '&' } else { '?' };
        fixture.path = format!("{}{separator}fixture={number}", fixture.path);
    }
    for (number, fixture) in stage.fixtures.iter().enumerate() {
        let answer = stage.ask(number, fixture.reply.len() / 2).await;
        assert!(answer.body == fixture.expected(), "{}", fixture.name);
    }
    let (fixtures, weir) = stage.without_provider(&cache("replay")).await;
    for (number, fixture) in fixtures.iter().enumerate() {
        let answer = fixture.ask(&weir, number, 0).await;
        if fixture.breaks_off() {
            assert_eq!((answer.status.as_u16(), answer.header("x-cache")), (404, "MISS"), "{}", fixture.name);
            continue;
        }
        assert_eq!(answer.status.as_u16(), fixture.status, "{}: {:?}", fixture.name, answer.body);
        assert!(answer.body == fixture.expected(), "{}: {:?}", fixture.name, answer.body);
        assert_eq!(answer.header("x-cache"), "HIT", "{}", fixture.name);
        let content_type = fixture.headers.iter().find(|(name, _)| name == "content-type").unwrap();
        assert_eq!(answer.header("content-type"), content_type.1, "{}", fixture.name);
    }
    weir.stop().await;
}
