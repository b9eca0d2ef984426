//! Every fixture through the whole house: what the app reads is what the provider wrote, wherever the bytes are cut,
//! but for the usage chunk that weir asked for. Tokens in the metrics are the fixture's.

use std::path::{Path, PathBuf};

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
    path: &'static str,
    status: u16,
    request: Vec<u8>,
    reply: Vec<u8>,
    is_stream: bool,
    golden: Value,
}

impl Fixture {
    fn read(request: &Path) -> Self {
        let name = request.file_name().unwrap().to_str().unwrap().trim_end_matches(".request.json").to_owned();
        let beside = |ending: &str| request.with_file_name(format!("{name}{ending}"));
        let is_stream = beside(".sse").exists();
        let reply = std::fs::read(beside(if is_stream { ".sse" } else { ".response.json" })).unwrap();
        let golden = serde_json::from_slice(&std::fs::read(beside(".record.json")).unwrap()).unwrap();
        let provider = request.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let status = name.rsplit('_').next().and_then(|last| last.parse().ok()).unwrap_or(200);
        Self {
            path: path(provider, &name),
            name: format!("{provider}/{name}"),
            status,
            request: std::fs::read(request).unwrap(),
            reply,
            is_stream,
            golden,
        }
    }

    fn all() -> Vec<Self> {
        let mut requests: Vec<PathBuf> = ["openai", "anthropic"]
            .iter()
            .flat_map(|provider| std::fs::read_dir(fixtures().join(provider)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(".request.json"))
            .collect();
        requests.sort();
        assert!(requests.len() > 30, "the fixtures are there");
        requests.iter().map(|request| Self::read(request)).collect()
    }

    /// What the app is to read: everything, but for a usage chunk it did not ask for.
    fn expected(&self) -> Vec<u8> {
        let request: Value = serde_json::from_slice(&self.request).unwrap();
        let counts = self.path.ends_with("/completions") && request["stream"] == true;
        if !self.is_stream || !counts || request["stream_options"]["include_usage"] == true {
            return self.reply.clone();
        }
        let text = String::from_utf8(self.reply.clone()).unwrap();
        let events = text.split_inclusive("\n\n").filter(|event| !is_usage_chunk(event));
        events.collect::<String>().into_bytes()
    }

    /// The script that sends this reply in two pieces.
    fn cut_at(&self, at: usize) -> Script {
        let content_type = if self.is_stream { "text/event-stream" } else { "application/json" };
        let (one, two) = self.reply.split_at(at);
        let mut script = Script::chunked(&[("content-type", content_type)], &[one, two]);
        if self.status != 200 {
            script = Script::whole(self.status, &[("content-type", content_type)], &self.reply);
        }
        script
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

fn path(provider: &str, name: &str) -> &'static str {
    match (provider, name.split('_').next().unwrap()) {
        ("anthropic", _) if name.starts_with("count_tokens") => "/anthropic/v1/messages/count_tokens",
        ("anthropic", _) => "/anthropic/v1/messages",
        (_, "responses") => "/openai/v1/responses",
        (_, "completions") => "/openai/v1/completions",
        (_, "embeddings") => "/openai/v1/embeddings",
        (_, "moderations") => "/openai/v1/moderations",
        _ => "/openai/v1/chat/completions",
    }
}

async fn ask(weir: &Weir, fixture: &Fixture, cut: usize) -> Answer {
    let cut = cut.to_string();
    let headers = [("content-type", "application/json"), ("cache-control", "no-store"), ("x-cut", cut.as_str())];
    let answer = weir.client.open(Method::POST, &weir.url(fixture.path), &headers, &fixture.request).await;
    collect(answer).await
}

async fn provider_of(fixture: &Fixture) -> Fake {
    let script = fixture.clone();
    Fake::start(move |asked: &Received| script.cut_at(asked.header("x-cut").unwrap().parse().unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_reaches_the_app_as_it_was_written_wherever_it_is_cut() {
    for fixture in Fixture::all() {
        let fake = provider_of(&fixture).await;
        let weir = Weir::before_with(&fake.url(), "telemetry: { log: { calls: none } }").await;
        let expected = fixture.expected();
        let cuts = if fixture.status == 200 { fixture.reply.len() } else { 0 };
        for at in 0..=cuts {
            let answer = ask(&weir, &fixture, at).await;
            assert_eq!(answer.status.as_u16(), fixture.status, "{}", fixture.name);
            assert!(answer.body == expected, "{} cut at {at}: {:?}", fixture.name, answer.body);
        }
        weir.stop().await;
    }
}

#[tokio::test]
async fn tokens_in_the_metrics_are_the_fixtures() {
    for fixture in Fixture::all() {
        let fake = provider_of(&fixture).await;
        let weir = Weir::before(&fake.url()).await;
        ask(&weir, &fixture, 0).await;
        weir.settled().await;
        let usage = &fixture.golden["usage"];
        let count = |counter: &str| usage[counter].as_f64().unwrap_or(0.0);
        let billed = !fixture.path.ends_with("/count_tokens") && !fixture.path.ends_with("/moderations");
        let total = if billed { count("input_tokens") + count("output_tokens") } else { 0.0 };
        assert_eq!(weir.metric_sum("weir_tokens_total{").await, total, "{}", fixture.name);
        weir.stop().await;
    }
}
